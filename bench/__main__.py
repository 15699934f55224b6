"""``python -m bench`` = ``xsk-engine bench``."""

import sys

from xsk_engine.cli import main

sys.argv.insert(1, "bench")
main()

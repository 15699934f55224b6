"""``python -m xsk_engine`` = ``xsk-engine``."""

from xsk_engine.cli import main

main()

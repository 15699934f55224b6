"""Commands that run a part of this package in a Python of its own."""

from __future__ import annotations

import sys
from pathlib import Path

# Modules are not looked for in the current directory, which may be anybody's, but, last, where this package
# was found. (python -P does so from 3.11 on.)
_SAFE_PATH = "import sys; sys.path[:] = [*filter(None, sys.path), sys.argv.pop(1)]\n"
_RUN = "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"


def python(module: str, *arguments: str) -> list[str]:
    """As ``python -m module arguments``."""
    return [*code(_RUN), module, *arguments]


def code(text: str) -> list[str]:
    """As ``python -c text``."""
    return [sys.executable, "-c", _SAFE_PATH + text, str(Path(__file__).parents[1])]

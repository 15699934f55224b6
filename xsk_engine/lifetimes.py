"""What happens to open engines when the process forks or ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xsk_engine.engine import Engine

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def register(engine: Engine) -> None:
    """From now on."""
    _engines.add(engine)


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork_in_child()


def _close_all() -> None:
    """A loop must not run on when the interpreter takes its memory away."""
    for engine in list(_engines):
        if engine.workers:
            warnings.warn(
                f"engine on {engine.config.interface} was never closed", ResourceWarning, stacklevel=1
            )
            with contextlib.suppress(Exception):
                engine.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_all)

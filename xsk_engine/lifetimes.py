"""What happens to open engines when the process forks or ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
import weakref
from typing import TYPE_CHECKING

from xsk_engine.errors import ClosedError

if TYPE_CHECKING:
    from xsk_engine.engine import Engine

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_ended = False


def register(engine: Engine) -> None:
    """From now on."""
    _engines.add(engine)


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork_in_child()


def check_going_on(interface: str) -> None:
    """ClosedError when it is too late for another engine."""
    if _ended:
        raise ClosedError("open", interface, "the interpreter is ending")


def _close_all() -> None:
    """A loop must not run on when the interpreter takes its memory away."""
    global _ended
    _ended = True
    for engine in list(_engines):
        if engine.workers:
            warnings.warn(
                f"engine on {engine.config.interface} was never closed", ResourceWarning, stacklevel=1
            )
            with contextlib.suppress(Exception):
                engine.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_all)

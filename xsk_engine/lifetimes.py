"""What happens to open engines when the process forks or ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import warnings
import weakref
from typing import TYPE_CHECKING

from xsk_engine.errors import ClosedError

if TYPE_CHECKING:
    from xsk_engine.engine import Engine

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_left: list[Engine] = []
"""that nobody holds, and no thread could close"""
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


def _say_forgotten(engine: Engine) -> None:
    text = f"engine on {engine.config.interface} was never closed"
    warnings.warn(text, ResourceWarning, stacklevel=1)


def _close(engine: Engine) -> None:
    with contextlib.suppress(Exception):
        engine.close()


def close_later(engine: Engine) -> None:
    """One that nobody has any more. Not here: it may be one of its own threads that collects it, and whoever
    it is has not asked to wait for a drain. Where no thread can be had it is closed when the interpreter
    ends."""
    register(engine)  # again: the collector has cleared what knew it
    try:
        threading.Thread(target=_close, args=(engine,), name="xsk-close", daemon=False).start()
    except RuntimeError:
        _left.append(engine)
    _say_forgotten(engine)


def _close_all() -> None:
    """A loop must not run on when the interpreter takes its memory away."""
    global _ended
    _ended = True
    with contextlib.ExitStack() as stack:  # all, also where warnings are errors
        for engine in list(_engines):
            if engine.workers:
                stack.callback(_close, engine)
                stack.callback(_say_forgotten, engine)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_all)

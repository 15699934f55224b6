"""What happens to open engines when the process forks or ends."""

from __future__ import annotations

import _thread
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
_asked: weakref.WeakSet[Engine] = weakref.WeakSet()
"""those that somebody closes, if only in a moment"""
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


def _close(engine: Engine, until: contextlib.AbstractContextManager[object] | None = None) -> None:
    with until or contextlib.nullcontext():
        pass
    try:
        engine.close()
    except Exception as error:
        engine.failed_beside = error


def _start_closing(engine: Engine, until: contextlib.AbstractContextManager[object] | None = None) -> None:
    try:
        threading.Thread(target=_close, args=(engine, until), name="xsk-close", daemon=False).start()
    except RuntimeError:
        _left.append(engine)


def close_beside(engine: Engine, until: contextlib.AbstractContextManager[object] | None = None) -> None:
    """In a thread of its own, when it can enter `until`. Where none can be had it is closed when the
    interpreter ends. Locks of threading's may be in this one's hands, so it waits for no Thread to start (up
    to Python 3.11)."""
    _asked.add(engine)
    try:
        _thread.start_new_thread(_start_closing, (engine, until))
    except RuntimeError:
        _left.append(engine)


def close_later(engine: Engine) -> None:
    """One that nobody has any more. Not here: it may be one of its own threads that collects it, and whoever
    it is has not asked to wait for a drain."""
    register(engine)  # again: the collector has cleared what knew it
    close_beside(engine)
    _say_forgotten(engine)


def _close_all() -> None:
    """A loop must not run on when the interpreter takes its memory away."""
    global _ended
    _ended = True
    with contextlib.ExitStack() as stack:  # all, also where warnings are errors
        for engine in list(_engines):
            if engine.workers:
                stack.callback(_close, engine)
                if engine not in _asked:
                    stack.callback(_say_forgotten, engine)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_all)

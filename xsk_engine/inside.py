"""Who is in the middle of a call. A signal's handler that runs there may close the engine, but what that
would free is what the call goes on with."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager


class Inside:
    """Of one engine: threads in calls of its endpoints, connections and traffic.

        with inside.here(), lock:

    Only locks stand in such lines, as their C code alone lets no handler in between taken and noted."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def _lock(self) -> threading.RLock:
        """This thread's, whom it holds up in nothing: it says that he is inside."""
        try:
            lock: threading.RLock = self._of_thread.lock
        except AttributeError:
            lock = self._of_thread.lock = threading.RLock()
        return lock

    def here(self) -> AbstractContextManager[bool]:
        """To be entered at once."""
        return self._lock()

    @property
    def has_me(self) -> bool:
        """This thread is inside."""
        return is_mine(self._lock())


def is_mine(lock: threading.RLock) -> bool:
    """This thread has it. (What threading.Condition asks, too.)"""
    return bool(lock._is_owned())  # type: ignore[attr-defined]

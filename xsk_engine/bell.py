"""The loops' events in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable


class Bell:
    """The loops' eventfd in an event loop: whoever waits is woken when something may have changed."""

    def __init__(self, event_fd: int, is_over: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._event_fd = event_fd
        self._is_over = is_over
        self._waiting: set[asyncio.Future[None]] = set()
        self._listeners: set[Callable[[], None]] = set()
        self.at_close: set[Callable[[], None]] = set()
        """called when the engine closes, or has failed"""
        self._loop.add_reader(event_fd, self._ring)

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._event_fd, 8)
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)
        for listener in list(self._listeners):
            self._loop.call_soon(listener)  # each for itself, whatever it raises
        if self.at_close and self._is_over():
            self._tell_the_end()

    def _tell_the_end(self) -> None:
        for listener in list(self.at_close):
            self._loop.call_soon(listener)
        self.at_close.clear()

    def wait(self, seconds: float) -> asyncio.Future[None]:
        """Done at the next event, or after so long."""
        future = self._loop.create_future()
        self._waiting.add(future)
        timer = self._loop.call_later(seconds, self._give_up, future)
        future.add_done_callback(lambda _: timer.cancel())
        return future

    def _give_up(self, future: asyncio.Future[None]) -> None:
        self._waiting.discard(future)
        if not future.done():
            future.set_result(None)

    def listen(self, listener: Callable[[], None]) -> None:
        """Called at every event, until ignore()."""
        self._listeners.add(listener)

    def ignore(self, listener: Callable[[], None]) -> None:
        """Idempotent."""
        self._listeners.discard(listener)

    def close(self) -> None:
        """Wakes everybody, for the last time."""
        self._loop.remove_reader(self._event_fd)
        self._tell_the_end()
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

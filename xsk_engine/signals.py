"""The signals that end a command, with its summary; exit code 128 and their number."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

Handler = Callable[[int, object], None]

_afterwards: Handler | None = None
"""instead of what was there before"""


class Interrupted(Exception):
    """A signal came before there was anything to sum up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def raise_interrupted(number: int, _frame: object) -> None:
    """A handler."""
    raise Interrupted(number)


def ending() -> list[int]:
    """SIGINT, SIGTERM, and SIGHUP unless it is ignored: what nohup has started outlives its terminal."""
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def told_to(loop: asyncio.AbstractEventLoop, noted: list[int], act: Callable[[], object]) -> Handler:
    """A handler that notes the number at once, and has the event loop act while there is one. (Handlers of
    its own go when it closes, and then a signal does what it does by default.)"""

    def handler(number: int, _frame: object) -> None:
        noted.append(number)
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(act)

    return handler


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[list[int]]:
    """By this one inside; yields their numbers. Main thread only."""
    numbers = ending()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield numbers
    finally:
        for number, old in before.items():
            if _afterwards is not None:
                signal.signal(number, _afterwards)
            elif old is not None:  # not Python's, and not to be had back
                signal.signal(number, old)


def _ignore_once(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def until_told() -> Iterator[None]:
    """Around a command's run, which handles signals, and the telling of what it was. When the run is over
    there is nothing left to end: from then on the first signal of each number is ignored, and the second ends
    the process, as its reader may hold it up. Main thread only."""
    global _afterwards
    _afterwards = _ignore_once
    try:
        yield
    finally:
        _afterwards = None

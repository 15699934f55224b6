"""The signals that end a command, with its summary; exit code 128 and their number."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

Handler = Callable[[int, object], None]


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


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[list[int]]:
    """By this one inside; yields their numbers. Main thread only."""
    numbers = ending()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield numbers
    finally:
        for number, old in before.items():
            if old is not None:  # not Python's, and not to be had back
                signal.signal(number, old)

"""Waiting for what a loop will do, in a thread or in an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

# Back-off of who waits. Lower: takes time from the loop where it shares a core; higher: the submit ring runs
# empty meanwhile (1024 descs are 1 ms at 1 Mpps).
_FIRST_S, _LONGEST_S = 0.00005, 0.0005
# Looked at again after so long even if no event comes.
_LOOK_S = 0.05


def check_timeout(name: str, seconds: float) -> float:
    """ValueError for what is not 0 s or more; TypeError for what is no number."""
    if not seconds >= 0:
        raise ValueError(f"{name}: {seconds} is not 0 s or more")
    return seconds


def pauses() -> Iterator[float]:
    """Seconds: the first one short, then longer."""
    pause = _FIRST_S
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_S)


def wait_until(done: Callable[[], bool], timeout: float | None, late: Callable[[], Exception]) -> None:
    """In a thread. Raises `late()` after `timeout` seconds; None waits for ever."""
    deadline = None if timeout is None else time.monotonic() + timeout
    for pause in pauses():
        if done():
            return
        if deadline is not None and time.monotonic() > deadline:
            raise late()
        time.sleep(pause)


async def awaited(done: Callable[[], bool], changed: Callable[[float], asyncio.Future[None]] | None) -> None:
    """In the event loop of the engine; `changed` awaits the next event."""
    if changed is None:
        raise RuntimeError("its engine was not opened with xsk_engine.aopen(); use wait()")
    while not done():
        await changed(_LOOK_S)

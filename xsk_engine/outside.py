"""What pyroute2 asks for: a thread without a running event loop, and room for one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

# That it opens, its event loop's among them.
_DESCRIPTORS = 5

T = TypeVar("T")


def _runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def outside_event_loop(function: Callable[[], T]) -> T:
    """Its result. Where an event loop runs it is called in a thread, and the loop stands still meanwhile: who
    minds that uses aopen()."""
    if not _runs():
        return function()
    result: Future[T] = Future()

    def call() -> None:
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return result.result()


def check_descriptors() -> None:
    """OSError (EMFILE) before it begins: of what its event loop cannot open, that complains when it goes."""
    with contextlib.ExitStack() as stack:
        for _ in range(_DESCRIPTORS):
            stack.callback(os.close, os.eventfd(0, os.EFD_CLOEXEC))

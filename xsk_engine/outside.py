"""Calls that pyroute2 makes impossible where an event loop runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

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

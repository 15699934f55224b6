"""Event loops: a command's, and what pyroute2 asks for, which is a thread without a running one, and room for
one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from xsk_engine import shortage

if TYPE_CHECKING:
    from pyroute2 import IPRoute

# That pyroute2 opens, its event loop's among them.
_DESCRIPTORS = 5
# That uvloop's opens (9, from 0.17 on), and what runs beside it: pyroute2, and a socket to listen to routes.
_UVLOOP_DESCRIPTORS = 9 + _DESCRIPTORS + 1

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


def _need_descriptors(n: int) -> None:
    """OSError."""
    with contextlib.ExitStack() as stack:
        for _ in range(n):
            stack.callback(os.close, os.eventfd(0, os.EFD_CLOEXEC))


@contextlib.contextmanager
def command_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop of a command: uvloop's. UnavailableError before it begins where descriptors are too few:
    libuv ends the process."""
    import uvloop

    with shortage.named("open", "event loop"):
        _need_descriptors(_UVLOOP_DESCRIPTORS)
    with contextlib.closing(uvloop.new_event_loop()) as loop:
        yield loop


@contextlib.contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """For one of pyroute2's sockets: asyncio's own, as uvloop's, which the program may have made the rule,
    opens none. OSError (EMFILE) before it begins: of what it cannot open, that complains when it goes."""
    _need_descriptors(_DESCRIPTORS)
    loop = asyncio.SelectorEventLoop()
    try:
        yield loop
    finally:
        if not loop.is_closed():  # its socket may have done it
            loop.run_until_complete(asyncio.sleep(0))  # what was closed goes with its next turn
            loop.close()


@contextlib.contextmanager
def rtnetlink() -> Iterator[IPRoute]:
    """In this thread's network namespace. OSError."""
    from pyroute2 import IPRoute

    with event_loop() as loop, IPRoute(use_event_loop=loop) as ipr:
        yield ipr

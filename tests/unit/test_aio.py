"""What AsyncEngine owes the event loop, with an engine that only has an eventfd."""

import asyncio
import os
import threading

import pytest

import xsk_engine
from xsk_engine.aio import AsyncEngine
from xsk_engine.config import EngineConfig


class SlowEngine:
    """Opens when it may."""

    def __init__(self, config):
        self.config = config
        self.may_open = threading.Event()
        self.event_fd = -1

    def open(self):
        self.may_open.wait(5)
        self.event_fd = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def close(self):
        if self.event_fd >= 0:
            os.close(self.event_fd)
            self.event_fd = -1

    def failure(self):
        return None


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_closed_while_it_opens_it_never_listens_to_its_eventfd(turns):
    """Which is closed in a thread: a reader that the event loop still had would read a foreign fd."""

    async def main():
        loop = asyncio.get_running_loop()
        listened, listening = [], loop.add_reader
        loop.add_reader = lambda fd, *rest: (listened.append(fd), listening(fd, *rest))
        engine = AsyncEngine(EngineConfig("vtx"))
        slow = engine.engine = SlowEngine(engine.engine.config)
        opening = asyncio.ensure_future(engine.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(engine.close())
        await asyncio.sleep(0)
        slow.may_open.set()
        results = await asyncio.gather(opening, closing, return_exceptions=True)
        assert isinstance(results[0], xsk_engine.ClosedError)
        assert results[1] is None
        assert not listened
        assert slow.event_fd == -1

    asyncio.run(main())

"""Engines that the transports of an event loop share."""

from __future__ import annotations

import asyncio

from xsk_engine.aio import AsyncEngine
from xsk_engine.config import EngineConfig


class _Shared:
    """An engine that transports of one event loop share: the first one opens it, the last one closes it."""

    def __init__(self, config: EngineConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = AsyncEngine(config)
        self.loop = loop
        self.opening = loop.create_task(self.engine.open())
        # Who waits for it raises what went wrong; there may be nobody any more.
        self.opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        self.users = 0
        self.closing: asyncio.Task[None] | None = None


_Key = tuple[str, int, bool]
_engines: dict[_Key, _Shared] = {}
"""by interface, queue, and whether with TCP"""


class Lease:
    """One transport's share of an engine. Each method once, and only one of them."""

    def __init__(self, key: _Key, shared: _Shared) -> None:
        self._key = key
        self._shared = shared
        shared.users += 1

    def _was_the_last(self) -> bool:
        self._shared.users -= 1
        return not self._shared.users

    async def release(self) -> None:
        """Until the engine is closed, if it was the last one."""
        if self._was_the_last():
            self._shared.closing = self._shared.loop.create_task(self._shared.engine.close())
            try:
                await asyncio.shield(self._shared.closing)
            except asyncio.CancelledError:  # the event loop ends: that task may not even have begun
                self._shared.engine.close_now()
                raise
            finally:
                self._forget()

    def release_now(self) -> None:
        """The same where nothing is awaited any more: the event loop ends."""
        if self._was_the_last():
            self._shared.engine.close_now()
            self._forget()

    def _forget(self) -> None:
        if _engines.get(self._key) is self._shared:
            del _engines[self._key]


class Owned(Lease):
    """Of an engine that the caller keeps."""

    def __init__(self) -> None:
        pass

    async def release(self) -> None:
        pass

    def release_now(self) -> None:
        pass


async def share(config: EngineConfig) -> tuple[AsyncEngine, Lease]:
    """An open engine, and a share of it. What open() raises. Who needs no TCP shares one that has it, too."""
    loop = asyncio.get_running_loop()
    key = (config.interface, config.queues[0], True)
    if not config.tcp and key not in _engines:
        key = (*key[:2], False)
    shared = _engines.get(key)
    if shared is not None and shared.loop is loop and shared.closing is not None:
        await asyncio.wait([shared.closing])
        shared = _engines.get(key)
    if shared is None or shared.loop is not loop or shared.closing is not None:
        shared = _engines[key] = _Shared(config, loop)
    lease = Lease(key, shared)
    try:
        await asyncio.shield(shared.opening)
    except BaseException:
        await lease.release()
        raise
    return shared.engine, lease

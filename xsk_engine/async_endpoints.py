"""Endpoints whose calls are awaited: what would wait lets the event loop go on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from xsk_engine._ffi.native import short
from xsk_engine.batch import Batch, Post
from xsk_engine.bell import Bell
from xsk_engine.endpoint import AGAIN, DRAIN_S, BytesLike, Endpoint, check_alloc
from xsk_engine.errors import UnavailableError
from xsk_engine.frag import Frag, Frags
from xsk_engine.tracker import Tracker
from xsk_engine.waiting import check_timeout

if TYPE_CHECKING:
    import numpy
    import numpy.typing

# Packets after which a sender that never has to wait lets others run. Lower: the task switch (2 us) counts;
# higher: the event loop's lag (256 sends take about 0.4 ms, 1024 in one call as much).
_SENDS_PER_SLICE = 256
_BATCH_PER_SLICE = 1024
# A wait looks again after so long even if nobody wakes it.
_LOOK_S = 0.02
# Chunks that other endpoints have and do not use are asked for after so long.
_PARK_AFTER_S = 0.005


E = TypeVar("E", bound="AsyncEndpoint")


class AsyncEndpoint(Endpoint):
    """An endpoint whose calls are awaited: at the quota they wait for room while the event loop goes on, at
    most ``timeout`` seconds without progress, then WouldBlockError. In the event loop's thread.
    """

    bell: Bell
    ready: asyncio.Future[None] | None = None
    """while a neighbour is asked for"""
    ask_again: Callable[[], Any]
    _sends = 0

    async def send(self, payload: BytesLike) -> None:
        """As BlockingEndpoint.send. The first one waits for the neighbour: UnavailableError when there is
        none, and the next one asks again.

            await endpoint.send(b"hello")
        """
        self._sends += 1
        if self._sends >= _SENDS_PER_SLICE:  # before it is sent: who is cancelled has sent nothing
            self._sends = 0
            await asyncio.sleep(0)
        result = AGAIN if self.ready is not None else self.try_send(payload)
        if result:
            await self._send_slowly(payload, result)

    async def _send_slowly(self, payload: BytesLike, result: int) -> None:
        await self._connected()
        patience = _AsyncPatience(self)
        while (result := self.try_send(payload)) != 0:
            if result != AGAIN or not await patience.again():
                raise self.failed("send", result, len(payload))

    async def _connected(self) -> None:
        ready = self.ready
        if ready is None:
            return
        try:
            await asyncio.shield(ready)
        except UnavailableError:
            if self.ready is ready:
                self.ask_again()
            raise

    async def send_many(
        self,
        payloads: Sequence[BytesLike] | numpy.ndarray,
        lengths: numpy.typing.ArrayLike | None = None,
    ) -> int:
        """As BlockingEndpoint.send_many; others run in between.
        UnavailableError as send().

            await endpoint.send_many([b"one", b"two"])
        """
        batch = Batch(payloads, lengths)
        with batch.telling():
            await self._connected()
            patience = _AsyncPatience(self)
            while batch.left:
                result = batch.send(self, _BATCH_PER_SLICE)
                if result > 0:
                    patience.moved()
                    await asyncio.sleep(0)
                elif result != AGAIN or not await patience.again():
                    raise batch.failed(self, result)
        return batch.sent

    async def alloc(self, n: int, size: int) -> Frags:
        """As BlockingEndpoint.alloc; cancelled, it has taken nothing.
        UnavailableError as send().

            frags = await endpoint.alloc(64, 1000)
            await endpoint.post(frags)
        """
        n, size = check_alloc(n, size)
        await self._connected()
        patience = _AsyncPatience(self)
        while True:
            frags = self.try_alloc(n, size)
            if isinstance(frags, Frags):
                return frags
            if frags != AGAIN or not await patience.again():
                raise self.alloc_error(frags, n, size)

    @overload
    async def post(self, frags: Frags | Frag | Sequence[Frag], *, track: Literal[True]) -> Tracker: ...

    @overload
    async def post(self, frags: Frags | Frag | Sequence[Frag], *, track: bool = False) -> Tracker | None: ...

    async def post(self, frags: Frags | Frag | Sequence[Frag], *, track: bool = False) -> Tracker | None:
        """As BlockingEndpoint.post; the tracker may be awaited.
        Cancelled, what was not posted is still held.

            tracker = await endpoint.post(frags, track=True)
            await tracker
        """
        post = Post(self, frags, self._tracker if track else None)
        patience = _AsyncPatience(self)
        try:
            while post.left:
                result = post.run(self)
                if result > 0:
                    patience.moved()
                elif result != AGAIN or not await patience.again():
                    raise self.failed("post", result)
        finally:
            post.close()
        return post.tracker

    def _tracker(self, n: int) -> Tracker:
        return Tracker(n, lambda: self.why_over("tracker"), lambda: not self.worker.alive, self.bell.wait)

    async def flush(self, timeout: float = DRAIN_S) -> None:
        """As BlockingEndpoint.flush. What other tasks send meanwhile is waited for, too."""
        await self._wait("flush", self.is_flushed, timeout)
        self.park()

    async def drain(self, timeout: float = DRAIN_S) -> None:
        """As BlockingEndpoint.drain.
        What other tasks send meanwhile is waited for, too.

            await endpoint.drain(1.0)
        """
        await self._wait("drain", self.is_drained, timeout)
        self.park()

    async def _wait(self, operation: str, condition: Callable[[int], bool], timeout: float) -> None:
        deadline = time.monotonic() + check_timeout("timeout", timeout)
        self.check_open(operation)
        target = self.sent_so_far()
        while not condition(target):
            if not self.worker.alive:
                raise self.why_over(operation)
            if time.monotonic() > deadline:
                raise self.late(operation, timeout)
            self.announce()
            if not condition(target):
                await self.bell.wait(_LOOK_S)
            self.check_open(operation)

    def close(self) -> None:
        """As Endpoint.close. Who waits for its neighbour hears of it: ClosedError."""
        super().close()
        ready = self.ready
        if ready is not None:
            with contextlib.suppress(RuntimeError):  # its event loop has ended
                ready.get_loop().call_soon_threadsafe(self._give_up, ready)

    def _give_up(self, ready: asyncio.Future[None]) -> None:
        if not ready.done():
            ready.set_exception(self.why_over("send"))
            ready.exception()  # seen: who waits raises it

    def announce(self) -> None:
        """The next event is for this endpoint, too; look again before you wait."""
        short.arena_await(self.arena_handle)

    async def __aenter__(self: E) -> E:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class AsyncRawEndpoint(AsyncEndpoint):
    """As RawEndpoint. In the event loop's thread."""


class AsyncUdpEndpoint(AsyncEndpoint):
    """As UdpEndpoint, in the event loop's thread. ``source`` and ``remote`` are set with the neighbour."""

    remote: tuple[str, int]
    source: tuple[str, int]


class _AsyncPatience:
    """Awaits room with a deadline that moves with every progress."""

    def __init__(self, endpoint: AsyncEndpoint) -> None:
        self._endpoint = endpoint
        self.moved()

    def moved(self) -> None:
        self._start = time.monotonic()
        self._announced = self._asked = False

    async def again(self) -> bool:
        """False: waited long enough."""
        waited = time.monotonic() - self._start
        if waited >= self._endpoint.timeout:
            return False
        if not self._announced:  # and then the caller looks once more before it waits
            self._announced = True
            self._endpoint.announce()
            return True
        if waited > _PARK_AFTER_S and not self._asked:
            self._asked = True
            self._endpoint.ask_for_chunks()
        self._announced = False
        await self._endpoint.bell.wait(min(_LOOK_S, self._endpoint.timeout - waited))
        return True

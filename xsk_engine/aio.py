"""The same engine for asyncio and uvloop: what would wait is awaited, and the event loop goes on."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from xsk_engine._ffi.native import short
from xsk_engine.batch import Batch, Post
from xsk_engine.bell import Bell
from xsk_engine.config import EngineConfig
from xsk_engine.endpoint import AGAIN, DRAIN_S, BytesLike, Endpoint, check_alloc
from xsk_engine.engine import Engine
from xsk_engine.errors import ClosedError, UnavailableError, XskError
from xsk_engine.frag import Frag, Frags
from xsk_engine.remote import Address, Remote
from xsk_engine.stats import Snapshot
from xsk_engine.tracker import Tracker

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from xsk_engine.flow import Flow, Pace, Traffic
    from xsk_engine.neighbours import Hop
    from xsk_engine.running import RunningTraffic
    from xsk_engine.units import Rate

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
        result = AGAIN if self.ready is not None else self.try_send(payload)
        if result:
            await self._send_slowly(payload, result)
        self._sends += 1
        if self._sends >= _SENDS_PER_SLICE:
            self._sends = 0
            await asyncio.sleep(0)

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
        return Tracker(n, lambda: self.why_over("tracker"), self.bell.wait)

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
        deadline = time.monotonic() + timeout
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


class AsyncEngine:
    """An open engine in an event loop, as :func:`xsk_engine.aopen` makes it. In the loop's thread.
    Errors as Engine.

        async with xsk_engine.aopen("vtx") as engine:
            await engine.udp(("10.77.0.2", 9000)).send(b"hello")
    """

    def __init__(self, config: EngineConfig) -> None:
        self.engine = Engine(config)
        """the same engine for threads"""
        self._bell: Bell | None = None
        self._opening = threading.Lock()
        self._abandoned = False
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def bell(self) -> Bell:
        """ClosedError while it is not open."""
        self.engine.open_workers()
        if self._bell is None:
            raise ClosedError("engine", self.engine.config.interface, "it is closing, or not open yet")
        return self._bell

    async def open(self) -> AsyncEngine:
        """Everything or nothing, also when it is cancelled."""
        try:
            await asyncio.to_thread(self._open)
        except asyncio.CancelledError:
            with self._opening:
                self._abandoned = True
                self.engine.close()
            raise
        self._bell = Bell(self.engine.event_fd)
        return self

    def _open(self) -> None:
        """In a thread, which nobody can cancel."""
        with self._opening:
            if not self._abandoned:
                self.engine.open()

    def close_now(self) -> None:
        """Where nothing is awaited any more."""
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()
        self.engine.close()

    async def close(self) -> None:
        """As Engine.close. Idempotent."""
        for task in self._tasks:
            task.cancel()
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()
        await asyncio.to_thread(self.engine.close)

    async def __aenter__(self) -> AsyncEngine:
        return self if self.engine.workers else await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def raw(self, *, queue: int | None = None, **options: Any) -> AsyncRawEndpoint:
        """As Engine.raw; what it returns is awaited.
        ClosedError while it is not open.

            await engine.raw().send(bytes.fromhex("027700000002 027700000001 88b5") + bytes(46))
        """
        return self._endpoint(AsyncRawEndpoint, queue, 0, options)

    def udp(
        self,
        remote: Address,
        *,
        source: tuple[str | None, int] | None = None,
        dst_mac: str | None = None,
        vlan: int | None = None,
        pcp: int = 0,
        ttl: int | None = None,
        dscp: int = 0,
        queue: int | None = None,
        **options: Any,
    ) -> AsyncUdpEndpoint:
        """As Engine.udp, but it returns at once: the first send waits for the neighbour.
        So UnavailableError is that send's; ValueError and ClosedError come here.

            endpoint = engine.udp(("10.77.0.2", 9000))
            await endpoint.send(b"hello")
        """
        where = Remote.of(remote, source, dst_mac, vlan=vlan, pcp=pcp, ttl=ttl, dscp=dscp)
        return self.endpoint_for(where, queue, **options)

    def endpoint_for(self, where: Remote, queue: int | None = None, **options: Any) -> AsyncUdpEndpoint:
        """udp() for who knows where."""
        endpoint = self._endpoint(AsyncUdpEndpoint, queue, where.tag_bytes, options)
        if where.is_complete:
            self.engine.holdings.connect(endpoint, where, None)
        else:
            endpoint.ask_again = functools.partial(self.connect_later, endpoint, where)
            endpoint.ask_again()
        return endpoint

    def _endpoint(self, kind: type[E], queue: int | None, tag_bytes: int, options: dict[str, Any]) -> E:
        endpoint = self.engine.holdings.endpoint(kind, queue, tag_bytes, **options)
        endpoint.bell = self.bell
        return endpoint

    def connect_later(self, endpoint: AsyncUdpEndpoint, where: Remote) -> asyncio.Future[None]:
        """Its ``ready`` until the neighbour is known; an UnavailableError stays there."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        endpoint.ready = ready

        def on_answer(answer: asyncio.Future[Hop]) -> None:
            self._tasks.discard(answer)
            if answer.cancelled() or ready.done():
                ready.cancel()
            elif (error := answer.exception()) is not None:
                ready.set_exception(error)
                ready.exception()  # seen: who sends raises it
            else:
                try:
                    self.engine.holdings.connect(endpoint, where, answer.result())
                except XskError as failure:
                    ready.set_exception(failure)
                    ready.exception()
                    return
                endpoint.ready = None
                ready.set_result(None)

        asked = asyncio.wrap_future(self.engine.holdings.ask(where))
        self._tasks.add(asked)
        asked.add_done_callback(on_answer)
        return ready

    async def start(
        self,
        traffic: Traffic | Flow | Sequence[Flow],
        *,
        rate: Pace | Rate | Fraction | int | str | None = None,
        count: int | None = None,
        duration: float | None = None,
    ) -> RunningTraffic:
        """As Engine.start; the result may be awaited, which waits until it is done.
        Neighbours are asked in a thread; the event loop goes on.

            running = await engine.start(flow, rate="10kpps", count=100)
            await running
        """
        holdings, bell = self.engine.holdings, self.bell
        resolved = await asyncio.to_thread(holdings.resolve, traffic, rate, count, duration)
        return holdings.launch(resolved, bell.wait)

    def snapshot(self) -> Snapshot:
        """As Engine.snapshot."""
        return self.engine.snapshot()

    async def stats(self, interval: float = 1.0) -> AsyncIterator[Snapshot]:
        """A snapshot every ``interval`` seconds, until the engine is closed or has failed: then its error.
        ValueError for an interval that is not above 0. Who is late gets the latest one, not those he missed.

            async for snapshot in engine.stats(1.0):
                print(snapshot.completed_packets)
        """
        if interval <= 0:
            raise ValueError(f"interval: {interval} is not above 0 s")
        loop = asyncio.get_running_loop()
        due = loop.time() + interval
        while self._bell is not None:
            await asyncio.sleep(max(due - loop.time(), 0))
            due = max(due + interval, loop.time())
            if self._bell is None:
                return
            yield self.snapshot()
            self.engine.raise_failure()

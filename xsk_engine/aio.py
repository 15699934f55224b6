"""An engine in an event loop, asyncio's or uvloop's."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Generator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from xsk_engine import privileges, shortage
from xsk_engine.async_endpoints import AsyncEndpoint, AsyncRawEndpoint, AsyncUdpEndpoint
from xsk_engine.bell import Bell
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import ClosedError, XskError
from xsk_engine.remote import Address, Remote
from xsk_engine.single import Single
from xsk_engine.stats import Snapshot

if TYPE_CHECKING:
    from xsk_engine.asynctcp import AsyncTcpConnection
    from xsk_engine.flow import Flow, Pace, Traffic
    from xsk_engine.neighbours import Hop
    from xsk_engine.running import RunningTraffic
    from xsk_engine.units import Rate

E = TypeVar("E", bound=AsyncEndpoint)


class AsyncEngine(Single):
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
            with shortage.named("open", self.engine.config.interface):
                await asyncio.to_thread(self._open)
        except asyncio.CancelledError:
            self._close()
            raise
        if self._abandoned:  # closed while the thread opened it: its eventfd is, or will be
            raise ClosedError("open", self.engine.config.interface, "it was closed meanwhile")
        self._bell = Bell(self.engine.event_fd, lambda: self.engine.failure() is not None)
        return self

    def _open(self) -> None:
        """In a thread, which nobody can cancel."""
        with self._opening:
            if self._abandoned:
                raise ClosedError("open", self.engine.config.interface, "it was closed before")
            self.engine.open()
            if self.engine.config.drop_privileges:
                privileges.drop(self.engine.keeps)

    def _close(self) -> None:
        """Also when it is just being opened: when it is open."""
        self._abandoned = True
        with self._opening:
            self.engine.close()

    def close_now(self) -> None:
        """Where nothing is awaited any more."""
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()
        self._close()

    async def close(self) -> None:
        """As Engine.close. Idempotent."""
        self._abandoned = True  # at once: open() must not begin to listen to what is about to close
        for task in self._tasks:
            task.cancel()
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()
        await asyncio.to_thread(self._close)

    def __await__(self) -> Generator[Any, None, AsyncEngine]:
        """``engine = await aopen(...)``: for who closes it himself."""
        return self.open().__await__()

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

    async def tcp(
        self,
        remote: str,
        port: int,
        *,
        source: str | None = None,
        source_port: int = 0,
        dst_mac: str | None = None,
        ttl: int | None = None,
        dscp: int = 0,
        **options: Any,
    ) -> AsyncTcpConnection:
        """As Engine.tcp; an asynchronous context manager closes it.
        Cancelled, the connection is reset.

            async with await engine.tcp("10.77.0.2", 9001) as connection:
                await connection.sendall(b"hello")
        """
        from xsk_engine.asynctcp import AsyncTcpConnection

        holdings, bell = self.engine.holdings, self.bell
        where = holdings.tcp_remote(remote, port, source, dst_mac, ttl, dscp)
        hop: Hop | None = None
        if not where.is_complete:
            hop = await asyncio.wrap_future(holdings.ask(where))
        connection = holdings.tcp(AsyncTcpConnection, where, source_port, hop, options)
        connection.bell = bell
        bell.listen(self.engine.open_tcp().reap)
        try:
            await connection.wait_connected()
        except BaseException:
            connection.abort()
            raise
        return connection

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
            error = endpoint.why_over("send") if answer.cancelled() else answer.exception()
            if ready.done():  # the endpoint was closed
                return
            if error is not None:
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

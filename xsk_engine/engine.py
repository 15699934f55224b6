"""The composition root: opens interface, umem, sockets and workers in that order, closes them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from xsk_engine import lifetimes, privileges, shortage
from xsk_engine import netdev as netdevs
from xsk_engine._ffi.libc import new_eventfd
from xsk_engine.binding import Binding, open_binding
from xsk_engine.capture import Capture
from xsk_engine.config import EngineConfig, check
from xsk_engine.crew import drain, join, make_workers, stop_deadline
from xsk_engine.endpoints import RawEndpoint, UdpEndpoint
from xsk_engine.enginefacts import EngineFacts, Final
from xsk_engine.errors import BrokenError, BusyError, ClosedError
from xsk_engine.flow import Flow, Pace, Traffic
from xsk_engine.holdings import Holdings
from xsk_engine.inside import is_mine
from xsk_engine.netdev import NetDev
from xsk_engine.outside import outside_event_loop
from xsk_engine.remote import Address, Remote
from xsk_engine.replay import Replay
from xsk_engine.run import TrafficRun
from xsk_engine.running import RunningTraffic
from xsk_engine.stall import make_judge
from xsk_engine.umem import Umem
from xsk_engine.units import Rate

if TYPE_CHECKING:
    from xsk_engine.tcp import TcpConnection

# Longer than a neighbour may take to answer.
_RESOLVE_S = 10.0


class Engine(EngineFacts):
    """An engine on one interface: its umem, its queues, and the threads that serve them. Made by
    :func:`xsk_engine.open`.

    ``open`` and ``close`` in one thread; endpoints and statistics from any. Raises ValueError for a bad
    configuration, UnavailableError for what the environment lacks.
    While the interface has no link, what is sent waits; longer than ``link_timeout`` is BrokenError, and so
    is an interface that is gone. After a fork the child's copy is broken, and the parent goes on.

        with xsk_engine.open("vtx") as engine:
            engine.udp(("10.77.0.2", 9000)).send(b"hello")
    """

    def __init__(self, config: EngineConfig) -> None:
        check(config, os.sched_getaffinity(0))
        super().__init__(config)
        self.netdev: NetDev | None = None
        """the interface as it was when it was opened; None before"""
        self.captures: list[Capture] = []
        self.event_fd = -1
        self._stack = contextlib.ExitStack()
        self.holdings = Holdings(self)
        """what applications have of it"""
        self._changing = threading.RLock()
        self.failed_beside: Exception | None = None
        """what a close() of another thread, for this one, has raised: the next one does"""
        lifetimes.register(self)

    # -- opening and closing ---------------------------------------------------------------------------

    def open(self) -> Engine:
        """Opens everything or nothing, and returns itself. Errors as xsk_engine.open(); ClosedError for one
        that was opened before."""
        if self.workers or self.final is not None:
            raise ClosedError("open", self.config.interface, "it was opened before; make a new engine")
        with shortage.named("open", self.config.interface):
            outside_event_loop(self._open)
        return self

    def _open(self) -> None:
        config = self.config
        if config.sandbox:
            privileges.check_sandbox()
        with contextlib.ExitStack() as stack:
            self.netdev = netdevs.wait_for_link(config.interface, config.link_timeout_s)
            self.umem, self.binding = self._bind(stack)
            self.event_fd = self.umem.event_fd = new_eventfd()
            stack.callback(self._close_event_fd)
            judge = make_judge(stack, self.binding, config, self.workers)
            stack.callback(self.workers.clear)
            self._open_captures(stack)
            make_workers(
                stack,
                self.workers,
                config,
                self.umem,
                self.binding,
                self.event_fd,
                judge,
                self.captures,
            )
            if config.tcp:
                self._open_tcp(stack)
            for worker in self.workers:
                worker.probe_invalid()
            with self._changing:
                lifetimes.check_going_on(config.interface)
                stack.callback(self.stop)
                for worker in self.workers:
                    worker.start()
                self._stack = stack.pop_all()

    def _bind(self, stack: contextlib.ExitStack) -> tuple[Umem, Binding]:
        assert self.netdev is not None
        if not self.config.tcp:
            return open_binding(stack, self.config, self.netdev)
        from xsk_engine.tcpbinding import open_steered

        return open_steered(stack, self.config, self.netdev)

    def _open_captures(self, stack: contextlib.ExitStack) -> None:
        assert self.binding is not None
        if self.config.capture_packets is None:
            return
        for _ in self.binding.xsks:
            capture = Capture(self.config.capture_packets)
            stack.callback(capture.close)
            self.captures.append(capture)

    def _open_tcp(self, stack: contextlib.ExitStack) -> None:
        from xsk_engine.tcpbinding import SteeredBinding
        from xsk_engine.tcpstack import TcpStack

        assert self.umem is not None
        assert self.netdev is not None
        assert isinstance(self.binding, SteeredBinding)
        self.tcp_stack = TcpStack(self.umem, self.workers[0], self.binding, self.netdev, self.config)
        self.tcp_stack.owner = self
        stack.callback(self.tcp_stack.close)

    def close(self) -> None:
        """Drains, stops and closes everything; idempotent. BrokenError when the final audit finds a fault."""
        if self.forked or is_mine(self._changing):  # a signal handler's, in the middle of it
            return
        if self.umem is not None and self.umem.inside.has_me:  # likewise, in the middle of another call
            lifetimes.close_beside(self, self.umem.inside.here())
            return
        with self._changing:  # a second thread waits for the first
            self._close()
        error, self.failed_beside = self.failed_beside, None
        if error is not None:
            raise error

    def _close(self) -> None:
        self.stop()
        self.holdings.stop()
        try:
            failure = self.holdings.close()
        except BusyError:
            # It is in native code with memory that would go. Leaking is the lesser evil.
            self._stack.pop_all()
            self.workers = []
            raise BrokenError(
                "close", self.config.interface, "a thread does not leave its endpoint; the engine leaks"
            ) from None
        try:
            if self.tcp_stack is not None:
                self.tcp_stack.release()
            if self.final is None and self.workers:
                self.final = Final(
                    self.queue_snapshots(), self.kernel_stats(), self.gaps(), self.flow_counts()
                )
            if self.workers and failure is None:
                self.audit()
        finally:
            self._stack.close()
        if failure is not None:
            raise failure

    def __enter__(self) -> Engine:
        return self if self.workers else self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "workers", None):  # closed, or never opened
            lifetimes.close_later(self)

    def _close_event_fd(self) -> None:
        fd, self.event_fd = self.event_fd, -1
        if self.umem is not None:
            with self.umem.in_use:
                self.umem.event_fd = -1
        os.close(fd)

    def stop(self) -> None:
        """Drains and joins the workers, within the drain timeout. Blocking; idempotent."""
        if self.tcp_stack is not None:
            self.tcp_stack.finish(self.config.drain_timeout_s)
        drain(self.workers)
        self.join_workers(self.stop_deadline())

    def stop_deadline(self) -> float:
        return stop_deadline(self.config, self.binding)

    def join_workers(self, deadline: float) -> None:
        left = join(self.workers, deadline)
        if (
            left is not None
        ):  # It sits in the kernel. Freeing what it uses would crash; leaking is the lesser evil.
            self._stack.pop_all()
            raise BrokenError("stop", f"queue {left.xsk.queue}", "its thread does not end; the engine leaks")

    async def run(self, traffic: Traffic | Flow | Replay, stop: asyncio.Event | None = None) -> None:
        """Sends until it is done, `stop` is set or a worker fails; then drains all queues.

        Count and rate are totals over the queues; a replay goes out of the first one, in its file's order.
        Addresses are sent as they are (:func:`xsk_engine.resolve.resolve` fills in what a flow leaves open).
        Once per engine: ClosedError for a second run; what goes on beside others is start()'s. ValueError
        for flows that cannot be. Raises the worker's BrokenError after the drain.
        """
        await TrafficRun(self).run(traffic, stop)

    async def update(self, flows: Sequence[int], offset: int, data: bytes) -> None:
        """Changes up to 8 bytes of the templates of these flows of run() (by their place in the traffic), on
        all queues, between two packets. BusyError when a queue is not ready for it within its progress
        timeout."""
        await TrafficRun(self).update(flows, offset, data)

    # -- what applications hold ------------------------------------------------------------------------

    def raw(self, *, queue: int | None = None, **options: Any) -> RawEndpoint:
        """An endpoint that sends whole Ethernet frames on one of the engine's queues (None: the first).

        ``options``: ``timeout`` (seconds that a call may wait for room, 10), ``quota_chunks`` (most chunks
        of umem it may hold, 64), ``timestamps`` (of trackers; the engine needs them too). ClosedError,
        ValueError. Any thread; the endpoint itself is for one at a time.

            engine.raw().send(bytes.fromhex("027700000002 027700000001 88b5") + bytes(46))
        """
        return self.holdings.endpoint(RawEndpoint, queue, 0, **options)

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
    ) -> UdpEndpoint:
        """An endpoint that sends UDP datagrams to ``remote``: (IPv4 or IPv6 address, port).

        ``source``: address (None: the kernel's choice) and port (0: a random one of the ephemeral ports; no
        kernel socket is opened for it). ``dst_mac``: instead of the neighbour's. ``vlan``: a tag's id, with
        priority ``pcp``; routes are looked up without it. ``ttl``: None is 64, and 1 for multicast. ``queue``
        and ``options`` as raw().
        Waits up to 3 s for the neighbour to answer. UnavailableError: no route, or nobody answers.
        ValueError: what no datagram can have. ClosedError. Any thread.

            endpoint = engine.udp(("10.77.0.2", 9000))
            endpoint.send(b"hello")
            endpoint.drain()
        """
        where = Remote.of(remote, source, dst_mac, vlan=vlan, pcp=pcp, ttl=ttl, dscp=dscp)
        endpoint = self.holdings.endpoint(UdpEndpoint, queue, where.tag_bytes, **options)
        try:
            hop = None if where.is_complete else self.holdings.ask(where).result(_RESOLVE_S)
            self.holdings.connect(endpoint, where, hop)
        except BaseException:
            endpoint.close()
            raise
        return endpoint

    def tcp(
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
    ) -> TcpConnection:
        """Opens a TCP connection to ``remote`` (IPv4 or IPv6 address) and ``port``; a context manager closes
        it. For an engine that was opened with ``tcp=True``.

        ``source``: address (None: the kernel's choice), and ``source_port`` (0: likewise); a kernel socket
        holds the port. ``dst_mac``, ``ttl`` and ``dscp`` as udp(). ``options``: those of TcpOptions.
        Waits for the neighbour, up to 3 s, and for the peer. TcpError: the peer refuses (TcpRefusedError), or
        does not answer within ``connect_timeout_s`` (TcpTimeoutError). UnavailableError: no route, nobody
        answers, or the port is taken. ValueError: what no connection can be. ClosedError. Any thread.

            with engine.tcp("10.77.0.2", 9001) as connection:
                connection.sendall(b"hello")
        """
        from xsk_engine.tcp import TcpConnection

        where = self.holdings.tcp_remote(remote, port, source, dst_mac, ttl, dscp)
        hop = None if where.is_complete else self.holdings.ask(where).result(_RESOLVE_S)
        connection = self.holdings.tcp(TcpConnection, where, source_port, hop, options)
        try:
            connection.wait_connected()
        except BaseException:
            connection.abort()
            raise
        return connection

    def start(
        self,
        traffic: Traffic | Flow | Sequence[Flow],
        *,
        rate: Pace | Rate | Fraction | int | str | None = None,
        count: int | None = None,
        duration: float | None = None,
    ) -> RunningTraffic:
        """Starts flows beside whatever else the engine does, on all its queues, and returns at once. Several
        may run; each, and each endpoint, has its turn. A Traffic has rate, count and duration of its own, and
        ``quota_frags``; otherwise they are for the flows together: "1Mpps", packets, seconds.

        What a flow leaves open (MAC and source addresses) comes from routes and neighbours, which are
        followed; in the thread that calls. ValueError: flows that cannot be. UnavailableError: no route, or
        nobody answers.

            flow = xsk_engine.parse_flow("ip dst=10.77.0.2 / udp dst=9000 ; payload=text:hello")
            running = engine.start(flow, rate="1kpps", count=10)
            running.wait()
        """
        return self.holdings.launch(self.holdings.resolve(traffic, rate, count, duration), None)

    def after_fork_in_child(self) -> None:
        """The threads and the umem are the parent's; the child only closes its copies of the fds."""
        self.forked = True
        fds = [self.event_fd, *(self.binding.fds() if self.binding else ())]
        fds += self.holdings.forget()
        if self.tcp_stack is not None:
            fds += self.tcp_stack.forget()
        if self.umem is not None:
            self.umem.forget()
        self.workers = []
        self._stack.pop_all()
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)

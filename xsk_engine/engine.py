"""The composition root: opens interface, umem, sockets and workers in that order, closes them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from xsk_engine import lifetimes
from xsk_engine import netdev as netdevs
from xsk_engine._ffi.libc import new_eventfd
from xsk_engine.binding import Binding, open_binding
from xsk_engine.capture import Capture
from xsk_engine.config import EngineConfig, check
from xsk_engine.endpoints import RawEndpoint, UdpEndpoint
from xsk_engine.errors import BrokenError, BusyError, ClosedError, XskError
from xsk_engine.flow import Flow, Pace, Traffic
from xsk_engine.holdings import Holdings
from xsk_engine.mix import Mixes
from xsk_engine.netdev import NetDev
from xsk_engine.outside import outside_event_loop
from xsk_engine.remote import Address, Remote
from xsk_engine.replay import Replay
from xsk_engine.run import TrafficRun
from xsk_engine.running import RunningTraffic
from xsk_engine.single import Single
from xsk_engine.stall import StallJudge
from xsk_engine.stats import FlowCounts, Gaps, Snapshot, merge, merge_flows, merge_gaps
from xsk_engine.trace import Trace
from xsk_engine.umem import Umem
from xsk_engine.units import Rate
from xsk_engine.worker import Worker
from xsk_engine.xsk import REBIND_DEADLINE_S, KernelStats, Xsk

if TYPE_CHECKING:
    import numpy

# A worker that was told to stop answers within its drain timeout; so much more for a busy machine.
_JOIN_GRACE_S = 2.0
# Longer than a neighbour may take to answer.
_RESOLVE_S = 10.0


@dataclass(frozen=True)
class _Final:
    """What is kept of a closed engine."""

    queues: list[Snapshot]
    kernel: KernelStats
    gaps: Gaps
    flows: FlowCounts


class Engine(Single):
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
        self.config = config
        self.netdev: NetDev | None = None
        """the interface as it was when it was opened; None before"""
        self.umem: Umem | None = None
        self.binding: Binding | None = None
        """its ``mode`` is "copy" or "zerocopy", its ``reason`` says why; None before open()"""
        self._stalls: StallJudge | None = None
        self.workers: list[Worker] = []
        self.mixes: list[Mixes | None] = []
        """of each worker, while it runs"""
        self.trace: Trace | None = None
        """of a replay"""
        self.captures: list[Capture] = []
        self.event_fd = -1
        self._final: _Final | None = None
        self._stack = contextlib.ExitStack()
        self.holdings = Holdings(self)
        """what applications have of it"""
        self._closing = threading.Lock()
        self._forked = False
        lifetimes.register(self)

    # -- opening and closing ---------------------------------------------------------------------------

    def open(self) -> Engine:
        """Opens everything or nothing, and returns itself. Errors as xsk_engine.open(); ClosedError for one
        that was opened before."""
        if self.workers or self._final is not None:
            raise ClosedError("open", self.config.interface, "it was opened before; make a new engine")
        outside_event_loop(self._open)
        return self

    def _open(self) -> None:
        config = self.config
        with contextlib.ExitStack() as stack:
            self.netdev = netdevs.wait_for_link(config.interface, config.link_timeout_s)
            self.umem, self.binding = open_binding(stack, config, self.netdev)
            self.event_fd = new_eventfd()
            stack.callback(self._close_event_fd)
            self._stalls = StallJudge(self.binding, config.interface, config.link_timeout_s)
            stack.callback(self.workers.clear)
            for index, xsk in enumerate(self.binding.xsks):
                capture = self._open_capture(stack)
                worker = Worker(
                    self.umem,
                    xsk,
                    index,
                    self.event_fd,
                    interface=config.interface,
                    cpu=config.cpus[index] if config.cpus else None,
                    link_timeout_s=config.link_timeout_s,
                    progress_timeout_s=config.progress_timeout_s,
                    drain_timeout_s=config.drain_timeout_s,
                    on_stall=self._judge_stall,
                    capture=capture,
                )
                self.workers.append(worker)
                stack.callback(worker.close)
            for worker in self.workers:
                worker.probe_invalid()
            stack.callback(self.stop)
            for worker in self.workers:
                worker.start()
            self._stack = stack.pop_all()

    def _open_capture(self, stack: contextlib.ExitStack) -> Capture | None:
        if self.config.capture_packets is None:
            return None
        capture = Capture(self.config.capture_packets)
        stack.callback(capture.close)
        self.captures.append(capture)
        return capture

    def close(self) -> None:
        """Drains, stops and closes everything; idempotent. BrokenError when the final audit finds a fault."""
        if self._forked:
            return
        with self._closing:  # a second thread waits for the first
            self._close()

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
            if self._final is None and self.workers:
                self._final = _Final(
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

    def _close_event_fd(self) -> None:
        fd, self.event_fd = self.event_fd, -1
        os.close(fd)

    def stop(self) -> None:
        """Drains and joins the workers, within the drain timeout. Blocking; idempotent."""
        deadline = self.stop_deadline()
        for worker in self.workers:
            worker.drain()
        self.join_workers(deadline)

    def _judge_stall(self, worker: Worker, stalled_on: Xsk) -> int:
        assert self._stalls is not None
        return self._stalls.judge(worker, stalled_on, self.workers)

    def stop_deadline(self) -> float:
        seconds = self.config.drain_timeout_s + _JOIN_GRACE_S
        binding = self.binding
        if binding is not None and (binding.may_fall_back or binding.falls_back):  # and then drain once more
            seconds += self.config.link_timeout_s + REBIND_DEADLINE_S + self.config.drain_timeout_s
        return time.monotonic() + seconds

    def join_workers(self, deadline: float) -> None:
        for worker in self.workers:
            if not worker.join(max(deadline - time.monotonic(), 0)):
                worker.abort()
                if not worker.join(_JOIN_GRACE_S + REBIND_DEADLINE_S):
                    # It sits in the kernel. Freeing what it uses would crash; leaking is the lesser evil.
                    self._stack.pop_all()
                    raise BrokenError(
                        "stop", f"queue {worker.xsk.queue}", "its thread does not end; the engine leaks"
                    )

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

    def failure(self) -> XskError | None:
        """Why the first worker that has failed did; None while all are well."""
        return next(filter(None, (w.failure() for w in self.workers)), None)

    def raise_failure(self) -> None:
        """Raises the first queue's failure, if any: the BrokenError of its endpoints. Any thread."""
        failure = self.failure()
        if failure is not None:
            raise failure
        if self.trace is not None:
            self.trace.raise_failure()

    @property
    def mode(self) -> str:
        """ "copy" or "zerocopy"; ClosedError while it is not open."""
        self.open_workers()
        assert self.binding is not None
        return self.binding.mode

    def open_workers(self) -> list[Worker]:
        """One per queue. ClosedError when there are none; BrokenError in a forked child."""
        if self._forked:
            raise BrokenError(
                "engine", self.config.interface, "this process was forked; only the parent may use it"
            )
        if not self.workers:
            raise ClosedError("engine", self.config.interface, "it is not open")
        return self.workers

    # -- facts -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Figures of all queues now; the final ones after close. No system call; any thread."""
        if self._final is not None:
            return merge(self._final.queues)
        return merge([w.snapshot() for w in self.workers])

    def queue_snapshots(self) -> list[Snapshot]:
        """The same figures of each queue, in the order they were given. No system call; any thread."""
        if self._final is not None:
            return self._final.queues
        return [w.snapshot() for w in self.workers]

    def flow_counts(self) -> FlowCounts:
        """What each flow has submitted so far, by its place in the traffic. By the thread that closes."""
        if self._final is not None:
            return self._final.flows
        return merge_flows(mixes.posted() for mixes in self.mixes if mixes is not None)

    def counter_pages(self) -> list[numpy.ndarray]:
        """The live counter page of each queue: a read-only record whose uint64 fields are native struct
        xske_counters. No copy, no system call; it outlives the engine. Any thread. ClosedError if not open.

            print(engine.counter_pages()[0].dtype.names)
        """
        return [w.page() for w in self.open_workers()]

    def kernel_stats(self) -> KernelStats:
        """The kernel's own counters of all queues. A system call for each; any thread."""
        if self._final is not None:
            return self._final.kernel
        return reduce(add, (w.xsk.kernel_stats() for w in self.workers), KernelStats())

    def gaps(self) -> Gaps:
        """How far apart the packets were, of all queues; exact once they have ended. Any thread."""
        if self._final is not None:
            return self._final.gaps
        return merge_gaps(w.gaps for w in self.workers)

    def audit(self) -> None:
        """Conservation of chunks and descs, while the workers rest. BrokenError names what is missing."""
        if self.umem is None or any(w.alive for w in self.workers):
            raise ClosedError("audit", self.config.interface, "only while the workers are stopped")
        audit, now = self.umem.audit(), self.snapshot()
        if audit.inflight_descs != now.inflight_descs:
            raise BrokenError("audit", self.config.interface, f"descs are missing: {audit}, {now}")
        if invalid := self.kernel_stats().tx_invalid_descs:
            raise BrokenError("audit", self.config.interface, f"the kernel refused {invalid} descs")

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
        self._forked = True
        fds = [self.event_fd, *(self.binding.fds() if self.binding else ())]
        fds += self.holdings.forget()
        if self.umem is not None:
            self.umem.forget()
        self.workers = []
        self._stack.pop_all()
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)

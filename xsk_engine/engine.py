"""The composition root: opens interface, umem, sockets and workers in that order, closes them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Literal

from xsk_engine import netdev as netdevs
from xsk_engine._ffi.libc import new_eventfd
from xsk_engine.binding import Binding, open_binding
from xsk_engine.capture import Capture
from xsk_engine.config import EngineConfig
from xsk_engine.endpoints import RawEndpoint
from xsk_engine.errors import BrokenError, BusyError, ClosedError
from xsk_engine.flow import Flow, Traffic
from xsk_engine.mix import Mixes
from xsk_engine.mixprogram import compile_traffic
from xsk_engine.netdev import NetDev
from xsk_engine.replay import Replay
from xsk_engine.replay import program as replay_program
from xsk_engine.stall import StallJudge
from xsk_engine.stats import FlowCounts, Gaps, Snapshot, merge, merge_flows, merge_gaps
from xsk_engine.trace import Trace
from xsk_engine.umem import Umem
from xsk_engine.worker import Worker
from xsk_engine.xsk import REBIND_DEADLINE_S, KernelStats, Xsk

if TYPE_CHECKING:
    import numpy

# A worker that was told to stop answers within its drain timeout; so much more for a busy machine.
_JOIN_GRACE_S = 2.0
_JOIN_POLL_S = 0.001


@dataclass(frozen=True)
class _Final:
    """What is kept of a closed engine."""

    queues: list[Snapshot]
    kernel: KernelStats
    gaps: Gaps
    flows: FlowCounts


class Engine:
    """An open engine: context manager, ``open`` and ``close`` in one thread, statistics from any.

    Raises ValueError for a bad configuration, UnavailableError for what the environment lacks.

        with Engine(EngineConfig("vtx")) as engine:
            asyncio.run(engine.run(Traffic(frame, count=1000)))
            print(engine.snapshot().completed_packets)
    """

    def __init__(self, config: EngineConfig) -> None:
        if not config.queues:
            raise ValueError("queues: at least one is needed")
        if config.cpus and len(config.cpus) != len(config.queues):
            raise ValueError(f"cpus: {len(config.cpus)} for {len(config.queues)} queues; give one per queue")
        allowed = os.sched_getaffinity(0)
        if missing := set(config.cpus) - allowed:
            raise ValueError(f"cpus: {sorted(missing)} not among those allowed here, {sorted(allowed)}")
        if config.ring_size & (config.ring_size - 1) or not 64 <= config.ring_size <= 1 << 20:
            raise ValueError(f"ring_size: {config.ring_size} is not a power of two from 64 to 2^20")
        self.config = config
        self.netdev: NetDev | None = None
        self.umem: Umem | None = None
        self.binding: Binding | None = None
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
        self._endpoints: set[RawEndpoint] = set()
        self._forked = False
        _engines.add(self)

    # -- opening and closing ---------------------------------------------------------------------------

    def open(self) -> Engine:
        """Opens everything or nothing."""
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
        return self

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
        self.stop()
        try:
            for endpoint in list(self._endpoints):
                endpoint.close()
            self._endpoints.clear()
            if self._final is None and self.workers:
                self._final = _Final(
                    self.queue_snapshots(), self.kernel_stats(), self.gaps(), self.flow_counts()
                )
            if self.workers:
                self.audit()
        finally:
            self._stack.close()

    def __enter__(self) -> Engine:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _close_event_fd(self) -> None:
        fd, self.event_fd = self.event_fd, -1
        os.close(fd)

    def stop(self) -> None:
        """Drains and joins the workers, within the drain timeout. Blocking; idempotent."""
        deadline = self._stop_deadline()
        for worker in self.workers:
            worker.drain()
        self._stop_workers(deadline)

    def _judge_stall(self, worker: Worker, stalled_on: Xsk) -> int:
        assert self._stalls is not None
        return self._stalls.judge(worker, stalled_on, self.workers)

    def _stop_deadline(self) -> float:
        seconds = self.config.drain_timeout_s + _JOIN_GRACE_S
        binding = self.binding
        if binding is not None and (binding.may_fall_back or binding.falls_back):  # and then drain once more
            seconds += self.config.link_timeout_s + REBIND_DEADLINE_S + self.config.drain_timeout_s
        return time.monotonic() + seconds

    def _stop_workers(self, deadline: float) -> None:
        for worker in self.workers:
            if not worker.join(max(deadline - time.monotonic(), 0)):
                worker.abort()
                if not worker.join(_JOIN_GRACE_S + REBIND_DEADLINE_S):
                    # It sits in the kernel. Freeing what it uses would crash; leaking is the lesser evil.
                    self._stack.pop_all()
                    raise BrokenError(
                        "stop", f"queue {worker.xsk.queue}", "its thread does not end; the engine leaks"
                    )

    # -- running ---------------------------------------------------------------------------------------

    async def run(self, traffic: Traffic | Flow | Replay, stop: asyncio.Event | None = None) -> None:
        """Sends until it is done, `stop` is set or a worker fails; then drains all queues.

        Count and rate are totals over the queues; a replay goes out of the first one, in its file's order.
        Once per engine: ClosedError for a second run. ValueError for flows that cannot be. Raises the
        worker's BrokenError after the drain.
        """
        workers = self._open_workers()
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def on_event() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(self.event_fd, 8)
            changed.set()

        loop.add_reader(self.event_fd, on_event)
        waiter = asyncio.ensure_future(stop.wait()) if stop is not None else None
        if waiter is not None:
            waiter.add_done_callback(lambda _: changed.set())
        try:
            if isinstance(traffic, Replay):
                await self._load_replay(traffic, waiter)
            else:
                self.mixes = self._load_flows(Traffic(traffic) if isinstance(traffic, Flow) else traffic)
            for worker, mixes in zip(
                workers, self.mixes, strict=True
            ):  # the queues take turns: at the same time
                if mixes is not None:
                    worker.start_mixes(mixes)
            while not (waiter is not None and waiter.done()) and not self._finished():
                changed.clear()
                if self._finished():
                    break
                await changed.wait()
            await self._drain()
        except BaseException:  # cancelled, or a flow could not start: nothing goes on sending
            for worker in self.workers:
                worker.drain()
            raise
        finally:
            loop.remove_reader(self.event_fd)
            if waiter is not None:
                waiter.cancel()
        self.raise_failure()

    def _load_flows(self, traffic: Traffic) -> list[Mixes | None]:
        programs = compile_traffic(
            traffic,
            len(self.workers),
            template_budget=self._template_budget(),
            chunk_size=self.config.chunk_size,
            metadata_len=self.config.tx_metadata_len,
        )
        return [w.load_mixes(mine) if mine else None for w, mine in zip(self.workers, programs, strict=True)]

    async def _load_replay(self, replay: Replay, stopped: asyncio.Future[Literal[True]] | None) -> None:
        assert self.umem is not None
        assert self.netdev is not None
        worker = self.workers[0]
        self.trace = trace = Trace(self.umem, replay, self.netdev.max_frame_bytes, worker.index)
        self.mixes = [
            worker.load_mixes([replay_program(replay)], trace),
            *(None for _ in self.workers[1:]),
        ]
        if replay.stream:
            trace.start_stream()
            return
        if stopped is not None:
            stopped.add_done_callback(lambda _: trace.stop())
        await asyncio.to_thread(trace.load)

    def _open_workers(self) -> list[Worker]:
        if not self.workers:
            raise ClosedError("engine", self.config.interface, "it is not open")
        return self.workers

    async def update(self, flows: Sequence[int], offset: int, data: bytes) -> None:
        """Changes up to 8 bytes of the templates of these flows (by their place in the traffic), on all
        queues, between two packets. BusyError when a queue is not ready for it within its progress
        timeout."""
        pending = [
            worker.start_update(mixes, flows, offset, data)
            for worker, mixes in zip(self.workers, self.mixes, strict=True)
            if mixes is not None
        ]
        deadline = time.monotonic() + self.config.progress_timeout_s
        while any(not update.done for update in pending):
            if time.monotonic() > deadline and all(w.alive for w in self.workers):
                raise BusyError("update", self.config.interface, "its packets do not complete")
            await asyncio.sleep(_JOIN_POLL_S)

    def _template_budget(self) -> int:
        """Bytes of templates that a worker may keep: half of its part, the rest is for packets."""
        assert self.umem is not None
        return self.umem.area.length // 2 // len(self.workers)

    def _finished(self) -> bool:
        """All flows have posted what they will, or some worker has failed."""
        pairs = list(zip(self.workers, self.mixes, strict=True))
        return any(w.failure() or not w.alive for w, _ in pairs) or all(
            mixes is None or w.counters.finished_flows >= mixes.flow_count for w, mixes in pairs
        )

    async def _drain(self) -> None:
        deadline = self._stop_deadline()
        for worker in self.workers:
            worker.drain()
        while any(w.alive for w in self.workers) and time.monotonic() < deadline:
            await asyncio.sleep(_JOIN_POLL_S)
        self._stop_workers(deadline)

    def raise_failure(self) -> None:
        """Raises the first worker's failure, if any."""
        failure = next(filter(None, (w.failure() for w in self.workers)), None)
        if failure is not None:
            raise failure
        if self.trace is not None:
            self.trace.raise_failure()

    # -- facts -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Figures of all queues now; the final ones after close. No system call; any thread."""
        if self._final is not None:
            return merge(self._final.queues)
        return merge(w.counters for w in self.workers)

    def queue_snapshots(self) -> list[Snapshot]:
        """The same figures of each queue."""
        if self._final is not None:
            return self._final.queues
        return [merge([w.counters]) for w in self.workers]

    def flow_counts(self) -> FlowCounts:
        """What each flow has submitted so far, by its place in the traffic. By the thread that closes."""
        if self._final is not None:
            return self._final.flows
        return merge_flows(mixes.posted() for mixes in self.mixes if mixes is not None)

    def counter_pages(self) -> list[numpy.ndarray]:
        """The live counter page of each queue: a read-only record whose uint64 fields are native struct
        xske_counters. No copy, no system call; it outlives the engine."""
        return [w.page() for w in self._open_workers()]

    def kernel_stats(self) -> KernelStats:
        """The kernel's own counters of all queues."""
        if self._final is not None:
            return self._final.kernel
        return reduce(add, (w.xsk.kernel_stats() for w in self.workers), KernelStats())

    def gaps(self) -> Gaps:
        """How far apart the packets were, of all queues; exact once they have ended."""
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

    def raw(self, *, queue_index: int = 0, quota_chunks: int = 64) -> RawEndpoint:
        """An endpoint that sends whole frames on one of the engine's queues."""
        worker = self._open_workers()[queue_index]
        assert self.umem is not None
        endpoint = RawEndpoint(self.umem, worker, quota_chunks)
        self._endpoints.add(endpoint)
        return endpoint

    def _after_fork_in_child(self) -> None:
        """The threads and the umem are the parent's; the child only closes its copies of the fds."""
        self._forked = True
        fds = [self.event_fd, *(self.binding.fds() if self.binding else ())]
        self.workers = []
        self._stack.pop_all()
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)

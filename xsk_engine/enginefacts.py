"""What an engine says of itself, while it is open and afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from xsk_engine.binding import Binding
from xsk_engine.config import EngineConfig
from xsk_engine.errors import BrokenError, ClosedError, XskError
from xsk_engine.mix import Mixes
from xsk_engine.single import Single
from xsk_engine.stats import FlowCounts, Gaps, Snapshot, merge, merge_flows, merge_gaps
from xsk_engine.trace import Trace
from xsk_engine.umem import Umem
from xsk_engine.worker import Worker
from xsk_engine.xsk import KernelStats

if TYPE_CHECKING:
    import numpy

    from xsk_engine.tcpinfo import TcpCounters
    from xsk_engine.tcpstack import TcpStack


@dataclass(frozen=True)
class Final:
    """What is kept of a closed engine."""

    queues: list[Snapshot]
    kernel: KernelStats
    gaps: Gaps
    flows: FlowCounts


class EngineFacts(Single):
    """What an engine says of itself. Errors as Engine. Any thread."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.umem: Umem | None = None
        self.binding: Binding | None = None
        """its ``mode`` is "copy" or "zerocopy", its ``reason`` says why; None before open()"""
        self.workers: list[Worker] = []
        self.mixes: list[Mixes | None] = []
        """of each worker, while it runs"""
        self.trace: Trace | None = None
        """of a replay"""
        self.tcp_stack: TcpStack | None = None
        """of an engine with TCP"""
        self.final: Final | None = None
        """of one that is closed"""
        self.forked = False

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

    @property
    def keeps(self) -> tuple[str, ...]:
        """Capabilities that its calls and its end take once it is open: privileges.drop() leaves them. None,
        but with TCP on older kernels."""
        return self.binding.keeps if self.binding is not None else ()

    def open_workers(self) -> list[Worker]:
        """One per queue. ClosedError when there are none; BrokenError in a forked child."""
        if self.forked:
            raise BrokenError(
                "engine", self.config.interface, "this process was forked; only the parent may use it"
            )
        if not self.workers:
            raise ClosedError("engine", self.config.interface, "it is not open")
        return self.workers

    def open_tcp(self) -> TcpStack:
        """ClosedError for an engine without, or that is not open."""
        if self.tcp_stack is None:
            raise ClosedError("tcp", self.config.interface, "open the engine with tcp=True")
        return self.tcp_stack

    def snapshot(self) -> Snapshot:
        """Figures of all queues now; the final ones after close. No system call; any thread."""
        if self.final is not None:
            return merge(self.final.queues)
        return merge([w.snapshot() for w in self.workers])

    def queue_snapshots(self) -> list[Snapshot]:
        """The same figures of each queue, in the order they were given. No system call; any thread."""
        if self.final is not None:
            return self.final.queues
        return [w.snapshot() for w in self.workers]

    def flow_counts(self) -> FlowCounts:
        """What each flow has submitted so far, by its place in the traffic. By the thread that closes."""
        if self.final is not None:
            return self.final.flows
        return merge_flows(mixes.posted() for mixes in self.mixes if mixes is not None)

    def counter_pages(self) -> list[numpy.ndarray]:
        """The live counter page of each queue: a read-only record whose uint64 fields are native struct
        xske_counters. No copy, no system call; it outlives the engine. Any thread. ClosedError if not open.

            print(engine.counter_pages()[0].dtype.names)
        """
        return [w.page() for w in self.open_workers()]

    def kernel_stats(self) -> KernelStats:
        """The kernel's own counters of all queues. A system call for each; any thread."""
        if self.final is not None:
            return self.final.kernel
        return reduce(add, (w.xsk.kernel_stats() for w in self.workers), KernelStats())

    def gaps(self) -> Gaps:
        """How far apart the packets were, of all queues; exact once they have ended. Any thread."""
        if self.final is not None:
            return self.final.gaps
        return merge_gaps(w.gaps for w in self.workers)

    def audit(self) -> None:
        """Conservation of chunks and descs, while the workers rest. BrokenError names what is missing."""
        if self.umem is None or any(w.alive for w in self.workers):
            raise ClosedError("audit", self.config.interface, "only while the workers are stopped")
        audit, now = self.umem.audit(), self.snapshot()
        received_into = self.tcp_stack.rx_chunks if self.tcp_stack is not None else 0  # some are in between
        if not 0 <= audit.inflight_descs - now.inflight_descs <= received_into:
            raise BrokenError("audit", self.config.interface, f"descs are missing: {audit}, {now}")
        if invalid := self.kernel_stats().tx_invalid_descs:
            raise BrokenError("audit", self.config.interface, f"the kernel refused {invalid} descs")
        if self.tcp_stack is not None and (failure := self.tcp_stack.failure()) is not None:
            raise failure

    def tcp_counters(self) -> TcpCounters:
        """What has come to the connections' receive rings so far; the last of it after close(). Any thread.
        ClosedError for an engine without TCP."""
        return self.open_tcp().counters()

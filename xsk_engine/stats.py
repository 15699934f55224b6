"""Frozen figures: what the counter pages say, added up over the queues. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xsk_engine import spread


@dataclass(frozen=True)
class ArenaStats:
    """One arena's figures."""

    allocated_frags: int
    """frags handed out"""
    recycled_chunks: int
    """chunks that came back, any way"""
    cross_thread_returns: int
    """of them: recycled by another thread"""
    quota_waits: int
    """allocations refused: quota or pool exhausted"""
    owned_chunks: int
    """chunks it owns now"""


@dataclass(frozen=True)
class EndpointStats:
    """One endpoint's figures at one moment."""

    submitted_packets: int
    """packets handed to the loop"""
    submitted_bytes: int
    """frame bytes without FCS of them"""
    waiting_descs: int
    """descs in the submit ring, not on the tx ring yet"""
    inflight_descs: int
    """descs posted and not completed"""
    completed_descs: int
    """descs that came back"""
    owned_chunks: int
    """chunks of umem it owns now"""
    quota_waits: int
    """allocations refused: quota or umem exhausted"""


@dataclass(frozen=True)
class Snapshot:
    """The txqs' figures at one moment; final when taken after the drain. Readable by any thread.
    Rates are over the time from the first post to the last completion.

        snapshot = engine.snapshot()
        print(snapshot.completed_packets, snapshot.pps)
    """

    submitted_packets: int = 0
    """packets given to the kernel"""
    submitted_descs: int = 0
    """descs given to the kernel"""
    submitted_bytes: int = 0
    """frame bytes without FCS given to the kernel"""
    completed_packets: int = 0
    """packets whose descs all came back"""
    completed_descs: int = 0
    """descs that came back"""
    completed_bytes: int = 0
    """frame bytes without FCS of completed packets"""
    completed_wire_bytes: int = 0
    """bytes on the wire of completed packets: frames padded to 60, plus 24 for FCS, preamble and gap"""
    inflight_descs: int = 0
    """submitted and not completed"""
    bad_completions: int = 0
    """addrs that came back and were not inflight: a kernel bug"""
    kick_calls: int = 0
    """sendto() calls"""
    kick_eagain: int = 0
    """of them EAGAIN: nothing lost"""
    kick_ebusy: int = 0
    """of them EBUSY: one packet each, dropped by the kernel"""
    kick_enobufs: int = 0
    """of them ENOBUFS or ENOMEM: no memory"""
    kick_enetdown: int = 0
    """of them ENETDOWN: link down"""
    kick_other: int = 0
    """of them anything else: fatal"""
    backpressure: int = 0
    """loop turns in which a flow was due and had no room"""
    link_down_ns: int = 0
    """time spent waiting for the link, the longest of the queues"""
    first_post_ns: int = 0
    """CLOCK_MONOTONIC of the first post, 0 if none"""
    last_post_ns: int = 0
    """of the last one"""
    last_completion_ns: int = 0
    """CLOCK_MONOTONIC of the last completion, 0 if none"""
    active_flows: int = 0
    """flows that still post"""
    finished_flows: int = 0
    """flows that have posted all they will"""
    allocated_frags: int = 0
    """frags handed out by the loops' arenas"""
    recycled_chunks: int = 0
    """chunks that came back to them"""
    cross_thread_returns: int = 0
    """of them: recycled by another thread"""
    quota_waits: int = 0
    """allocations refused: quota or pool exhausted"""
    owned_chunks: int = 0
    """chunks the loops' arenas own now"""
    time_ns: int = 0
    """CLOCK_MONOTONIC when these were read"""

    @property
    def duration_s(self) -> float:
        """First post to last completion, in seconds."""
        if not self.first_post_ns:
            return 0.0
        return max(self.last_completion_ns - self.first_post_ns, 0) / 1e9

    @property
    def link_down_s(self) -> float:
        """The same in seconds."""
        return self.link_down_ns / 1e9

    @property
    def posted_pps(self) -> float:
        """Packets per second between the first post and the last; time with the link down does not count."""
        span = self.last_post_ns - self.first_post_ns - self.link_down_ns
        return (self.submitted_packets - 1) / span * 1e9 if span > 0 else 0.0

    @property
    def dropped_packets(self) -> int:
        """Completed by the kernel without being sent (EBUSY)."""
        return self.kick_ebusy

    def _per_second(self, amount: int) -> float:
        return amount / self.duration_s if self.duration_s else 0.0

    @property
    def pps(self) -> float:
        """Completed packets per second."""
        return self._per_second(self.completed_packets)

    @property
    def bps_l2(self) -> float:
        """Completed frame bits per second, without FCS."""
        return self._per_second(self.completed_bytes * 8)

    @property
    def bps_l1(self) -> float:
        """Completed bits per second on the wire."""
        return self._per_second(self.completed_wire_bytes * 8)


_LATEST = ("last_post_ns", "last_completion_ns", "link_down_ns", "time_ns")


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Adds up those of several queues."""
    many = list(snapshots)
    if len(many) == 1:
        return many[0]
    total = {name: sum(getattr(one, name) for one in many) for name in Snapshot.__dataclass_fields__}
    for name in _LATEST:
        total[name] = max((getattr(one, name) for one in many), default=0)
    total["first_post_ns"] = min((one.first_post_ns for one in many if one.first_post_ns), default=0)
    return Snapshot(**total)


FlowCounts = dict[int, tuple[int, int]]
"""of each flow, by its place in the traffic: packets and bytes submitted"""


def merge_flows(queues: Iterable[FlowCounts]) -> FlowCounts:
    """Adds up what each queue's flows have submitted, in the traffic's order."""
    total: FlowCounts = {}
    for counts in queues:
        for index, (packets, size) in counts.items():
            before = total.get(index, (0, 0))
            total[index] = (before[0] + packets, before[1] + size)
    return dict(sorted(total.items()))


_EXACT_BUCKETS = 16


def _bucket_top(index: int) -> int:
    """The largest ns that falls into it (native/gaps.h)."""
    if index < _EXACT_BUCKETS:
        return index
    power, eighth = divmod(index - _EXACT_BUCKETS, 8)
    return ((8 + eighth + 1) << power + 1) - 1


@dataclass(frozen=True)
class Histogram:
    """Times in ns, in buckets at most an eighth wide."""

    count: int = 0
    """how many"""
    sum_ns: int = 0
    """of all of them"""
    min_ns: int = 0
    """the shortest"""
    max_ns: int = 0
    """the longest"""
    buckets: tuple[int, ...] = ()
    """how many in each"""

    @property
    def mean_ns(self) -> float:
        """0 without any."""
        return self.sum_ns / self.count if self.count else 0.0

    def percentile_ns(self, percent: float) -> int:
        """Not more than an eighth above the true one; 0 without any."""
        wanted, seen = self.count * percent / 100, 0
        for index, n in enumerate(self.buckets):
            seen += n
            if n and seen >= wanted:
                return min(_bucket_top(index), self.max_ns)
        return self.max_ns

    def as_dict(self) -> dict[str, Any]:
        """Mean, extremes and percentiles; buckets as [largest ns, how many], the empty ones left out."""
        return spread.as_dict(self, ((_bucket_top(i), n) for i, n in enumerate(self.buckets) if n))


@dataclass(frozen=True)
class Gaps:
    """How far apart packets were. Each queue's own, put together.
    Immutable: any thread.

        gaps = engine.gaps()
        print(gaps.post.mean_ns, gaps.post.percentile_ns(99), gaps.rate_error)
    """

    post: Histogram
    """between packets of flows that share a rate, taken at the post"""
    error: Histogram
    """how far each of them was from the gap its pace asked for"""
    wire: Histogram
    """between the kernel's tx timestamps, if they were asked for"""
    paced_ns: int = 0
    """the sum of the gaps that had a pace"""
    asked_ns: int = 0
    """and of what it asked"""
    latency: Histogram = Histogram()
    """from the post to the kernel's tx timestamp, if they were asked for: of flows, and in copy mode, where
    both are CLOCK_TAI"""
    negative_latency_packets: int = 0
    """with a tx timestamp before their post: another clock's"""

    @property
    def rate_error(self) -> float | None:
        """By which part the rate was missed: -0.01 is one percent too slow. None without a rate."""
        return self.asked_ns / self.paced_ns - 1 if self.paced_ns and self.asked_ns else None


def _merge_histograms(pages: list[Any]) -> Histogram:
    filled = [page for page in pages if page.count]
    if not filled:
        return Histogram()
    return Histogram(
        sum(page.count for page in filled),
        sum(page.sum_ns for page in filled),
        min(page.min_ns for page in filled),
        max(page.max_ns for page in filled),
        tuple(map(sum, zip(*(list(page.bucket) for page in filled), strict=True))),
    )


def merge_gaps(pages: Iterable[Any]) -> Gaps:
    """Adds up gap pages (objects with the fields of native Gaps)."""
    read = list(pages)
    post, error, wire, latency = (
        _merge_histograms([getattr(page, name) for page in read])
        for name in ("post", "error", "wire", "latency")
    )
    return Gaps(
        post,
        error,
        wire,
        sum(page.paced_ns for page in read),
        sum(page.asked_ns for page in read),
        latency,
        sum(page.negative_latency_packets for page in read),
    )

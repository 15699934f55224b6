"""Frozen figures of what arrived: counts per flow, latency and jitter, several queues' put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

BUCKETS = 656
_EXACT, _PER_POWER = 32, 16
_MODULUS = 1 << 64


def bucket_top(index: int) -> int:
    """The largest ns that falls into a bucket (native/arrivals.c); the last one takes longer ones, too."""
    if index < _EXACT:
        return index
    power, part = divmod(index - _EXACT, _PER_POWER)
    return ((_PER_POWER + part + 1) << power + 1) - 1


@dataclass(frozen=True)
class Latency:
    """One-way latencies in ns, in buckets at most a sixteenth wide. Immutable: any thread.

    print(arrivals.latency.percentile_ns(99.9), arrivals.latency.max_ns)
    """

    count: int = 0
    """how many packets had one"""
    sum_ns: int = 0
    """of all of them, in ns"""
    min_ns: int = 0
    """the shortest, exact, in ns"""
    max_ns: int = 0
    """the longest, exact, in ns"""
    buckets: tuple[tuple[int, int], ...] = ()
    """(number of a bucket, packets in it), ascending, those that have some"""

    @property
    def mean_ns(self) -> float:
        """In ns; 0 without any."""
        return self.sum_ns / self.count if self.count else 0.0

    def percentile_ns(self, percent: float) -> int:
        """In ns: the upper end of the bucket in which it lies, so not below the true one and at most a
        sixteenth above it; 0 without any, the longest where the buckets were not read. ``percent`` from 0 to
        100; ValueError for others."""
        if not 0 <= percent <= 100:
            raise ValueError(f"{percent!r} is not between 0 and 100")
        wanted, seen = sum(n for _, n in self.buckets) * percent / 100, 0
        for index, n in self.buckets:
            seen += n
            if seen >= wanted:
                return self.max_ns if index == BUCKETS - 1 else min(bucket_top(index), self.max_ns)
        return self.max_ns

    def as_dict(self) -> dict[str, Any]:
        """Mean, extremes and percentiles; buckets as [largest ns, packets]."""
        return {
            "count": self.count,
            "mean_ns": round(self.mean_ns, 3),
            "min_ns": self.min_ns,
            "p50_ns": self.percentile_ns(50),
            "p90_ns": self.percentile_ns(90),
            "p99_ns": self.percentile_ns(99),
            "p99_9_ns": self.percentile_ns(99.9),
            "max_ns": self.max_ns,
            "buckets": [[bucket_top(index), n] for index, n in self.buckets],
        }


def merge_latency(parts: Iterable[Latency]) -> Latency:
    """Adds up; exact."""
    filled = [part for part in parts if part.count]
    if not filled:
        return Latency()
    buckets: dict[int, int] = {}
    for part in filled:
        for index, n in part.buckets:
            buckets[index] = buckets.get(index, 0) + n
    return Latency(
        sum(part.count for part in filled),
        sum(part.sum_ns for part in filled),
        min(part.min_ns for part in filled),
        max(part.max_ns for part in filled),
        tuple(sorted(buckets.items())),
    )


def buckets_of(counts: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Of all buckets' counts, those that are not 0."""
    return tuple((index, n) for index, n in enumerate(counts) if n)


@dataclass(frozen=True)
class FlowArrivals:
    """What arrived of one flow. Immutable: any thread.

    for flow in arrivals.flows:
        print(flow.flow_id, flow.lost_packets, flow.latency.percentile_ns(99))
    """

    flow_id: int
    """the one in its packets' signatures"""
    received_packets: int = 0
    """intact and new"""
    received_bytes: int = 0
    """frame bytes without FCS of them"""
    lost_packets: int = 0
    """sequences between the first expected and the highest that were not received: they never came, came
    corrupt or came late"""
    duplicate_packets: int = 0
    """copies of packets that were received before"""
    reordered_packets: int = 0
    """of the received: after one with a higher sequence (RFC 4737)"""
    late_packets: int = 0
    """not within the window of 4096 sequences: neither received nor duplicate"""
    extent_max_packets: int = 0
    """the largest reordering extent (RFC 4737, 4.2.2): how many received packets ago the first larger
    sequence came"""
    extent_sum_packets: int = 0
    """of all extents"""
    least_extents: int = 0
    """packets whose extent is at least what was counted: it reaches back beyond what is remembered"""
    restarts: int = 0
    """times the sender has begun again"""
    first_sequence: int = 0
    """the first expected; not 0: the receiver has joined in the middle"""
    highest_sequence: int = 0
    """the highest received"""
    untimed_packets: int = 0
    """received without a time of sending"""
    negative_latency_packets: int = 0
    """received before they were sent: the clocks differ"""
    jitter_ns: int = 0
    """by RFC 3550, 6.4.1, in ns"""
    latency: Latency = Latency()
    """one-way"""
    queues: int = 1
    """queues that have seen it; above 1, what is said at :func:`merge` holds"""

    @property
    def extent_mean_packets(self) -> float:
        """Of the reordered packets; 0 without any."""
        return self.extent_sum_packets / self.reordered_packets if self.reordered_packets else 0.0

    @property
    def lost_ratio(self) -> float:
        """Lost, of lost and received; from 0 to 1."""
        return _ratio(self.lost_packets, self.received_packets)

    def as_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return _plain(self) | {
            "extent_mean_packets": round(self.extent_mean_packets, 3),
            "lost_ratio": self.lost_ratio,
        }


@dataclass(frozen=True)
class Arrivals:
    """What arrived, altogether and per flow. ``packets`` is the sum of received, duplicate, late, corrupt,
    truncated, foreign and unknown flow; exact once nothing is received any more. Immutable: any thread."""

    packets: int = 0
    """frames looked at"""
    bytes: int = 0
    """of them, without FCS"""
    received_packets: int = 0
    """ours, intact and new, of all flows"""
    received_bytes: int = 0
    """frame bytes without FCS of them"""
    lost_packets: int = 0
    """sequences that were not received, of all flows"""
    duplicate_packets: int = 0
    """copies of packets that were received before"""
    reordered_packets: int = 0
    """of the received: after one with a higher sequence"""
    late_packets: int = 0
    """not within their flow's window: neither received nor duplicate"""
    restarts: int = 0
    """times a flow's sender has begun again"""
    corrupt_packets: int = 0
    """a checksum is wrong, or a header contradicts itself; their flow counts them as lost"""
    truncated_packets: int = 0
    """they go on beyond the frame's end"""
    foreign_packets: int = 0
    """intact, and not ours"""
    unknown_flow_packets: int = 0
    """ours, with a flow id beyond the table"""
    unverified_packets: int = 0
    """of ours: without a checksum"""
    csum_partial_packets: int = 0
    """of ours: with an unfinished checksum, as kernels hand packets over within a host"""
    untimed_packets: int = 0
    """of the received: without a time of sending"""
    negative_latency_packets: int = 0
    """of the received: before they were sent; the clocks differ"""
    flow_count: int = 0
    """flows that have been seen"""
    first_ns: int = 0
    """CLOCK_TAI of the first received packet, in ns; 0 if none"""
    last_ns: int = 0
    """of the last one"""
    latency: Latency = Latency()
    """one-way, of all flows"""
    flows: tuple[FlowArrivals, ...] = ()
    """by flow id; empty when they were not asked for"""

    @property
    def duration_s(self) -> float:
        """First received packet to the last, in seconds."""
        return max(self.last_ns - self.first_ns, 0) / 1e9

    @property
    def lost_ratio(self) -> float:
        """Lost, of lost and received; from 0 to 1."""
        return _ratio(self.lost_packets, self.received_packets)

    def as_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return _plain(self) | {"duration_s": self.duration_s, "lost_ratio": self.lost_ratio}


def _ratio(lost: int, received: int) -> float:
    return lost / (lost + received) if lost else 0.0


def _plain(record: Any) -> dict[str, Any]:
    found = {field.name: getattr(record, field.name) for field in fields(record)}
    found["latency"] = record.latency.as_dict()
    if "flows" in found:
        found["flows"] = [flow.as_dict() for flow in record.flows]
    return found


_FLOW_SUMS = (
    "received_packets",
    "received_bytes",
    "duplicate_packets",
    "reordered_packets",
    "late_packets",
    "extent_sum_packets",
    "least_extents",
    "untimed_packets",
    "negative_latency_packets",
    "queues",
)


def merge_flow(parts: Iterable[FlowArrivals]) -> FlowArrivals:
    """One flow as several queues have seen it (see :func:`merge`)."""
    many = list(parts)
    if len(many) == 1:
        return many[0]
    base = many[0].first_sequence

    def distance(sequence: int) -> int:
        return ((sequence - base + (1 << 63)) % _MODULUS) - (1 << 63)

    first = min((one.first_sequence for one in many), key=distance)
    highest = max((one.highest_sequence for one in many), key=distance)
    sums = {name: sum(getattr(one, name) for one in many) for name in _FLOW_SUMS}
    span = (highest - first) % _MODULUS + 1
    return FlowArrivals(
        flow_id=many[0].flow_id,
        lost_packets=max(span - sums["received_packets"], 0),
        extent_max_packets=max(one.extent_max_packets for one in many),
        restarts=max(one.restarts for one in many),
        first_sequence=first,
        highest_sequence=highest,
        jitter_ns=max(one.jitter_ns for one in many),
        latency=merge_latency(one.latency for one in many),
        **sums,
    )


def merge(queues: Iterable[Arrivals]) -> Arrivals:
    """Adds up what several queues have checked. A flow that came through one queue, as NICs spread them by
    addresses and ports, is exact.

    Of a flow that several queues have seen, these are exact: received, bytes, late, untimed, negative
    latency, and the latency histogram. Lost is what is missing between the lowest first and the highest
    sequence: exact without restarts, joining in the middle and copies that came through different queues;
    each such copy counts as received and hides a loss. Duplicates and reordering are what each queue saw by
    itself: a lower bound. Jitter, restarts and the largest extent are the largest of the queues'. The totals'
    lost packets are as exact only where the flows are there, too; without them they are added up.
    """
    many = list(queues)
    if len(many) == 1:
        return many[0]
    by_id: dict[int, list[FlowArrivals]] = {}
    for one in many:
        for flow in one.flows:
            by_id.setdefault(flow.flow_id, []).append(flow)
    flows = tuple(merge_flow(by_id[flow_id]) for flow_id in sorted(by_id))
    apart = ("first_ns", "last_ns", "latency", "flows")
    sums = {
        field.name: sum(getattr(one, field.name) for one in many)
        for field in fields(Arrivals)
        if field.name not in apart
    }
    shared = [(flow, by_id[flow.flow_id]) for flow in flows if len(by_id[flow.flow_id]) > 1]
    for name in ("lost_packets", "restarts"):
        sums[name] += sum(
            getattr(flow, name) - sum(getattr(part, name) for part in parts) for flow, parts in shared
        )
    sums["flow_count"] -= sum(len(parts) - 1 for _, parts in shared)
    return replace(
        Arrivals(**sums),
        first_ns=min((one.first_ns for one in many if one.first_ns), default=0),
        last_ns=max((one.last_ns for one in many), default=0),
        latency=merge_latency(one.latency for one in many),
        flows=flows,
    )

"""Frozen figures of what arrived: counts per flow, latency and jitter. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from xsk_engine import spread

BUCKETS = 656
_EXACT, _PER_POWER = 32, 16


def bucket_top(index: int) -> int:
    """The largest ns that falls into a bucket (native/arrivals.c); the last one takes longer ones, too."""
    if index < _EXACT:
        return index
    power, part = divmod(index - _EXACT, _PER_POWER)
    return ((_PER_POWER + part + 1) << power + 1) - 1


@dataclass(frozen=True)
class Latency:
    """Latencies in ns, one-way or of round trips, in buckets at most a sixteenth wide. Immutable: any thread.

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
        return spread.as_dict(self, ((bucket_top(index), n) for index, n in self.buckets))


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
    """one-way, or of what was sent back, there and back"""

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
    """of all flows"""
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


@dataclass(frozen=True)
class Reflected:
    """What a reflector has sent back. Immutable: any thread."""

    packets: int = 0
    """given to the driver to be sent"""
    bytes: int = 0
    """of them, without FCS"""
    refused_packets: int = 0
    """signed ones that were left to the kernel: multicast, fragments, headers that are not whole"""
    first_ns: int = 0
    """CLOCK_MONOTONIC of the first, 0 if none"""
    last_ns: int = 0
    """and of the last"""

    @property
    def duration_s(self) -> float:
        """First to last, in seconds."""
        return max(self.last_ns - self.first_ns, 0) / 1e9


def _ratio(lost: int, received: int) -> float:
    return lost / (lost + received) if lost else 0.0


def _plain(record: Any) -> dict[str, Any]:
    found = {field.name: getattr(record, field.name) for field in fields(record)}
    found["latency"] = record.latency.as_dict()
    if "flows" in found:
        found["flows"] = [flow.as_dict() for flow in record.flows]
    return found

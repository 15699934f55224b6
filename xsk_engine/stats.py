"""Frozen figures: what the counter pages say, added up over the queues. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


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
class Snapshot:
    """The txqs' figures at one moment; final when taken after the drain. Readable by any thread."""

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

    @property
    def duration_s(self) -> float:
        """First post to last completion, in seconds."""
        if not self.first_post_ns:
            return 0.0
        return max(self.last_completion_ns - self.first_post_ns, 0) / 1e9

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


_LONGEST = ("last_completion_ns", "link_down_ns")


def merge(pages: Iterable[Any]) -> Snapshot:
    """Adds up counter pages (objects with the fields of native Counters)."""
    read = [{name: getattr(page, name) for name in Snapshot.__dataclass_fields__} for page in pages]
    total = {name: sum(page[name] for page in read) for name in Snapshot.__dataclass_fields__}
    for name in _LONGEST:
        total[name] = max((page[name] for page in read), default=0)
    total["first_post_ns"] = min((p["first_post_ns"] for p in read if p["first_post_ns"]), default=0)
    return Snapshot(**total)

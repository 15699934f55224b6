"""The searches of RFC 2544, section 26, over trials that somebody else runs; and what they find. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isqrt
from typing import TypeVar

from xsk_engine.arrivals import Latency

_Value = TypeVar("_Value", int, float)

SIZES = (60, 124, 252, 508, 1020, 1276, 1514)
"""section 9.1: 64, 128, 256, 512, 1024, 1280 and 1518 bytes with the FCS, which is 4 of them"""
TESTS = ("throughput", "latency", "loss", "back-to-back")
RATE_TOLERANCE = 0.01
"""a sender that is slower than asked by more than this part has not made the trial that was asked for"""
_REPEATS = 2
"""of a trial that the sender or the sink has spoilt: it says nothing of what is measured"""
_CURVE_STEPS = 10  # section 26.3: in steps of at most 10 %
_CLEAN_TRIALS = 2  # and until two in a row lose nothing


@dataclass(frozen=True)
class Trial:
    """One trial: what was asked for, and what became of it."""

    number: int
    """its place among the run's trials; the flow id in its packets' signatures"""
    test: str
    size_bytes: int
    """of each frame, without FCS"""
    asked_pps: float | None
    """None: as fast as it goes"""
    achieved_pps: float
    sent_packets: int
    """given to the kernel"""
    received_packets: int
    """intact, and each once"""
    duration_s: float
    """for which packets were sent"""
    overrun_packets: int = 0
    """that reached the sink's host and found no room in the sink's rings: not lost by what is measured"""
    sender_dropped_packets: int = 0
    """that the sender's kernel says it did not send"""
    corrupt_packets: int = 0
    """that came with a wrong checksum: lost, too"""
    duplicate_packets: int = 0
    reordered_packets: int = 0
    late_packets: int = 0
    """behind the sink's window, where duplicates are not told apart: lost, too"""
    jitter_ns: int = 0
    """RFC 3550, 6.4.1"""
    latency: Latency = field(default_factory=Latency)

    @property
    def lost_packets(self) -> int:
        """Sent, and not received intact."""
        return max(self.sent_packets - self.received_packets, 0)

    @property
    def lost_ratio(self) -> float:
        """Of the sent ones; section 26.3."""
        return self.lost_packets / self.sent_packets if self.sent_packets else 0.0

    @property
    def reached(self) -> bool:
        """Did the sender keep the rate that was asked for?"""
        return self.asked_pps is None or self.achieved_pps >= self.asked_pps * (1 - RATE_TOLERANCE)

    def is_lossless(self, allowed: Fraction = Fraction(0)) -> bool:
        """Not more than `allowed` of what was sent is missing, and something was sent."""
        return self.sent_packets > 0 and self.lost_packets <= allowed * self.sent_packets

    def passes(self, allowed: Fraction = Fraction(0)) -> bool:
        """Is this a trial at the rate that was asked for, with no more loss than allowed?"""
        return self.reached and self.is_lossless(allowed)

    def fault(self, allowed: Fraction = Fraction(0)) -> str | None:
        """Whose fault it is that it did not pass: "sender" (the rate was not reached), "sink" (without what
        found no room there, it would have passed), "device" (it lost packets); None: it passed."""
        if self.passes(allowed):
            return None
        if self.is_lossless(allowed) or not self.sent_packets:
            return "sender"
        by_others = self.lost_packets - self.overrun_packets
        return "sink" if by_others <= allowed * self.sent_packets else "device"


@dataclass(frozen=True)
class Throughput:
    """What section 26.1 looks for. ``pps`` 0: no trial has passed, down to the resolution."""

    pps: float
    """the highest rate that passed: asked for, or what was achieved where that is less"""
    passed: Trial | None
    """at that rate"""
    failed: Trial | None
    """the lowest rate above it that did not pass; None: the maximum has passed"""
    limit: str
    """why it is not more: sender, sink or device, or maximum where that has passed"""


@dataclass(frozen=True)
class Burst:
    """What section 26.4 looks for. ``packets`` 0: not even one came through."""

    packets: int
    passed: Trial | None
    failed: Trial | None
    """the shortest longer one that did not pass; None: the longest that was tried has passed"""


@dataclass
class SizeResult:
    """What was found with frames of one length; None or empty: not asked for, or not finished."""

    size_bytes: int
    maximum: Trial | None = None
    """as fast as it goes"""
    most_pps: float = 0.0
    """where the searches begin"""
    throughput: Throughput | None = None
    latency: list[tuple[float, Trial]] = field(default_factory=list)
    """with the percentage of the throughput"""
    loss: list[Trial] = field(default_factory=list)
    back_to_back: Burst | None = None


def _try(trial: Callable[[_Value], Trial], value: _Value, allowed: Fraction = Fraction(0)) -> Trial:
    """Once; again, where sender or sink were at fault."""
    one = trial(value)
    for _ in range(_REPEATS):
        if one.fault(allowed) not in ("sender", "sink"):
            break
        one = trial(value)
    return one


def search_throughput(
    trial: Callable[[float], Trial], most_pps: float, *, allowed: Fraction, resolution: float
) -> Throughput:
    """Section 26.1 by bisection: begins with the maximum, ends when the highest rate that passed and the
    lowest that did not are not further apart than `resolution` (a part of the maximum). A rate that the
    sender could not keep has not passed. ValueError."""
    _check(most_pps, resolution)
    failed = _try(trial, most_pps, allowed)
    if failed.passes(allowed):
        return Throughput(_carried(failed), failed, None, "maximum")
    low, high = 0.0, most_pps
    passed: Trial | None = None
    while high - low > resolution * most_pps:
        middle = (low + high) / 2
        one = _try(trial, middle, allowed)
        if one.passes(allowed):
            passed, low = one, middle
        else:
            failed, high = one, middle
    found = _carried(passed) if passed is not None else 0.0
    return Throughput(found, passed, failed, failed.fault(allowed) or "device")


def _carried(passed: Trial) -> float:
    return passed.achieved_pps if passed.asked_pps is None else min(passed.asked_pps, passed.achieved_pps)


def search_burst(trial: Callable[[int], Trial], most_packets: int, *, resolution: float) -> Burst:
    """Section 26.4: the longest burst at full speed of which nothing is lost. By bisection of its logarithm,
    because it may be ten packets or a million; ends when both ends are a packet or `resolution` (a part of
    the length) apart. ValueError."""
    _check(most_packets, resolution)
    failed = _try(trial, most_packets)
    if failed.passes():
        return Burst(most_packets, failed, None)
    low, high = 0, most_packets
    passed: Trial | None = None
    while high - low > max(1, resolution * low):
        middle = min(max(isqrt(max(low, 1) * high), low + 1), high - 1)
        one = _try(trial, middle)
        if one.passes():
            passed, low = one, middle
        else:
            failed, high = one, middle
    return Burst(low, passed, failed)


def loss_curve(trial: Callable[[float], Trial], most_pps: float, found: list[Trial]) -> None:
    """Section 26.3: from the maximum down in steps of a tenth of it, until two in a row, at rates that the
    sender kept, have lost nothing. Into `found`, as they come."""
    _check(most_pps, 1.0)
    clean = 0
    for tenths in range(_CURVE_STEPS, 0, -1):
        one = _try(trial, most_pps * tenths / _CURVE_STEPS)
        found.append(one)
        clean = clean + 1 if one.passes() else 0
        if clean == _CLEAN_TRIALS:
            return


def _check(most: float, resolution: float) -> None:
    if not most > 0:
        raise ValueError(f"maximum: {most} is not above 0")
    if not 0 < resolution <= 1:
        raise ValueError(f"resolution: {resolution} is not a part, above 0 and up to 1")


def fitting_sizes(asked: Sequence[int], least: int, most: int) -> tuple[list[int], list[str]]:
    """Those lengths that can be sent, ascending, and what must be said about the others. ValueError when
    none is left."""
    sizes: set[int] = set()
    said: list[str] = []
    for size in sorted(set(asked)):
        if size > most:
            said.append(f"{size} bytes are left out: the MTU allows frames of {most}")
            continue
        if size < least:
            said.append(f"{size} bytes became {least}: headers and signature need them")
        sizes.add(max(size, least))
    if not sizes:
        raise ValueError(f"size: {', '.join(map(str, asked))}: the MTU allows frames of {most} bytes")
    return sorted(sizes), said

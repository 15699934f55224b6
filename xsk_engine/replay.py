"""The packets of a capture file as traffic: what to send again, how often and how fast. Data only;
:mod:`.trace` brings it into the umem. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from xsk_engine.edits import Edit
from xsk_engine.flow import DEFAULT_BATCH, Pace
from xsk_engine.mixprogram import MixProgram, PaceProgram, pace_program
from xsk_engine.units import Rate

OVERSIZE = ("refuse", "skip", "truncate")
"""native enum xske_oversize"""
_MOST_SPEED = 10**6
_FINEST_SPEED = 10**9


@dataclass(frozen=True)
class Replay:
    """``path``: pcap or pcapng, also compressed by gzip, bzip2 or xz; ``-`` is stdin.

    Recorded gaps at ``speed`` (2: twice as fast); None: at ``rate``, or without one as fast as it goes.
    ``loops`` passes over the file (None: without end), the first ``limit`` packets of it. ``oversize``: what
    to do with packets longer than the interface takes. ``stream``: do not keep the packets in the umem.
    ``fd``: the file, open for reading (pcapfile.opened), for who may not open it any more when it is read.
    """

    path: str
    speed: Fraction | None = Fraction(1)
    rate: Rate | None = None
    loops: int | None = 1
    limit: int | None = None
    edits: tuple[Edit, ...] = ()
    oversize: str = "refuse"
    fix_checksums: bool = False
    max_gap_s: Fraction | None = None
    duration_s: float | None = None
    batch: int = DEFAULT_BATCH
    stream: bool = False
    fd: int | None = None

    def __post_init__(self) -> None:
        if self.speed is not None and not Fraction(1, _MOST_SPEED) <= self.speed <= _MOST_SPEED:
            raise ValueError(f"speed: {float(self.speed):g} is not in 0.000001 to {_MOST_SPEED}")
        if self.speed is not None and self.speed.denominator > _FINEST_SPEED:
            raise ValueError(f"speed: {self.speed} cannot be counted exactly; use a rounder number")
        if self.speed is not None and self.rate is not None:
            raise ValueError("speed: the recorded gaps, or a rate; not both")
        if self.loops is not None and self.loops < 1:
            raise ValueError(f"loop: {self.loops} is not 1 or more")
        if self.oversize not in OVERSIZE:
            raise ValueError(f"oversize: {self.oversize!r} is not one of {', '.join(OVERSIZE)}")


def _counted(text: str) -> int:
    """A figure that begins at 0, and what it means."""
    return field(default=0, metadata={"text": text})


@dataclass(frozen=True)
class TraceSummary:
    """What a file holds, as it would be sent. The fields' ``metadata["text"]`` says what each one is."""

    packets: int = _counted("that can be sent; of a stream over all passes")
    bytes: int = _counted("of them, frames without FCS")
    wire_bytes: int = _counted("with FCS, preamble and gap, padded to 60")
    longest_bytes: int = _counted("the longest frame, also of those that are too long")
    oversize_packets: int = _counted(
        "longer than the interface takes: refused, skipped or truncated as asked"
    )
    edited_packets: int = _counted("that --edit, --map-mac or --fix-checksums have changed")
    snapped_packets: int = _counted("sent as far as the file has them: recorded with a snap length")
    short_packets: int = _counted("skipped: no Ethernet header")
    backward_packets: int = _counted("older than the one before: sent right behind it")
    long_gaps: int = _counted("gaps that were shortened")
    gaps_ns: int = _counted("between them, as they are kept")
    first_ns: int = _counted("time of the first packet")
    last_ns: int = _counted("time of the last packet")
    chunks: int = _counted("that they fill in a umem")
    refused: int = _counted("1: a packet was too long, and that ended it")
    damage: str = field(
        default="", metadata={"text": "why it could not be read on; what stands before that is sent"}
    )


def asked_pps(replay: Replay, summary: TraceSummary) -> float | None:
    """Packets per second on average; None for as fast as it goes, or where the file is not known yet."""
    if replay.rate is not None:
        size = summary.wire_bytes if replay.rate.unit == "bps_l1" else summary.bytes
        mean = size / summary.packets if summary.packets else 0
        return replay.rate.pps(mean) if mean or replay.rate.unit == "pps" else None
    if replay.speed is None or not summary.gaps_ns:
        return None
    return (summary.packets - 1) / summary.gaps_ns * 1e9 * float(replay.speed)


def program(replay: Replay) -> MixProgram:
    """What the loop does with the trace, which itself knows its end."""
    if replay.speed is not None:
        pace = PaceProgram(replay.speed.numerator, replay.speed.denominator, recorded=True)
    else:
        pace = pace_program(Pace(replay.rate), 1.0, 0, 1, 0)
    return MixProgram(
        (),
        (),
        pace,
        duration_ns=None if replay.duration_s is None else max(round(replay.duration_s * 1e9), 1),
        batch=replay.batch,
        members=(0,),
    )

"""A flow is data: a template, a few fields that change, a pace. Compiled here, run in native/. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

DEFAULT_BATCH = 64
MAX_BATCH = 4096
_U64 = (1 << 64) - 1


@dataclass(frozen=True)
class Patch:
    """A field that changes from packet to packet: ``base + step * (sequence % modulo)``.

    Written big-endian, ``width`` (1, 2, 4, 8) bytes at ``offset`` of the frame; ``modulo`` 0 never wraps.
    ``csum_offset``: an Internet checksum to keep right, 0 for none; ``csum_udp``: a sum of 0 becomes
    0xffff.
    """

    offset: int
    width: int
    base: int = 0
    step: int = 1
    modulo: int = 0
    csum_offset: int = 0
    csum_udp: bool = False


@dataclass(frozen=True)
class Flow:
    """What to send: the template ``frame`` (bytes without FCS), ``count`` packets or for ``duration_s``
    seconds, whichever ends first (None: no limit), at ``rate`` packets per second (None: as fast as it
    goes), at most ``batch`` packets per loop turn and ``quota_frags`` descs inflight (0: the ring's size).
    """

    frame: bytes
    patches: Sequence[Patch] = ()
    count: int | None = None
    duration_s: float | None = None
    rate: Fraction | None = None
    batch: int = DEFAULT_BATCH
    quota_frags: int = 0


@dataclass(frozen=True)
class FlowProgram:
    """A flow as one txq runs it; the fields of native struct xske_flow_config."""

    frame: bytes
    patches: tuple[Patch, ...] = field(default=())
    count: int | None = None
    duration_ns: int | None = None
    rate_packets: int = 0
    rate_period_ns: int = 0
    first_sequence: int = 0
    quota_frags: int = 0
    batch: int = DEFAULT_BATCH


def compile_flow(flow: Flow, txqs: int) -> list[FlowProgram | None]:
    """One program per txq: count and rate are totals and are divided. None where nothing is left to do.

    ValueError for a batch outside 1 to 4096, a rate outside what the pacer can count, an empty frame.
    """
    if not flow.frame:
        raise ValueError("flow: the frame is empty")
    if not 1 <= flow.batch <= MAX_BATCH:
        raise ValueError(f"batch: {flow.batch} is not in 1 to {MAX_BATCH}")
    program = FlowProgram(
        frame=flow.frame,
        patches=tuple(flow.patches),
        duration_ns=round(flow.duration_s * 1e9) if flow.duration_s else None,
        quota_frags=flow.quota_frags,
        batch=flow.batch,
    )
    if flow.rate is not None:
        # packets / period_ns as whole numbers, exact.
        per_ns = Fraction(flow.rate) / 10**9 / txqs
        if max(per_ns.numerator, per_ns.denominator) > _U64:
            raise ValueError(f"rate: {flow.rate} packets per second cannot be counted exactly")
        program = replace(program, rate_packets=per_ns.numerator, rate_period_ns=per_ns.denominator)
    if flow.count is None:
        return [program] * txqs
    programs: list[FlowProgram | None] = []
    first = 0
    for i in range(txqs):
        share = flow.count // txqs + (i < flow.count % txqs)
        programs.append(replace(program, count=share, first_sequence=first) if share else None)
        first += share
    return programs

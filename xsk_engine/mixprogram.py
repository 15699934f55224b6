"""Flows that run together: which share a pace, in which order, and what of it each txq does. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from xsk_engine import sizes as sizes_of
from xsk_engine.flow import MAX_BATCH, MAX_FLOWS, Flow, Pace, Traffic
from xsk_engine.flowprogram import FlowProgram, compile_flow, key
from xsk_engine.sizes import Sizes

_U64 = (1 << 64) - 1
_TEMPLATE_LENGTHS = 2048
"""most lengths of a flow that have a template each; beyond it packets are copied"""
_WIRE_OVERHEAD, _WIRE_MIN = 24, 60
_FINE_UNITS = 1 << 16
"""parts of a packet or bit that gaps are counted in, where they are no whole number of them"""


@dataclass(frozen=True)
class PaceProgram:
    """native struct xske_pace_config."""

    rate_units: int = 0
    period_ns: int = 0
    packet_units: int = 0
    byte_units: int = 0
    first_units: int = 0
    burst_gap_units: int = 0
    key: int = 0
    overhead_bytes: int = 0
    min_bytes: int = 0
    burst: int = 0
    poisson: bool = False
    recorded: bool = False


@dataclass(frozen=True)
class MixProgram:
    """Flows that share a pace, or none: a trace; native struct xske_mix_config."""

    flows: tuple[FlowProgram, ...]
    order: tuple[int, ...]
    pace: PaceProgram = field(default_factory=PaceProgram)
    count: int | None = None
    duration_ns: int | None = None
    quota_frags: int = 0
    batch: int = 64
    queue: int = 0
    queues: int = 1
    members: tuple[int, ...] = ()
    """which flows of the traffic they are"""
    asked_pps: float | None = None
    """of all queues together; None: as fast as it goes"""
    shared: bool = True
    """its flows have no rate of their own"""


def _mean_bytes(pace: Pace, flows: Sequence[FlowProgram], order: Sequence[int]) -> float:
    """Of a packet, at the layer that the rate speaks of."""
    layer1 = pace.rate is not None and pace.rate.unit == "bps_l1"
    by_flow = [_mean_wire(flow.sizes) if layer1 else flow.sizes.mean for flow in flows]
    return sum(by_flow[i] for i in order) / len(order)


def _mean_pps(pace: Pace, mean_bytes: float) -> float | None:
    pps = pace.rate.pps(mean_bytes) if pace.rate else None
    if pace.burst_gap_s is not None:
        between = float(pace.burst_gap_s) + ((pace.burst - 1) / pps if pps else 0)
        return pace.burst / between
    return pps


def _mean_wire(sizes: Sizes) -> float:
    return sum(max(sizes.distinct[i], _WIRE_MIN) + _WIRE_OVERHEAD for i in sizes.order) / len(sizes.order)


def pace_program(pace: Pace, mean_bytes: float, queue: int, queues: int, seed: int) -> PaceProgram:
    """Each of `queues` txqs pays for all of them, so each goes at its part of the rate, one behind the
    other."""
    if pace.rate is None and pace.burst_gap_s is None:
        return PaceProgram()
    if pace.rate is None:  # a unit is a nanosecond
        assert pace.burst_gap_s is not None
        gap = round(pace.burst_gap_s * 10**9)
        return _checked(
            PaceProgram(1, 1, burst=pace.burst, burst_gap_units=gap * queues, first_units=gap * queue)
        )
    scale = _FINE_UNITS if pace.poisson or pace.burst_gap_s is not None else 1
    per_ns = pace.rate.value / 10**9
    layer1 = pace.rate.unit == "bps_l1"
    in_bits = pace.rate.unit != "pps"
    mean = round(8 * mean_bytes * scale) if in_bits else scale
    gap = round(pace.burst_gap_s * pace.rate.value * scale) if pace.burst_gap_s is not None else 0
    turn = mean * (pace.burst - 1) + gap if gap else mean * max(pace.burst, 1)
    return _checked(
        PaceProgram(
            per_ns.numerator * scale,
            per_ns.denominator,
            packet_units=0 if in_bits else scale * queues,
            byte_units=8 * scale * queues if in_bits else 0,
            overhead_bytes=_WIRE_OVERHEAD if layer1 else 0,
            min_bytes=_WIRE_MIN if layer1 else 0,
            first_units=turn * queue,
            burst=pace.burst,
            burst_gap_units=max(gap, 1) * queues if pace.burst_gap_s is not None else 0,
            poisson=pace.poisson,
            key=key(seed, queue),
        )
    )


def repaced(program: MixProgram, pace: Pace, seed: int) -> PaceProgram:
    """Another pace for its flows, on its queue."""
    mean = _mean_bytes(pace, program.flows, program.order)
    return pace_program(pace, mean, program.queue, program.queues, seed)


def _checked(pace: PaceProgram) -> PaceProgram:
    """Its numbers fit, and so do sums of many of them."""
    if max(pace.rate_units, pace.period_ns) > _U64:
        raise ValueError("rate: it cannot be counted exactly; use a rounder one")
    if max(pace.burst_gap_units, pace.first_units) > _U64 >> 8:
        raise ValueError("burst-gap: it is too long at this rate")
    return pace


def _share(count: int, block: int, queue: int, queues: int) -> int:
    """How many of `count` packets are in the blocks queue, queue + queues, ..."""
    whole, rest = divmod(count, block)
    blocks = whole // queues + (queue < whole % queues)
    return blocks * block + (rest if whole % queues == queue else 0)


def _mixes(traffic: Traffic) -> list[tuple[list[int], Pace, int | None]]:
    """Which flows share a pace: their indexes, the pace, the count."""
    flows = traffic.all_flows
    shared = [i for i, flow in enumerate(flows) if flow.pace is None]
    alone = [(i, flow.pace, flow.count) for i, flow in enumerate(flows) if flow.pace is not None]
    if any(flow.count is not None for flow in flows if flow.pace is None):
        raise ValueError(
            "count: a flow counts its own packets when it has a pace of its own; Traffic counts all"
        )
    endless = [i for i, _, count in alone if count is None]
    if traffic.count is not None and endless:
        raise ValueError(
            f"count: {_called(flows[endless[0]], endless[0])} has a rate of its own; give it a count too"
        )
    if not shared and (traffic.rate is not None and traffic.pace != Pace()):
        raise ValueError("rate: every flow has a rate of its own; there is none to share this one")
    mixes = [(shared, traffic.pace, traffic.count)] if shared else []
    return mixes + [([i], pace, count) for i, pace, count in alone]


def compile_traffic(
    traffic: Traffic,
    txqs: int = 1,
    *,
    template_budget: int | None = None,
    chunk_size: int = 4096,
    metadata_len: int = 0,
) -> list[list[MixProgram]]:
    """The programs of each txq; an empty list where nothing is left to do.

    `template_budget`: bytes of a umem of such chunks that templates may take in each txq; flows beyond it
    are copied for every packet. ValueError says what cannot be.
    """
    flows = traffic.all_flows
    if not 1 <= len(flows) <= MAX_FLOWS:
        raise ValueError(f"flows: {len(flows)}; 1 to {MAX_FLOWS} are possible")
    if not 1 <= traffic.batch <= MAX_BATCH:
        raise ValueError(f"batch: {traffic.batch} is not in 1 to {MAX_BATCH}")
    programs = _within_budget(
        [_compile_named(flow, i, len(flows), traffic) for i, flow in enumerate(flows)],
        template_budget,
        chunk_size,
        metadata_len,
    )
    duration_ns = None if traffic.duration_s is None else max(round(traffic.duration_s * 1e9), 1)
    result: list[list[MixProgram]] = [[] for _ in range(txqs)]
    for number, (members, pace, count) in enumerate(_mixes(traffic)):
        mine = tuple(programs[i] for i in members)
        weights = [flow.weight for flow in mine]
        divisor = math.gcd(*weights)
        mine = tuple(replace(flow, weight=flow.weight // divisor) for flow in mine)
        if sum(weights) // divisor > 1 << 22:
            raise ValueError(f"weights: together {sum(weights) // divisor}; at most {1 << 22} are possible")
        order = sizes_of.in_turn([weight // divisor for weight in weights])
        mean = _mean_bytes(pace, mine, order)
        for queue in range(txqs):
            share = None if count is None else _share(count, len(order), queue, txqs)
            if share == 0:
                continue
            result[queue].append(
                MixProgram(
                    mine,
                    order,
                    pace_program(pace, mean, queue, txqs, key(traffic.seed, number, "pace")),
                    count=share,
                    duration_ns=duration_ns,
                    quota_frags=traffic.quota_frags,
                    batch=traffic.batch,
                    queue=queue,
                    queues=txqs,
                    members=tuple(members),
                    asked_pps=_mean_pps(pace, mean),
                    shared=flows[members[0]].pace is None,
                )
            )
    return result


def _compile_named(flow: Flow, flow_id: int, flows: int, traffic: Traffic) -> FlowProgram:
    try:
        return compile_flow(flow, flow_id=flow_id, seed=traffic.seed, timestamps=traffic.timestamps)
    except ValueError as error:
        if flows == 1:
            raise
        raise ValueError(f"{_called(flow, flow_id)}: {error}") from None


def _called(flow: Flow, flow_id: int) -> str:
    return f"flow {flow_id} ({flow.name})" if flow.name else f"flow {flow_id}"


def _within_budget(
    programs: list[FlowProgram], budget: int | None, chunk_size: int, metadata_len: int
) -> list[FlowProgram]:
    left = budget
    for i, program in enumerate(programs):
        if not program.still:
            continue
        needed = program.umem_bytes(chunk_size, metadata_len)
        if len(program.sizes.distinct) > _TEMPLATE_LENGTHS or (left is not None and needed > left):
            programs[i] = replace(program, still=False)
        elif left is not None:
            left -= needed
    return programs

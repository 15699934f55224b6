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
_POISSON_UNITS = 1 << 16


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


@dataclass(frozen=True)
class MixProgram:
    """Flows that share a pace; native struct xske_mix_config."""

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


def _mean_pps(pace: Pace, flows: Sequence[FlowProgram], order: Sequence[int]) -> float | None:
    mean = sum(flows[i].sizes.mean for i in order) / len(order)
    wire = sum(_mean_wire(flows[i].sizes) for i in order) / len(order)
    pps = pace.rate.pps(mean, wire) if pace.rate else None
    if pace.burst_gap_s is not None:
        between = float(pace.burst_gap_s) + ((pace.burst - 1) / pps if pps else 0)
        return pace.burst / between
    return pps


def _mean_wire(sizes: Sizes) -> float:
    return sum(max(sizes.distinct[i], _WIRE_MIN) + _WIRE_OVERHEAD for i in sizes.order) / len(sizes.order)


def _pace_program(pace: Pace, queue: int, queues: int, seed: int) -> PaceProgram:
    """Each of `queues` txqs pays for all of them, so each goes at its part of the rate, one behind the
    other."""
    if pace.rate is None and pace.burst_gap_s is None:
        return PaceProgram()
    if pace.rate is None:  # a unit is a nanosecond
        assert pace.burst_gap_s is not None
        gap = round(pace.burst_gap_s * 10**9) * queues
        return PaceProgram(1, 1, burst=pace.burst, burst_gap_units=gap, first_units=gap // queues * queue)
    scale = _POISSON_UNITS if pace.poisson else 1
    per_ns = pace.rate.value / 10**9
    rate_units, period_ns = per_ns.numerator * scale, per_ns.denominator
    if max(rate_units, period_ns) > _U64:
        raise ValueError(f"rate: {pace.rate} cannot be counted exactly")
    cost: dict[str, int] = {"packet_units": scale * queues}
    if pace.rate.unit != "pps":
        layer1 = pace.rate.unit == "bps_l1"
        cost = {
            "byte_units": 8 * scale * queues,
            "overhead_bytes": _WIRE_OVERHEAD if layer1 else 0,
            "min_bytes": _WIRE_MIN if layer1 else 0,
        }
    gap = round(pace.burst_gap_s * pace.rate.value) * queues if pace.burst_gap_s is not None else 0
    first = scale * queue if pace.rate.unit == "pps" else 0
    return PaceProgram(
        rate_units,
        period_ns,
        first_units=first,
        burst=pace.burst,
        burst_gap_units=gap,
        poisson=pace.poisson,
        key=key(seed, queue),
        **cost,
    )


def _share(count: int, block: int, queue: int, queues: int) -> int:
    """How many of `count` packets are in the blocks queue, queue + queues, ..."""
    whole, rest = divmod(count, block)
    blocks = whole // queues + (queue < whole % queues)
    return blocks * block + (rest if whole % queues == queue else 0)


def _mixes(traffic: Traffic) -> list[tuple[list[int], Pace, int | None]]:
    """Which flows share a pace: their indexes, the pace, the count."""
    flows = traffic.all_flows
    shared = [i for i, flow in enumerate(flows) if flow.pace is None]
    alone = [i for i, flow in enumerate(flows) if flow.pace is not None]
    mixes = [(shared, traffic.pace, traffic.count)] if shared else []
    for i in alone:
        pace = flows[i].pace
        assert pace is not None
        mixes.append(([i], pace, flows[i].count))
    if shared:
        return mixes
    if traffic.count is not None and any(flows[i].count is None for i in alone):
        raise ValueError("count: every flow has a rate of its own; give each its own count, or a duration")
    return mixes


def compile_traffic(
    traffic: Traffic, txqs: int = 1, *, template_budget: int | None = None
) -> list[list[MixProgram]]:
    """The programs of each txq; an empty list where nothing is left to do.

    `template_budget`: bytes of umem that templates may take in each txq; flows beyond it are copied for every
    packet. ValueError says what cannot be.
    """
    flows = traffic.all_flows
    if not 1 <= len(flows) <= MAX_FLOWS:
        raise ValueError(f"flows: {len(flows)}; 1 to {MAX_FLOWS} are possible")
    if not 1 <= traffic.batch <= MAX_BATCH:
        raise ValueError(f"batch: {traffic.batch} is not in 1 to {MAX_BATCH}")
    programs = _within_budget(
        [_compile_named(flow, i, len(flows), traffic) for i, flow in enumerate(flows)], template_budget
    )
    result: list[list[MixProgram]] = [[] for _ in range(txqs)]
    for number, (members, pace, count) in enumerate(_mixes(traffic)):
        mine = tuple(programs[i] for i in members)
        weights = [flow.weight for flow in mine]
        divisor = math.gcd(*weights)
        mine = tuple(replace(flow, weight=flow.weight // divisor) for flow in mine)
        if sum(weights) // divisor > 1 << 22:
            raise ValueError(f"weights: together {sum(weights) // divisor}; at most {1 << 22} are possible")
        order = sizes_of.in_turn([weight // divisor for weight in weights])
        for queue in range(txqs):
            share = None if count is None else _share(count, len(order), queue, txqs)
            if share == 0:
                continue
            result[queue].append(
                MixProgram(
                    mine,
                    order,
                    _pace_program(pace, queue, txqs, key(traffic.seed, number, "pace")),
                    count=share,
                    duration_ns=round(traffic.duration_s * 1e9) if traffic.duration_s else None,
                    quota_frags=traffic.quota_frags,
                    batch=traffic.batch,
                    queue=queue,
                    queues=txqs,
                    members=tuple(members),
                    asked_pps=_mean_pps(pace, mine, order),
                )
            )
    return result


def _compile_named(flow: Flow, flow_id: int, flows: int, traffic: Traffic) -> FlowProgram:
    try:
        return compile_flow(flow, flow_id=flow_id, seed=traffic.seed, timestamps=traffic.timestamps)
    except ValueError as error:
        if flows == 1:
            raise
        raise ValueError(f"flow {flow_id}: {error}") from None


def _within_budget(programs: list[FlowProgram], budget: int | None) -> list[FlowProgram]:
    left = budget
    for i, program in enumerate(programs):
        if not program.still:
            continue
        if len(program.sizes.distinct) > _TEMPLATE_LENGTHS or (
            left is not None and program.template_bytes > left
        ):
            programs[i] = replace(program, still=False)
        elif left is not None:
            left -= program.template_bytes
    return programs


def longest_frame(traffic: Traffic) -> int:
    """Bytes of the longest packet. ValueError as compile_traffic."""
    mixes = compile_traffic(traffic)[0]
    return max(flow.sizes.longest for mix in mixes for flow in mix.flows)

"""What is about to run, as a summary and a watcher need to know it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xsk_engine.dissect import in_words
from xsk_engine.figures import FlowFacts
from xsk_engine.flow import Traffic
from xsk_engine.flowprogram import FlowProgram
from xsk_engine.mixprogram import MixProgram, compile_traffic
from xsk_engine.replay import Replay, TraceSummary, asked_pps

_DESCRIBED = 64
"""flows whose packets are put into words: more than anybody sees at once"""


@dataclass(frozen=True)
class Plan:
    """``rate_text``: the rate as the user wrote it. ``packets`` and ``duration_s``: where it ends, None: not
    there."""

    traffic: Traffic | Replay
    rate_text: str
    asked_pps: float | None
    flows: tuple[FlowFacts, ...]
    packets: int | None = None
    duration_s: float | None = None


def _describe(flow: FlowProgram) -> str:
    """Where its packets go: ``ipv4 10.77.0.2 / udp 9000``."""
    first, _, rest = in_words(flow.frame).partition(" / ")
    layers = [part.split() for part in (rest or first).split(" / ")]
    return " / ".join(" ".join([name, *_where_to(name, words)]) for name, *words in layers)


def _where_to(layer: str, words: Sequence[str]) -> list[str]:
    """The values of the fields that say it; what is no field stays."""
    telling = ("dst", "tpa", "vni", "label") + (("id",) if layer in ("vlan", "qinq") else ())
    pairs = [word.partition("=") for word in words]
    return [value or name for name, equals, value in pairs if not equals or name in telling]


def _share(mix: MixProgram, index: int) -> float | None:
    """What one of its flows gets of a mix's rate."""
    if mix.asked_pps is None:
        return None
    return mix.asked_pps * mix.flows[index].weight / sum(flow.weight for flow in mix.flows)


def plan_traffic(traffic: Traffic, mixes: Sequence[MixProgram] | None = None) -> Plan:
    """``mixes``: its programs for one queue, if there are any yet. ValueError for flows that cannot be."""
    if mixes is None:
        mixes = compile_traffic(traffic)[0]
    flows = traffic.all_flows
    facts: dict[int, FlowFacts] = {}
    for mix in mixes:
        for index, member in enumerate(mix.members):
            words = _describe(mix.flows[index]) if member < _DESCRIBED else ""
            facts[member] = FlowFacts(flows[member].name, words, _share(mix, index))
    rates = [mix.asked_pps for mix in mixes]
    counts = [mix.count for mix in mixes]
    own = sum(flow.pace is not None for flow in flows)
    shared = f"{traffic.pace.rate or 'max'}" + (", others of their own" if own else "")
    return Plan(
        traffic,
        "each flow's own" if own == len(flows) else shared,
        None if None in rates else sum(filter(None, rates)),
        tuple(facts[i] for i in range(len(flows))),
        None if None in counts else sum(filter(None, counts)),
        traffic.duration_s,
    )


def plan_replay(replay: Replay, summary: TraceSummary) -> Plan:
    """``summary`` of one pass, or an empty one."""
    text = str(replay.rate or "max") if replay.speed is None else f"{float(replay.speed):g}x"
    asked = asked_pps(replay, summary)
    packets = summary.packets * replay.loops if replay.loops is not None and summary.packets else None
    name = replay.path.rpartition("/")[2]
    return Plan(replay, text, asked, (FlowFacts(name, replay.path, asked),), packets, replay.duration_s)

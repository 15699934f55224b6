"""What a packet of TCP costs its sender in zero-copy, beside the kernel's TCP; and where that is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench import machine
from bench.blocks import ELSEWHERE
from bench.experiment import Experiment, Outcome, Plan
from bench.figures import rounded, spread
from bench.machine import COUNTED, TRACED, Measured, per_1000
from bench.names import (
    ENGINE_TCP,
    ENGINE_TCP_IN_PLACE,
    LENT_TSO_OFF,
    LENT_TSO_ON,
    TSO_OFF,
    TSO_ON,
)
from bench.ratios import Target
from bench.result import Case
from bench.scene import Scene

GUEST = "bench.instructions_guest"
CASES = {"GRO at the receiver": True, "no GRO at the receiver": False}
# Of all instructions, the kernel's and the user's: of the kernel that segments itself, and of the NIC's TSO.
TARGET, TSO_TARGET = Target(0.15, at_least=False), Target(1.0, at_least=False, required=False)
RIVALS = {
    ENGINE_TCP: {TSO_OFF: TARGET, TSO_ON: TSO_TARGET},
    ENGINE_TCP_IN_PLACE: {LENT_TSO_OFF: TARGET, LENT_TSO_ON: TSO_TARGET},
}
"""ours, theirs: who writes, and whose application copies nothing"""
FIGURES = (*COUNTED, per_1000("acks", None))
OTHERS = "scheduler, timers, memory"
# Kernel functions by name: the first that matches.
GROUPS = {
    "DMA and IOMMU": "dma|iommu|iova|qi_|cache_tag|vtdss|map_range|make_range|range_pending|clflush"
    "|pt_compute",
    "receiving, steering": "rx_irq|rx_buffers|bpf_prog|htab|nulls|xdp|xsk_map|xsk_rcv|xsk_flush|xp_alloc",
    "sending: igb, AF_XDP": "igb_xmit_zc|igb_poll|xsk_tx|tx_peek|xp_raw|set_tx_need|xsk_cq|dql_",
    "TCP, IP and packets": "tcp|skb|ip_|inet|igb_xmit|igb_tx|xmit|gso|sk_|csum|napi_|net_rx|neigh",
    "system calls": "SYSCALL|syscall|sys_|sysret|sock|poll|fdget|fput|security|apparmor|aa_|tomoyo|xsk"
    "|eventfd",
}
# Of the engine's user instructions, those of the application's thread, and of the library in it.
APPLICATION = re.compile(
    r"xske_tcp_(write|alloc|submit|info)|xske_arena_(enter|leave)|arena_open_chunk|enter$|hand_over|submit"
    r"|send_(all|some)|write_round|acked_bytes|copy_blocks|alloc$|nap|csum_(copy|long)|sum_\w+"
    r"|libtcp_writer|" + ELSEWHERE
)
_LEAST = 1.0
"""instructions per packet of a function that is named in the result"""
_COUNTS = ("packets", "seconds", "kicks", "again", "timeouts", "copied", "rtt_ms")
"""of a run, for the details"""


def parts(functions: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Instructions by part: GROUPS, OTHERS, and the user's in two. Pure, as all of these."""
    found = dict.fromkeys((*GROUPS, OTHERS, "user: the loop", "user: the application"), 0.0)
    for name, n in functions["kernel"].items():
        group = next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), OTHERS)
        found[group] += n
    for name, n in functions["user"].items():
        found["user: the application" if APPLICATION.match(name) else "user: the loop"] += n
    return found


def where(measured: Sequence[Measured]) -> dict[str, Any]:
    """By arm, of the last round: instructions per packet by part, and by function."""
    found = {}
    for one in measured:
        if functions := one.get("functions"):
            per_packet = {
                room: {name: n / one["packets"] for name, n in by.items()} for room, by in functions.items()
            }
            found[one["arm"]] = {
                "parts": {name: round(n, 1) for name, n in parts(per_packet).items()},
                "functions": {
                    room: {name: round(n, 1) for name, n in by.items() if n >= _LEAST}
                    for room, by in per_packet.items()
                },
            }
    return found


def runs(measured: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    """By arm: what else was counted of a run, over the counted rounds."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in measured:
        for name in _COUNTS:
            if not one["traced"] and name in one:
                found.setdefault(one["arm"], {}).setdefault(name, []).append(one[name])
    return {arm: {name: spread(values) for name, values in of.items()} for arm, of in found.items()}


def idle_share(of: Mapping[str, Mapping[str, Any]], idle: Measured) -> dict[str, float]:
    """Instructions per packet that the sender's CPU would have executed without sending, at most, of what
    runs() says: `seconds` are those of a whole run, with the opening of its connection."""
    per_second = idle["instructions"] / idle["seconds"]
    return {
        arm: rounded(per_second * run["seconds"]["median"] / run["packets"]["median"])
        for arm, run in of.items()
    }


def case_of(name: str, measured: Sequence[Measured]) -> Case:
    case = machine.case_of(name, measured, FIGURES)
    for ours, rivals in RIVALS.items():
        for theirs, target in rivals.items():
            case.compare(ours, theirs, COUNTED[0], target)
    return case


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(5, 1)
    scene.watch.look()
    *measured, idle = machine.run("strict", machine.build_plugin(), GUEST, rounds, plan.arms)
    scene.watch.look()
    cases: list[Case] = []
    details: dict[str, Any] = {}
    for name, gro in CASES.items():
        of = [one for one in measured if one["gro"] == gro]
        cases.append(case_of(name, of))
        counted = runs(of)
        details[name] = {
            "where": where(of),
            "runs": counted,
            "instructions_of_an_idle_machine_at_most": idle_share(counted, idle),
        }
    opened = {one["arm"]: one["open"] for one in measured if "open" in one}
    details |= {"frame_bytes": 1514, "maps_when_it_opens": opened}
    return Outcome(cases, rounds, machine.versions(), details)


EXPERIMENT = Experiment(
    name="instructions",
    title="What a packet of TCP costs its sender",
    question="How many instructions and IOMMU maps does a packet of TCP cost its sender on a NIC behind an "
    "IOMMU?",
    held_equal="two emulated igb, IOMMU strict, packets of 1514 bytes to a socket of the kernel's, writes of "
    "128 KiB until all is acknowledged; sender, application and its NIC's interrupts have one CPU, which is "
    "counted, and the receiver the other",
    not_claimed="that instructions are time, or that the same work is done: the engine computes checksums, "
    "which the NIC does for the kernel, and the kernel's copy is one instruction, `rep movs`, where ours is "
    "counted in full",
    counted_by="a plugin of QEMU, for all that the sender's CPU executes between two marks, ACKs and idling "
    "among it; maps by the kernel's tracepoints, in a round of their own",
    figures=(*FIGURES, *TRACED),
    measure=measure,
    laboratories={},
    in_quick=False,
    minutes=6,
)

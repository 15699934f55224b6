"""The project's reason to exist: what does it save to map memory for the device once?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import machine
from bench.experiment import Experiment, Outcome, Plan
from bench.machine import COUNTED, DMA_MAPS, KERNEL, TRACED, USER, median
from bench.names import ENGINE, MINIMAL, PATCHED, PATCHED_SMALL
from bench.ratios import Target
from bench.result import Case
from bench.scene import Scene

GUEST = "bench.premap_guest"
IOMMU = ("strict", "lazy", "passthrough")
NO_MAPS = Target(0, at_least=False)
RATIO_TARGET = Target(1.10, at_least=False)
# Of the traffic programs, whatever the length of the packets.
USER_TARGETS = {
    ENGINE: Target(80, at_least=False),
    PATCHED_SMALL: Target(160, at_least=False),
    PATCHED: Target(160, at_least=False),
}


def case_name(iommu: str) -> str:
    return f"IOMMU {iommu}"


def judge(cases: Mapping[str, Case]) -> None:
    """Adds the ratios and targets to cases by IOMMU, of what was measured. Pure."""
    for case in cases.values():
        maps = median(case, ENGINE, DMA_MAPS.name)
        if maps is not None:
            # A single map of the whole run is that of another packet, which the NIC has received.
            case.aim("DMA maps per 1000 packets, engine", round(maps, 1), NO_MAPS)
        for rival in case.arms:
            if not rival.startswith(ENGINE):
                case.compare(ENGINE, rival, KERNEL, RATIO_TARGET if rival == MINIMAL else None)
        for arm, target in USER_TARGETS.items():
            user = median(case, arm, USER)
            if user is not None:
                case.aim(f"user instructions per packet, {arm}", user, target)
    kernel = [median(cases[iommu], ENGINE, KERNEL) for iommu in ("strict", "passthrough")]
    if kernel[0] and kernel[1]:
        ratio = max(kernel[0] / kernel[1], kernel[1] / kernel[0])
        what = "kernel instructions per packet, engine, strict : passthrough"
        cases["strict"].aim(what, ratio, RATIO_TARGET)


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds, plugin = plan.choose(5, 1), machine.build_plugin()
    cases: dict[str, Case] = {}
    opened: dict[str, dict[str, Any]] = {}
    for iommu in IOMMU:
        scene.watch.look()
        measured = machine.run(iommu, plugin, GUEST, rounds, plan.arms)
        cases[iommu] = machine.case_of(case_name(iommu), measured)
        opened[iommu] = {one["arm"]: one["open"] for one in measured if "open" in one}
    judge(cases)
    details = {"frame_bytes": 1514, "maps_when_it_opens": opened}
    return Outcome(list(cases.values()), rounds, machine.versions(), details)


EXPERIMENT = Experiment(
    name="premap",
    title="What mapping memory once saves",
    question="How many DMA maps and instructions does a packet cost its sender on a NIC behind an IOMMU?",
    held_equal="two emulated igb, packets of 1514 bytes where nothing else is said; the sender and its NIC's "
    "interrupts have one CPU, which is counted, and the receivers the other",
    not_claimed="that instructions are time: waiting for an IOMMU's invalidation and cache misses cost "
    "nothing here, and a copy by `rep movs` is one instruction, which flatters the kernel's senders",
    counted_by="a plugin of QEMU, for all that the sender's CPU executes between two marks around the "
    "sending; maps by the kernel's tracepoints, in a round of their own; packets by both NICs",
    figures=(*COUNTED, *TRACED),
    measure=measure,
    laboratories={},
    in_quick=False,
    minutes=7,
    picture="instructions",
)

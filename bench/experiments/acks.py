"""What bounds a TCP sender on AF_XDP in zero-copy: what it costs to receive an ACK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench import machine
from bench.experiment import Experiment, Outcome, Plan
from bench.figures import rounded
from bench.machine import COUNTED, KERNEL, TRACED, Measured
from bench.names import ACKS_ZEROCOPY
from bench.result import Case
from bench.scene import Scene

GUEST = "bench.acks_guest"
CASES = {"dense": False, "alone": True}
"""as fast as they go, in bursts that fit into the ring, so that the driver takes many at once; or each with
an interrupt of its own"""


def case_of(name: str, measured: Sequence[Measured]) -> Case:
    """Of one way of coming. Pure, as the next one."""
    case = machine.case_of(name, measured, region="receive")
    for theirs in case.arms:
        if theirs != ACKS_ZEROCOPY:
            case.compare(ACKS_ZEROCOPY, theirs, KERNEL)
    return case


def idle_share(measured: Sequence[Measured], idle: Sequence[Measured]) -> dict[str, float]:
    """Kernel instructions per ACK that would have been executed without any, at most, of those receivers that
    were left alone for a while."""
    found: dict[str, float] = {}
    for one in idle:
        runs: list[Mapping[str, float]] = [
            run for run in measured if run["arm"] == one["arm"] and not run["traced"]
        ]
        if runs:
            seconds = sum(run["seconds"] for run in runs) / sum(run["packets"] for run in runs)
            found[one["arm"]] = rounded(one[KERNEL] / one["seconds"] * seconds)
    return found


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(5, 1)
    scene.watch.look()
    measured = machine.run("strict", machine.build_plugin(), GUEST, rounds, plan.arms)
    scene.watch.look()
    idle = [one for one in measured if one.get("idle")]
    cases, share = [], {}
    for name, alone in CASES.items():
        of = [one for one in measured if not one.get("idle") and one["alone"] == alone]
        cases.append(case_of(name, of))
        share[name] = idle_share(of, idle)
    return Outcome(cases, rounds, machine.versions(), {"kernel_instructions_without_acks_at_most": share})


EXPERIMENT = Experiment(
    name="acks",
    title="What a received ACK costs",
    question="What does an ACK cost who receives it, in zero-copy AF_XDP and in the kernel's stack?",
    held_equal="two emulated igb, IOMMU strict, the same bare ACKs of 66 bytes of one connection that both "
    "kernels know (UDP: as long); the receiver and its NIC's interrupts have one CPU, which is counted",
    not_claimed="that the kernel's socket does here what a sender's would: nothing is outstanding, so "
    "these ACKs free nothing and let nothing be sent; figures of ACKs that come alone repeat within a factor "
    "of two",
    counted_by="a plugin of QEMU, for all that the receiver's CPU executes between two marks; maps by the "
    "kernel's tracepoints, in a round of their own; packets where they go",
    figures=(*COUNTED[1:], COUNTED[0], *TRACED),
    measure=measure,
    laboratories={},
    in_quick=False,
    minutes=3,
)

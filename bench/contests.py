"""Streams beside each other in alternating slices, half of the slices with the queues swapped.

Two queues of one interface need not be alike, and two senders cannot share one. So every case is measured in
two passes, and no sender has the better queue in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.arms.stream import StreamArm
from bench.experiment import Plan
from bench.figures import PPS, Figure
from bench.ratios import Target
from bench.result import Case
from bench.rounds import interleave, joined
from bench.scene import Scene

Command = Callable[[int], Sequence[str]]
"""of a sender on this queue"""
PASSES = 2


@dataclass(frozen=True)
class Contestant:
    """One sender without end. ``ours``, ``own_cpus``: as in :class:`bench.arms.stream.StreamArm`."""

    arm: str
    command: Command
    ours: bool = False
    own_cpus: bool = False


@dataclass(frozen=True)
class Contest:
    """A case. ``targets``: of the first one's rate, by whose it is compared with. ``quick``: part of a quick
    run."""

    case: str
    contestants: tuple[Contestant, ...]
    targets: dict[str, Target]
    quick: bool = False


def queue_of(place: int, number: int) -> int:
    """Of the contestant with this place, in the pass with this number."""
    return (place + number) % PASSES


def slices_of_a_pass(plan: Plan, full: int, quick: int) -> int:
    """At least one, and together no fewer than the plan says."""
    return -(-plan.choose(full, quick) // PASSES)


def _measure(scene: Scene, plan: Plan, contest: Contest, slices: int, figures: Sequence[Figure]) -> Case:
    passes = []
    for number in range(PASSES):
        arms = [
            StreamArm(
                one.arm,
                scene,
                partial(one.command, queue_of(place, number)),
                ours=one.ours,
                own_cpus=one.own_cpus,
            )
            for place, one in enumerate(contest.contestants)
            if plan.wants(one.arm)
        ]
        what = f"{contest.case}, pass {number + 1} of {PASSES}"
        passes.append(interleave(arms, slices, scene.watch.look, what))
    measured = joined(passes)
    case = Case.of(contest.case, measured.samples, figures, absent=measured.absent)
    for rival, target in contest.targets.items():
        case.compare(contest.contestants[0].arm, rival, PPS, target)
    return case


def measure(
    scene: Scene, plan: Plan, contests: Sequence[Contest], slices: int, figures: Sequence[Figure]
) -> list[Case]:
    """A case for every contest of the plan, with `slices` of each pass."""
    chosen = [one for one in contests if one.quick or not plan.quick]
    return [_measure(scene, plan, contest, slices, figures) for contest in chosen]

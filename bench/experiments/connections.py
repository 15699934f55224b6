"""Goodput of TCP by the number of connections."""

from __future__ import annotations

from bench.arms import tcp
from bench.arms.tcp import ENGINE, KERNEL, WIRES, Transfers
from bench.experiment import Experiment, Outcome, Plan
from bench.experiments.goodput import FIGURES, TARGETS, laboratory
from bench.figures import GBPS
from bench.result import Case
from bench.rounds import interleave
from bench.scene import OTHER_CPU, SENDER_CPU, Scene
from bench.tcp_peer import Intake, set_up

COUNTS, QUICK_COUNTS = (1, 4, 16, 64, 256), (1, 16, 256)
MANY_ON = ("65535", "1500, TSO and GSO off")
"""wires on which there are more than 16"""
# Of each. Less: most of a run is many slow starts.
LEAST_MEGABYTES = 4


def counts(wire: str, plan: Plan) -> tuple[int, ...]:
    wanted = QUICK_COUNTS if plan.quick else COUNTS
    return tuple(n for n in wanted if wire in MANY_ON or n <= 16)


def case_name(wire: str, connections: int) -> str:
    return f"MTU {wire}: {connections} connection{'s' if connections > 1 else ''}"


def measure(scene: Scene, plan: Plan, wire: str) -> Outcome:
    rounds, cases = plan.choose(9, 3), []
    WIRES[wire].set_up()
    set_up(scene.lab, Intake(), {SENDER_CPU, OTHER_CPU})
    idle = tcp.idle_cpus()
    for n in counts(wire, plan):
        transfers = Transfers(
            scene, WIRES[wire], idle, connections=n, pinned=False, least_megabytes=LEAST_MEGABYTES
        )
        chosen = [arm for arm in transfers.arms() if plan.wants(arm.name)]
        measured = interleave(chosen, rounds, scene.watch.look, case_name(wire, n))
        case = Case.of(case_name(wire, n), measured.samples, FIGURES, x=n, absent=measured.absent)
        case.compare(ENGINE, KERNEL, GBPS, TARGETS.get(wire) if n == 1 else None)
        cases.append(case)
    details = tcp.facts() | {"idle_cpus": {kind: round(cpus, 3) for kind, cpus in idle.items()}}
    return Outcome(cases, rounds, details=details)


EXPERIMENT = Experiment(
    name="connections",
    title="Goodput of TCP, by connections",
    question="How much do so many TCP connections bring into a kernel's sockets?",
    held_equal="one veth pair, the same reader with a thread for each connection, writes of 128 KiB, nothing "
    "pinned; the bytes of a run are shared by its connections, at least 4 MiB each",
    not_claimed="that all of them get the same share, or that more CPUs would help: one loop of the engine "
    "and one thread serve all its connections, where the kernel has a writer for each",
    counted_by="bytes that the receiving program has read, from the first to the last; CPU time is that of "
    "the whole machine less what an idle one uses",
    figures=FIGURES,
    measure=measure,
    laboratories={name: laboratory(wire) for name, wire in WIRES.items()},
    quick_laboratories=MANY_ON,
    needs_root=True,
    minutes=5,
)

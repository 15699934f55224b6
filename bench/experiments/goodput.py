"""Goodput of one TCP connection into a kernel's socket, by wire and by how the receiver takes packets in."""

from __future__ import annotations

from bench.arms import tcp
from bench.arms.tcp import ENGINE, KERNEL, WIRES, Transfers, Wire
from bench.experiment import Experiment, Laboratory, Outcome, Plan
from bench.figures import CPU_PER_GIGABYTE, CPU_TOTAL_PER_GIGABYTE, GBPS, value
from bench.ratios import Target
from bench.result import Case
from bench.rounds import Measured, interleave
from bench.scene import OTHER_CPU, Scene
from bench.tcp_peer import Intake, set_up

TARGETS = {
    "65535": Target(0.9, at_least=True),
    "9000, TSO and GSO off": Target(0.65, at_least=True),
    "1500, TSO and GSO off": Target(0.8, at_least=True),
}
"""engine : kernel, by wire; with TSO on the ratio is published"""
PLAIN = "plain"
INTAKES = {
    PLAIN: Intake(),
    "RPS": Intake(rps=True),
    "GRO, NAPI thread": Intake(gro=True, threaded=True),
}
"""of the receiver; one connection that is not pinned is the first case of `connections`"""
FIGURES = (GBPS, CPU_TOTAL_PER_GIGABYTE, *CPU_PER_GIGABYTE, value("again", "segments", "less"))
NOTES = {
    tcp.KERNEL_LENT: "MSG_ZEROCOPY: on veth the kernel copies lent pages after all, when it hands a packet "
    "to the receiver's stack",
    tcp.IPERF3: "iperf3: both ends are its own, and its server's JSON is the count",
}


def compared(wire: str, intake: str, measured: Measured) -> Case:
    """Pure."""
    case = Case.of(f"MTU {wire}: {intake}", measured.samples, FIGURES, absent=measured.absent)
    for rival in measured.samples:
        if rival != ENGINE:
            case.compare(ENGINE, rival, GBPS, TARGETS.get(wire) if rival == KERNEL else None)
    case.notes += [note for arm, note in NOTES.items() if arm in measured.samples]
    return case


def transfer(scene: Scene, wire: str, intake: str, idle: dict[str, float], plan: Plan, rounds: int) -> Case:
    set_up(scene.lab, INTAKES[intake], {OTHER_CPU})
    transfers = Transfers(scene, WIRES[wire], idle)
    arms = transfers.arms() + (transfers.others() if intake == PLAIN else [])
    chosen = [arm for arm in arms if plan.wants(arm.name)]
    what = f"MTU {wire}: {intake}"
    return compared(wire, intake, interleave(chosen, rounds, scene.watch.look, what))


def measure(scene: Scene, plan: Plan, wire: str) -> Outcome:
    rounds = plan.choose(9, 3)
    WIRES[wire].set_up()
    idle = tcp.idle_cpus()
    intakes = (PLAIN,) if plan.quick else tuple(INTAKES)
    cases = [transfer(scene, wire, intake, idle, plan, rounds) for intake in intakes]
    details = tcp.facts() | {"idle_cpus": {kind: round(cpus, 3) for kind, cpus in idle.items()}}
    return Outcome(cases, rounds, tcp.iperf3_version(), details)


def laboratory(wire: Wire) -> Laboratory:
    return Laboratory(mtu=wire.mtu, queues=2)


EXPERIMENT = Experiment(
    name="goodput",
    title="Goodput of one TCP connection",
    question="How much does one TCP connection bring into a kernel's socket, and for how much CPU time?",
    held_equal="one veth pair, one connection, writes of 128 KiB, the same reader but for iperf3; who puts "
    "segments on the wire has one CPU, and everybody else the other",
    not_claimed="that a NIC would give the same: on veth nobody computes checksums, the engine has copy "
    "mode, and without TSO the kernel's TCP is not what it is on most machines",
    counted_by="bytes that the receiving program has read, from the first to the last; CPU time is that of "
    "the whole machine less what an idle one uses",
    figures=FIGURES,
    measure=measure,
    laboratories={name: laboratory(wire) for name, wire in WIRES.items()},
    quick_laboratories=("65535", "1500, TSO and GSO off", "1500, TSO on"),
    needs_root=True,
    minutes=4,
)

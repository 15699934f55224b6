"""What bounds a TCP sender on veth: how far one would get that never waits for an ACK."""

from __future__ import annotations

import contextlib
import functools
import os

from bench.arm import FunctionArm
from bench.arms.blind import MEGABYTES, Streams
from bench.experiment import Experiment, Laboratory, Outcome, Plan
from bench.figures import GBPS, Figure, rounded
from bench.result import Case
from bench.rounds import Measured, interleave
from bench.scene import Scene, everywhere

# Ahead of what else runs here: threads that wake each other would wait for a turn each time (measured beside
# other work: a third of the rate, and ratios of single rounds 4 times apart).
PRIORITY = 1
BLIND, BLIND_STEERED = "engine, blind", "engine, blind, ACKs steered to AF_XDP"
BLIND_GRO, BLIND_NAP = "engine, blind, GRO at the receiver", "engine, blind, reader naps"
KERNEL, KERNEL_PLAIN = "kernel TCP", "kernel TCP, TSO and GSO off"
KERNEL_GRO = "kernel TCP, TSO and GSO off, GRO at the receiver"
KERNEL_NAP = "kernel TCP, TSO and GSO off, reader naps"
RATIOS = (
    (BLIND, KERNEL),
    (BLIND, KERNEL_PLAIN),
    (BLIND_STEERED, KERNEL_PLAIN),
    (BLIND_GRO, KERNEL_GRO),
    (BLIND_NAP, KERNEL_NAP),
)
ACKS = Figure("acks", "per segment", lambda one: one["acks"] / one["segments"], None)
FIGURES = (GBPS, ACKS)


def arms(streams: Streams) -> list[FunctionArm]:
    kernel, blind = (functools.partial(functools.partial, one) for one in (streams.kernel, streams.blind))
    return [
        FunctionArm(KERNEL, kernel(tso=True)),
        FunctionArm(KERNEL_PLAIN, kernel()),
        FunctionArm(KERNEL_GRO, kernel(gro=True)),
        FunctionArm(KERNEL_NAP, kernel(naps=True)),
        FunctionArm(BLIND, blind(), ours=True),
        FunctionArm(BLIND_STEERED, blind(steered=True), ours=True),
        FunctionArm(BLIND_GRO, blind(gro=True), ours=True),
        FunctionArm(BLIND_NAP, blind(naps=True), ours=True),
    ]


def compared(mtu: int, measured: Measured) -> Case:
    """Pure, as the next one."""
    case = Case.of(f"MTU {mtu}", measured.samples, FIGURES, x=mtu, absent=measured.absent)
    for ours, theirs in RATIOS:
        case.compare(ours, theirs, GBPS)
    return case


def best(case: Case) -> dict[str, float]:
    """Ratios of the best runs: other work on the machine only slows, and they are the least disturbed."""
    most = {arm: of[GBPS.name]["max"] for arm, of in case.arms.items()}
    return {
        f"{ours} : {theirs}": rounded(most[ours] / most[theirs])
        for ours, theirs in RATIOS
        if ours in most and theirs in most
    }


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(9, 1)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    with everywhere():
        streams = Streams(scene)
        chosen = [arm for arm in arms(streams) if plan.wants(arm.name)]
        case = compared(streams.mtu, interleave(chosen, rounds, scene.watch.look, f"MTU {streams.mtu}"))
    sizes = {"payload_bytes": streams.payload_bytes, "segments": streams.segments}
    return Outcome([case], rounds, details=sizes | {"ratios_of_the_best_runs": best(case)})


EXPERIMENT = Experiment(
    name="blind",
    title="A blind TCP stream",
    question="How much does a stream of TCP segments bring into a kernel's socket if it waits for no ACK?",
    held_equal="one veth pair, the same reader, who waits for 128 KiB at a time or looks every 0.5 ms "
    "(naps); senders on one CPU and the reader on the other, all at real-time priority, and a window that "
    "is open before the count begins",
    not_claimed="that such a stream is TCP: nothing is sent again, and its receive buffer holds most of a "
    "run, where the kernel's senders have the usual one",
    counted_by="bytes that the reader has read, from after the first 64 MiB to the last; ACKs by the peer's "
    "interface",
    figures=FIGURES,
    measure=measure,
    laboratories={str(mtu): Laboratory(mtu=mtu, queues=2) for mtu in MEGABYTES},
    in_quick=False,
    needs_root=True,
    minutes=3,
)

"""Packets per second by their size: every sender of one unchanging stream."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from bench.arm import Arm
from bench.arms.peers import PeerArm
from bench.arms.stream import StreamArm
from bench.experiment import Experiment, Laboratory, Outcome, Plan
from bench.figures import CPU_PER_PACKET, GBPS, PPS
from bench.ours import application, fixed, send
from bench.peers import PEERS, Stream, version
from bench.result import Case
from bench.rounds import Measured, interleave
from bench.scene import PORT, SENDER_CPU, TX, Scene

ENGINE, LIBRARY = "engine", "engine, library"
ROUNDS, QUICK_ROUNDS = 31, 5
SIZES = {"MTU 1500": (60, 512, 1514), "MTU 65535": (9014, 65535)}
"""bytes of the frame without FCS, by laboratory: some senders take no larger MTU, whatever they send"""
QUICK_SIZES = (60, 1514)


def arms(scene: Scene, size: int, mtu: int, *, disturbing: bool) -> Iterator[Arm]:
    """The engine, and those that disturb others, or do not. Each on a queue of its own, as a stopped AF_XDP
    sender keeps its."""

    stream = Stream.of(size, scene.folder, cpu=SENDER_CPU, mtu=mtu, dst_port=PORT)

    ours = {ENGINE: send("--packet", fixed(size), queue=0)}
    if not disturbing:
        ours[LIBRARY] = application("send_many", queue=1, payload_bytes=stream.payload_bytes)
    for name, command in ours.items():
        yield StreamArm(name, scene, partial(list, command), ours=True, own_cpus=True)
    for name, peer in PEERS.items():
        if (peer.taps or peer.takes_arrivals) == disturbing:
            yield PeerArm(name, scene, replace(stream, queue=3 if name.startswith("testpmd") else 2))


def case_of(size: int, passes: Sequence[Measured]) -> Case:
    """Ours beside every other of the same pass. The engine's figures are those of the first one."""
    whole, *others = (
        Case.of(f"{size} bytes", one.samples, EXPERIMENT.figures, x=size, absent=one.absent) for one in passes
    )
    for case in (whole, *others):
        for rival in case.arms:
            if rival not in (ENGINE, LIBRARY):
                case.compare(ENGINE, rival, PPS)
        whole.arms |= {name: of for name, of in case.arms.items() if name not in whole.arms}
        whole.absent |= case.absent
        whole.ratios += case.ratios if case is not whole else []
    whole.notes = [f"{name}: {PEERS[name].differs}" for name in whole.arms if _differs(name)]
    return whole


def _differs(name: str) -> bool:
    return name in PEERS and bool(PEERS[name].differs)


def measure_size(scene: Scene, plan: Plan, size: int, mtu: int, rounds: int) -> Case:
    """In two passes: a sender that taps the interface costs others time, also while it is stopped, and one
    that takes what arrives keeps TCP from its ACKs."""
    passes = []
    for disturbing in (False, True):
        chosen = [arm for arm in arms(scene, size, mtu, disturbing=disturbing) if plan.wants(arm.name)]
        if any(arm.name != ENGINE for arm in chosen) or not disturbing:
            passes.append(interleave(chosen, rounds, scene.watch.look, f"{size} bytes"))
    return case_of(size, passes)


def measure(scene: Scene, plan: Plan, laboratory: str) -> Outcome:
    # Or a train of UDP_SEGMENT passes veth uncut, and is counted as one packet.
    switch = ["ethtool", "-K", TX, "tx-udp-segmentation", "off"]
    subprocess.run(switch, check=True, capture_output=True, timeout=30)
    rounds = plan.choose(ROUNDS, QUICK_ROUNDS)
    mtu = EXPERIMENT.laboratories[laboratory].mtu
    cases = []
    with scene.bound_port():
        for size in SIZES[laboratory]:
            if plan.quick and size not in QUICK_SIZES:
                continue
            cases.append(measure_size(scene, plan, size, mtu, rounds))
    versions = {name: version(name) for name in PEERS if any(name in case.arms for case in cases)}
    return Outcome(cases, rounds, versions)


EXPERIMENT = Experiment(
    name="rate",
    title="Packets per second, by size",
    question="How many packets of a size does each sender bring to the other end?",
    held_equal="one veth pair, one stream to the same MAC and a bound UDP port that nobody reads, the sender "
    "on one CPU and everything else on the other, turns of 80 ms",
    not_claimed="that a NIC would send as many: on veth the receiver's stack runs within every sender's own "
    "system call, and is most of what a packet costs",
    counted_by="rx_packets of the peer's interface",
    figures=(PPS, GBPS, *CPU_PER_PACKET),
    measure=measure,
    laboratories={name: Laboratory(mtu=int(name.split()[1]), queues=4) for name in SIZES},
    quick_laboratories=("MTU 1500",),
    minutes=8,
)

"""Packets per second by their size: every sender of one unchanging stream."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

from bench.arm import Arm
from bench.arms.peers import PeerArm
from bench.arms.stream import StreamArm
from bench.experiment import Experiment, Laboratory, Outcome, Plan
from bench.figures import CPU_PER_PACKET, GBPS, PPS
from bench.peers import PEERS, Stream, version
from bench.result import Case
from bench.rounds import Measured, interleave
from bench.scene import PORT, ROOT, SENDER_CPU, TX, Scene, engine_mode

ENGINE, LIBRARY = "engine", "engine, library"
ROUNDS, QUICK_ROUNDS = 31, 5
SIZES = {"MTU 1500": (60, 512, 1514), "MTU 65535": (9014, 65535)}
"""bytes of the frame without FCS, by laboratory: some senders take no larger MTU, whatever they send"""
QUICK_SIZES = (60, 1514)


def engine(stream: Stream) -> list[str]:
    """`send`, of frames that differ in nothing from the stream's."""
    packet = f"ip src={stream.src_ip} dst={stream.dst_ip} / udp dst={stream.dst_port} ; size={stream.size}"
    place = ["--queue", str(stream.queue), "--cpu", str(stream.cpu), "--mode", engine_mode()]
    return [sys.executable, "-m", "xsk_engine", "send", stream.interface, *place, "--packet", packet]


def library(stream: Stream) -> list[str]:
    """`send_many` of a UDP endpoint, from Python."""
    script = str(ROOT / "bench/library_arms.py")
    return [
        sys.executable,
        script,
        "send_many",
        str(stream.queue),
        str(stream.cpu),
        str(stream.payload_bytes),
    ]


def arms(scene: Scene, size: int, mtu: int, *, taps: bool) -> Iterator[Arm]:
    """The engine, and those that tap the interface, or do not. Each on a queue of its own, as a stopped
    AF_XDP sender keeps its."""

    def stream(queue: int) -> Stream:
        return Stream.of(size, scene.folder, queue=queue, cpu=SENDER_CPU, mtu=mtu, dst_port=PORT)

    yield StreamArm(ENGINE, scene, lambda: engine(stream(0)), ours=True, own_cpus=True)
    if not taps:
        yield StreamArm(LIBRARY, scene, lambda: library(stream(1)), ours=True, own_cpus=True)
    for name, peer in PEERS.items():
        if peer.taps == taps:
            yield PeerArm(name, scene, stream(3 if name.startswith("testpmd") else 2))


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
    """In two passes: a sender that taps the interface costs others time, also while it is stopped."""
    passes = []
    for taps in (False, True):
        chosen = [arm for arm in arms(scene, size, mtu, taps=taps) if plan.wants(arm.name)]
        if any(arm.name != ENGINE for arm in chosen) or not taps:
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

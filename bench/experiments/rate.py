"""Packets per second by their size: every sender of one unchanging stream."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.arm import Arm
from bench.arms.stream import StreamArm
from bench.experiment import Experiment, Laboratory, Outcome, Plan
from bench.figures import CPU_PER_PACKET, GBPS, PPS
from bench.result import Case
from bench.rounds import interleave
from bench.scene import BUILD, PORT, SENDER_CPU, TX, Scene
from xsk_engine.lab import topology

SIZES = (60, 512, 1514, 9014, 65535)
QUICK_SIZES = (60, 1514)
ENGINE, LIMIT = "engine", "minimal C AF_XDP sender"


def engine(queue: int, size: int, *more: str) -> list[str]:
    """`send` with a frame of so many bytes, or what `more` says."""
    packet = f"ip src={topology.TX_IPV4} dst={topology.RX_IPV4} / udp dst={PORT} ; size={size}"
    return [
        *(sys.executable, "-m", "xsk_engine", "send", TX, "--queue", str(queue), "--cpu", str(SENDER_CPU)),
        *(more or ("--packet", packet)),
    ]


def arms(scene: Scene, size: int) -> Sequence[Arm]:
    def minimal() -> list[str]:
        from ipaddress import ip_address

        from xsk_engine.packet import parse_mac, udp_frame, udp_header_bytes

        frame = udp_frame(
            parse_mac(topology.RX_MAC),
            parse_mac(topology.TX_MAC),
            ip_address(topology.TX_IPV4),
            ip_address(topology.RX_IPV4),
            9,
            PORT,
            bytes(size - udp_header_bytes(4)),
        )
        return [str(BUILD / "minimal"), TX, "1", str(SENDER_CPU), "120", frame.hex()]

    return [
        StreamArm(ENGINE, scene, lambda: engine(0, size), ours=True, own_cpus=True),
        StreamArm(LIMIT, scene, minimal),
    ]


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(41, 9)
    cases = []
    with scene.bound_port():
        for size in QUICK_SIZES if plan.quick else SIZES:
            chosen = [arm for arm in arms(scene, size) if plan.wants(arm.name)]
            measured = interleave(chosen, rounds, scene.watch.look, f"{size} bytes")
            case = Case.of(
                f"{size} bytes", measured.samples, EXPERIMENT.figures, x=size, absent=measured.absent
            )
            for rival in measured.samples:
                if rival != ENGINE:
                    case.compare(ENGINE, rival, PPS)
            cases.append(case)
    return Outcome(cases, rounds)


EXPERIMENT = Experiment(
    name="rate",
    title="Packets per second, by size",
    question="How many packets of a size does each sender bring to the other end?",
    held_equal="one veth pair with one MTU, one stream to the same MAC and a bound UDP port, the sender on "
    "one CPU and everything else on the other, turns of 80 ms",
    not_claimed="that this is what a NIC would send: on veth the kernel's receive path runs within every "
    "sender's own system call",
    counted_by="rx_packets of the peer's interface",
    figures=(PPS, GBPS, *CPU_PER_PACKET),
    measure=measure,
    laboratories={"": Laboratory(mtu=65535, queues=4)},
    minutes=6,
)

"""How near the engine is to a C program that does nothing but post one frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench import contests, peers
from bench.contests import Command, Contest, Contestant
from bench.experiment import Experiment, Outcome, Plan
from bench.figures import CPU_PER_PACKET, PPS
from bench.ours import ENDS, fixed, send
from bench.peers import Stream
from bench.ratios import Target
from bench.scene import PORT, SENDER_CPU, Scene

ENGINE, LIMIT = "engine", "minimal C AF_XDP sender"


def minimal(folder: Path, size: int) -> Command:
    """With the bytes that the engine sends: also the receiver's checksum costs time."""
    stream = Stream.of(size, folder, cpu=SENDER_CPU, dst_port=PORT)
    return lambda queue: peers.minimal(replace(stream, queue=queue))


def _contest(case: str, packet: str, rival: Contestant, bound: float, *, quick: bool = False) -> Contest:
    ours = Contestant(ENGINE, lambda queue: send("--packet", packet, queue=queue), ours=True, own_cpus=True)
    return Contest(case, (ours, rival), {rival.arm: Target(bound, True)}, quick)


def contests_of(folder: Path) -> list[Contest]:
    random = f"{ENDS} id=random / udp src=random dst={PORT} ; @50/4=random"
    least, large = (Contestant(LIMIT, minimal(folder, size)) for size in (60, 1514))
    return [
        _contest("60 bytes", fixed(60), least, 0.98, quick=True),
        _contest("1514 bytes", fixed(1514), large, 0.98),
        _contest("60 bytes, three random fields", random, least, 0.97),
    ]


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    slices = contests.slices_of_a_pass(plan, 200, 6)
    with scene.bound_port():
        cases = contests.measure(scene, plan, contests_of(scene.folder), slices, EXPERIMENT.figures)
    return Outcome(cases, slices * contests.PASSES)


EXPERIMENT = Experiment(
    name="limit",
    title="The engine beside the least a sender can do",
    question="How near is the engine to a C program that does nothing but post one frame, and what do fields "
    "cost on the wire?",
    held_equal="the bytes sent (but for random fields), MAC addresses, a bound UDP port that nobody reads, "
    "the sender's CPU, and neighbouring slices of 80 ms; half of them with the two queues swapped",
    not_claimed="that both columns' medians show the ratio: the machine changes its speed between slices, so "
    "only neighbours are compared",
    counted_by="rx_packets of the peer's interface",
    figures=(PPS, *CPU_PER_PACKET),
    measure=measure,
    minutes=4,
)

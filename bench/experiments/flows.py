"""Packets per second by the number of flows, of 5-tuples in one flow, and of queues."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench import contests
from bench.arms.stream import StreamArm
from bench.contests import Command, Contest, Contestant
from bench.experiment import Experiment, Laboratory, Outcome, Plan
from bench.figures import CPU_PER_PACKET, PPS
from bench.ours import ENDS, fixed, send
from bench.ratios import Target
from bench.result import Case
from bench.rounds import interleave
from bench.scene import BUILD, OTHER_CPU, PORT, SENDER_CPU, Scene
from xsk_engine.lab import topology
from xsk_engine.packet import udp_header_bytes

ENGINE, FIXED, UDP = "engine", "engine, one fixed flow", "kernel UDP sendto"
FLOWS, QUICK_FLOWS = (1, 100, 10_000), (1, 10_000)
QUEUES, QUICK_QUEUES = (1, 2, 4), (2,)
FIRST_PORT = 10_000
FRAME_BYTES = 60
# Of one fixed flow's rate: what a packet's own fields, or its own template, may cost.
TARGET = Target(0.9, True)
CPUS = (SENDER_CPU, OTHER_CPU)
_OWN_QUEUE = max(QUEUES)
"""of the rival in cases by queues"""


def engine(*what: str) -> Command:
    return lambda queue: send(*what, queue=queue)


def tuples(count: int) -> str:
    """One flow over so many source ports."""
    ports = f"{FIRST_PORT}-{FIRST_PORT + count - 1}" if count > 1 else str(FIRST_PORT)
    return f"{ENDS} / udp src={ports} dst={PORT} ; size={FRAME_BYTES}"


def flows(folder: Path, count: int) -> Path:
    """A file of so many flows, each with a source port of its own."""
    path = folder / f"{count}.flows"
    lines = (f"{ENDS} / udp src={FIRST_PORT + i} dst={PORT} ; size={FRAME_BYTES}\n" for i in range(count))
    path.write_text("".join(lines))
    return path


def sockets(count: int) -> Command:
    payload = FRAME_BYTES - udp_header_bytes(4)
    place = [topology.RX_IPV4, str(PORT), str(SENDER_CPU)]
    return lambda _queue: [str(BUILD / "sockets"), *place, str(count), str(payload)]


def contests_of(folder: Path, counts: tuple[int, ...]) -> list[Contest]:
    """Two for every number: flows, and 5-tuples of one flow."""
    one = Contestant(FIXED, engine("--packet", fixed(FRAME_BYTES)), ours=True, own_cpus=True)
    found = []
    for count in counts:
        one_by_one = engine("--flows", str(flows(folder, count)))
        many = Contestant(ENGINE, one_by_one, ours=True, own_cpus=True)
        in_one = Contestant(ENGINE, engine("--packet", tuples(count)), ours=True, own_cpus=True)
        name = f"{count:,} {'flow' if count == 1 else 'flows'}"
        found.append(Contest(name, (many, one, Contestant(UDP, sockets(count))), {FIXED: TARGET}, quick=True))
        if count > 1:
            found.append(
                Contest(f"one flow over {count:,} 5-tuples", (in_one, one), {FIXED: TARGET}, quick=True)
            )
    return found


def by_queues(scene: Scene, plan: Plan, count: int, slices: int) -> Case:
    """So many queues of one `send`, beside one queue of another. Pinned as far as there are CPUs for them."""
    cpus = ",".join(map(str, CPUS[:count])) if count <= len(CPUS) else None
    queues = f"0-{count - 1}" if count > 1 else "0"
    packet = ("--packet", fixed(FRAME_BYTES))
    commands = {ENGINE: send(*packet, queue=queues, cpu=cpus), FIXED: send(*packet, queue=_OWN_QUEUE)}
    arms = [
        StreamArm(name, scene, partial(list, command), ours=True, own_cpus=True)
        for name, command in commands.items()
        if plan.wants(name)
    ]
    name = f"{count} {'queue' if count == 1 else 'queues'}"
    measured = interleave(arms, slices, scene.watch.look, name)
    case = Case.of(name, measured.samples, EXPERIMENT.figures, absent=measured.absent)
    case.compare(ENGINE, FIXED, PPS)
    return case


def measure(scene: Scene, plan: Plan, laboratory: str) -> Outcome:
    slices = contests.slices_of_a_pass(plan, 100, 4)
    figures = EXPERIMENT.figures
    with scene.bound_port():
        if laboratory == "queues":
            total = slices * contests.PASSES
            wanted = QUICK_QUEUES if plan.quick else QUEUES
            return Outcome([by_queues(scene, plan, count, total) for count in wanted], total)
        wanted = QUICK_FLOWS if plan.quick else FLOWS
        cases = contests.measure(scene, plan, contests_of(scene.folder, wanted), slices, figures)
    return Outcome(cases, slices * contests.PASSES)


EXPERIMENT = Experiment(
    name="flows",
    title="Packets per second, by flows and queues",
    question="What do many flows, many 5-tuples and many queues make of the rate?",
    held_equal="frames of 60 bytes to the same MAC and a bound UDP port that nobody reads, source "
    "ports from 10000 on, one CPU for every sender, neighbouring slices of 80 ms; flows: half of the "
    "slices with the two queues swapped; kernel UDP has a connected socket for each flow and sends from"
    " one after the other",
    not_claimed="anything for more cores than the machine has: with two, the queues beyond the first "
    "share the CPU of the receiver and of the benchmark itself, and CPUs of several queues are not "
    "those of one; kernel UDP does not send one flow's packets together, and neither does the engine",
    counted_by="rx_packets of the peer's interface",
    figures=(PPS, *CPU_PER_PACKET),
    measure=measure,
    laboratories={"flows": Laboratory(queues=2), "queues": Laboratory(queues=_OWN_QUEUE + 1)},
    minutes=5,
)

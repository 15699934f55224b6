"""A capture file sent again, beside tcpreplay: as fast as it goes, and with its own gaps."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scapy.utils import RawPcapReader

from bench import contests, peers
from bench.arm import Sample
from bench.arms.recorded import RecordedArm
from bench.contests import Command, Contest, Contestant
from bench.experiment import Experiment, Outcome, Plan
from bench.figures import CPU_PER_PACKET, PPS, value
from bench.peers import Stream
from bench.ratios import Target
from bench.result import Case
from bench.rounds import interleave
from bench.scene import PORT, SENDER_CPU, TX, Scene
from xsk_engine.lab import topology

ENGINE, STREAMED, LIMIT = "engine", "engine, streamed", "minimal C AF_XDP sender"
TCPREPLAY, PRELOADED = "tcpreplay", "tcpreplay --preload-pcap"
PACKETS = 10_000
FOREIGN_MAC = "02:00:00:00:00:99"
"""as captures from elsewhere have: the peer counts such packets and drops them at once"""
GAP_PPS, GAP_PACKETS, QUICK_GAP_PACKETS = 5_000, 20_000, 5_000
TWICE, GAP_TARGET = Target(2.0, True), Target(20_000, False)
GAP_FIGURES = (
    value("gap_error_p50_ns", "ns", "less"),
    value("gap_error_p99_ns", "ns", "less"),
    value("own_gap_error_p99_ns", "ns", "less"),
)
"""by the kernel's receive times at the peer; own: by the engine's clock"""


def captured(path: Path, packets: int, mac: str, *more: str, size: str = "imix") -> str:
    """A file with packets from a thousand ports to one; made when it is wanted first."""
    if not path.exists():
        packet = (
            f"eth dst={mac} src={topology.TX_MAC} / ip src={topology.TX_IPV4} dst={topology.RX_IPV4}"
            f" / udp src=1000-1999 dst={PORT} ; size={size}"
        )
        what = ["--dry-run", "--pcap-out", str(path), "--count", str(packets), "--packet", packet, *more]
        command = [sys.executable, "-m", "xsk_engine", "send", *what]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return str(path)


class Files:
    """The captures that are sent, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def foreign(self) -> str:
        return captured(self._folder / "foreign.pcap", PACKETS, FOREIGN_MAC)

    def ours(self) -> str:
        return captured(self._folder / "ours.pcap", PACKETS, topology.RX_MAC)

    def short(self) -> str:
        return captured(self._folder / "short.pcap", PACKETS, FOREIGN_MAC, size="60")

    def first_of_short(self) -> Stream:
        """A stream of its first frame."""
        with RawPcapReader(self.short()) as reader:
            return Stream(next(iter(reader))[0], self._folder, cpu=SENDER_CPU)

    def paced(self, packets: int) -> str:
        more = ("--rate", f"{GAP_PPS}pps", "--poisson")
        return captured(self._folder / f"paced-{packets}.pcap", packets, topology.RX_MAC, *more)


def engine(path: str, queue: int, *more: str) -> Sequence[str]:
    """`replay`, with its own gaps or as `more` says."""
    return [
        *(sys.executable, "-m", "xsk_engine", "replay", TX, path),
        *("--queue", str(queue), "--cpu", str(SENDER_CPU), "--json", *more),
    ]


def contests_of(files: Files) -> list[Contest]:
    forever = ("--speed", "max", "--loop", "0")
    topspeed = ("tcpreplay", "-i", TX, "--topspeed", "--loop=0")

    def ours(command: Command, arm: str = ENGINE) -> Contestant:
        return Contestant(arm, command, ours=True, own_cpus=True)

    foreign = ours(lambda queue: engine(files.foreign(), queue, *forever))
    small = ours(lambda queue: engine(files.short(), queue, *forever))
    bound = ours(lambda queue: engine(files.ours(), queue, *forever))
    streamed = ours(lambda queue: engine(files.foreign(), queue, *forever, "--umem-mb", "1"), STREAMED)
    least = Contestant(LIMIT, lambda queue: peers.minimal(replace(files.first_of_short(), queue=queue)))
    return [
        Contest(
            "a foreign file",
            (
                foreign,
                Contestant(TCPREPLAY, lambda _: [*topspeed, files.foreign()]),
                Contestant(PRELOADED, lambda _: [*topspeed, "--preload-pcap", files.foreign()]),
            ),
            {TCPREPLAY: TWICE, PRELOADED: TWICE},
            quick=True,
        ),
        Contest(
            "a file to a bound port",
            (bound, Contestant(TCPREPLAY, lambda _: [*topspeed, files.ours()])),
            {TCPREPLAY: TWICE},
        ),
        Contest("a foreign file, streamed through 1 MiB", (streamed, foreign), {ENGINE: Target(0.9, True)}),
        Contest("a foreign file, 60 bytes", (small, least), {LIMIT: Target(0.95, True)}),
    ]


def gap_errors(wanted: Sequence[int], got: Sequence[int]) -> dict[str, float]:
    """How far gaps were from what they should be, all in ns. RuntimeError: not all packets were seen."""
    if len(got) != len(wanted):
        raise RuntimeError(f"{len(got)} of {len(wanted)} packets were recorded")
    gaps = zip(itertools.pairwise(got), itertools.pairwise(wanted), strict=True)
    errors = sorted(abs((b - a) - (d - c)) for (a, b), (c, d) in gaps)
    return {"gap_error_p50_ns": errors[len(errors) // 2], "gap_error_p99_ns": errors[int(len(errors) * 0.99)]}


def _times(path: str) -> list[int]:
    """Of its packets, in ns; the file is pcap with times in ns."""
    with RawPcapReader(path) as reader:
        return [at.sec * 10**9 + at.usec for _, at in reader]


class GapArm(RecordedArm):
    """A file with its own gaps, and when its packets came."""

    def __init__(self, name: str, scene: Scene, command: Sequence[str], path: str, *, ours: bool) -> None:
        super().__init__(name, scene, command, ours=ours)
        self._wanted = _times(path)
        self._sample: Sample = {}

    def run(self) -> None:
        super().run()
        found = gap_errors(self._wanted, _times(str(self.recorded)))
        if self.ours:
            found["own_gap_error_p99_ns"] = self.report()["gaps"]["error"]["p99_ns"]
        self._sample = found

    def sample(self) -> Sample:
        return self._sample


def own_gaps(scene: Scene, plan: Plan, files: Files) -> Case:
    path = files.paced(QUICK_GAP_PACKETS if plan.quick else GAP_PACKETS)
    arms = [
        GapArm(ENGINE, scene, engine(path, 0), path, ours=True),
        GapArm(PRELOADED, scene, ["tcpreplay", "-i", TX, "--preload-pcap", path], path, ours=False),
    ]
    name = "a file's own gaps"
    chosen = [arm for arm in arms if plan.wants(arm.name)]
    measured = interleave(chosen, plan.choose(7, 1), scene.watch.look, name)
    case = Case.of(name, measured.samples, GAP_FIGURES, absent=measured.absent)
    if ENGINE in case.arms:
        own = case.arms[ENGINE]["own_gap_error_p99_ns"]["median"]
        case.aim("p99 gap error of the engine by its own clock, ns", own, GAP_TARGET)
    return case


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    slices = contests.slices_of_a_pass(plan, 200, 4)
    files = Files(scene.folder)
    with scene.bound_port():
        cases = contests.measure(scene, plan, contests_of(files), slices, (PPS, *CPU_PER_PACKET))
        cases.append(own_gaps(scene, plan, files))
    return Outcome(cases, slices * contests.PASSES)


EXPERIMENT = Experiment(
    name="replay",
    title="A capture file sent again",
    question="How fast is a capture file sent again, and how well are its gaps kept, beside tcpreplay?",
    held_equal="the file (10,000 packets of 60, 590 and 1514 bytes at 7:4:1; for gaps 5,000 per second on "
    "average, exponentially spread), the sender's CPU, neighbouring slices of 80 ms, half of them with the "
    "queues swapped; a foreign file's destination MACs are nobody's, and the peer drops its packets",
    not_claimed="that the distance from tcpreplay is the same on a NIC: in copy mode on veth the kernel's "
    "own work is most of a packet, and the same for both",
    counted_by="rx_packets of the peer's interface; gaps by the kernel's receive times there",
    figures=(PPS, *GAP_FIGURES, *CPU_PER_PACKET),
    measure=measure,
    minutes=6,
)

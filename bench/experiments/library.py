"""Applications that send themselves, beside a C program, sockets and asyncio; what an open engine costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import contests
from bench.arm import Sample
from bench.contests import Command, Contest, Contestant
from bench.experiment import Experiment, Outcome, Plan
from bench.experiments.limit import LIMIT, minimal
from bench.figures import CPU_PER_PACKET, PPS, value
from bench.ours import application
from bench.ratios import Target
from bench.result import Case
from bench.scene import OTHER_CPU, SENDER_CPU, Scene

ENGINE, SENDTO, ASYNCIO = "engine, library", "kernel UDP sendto, Python", "asyncio"
NO_TRAFFIC = "engine, library, without traffic"
FACTS = Path(__file__).parents[1] / "library_facts.py"
PAYLOAD = 64
FRAME = 14 + 20 + 8 + PAYLOAD
FACT_LIMIT_S = 120
FACT_FIGURES = (
    value("snapshot_us", "us", "less"),
    value("lag_p50_ms", "ms", "less"),
    value("lag_p99_ms", "ms", "less"),
    value("lag_max_ms", "ms", "less"),
    value("idle_cpu_percent", "% of a core", "less"),
    value("resident_mb", "MB", "less"),
)


@dataclass(frozen=True)
class Fact:
    """``names``: of library_facts.py, by arm. The engine's median of ``figure`` is at most ``bound``."""

    case: str
    names: Mapping[str, str]
    figure: str
    bound: float

    def case_of(self, samples: Mapping[str, Sequence[Sample]]) -> Case:
        """Of samples by arm."""
        case = Case.of(self.case, samples, FACT_FIGURES)
        if ENGINE in case.arms:
            median = case.arms[ENGINE][self.figure]["median"]
            case.aim(self.figure, median, Target(self.bound, False))
        return case


FACTS_OF_AN_ENGINE = (
    Fact("a snapshot of all figures", {ENGINE: "snapshot"}, "snapshot_us", 5.0),
    Fact("timers of an event loop", {ENGINE: "lag", NO_TRAFFIC: "lag_idle"}, "lag_p99_ms", 2.0),
    Fact("nothing to do", {ENGINE: "idle"}, "idle_cpu_percent", 1.0),
    Fact("memory besides the umem, after a million datagrams", {ENGINE: "memory"}, "resident_mb", 60.0),
)


def arm(name: str) -> Command:
    return lambda queue: application(name, queue=queue, payload_bytes=PAYLOAD)


def contests_of(folder: Path) -> list[Contest]:
    def contest(case: str, name: str, rival: Contestant, bound: float) -> Contest:
        ours = Contestant(ENGINE, arm(name), ours=True, own_cpus=True)
        return Contest(case, (ours, rival), {rival.arm: Target(bound, True)}, quick=True)

    least = Contestant(LIMIT, minimal(folder, FRAME))
    # One thread each, which the scheduler may put where it likes.
    sendto = Contestant(SENDTO, arm("sendto"), own_cpus=True)
    plain = Contestant(ASYNCIO, arm("plain"), own_cpus=True)
    return [
        contest("send_many of 1,000", "send_many", least, 0.85),
        contest("post of frags that numpy fills", "post", least, 0.9),
        contest("send() in a loop", "send", sendto, 1.5),
        contest("transport.sendto(), both on uvloop", "transport", plain, 2.0),
    ]


def _ask(name: str) -> list[Sample]:
    """library_facts.py, which may use both CPUs. CalledProcessError."""
    said = subprocess.run(
        [sys.executable, str(FACTS), name],
        stdout=subprocess.PIPE,
        check=True,
        timeout=FACT_LIMIT_S,
        preexec_fn=lambda: os.sched_setaffinity(0, {SENDER_CPU, OTHER_CPU}),
    ).stdout
    found: list[Sample] = json.loads(said)
    return found


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    slices = contests.slices_of_a_pass(plan, 200, 10)
    cases = []
    with scene.bound_port():
        for fact in FACTS_OF_AN_ENGINE:
            samples = {arm: _ask(name) for arm, name in fact.names.items() if plan.wants(arm)}
            cases.append(fact.case_of(samples))
        cases += contests.measure(scene, plan, contests_of(scene.folder), slices, (PPS, *CPU_PER_PACKET))
    return Outcome(cases, slices * contests.PASSES)


EXPERIMENT = Experiment(
    name="library",
    title="Applications that send themselves",
    question="How fast are applications that send themselves, beside a C program, sockets and asyncio, and "
    "what does an open engine cost?",
    held_equal="payloads of 64 bytes to the same MAC and a bound UDP port, neighbouring slices of 80 ms, "
    "half of them with the two queues swapped; the engine's thread has one CPU and the application's the "
    "other, a rival's only thread may use both",
    not_claimed="that one CPU would do: sending from a thread of its own costs a core, which the rivals do "
    "not need",
    counted_by="rx_packets of the peer's interface; lags, snapshots, CPU and memory by the application",
    figures=(PPS, *CPU_PER_PACKET, *FACT_FIGURES),
    measure=measure,
    in_quick=False,
    minutes=4,
)

"""How late packets arrive while their sender is loaded to a part of its limit, and what others feel of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from bench.arm import AbsentError, Arm, Sample
from bench.arms.load import FRAME_BYTES, EngineLoad, Load, PacedLoad
from bench.experiment import Experiment, Laboratory, Outcome, Plan
from bench.figures import value
from bench.result import Case
from bench.rounds import interleave
from bench.scene import BUILD, OTHER_CPU, PORT, RX, Scene
from xsk_engine.lab import topology

LOADS_PERCENT, QUICK_LOADS_PERCENT = (10, 50, 90), (50,)
ECHO_PORT = PORT + 1
# 2,000 round trips a second. More would be a load of its own.
ECHO_GAP_NS = 500_000
LIMIT_S = 0.3
LOADED_S, QUICK_LOADED_S = 2.0, 0.8
# Of each run: a sender's first packets meet cold caches, and a new process.
SETTLE_S = 0.05
_PATIENCE_S = 20.0
_PERCENTILES = ("p50", "p99", "p99_9", "max")
ENGINE, IDLE = "engine", "no load"
RIVALS = {"kernel UDP sendto": "sendto", "kernel UDP sendmmsg": "sendmmsg", "AF_PACKET sendmmsg": "packet"}
QUICK_ARMS = (ENGINE, "kernel UDP sendmmsg", "AF_PACKET sendmmsg")


def _pinned() -> None:
    with contextlib.suppress(OSError):  # one CPU only: then there is no choice
        os.sched_setaffinity(0, {OTHER_CPU})


@contextlib.contextmanager
def _program(*command: str) -> Iterator[subprocess.Popen[str]]:
    """One of ours, on the CPU that no sender has; ended after the block if it has not."""
    process = subprocess.Popen(
        [str(BUILD / command[0]), *command[1:]], stdout=subprocess.PIPE, text=True, preexec_fn=_pinned
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=_PATIENCE_S)


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"{process.args!r}: does not start")


def _end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it has to say at its end."""
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=_PATIENCE_S)
    said: dict[str, Any] = json.loads(out)
    return said


@contextlib.contextmanager
def _receiver(scene: Scene, pps: int) -> Iterator[subprocess.Popen[str]]:
    gap = f"{1e9 / pps:.6f}" if pps else "0"
    with contextlib.ExitStack() as stack:
        with scene.at_peer():
            process = stack.enter_context(
                _program("delays", RX, str(PORT), str(FRAME_BYTES), gap, f"{SETTLE_S * 1e9:.0f}")
            )
        _ready(process)
        yield process


@contextlib.contextmanager
def _asking() -> Iterator[subprocess.Popen[str]]:
    with _program(
        "echo", "ask", topology.RX_IPV4, str(ECHO_PORT), str(OTHER_CPU), str(ECHO_GAP_NS)
    ) as process:
        yield process


def in_microseconds(said: dict[str, Any], prefix: str, name: str) -> dict[str, float]:
    """The percentiles of what a C program printed as PREFIX_p50_ns..., as NAME_p50_us... Pure."""
    found = {part: said.get(f"{prefix}{part}_ns") for part in _PERCENTILES}
    return {f"{name}{part}_us": ns / 1e3 for part, ns in found.items() if ns is not None}


def judged(said: dict[str, Any], sent: int, arrived: int, asked: int, limit: float) -> Sample:
    """One loaded run. `said`: the receiver's; `arrived`: at the peer's interface, ours only. Pure.
    RuntimeError: the receiver judged nothing."""
    if not said.get("judged"):
        raise RuntimeError(f"of {sent} packets none was seen at the peer")
    return {
        **in_microseconds(said, "due_", ""),
        **in_microseconds(said, "taken_up_", "posted_"),
        "limit_pps": limit,
        "offered_pps": asked,
        "pps": (arrived - 1) / said["span_ns"] * 1e9,
        "sent_packets": sent,
        "lost_packets": max(sent - arrived, 0),
        "unseen_packets": said["dropped"],
    }


class LoadedArm(Arm):
    """Finds its own limit, and then sends at a part of it. ``share``: in percent; None: nothing is sent."""

    def __init__(self, name: str, scene: Scene, load: Load | None, share: int, seconds: float) -> None:
        super().__init__(name)
        self.ours = name in (ENGINE, IDLE)
        self._scene, self._load, self._share, self._seconds = scene, load, share, seconds
        self._sample: Sample = {}

    def setup(self) -> None:
        if self._load is not None:
            self._load.open()

    def teardown(self) -> None:
        if self._load is not None:
            self._load.close()

    def _limit_pps(self) -> float:
        """At the peer, while the receiver looks on as it does later."""
        assert self._load is not None
        before = self._scene.received().packets
        with _receiver(self._scene, 0) as receiver:
            self._load.run(0, LIMIT_S)
            said = _end(receiver)
        arrived = self._scene.received().packets - before
        if said.get("span_ns", 0) <= 0:
            raise AbsentError(f"{self.name}: at full speed nothing arrives")
        return float((arrived - 1) / said["span_ns"] * 1e9)

    def run(self) -> None:
        if self._load is None:
            with _asking() as asking:
                time.sleep(self._seconds)
                self._sample = in_microseconds(_end(asking), "", "echo_")
            return
        limit = self._limit_pps()
        pps = max(round(limit * self._share / 100), 1)
        with _receiver(self._scene, pps) as receiver, _asking() as asking:
            before = self._scene.received().packets
            sent = self._load.run(pps, self._seconds)
            said_echo, said = _end(asking), _end(receiver)
            # Questions come over the same interface.
            arrived = self._scene.received().packets - before - said_echo["asked"]
        self._sample = {
            **judged(said, sent, arrived, pps, limit),
            **in_microseconds(said_echo, "", "echo_"),
        }

    def sample(self) -> Sample:
        return self._sample


def arms(scene: Scene, share: int, plan: Plan) -> list[Arm]:
    seconds = QUICK_LOADED_S if plan.quick else LOADED_S
    loads: dict[str, Load | None] = {ENGINE: EngineLoad()}
    loads |= {name: PacedLoad(how) for name, how in RIVALS.items() if not plan.quick or name in QUICK_ARMS}
    loads[IDLE] = None
    return [
        LoadedArm(name, scene, load, share, seconds)
        for name, load in loads.items()
        if plan.wants(name) or name == IDLE
    ]


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(9, 3)
    cases = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(scene.bound_port())
        with scene.at_peer():
            server = stack.enter_context(
                _program("echo", "serve", topology.RX_IPV4, str(ECHO_PORT), str(OTHER_CPU))
            )
        _ready(server)
        for share in QUICK_LOADS_PERCENT if plan.quick else LOADS_PERCENT:
            name = f"{share} % of its own limit"
            measured = interleave(arms(scene, share, plan), rounds, scene.watch.look, name)
            case = Case.of(name, measured.samples, EXPERIMENT.figures, x=share, absent=measured.absent)
            for rival in RIVALS:
                case.compare(ENGINE, rival, "p99_us")
                case.compare(ENGINE, rival, "echo_p99_us")
            cases.append(case)
    return Outcome(cases, rounds)


EXPERIMENT = Experiment(
    name="latency",
    title="Latency under load",
    question="How late do packets arrive, each sender loaded to a part of its own limit?",
    held_equal="one wire, packets of 66 bytes to a bound UDP port, one schedule of due times, one "
    "receiver that judges all of them by one rule: from a packet's due time (its sequence on the "
    "sender's own schedule) to the kernel's receive time at the peer, both CLOCK_TAI of one machine; "
    "every sender sends together what is due and has a CPU for itself, on which the C programs busy-"
    "wait and the engine sleeps until 60 us before a packet",
    not_claimed="what an application at the other end would see, as the kernel takes its time of "
    "receipt within the sender's own system call on veth; nor the same packet rate for all, as each is "
    "loaded by its own limit: offered_pps tells; lateness of a sender's best-timed packet is in no "
    "figure; AF_PACKET's packets have no UDP checksum; the echo shares its CPU with the receiver, so "
    "only its difference from no load says something",
    counted_by="a packet socket at the peer (SO_TIMESTAMPNS); packets by rx_packets of the peer's interface",
    figures=(
        *(value(f"{part}_us", "us", "less") for part in _PERCENTILES),
        *(value(f"posted_{part}_us", "us", "less") for part in ("p50", "p99")),
        *(value(f"echo_{part}_us", "us", "less") for part in ("p50", "p99", "p99_9")),
        value("limit_pps", "packets/s", None),
        value("offered_pps", "packets/s", None),
        value("pps", "packets/s", None),
        value("lost_packets", "packets", "less"),
        value("unseen_packets", "packets", None),
    ),
    measure=measure,
    laboratories={"": Laboratory(queues=2)},
    minutes=6,
    picture="p99_us",
)

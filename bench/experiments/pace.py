"""How well rates are kept: the engine's from 1 packet per second to 90 % of what the wire takes, and others'
at some of them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from typing import Any

from bench import peers
from bench.arm import Arm, FunctionArm, Sample
from bench.arms.arriving import ArrivingArm
from bench.experiment import Experiment, Outcome, Plan
from bench.figures import value
from bench.ours import fixed, send
from bench.peers import Stream
from bench.ratios import Target
from bench.result import Case
from bench.rounds import interleave
from bench.scene import BUILD, OTHER_CPU, PORT, SENDER_CPU, Scene

ENGINE, OWN_CLOCK, BARE_CLOCK = "engine", "engine, own clock", "a bare clock"
TRAFGEN, TCPREPLAY, IPERF3 = "trafgen", "tcpreplay", "iperf3 -u"
FRAME_BYTES = 60
RATES = (1, 10, 100, 1_000, 10_000, 100_000, 300_000)
QUICK_RATES = (10_000,)
SHARE_OF_WIRE = 0.9
LEAST_PACKETS, LEAST_SECONDS, MOST_SECONDS = 1_000, 3, 60
COMPARED = {1_000: 3, 10_000: 3, 100_000: 2}
"""rate: seconds of each round"""
JUDGED_RATE = 10_000
MEAN_TARGET, GAP_TARGET = Target(0.1, False), Target(5_000, False)
FIGURES = (
    value("off_percent", "%", None),
    value("gap_error_p50_ns", "ns", "less"),
    value("gap_error_p99_ns", "ns", "less"),
    value("gap_error_p99_9_ns", "ns", "less"),
)
LIMIT_S = MOST_SECONDS + 30


def engine(packets: int, rate: str) -> list[str]:
    return send("--packet", fixed(FRAME_BYTES), "--rate", rate, "--count", str(packets), "--json")


def trafgen(stream: Stream, rate: int, packets: int) -> list[str]:
    return [*peers.trafgen(stream), "--rate", f"{rate}pps", "--num", str(packets)]


def tcpreplay(stream: Stream, rate: int, packets: int) -> list[str]:
    file = stream.write("pace.pcap", peers.pcap(stream.frame, 100))
    options = ["--preload-pcap", f"--pps={rate}", "--quiet", f"--loop={packets // 100}"]
    return peers.pinned(stream, "tcpreplay", "--intf1", stream.interface, *options, file)


def iperf3(stream: Stream, rate: int, packets: int) -> list[str]:
    size = stream.payload_bytes
    to = ["-u", "-c", stream.dst_ip, "-p", str(peers.iperf3_port(stream)), "-l", str(size)]
    pace = ["-b", f"{rate * size * 8}", "-t", str(packets // rate), "--pacing-timer", "1000"]
    return peers.pinned(stream, "iperf3", *to, *pace)


def _report(command: Sequence[str]) -> Any:
    """What a program of ours says of its run, as JSON; it pins itself. CalledProcessError."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=LIMIT_S,
        preexec_fn=lambda: os.sched_setaffinity(0, {SENDER_CPU, OTHER_CPU}),
    )
    return json.loads(done.stdout)


def own_clock(rate: float, packets: int) -> Sample:
    """The engine alone; its own times of the posts."""
    report = _report(engine(packets, f"{rate:.3f}pps"))
    errors = report["gaps"]["error"]
    gaps = {f"gap_error_{name}": errors[name] for name in ("p50_ns", "p99_ns", "p99_9_ns")}
    return {"off_percent": report["rate_error_percent"], "dropped": report["dropped_packets"], **gaps}


def bare_clock(rate: int, looks: int) -> Sample:
    """What the machine leaves of a sender that does nothing but look at the clock, on the same CPU."""
    seen = _report([str(BUILD / "spin"), str(SENDER_CPU), str(10**9 // rate), str(looks)])
    return {f"gap_error_{name}": seen[name] for name in ("p50_ns", "p99_ns", "p99_9_ns")}


def packets_of(rate: float, plan: Plan) -> int:
    """Of a run of the engine alone: enough for a percentile, but not for ever."""
    if plan.quick:
        return int(rate)
    return int(max(min(rate * MOST_SECONDS, LEAST_PACKETS), rate * LEAST_SECONDS))


def _compared(scene: Scene, rate: int, seconds: int) -> list[Arm]:
    stream = Stream.of(FRAME_BYTES, scene.folder, cpu=SENDER_CPU, dst_port=PORT)
    packets, port = rate * seconds, peers.iperf3_port(stream)
    return [
        ArrivingArm(ENGINE, scene, lambda: engine(packets, f"{rate}pps"), rate, ours=True),
        ArrivingArm(
            TRAFGEN,
            scene,
            lambda: trafgen(stream, rate, packets),
            rate,
            missing=lambda: peers.missing("trafgen"),
        ),
        ArrivingArm(
            TCPREPLAY,
            scene,
            lambda: tcpreplay(stream, rate, packets),
            rate,
            missing=lambda: peers.missing("tcpreplay"),
        ),
        ArrivingArm(
            IPERF3,
            scene,
            lambda: iperf3(stream, rate, packets),
            rate,
            port=port,
            server=peers.iperf3_server(stream),
            missing=lambda: peers.missing("iperf3 -u"),
        ),
    ]


def arms(scene: Scene, plan: Plan, rate: float) -> list[Arm]:
    packets = packets_of(rate, plan)
    found: list[Arm] = [FunctionArm(OWN_CLOCK, lambda: own_clock(rate, packets), ours=True)]
    if rate == JUDGED_RATE:
        found.append(FunctionArm(BARE_CLOCK, lambda: bare_clock(JUDGED_RATE, packets), ours=True))
    if rate in COMPARED:
        found += _compared(scene, int(rate), 1 if plan.quick else COMPARED[int(rate)])
    return found


def judge(case: Case, rate: float) -> None:
    """Adds what the engine's own clock should say."""
    if OWN_CLOCK not in case.arms:
        return
    own = case.arms[OWN_CLOCK]
    case.aim("farthest from the rate, %", max(map(abs, own["off_percent"]["rounds"])), MEAN_TARGET)
    if rate == JUDGED_RATE:
        case.aim("p99 gap error by the engine's own clock, ns", own["gap_error_p99_ns"]["median"], GAP_TARGET)


def _measure(scene: Scene, plan: Plan, name: str, rate: float, rounds: int) -> Case:
    chosen = [arm for arm in arms(scene, plan, rate) if plan.wants(arm.name)]
    # A minute each at the lowest rates, and there is nobody to be compared with.
    count = rounds if rate in COMPARED else 1
    measured = interleave(chosen, count, scene.watch.look, name)
    case = Case.of(name, measured.samples, FIGURES, x=rate, absent=measured.absent)
    judge(case, rate)
    return case


def _wire_pps() -> float:
    """What this wire takes now."""
    return statistics.median(float(_report(engine(1_000_000, "max"))["pps"]) for _ in range(3))


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(5, 1)
    with scene.bound_port():
        rates: dict[str, float] = {f"{rate:,} pps": rate for rate in (QUICK_RATES if plan.quick else RATES)}
        if not plan.quick and plan.wants(OWN_CLOCK):
            rates["90 % of the wire"] = SHARE_OF_WIRE * _wire_pps()
        cases = [_measure(scene, plan, name, rate, rounds) for name, rate in rates.items()]
    ran = {arm for case in cases for arm in case.arms}
    versions = {arm: peers.version(arm) for arm in (TRAFGEN, TCPREPLAY, IPERF3) if arm in ran}
    return Outcome(cases, rounds, versions)


EXPERIMENT = Experiment(
    name="pace",
    title="How well rates are kept",
    question="How well are rates kept, by the engine and by others?",
    held_equal="60-byte frames of one stream, the sender's CPU, everything else on the other one, rates "
    "in packets per second",
    not_claimed="that gaps are as uneven where no host takes CPUs away (a bare clock on the same CPU shows "
    "how much it does); nor that trafgen's mean is wrong: it sends a second's packets at once, so from its "
    "first frame to its last a second is missing",
    counted_by="kernel receive times at the peer; where it says own clock, by the engine at the post",
    figures=FIGURES,
    measure=measure,
    minutes=9,
    picture="gap_error_p99_ns",
)

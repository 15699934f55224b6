"""What it costs a receiver to check every packet."""

from __future__ import annotations

import time
from functools import partial

from bench.arm import FunctionArm, Sample
from bench.experiment import Experiment, Outcome, Plan
from bench.figures import PPS
from bench.ratios import Target
from bench.result import Case
from bench.rounds import interleave
from bench.scene import RX, SENDER_CPU, TX, Scene, everywhere
from xsk_engine import Engine, EngineConfig, parse_flow
from xsk_engine.lab import topology
from xsk_engine.sink import Sink, SinkConfig

CHECKS, COUNTS = "sink, checks every packet", "sink, counts only"
METHODS = {"xdp": "AF_XDP with the steering program", "packet": "packet socket"}
WARM_UP_S, SECONDS = 0.1, 0.4
TARGET = Target(0.9, True)
FLOW = f"ip dst={topology.RX_IPV4} / udp dst=9000 ; signature ; size=66"


def received(scene: Scene, engine: Engine, method: str, check: bool) -> Sample:
    """What comes off its ring while the engine sends all it can; the sink has the other CPU."""
    with scene.at_peer():
        sink = Sink(SinkConfig(RX, method=method, check=check)).open()
    with sink:
        running = engine.start(parse_flow(FLOW))
        time.sleep(WARM_UP_S)
        before, start = sink.receive_stats().packets, time.monotonic()
        time.sleep(SECONDS)
        after, end = sink.receive_stats().packets, time.monotonic()
        running.stop()
        running.wait(5)
    if check:
        arrivals = sink.snapshot().arrivals
        if arrivals.packets != arrivals.received_packets:
            raise RuntimeError(f"not all of what came was of the flow: {arrivals}")
    return {"packets": after - before, "seconds": end - start}


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(40, 6)
    cases = []
    with everywhere():
        engine = Engine(EngineConfig(TX, cpus=(SENDER_CPU,))).open()
    with engine:  # sinks' threads stand aside, as this one
        for method, name in METHODS.items():
            arms = [
                FunctionArm(arm, partial(received, scene, engine, method, arm == CHECKS), ours=True)
                for arm in (CHECKS, COUNTS)
                if plan.wants(arm)
            ]
            measured = interleave(arms, rounds, scene.watch.look, name)
            case = Case.of(name, measured.samples, EXPERIMENT.figures, absent=measured.absent)
            case.compare(CHECKS, COUNTS, PPS, TARGET)
            cases.append(case)
    return Outcome(cases, rounds)


EXPERIMENT = Experiment(
    name="sink",
    title="A sink that checks",
    question="What does it cost a receiver to check every packet?",
    held_equal="the shortest packets with a signature (66 bytes without FCS) of one stream, the engine's "
    "thread on one CPU and the sink on the other, 0.4 s each way in turn",
    not_claimed="that the sink is as fast as the wire: the kernel bounds both ways",
    counted_by="packets that come off the sink's ring",
    figures=(PPS,),
    measure=measure,
    in_quick=False,
    needs_root=True,
    minutes=1.7,
)

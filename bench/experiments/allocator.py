"""Each idea of the allocator beside its opposite: without a kernel (programs/ablation.c), and on veth."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import time
from collections.abc import Mapping, Sequence

from bench.arm import FunctionArm, Sample
from bench.experiment import Experiment, Laboratory, Outcome, Plan
from bench.figures import PPS, value
from bench.peers import Stream
from bench.result import Case
from bench.rounds import interleave
from bench.scene import BUILD, PORT, SENDER_CPU, TX, Scene, everywhere
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.flow import Traffic

NS = value("ns_per_packet", "ns/packet", "less")
SLICE_S = 0.25
QUOTAS = (16, 64, 256, 1024, 2048)
BATCHES = (64, 1024, 16_384)
# At most so many, and so many of a batch. Few packets are enough where each batch costs milliseconds.
BATCHED_PACKETS, MOST_BATCHES = 65_536, 16
FRAME_BYTES = 60
LIMIT_S = 600

PAIRS = {
    "chunks, freed and used again": {
        "hottest first": "written_hot",
        "memory used in turn, 64 MiB": "written_in_a_circle",
    },
    "chunks that are empty": {
        "kept in the arena": "recycled",
        "given back to the pool after every batch": "not_recycled",
    },
    "packets of 64 bytes": {"packed frags": "packed", "a chunk per packet": "chunk_per_packet"},
    "the same 1514 bytes once more": {"clone": "cloned", "copy": "copied"},
    "packets of 1514 bytes": {
        "template posted again": "template_1514",
        "one field patched into every packet": "copies_1514",
    },
}
"""By case: ours, and its opposite, as bench/programs/ablation.c calls them."""


def native_cases(rounds: Mapping[str, Sequence[float]]) -> list[Case]:
    """Of ns per packet by name and round. Pure."""
    cases = []
    for name, arms in PAIRS.items():
        samples = {arm: [{NS.name: ns} for ns in rounds[key]] for arm, key in arms.items()}
        case = Case.of(name, samples, (NS,))
        ours, opposite = arms
        case.compare(ours, opposite, NS)
        cases.append(case)
    return cases


def native(rounds: int) -> list[Case]:
    command = [str(BUILD / "ablation"), str(rounds)]
    said = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT_S).stdout
    return native_cases({name: of["rounds"] for name, of in json.loads(said).items() if isinstance(of, dict)})


def open_engine() -> Engine:
    """Its worker has the sender's CPU, this thread stays where it is."""
    with everywhere():
        return Engine(EngineConfig(TX, cpus=(SENDER_CPU,), mode="copy")).open()


def _sample(scene: Scene, before: int, start: float) -> Sample:
    return {"packets": scene.received().packets - before, "seconds": time.perf_counter() - start}


def send(scene: Scene, traffic: Traffic) -> Sample:
    """Opening and closing not counted."""
    engine = open_engine()
    try:
        before, start = scene.received().packets, time.perf_counter()
        asyncio.run(engine.run(traffic))
        return _sample(scene, before, start)
    finally:
        engine.close()


def send_in_batches(scene: Scene, frame: bytes, packets: int) -> Sample:
    """With the umem registered anew, and its queue bound, for every batch."""
    before, start = scene.received().packets, time.perf_counter()
    for _ in range(min(BATCHED_PACKETS // packets, MOST_BATCHES)):
        engine = open_engine()
        try:
            asyncio.run(engine.run(Traffic(frame, count=packets)))
        finally:
            engine.close()
    return _sample(scene, before, start)


def arms_on_veth(scene: Scene) -> dict[str, list[FunctionArm]]:
    """By case."""
    frame = Stream.of(FRAME_BYTES, scene.folder, dst_port=PORT).frame
    slices = {quota: Traffic(frame, duration_s=SLICE_S, quota_frags=quota) for quota in QUOTAS}
    quotas = [(f"{quota} descs", functools.partial(send, scene, slices[quota])) for quota in QUOTAS]
    batches = [
        (f"every {packets} packets", functools.partial(send_in_batches, scene, frame, packets))
        for packets in BATCHES
    ]
    once = functools.partial(send, scene, Traffic(frame, count=4 * BATCHED_PACKETS))
    of = {"quota of a flow": quotas, "the umem is registered": [*batches, ("once", once)]}
    return {
        f"veth, 60 bytes: {case}": [FunctionArm(name, run, ours=True) for name, run in arms]
        for case, arms in of.items()
    }


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    scene.watch.look()
    cases = native(plan.choose(21, 5))
    rounds = plan.choose(9, 3)
    with scene.bound_port():
        for name, arms in arms_on_veth(scene).items():
            chosen = [arm for arm in arms if plan.wants(arm.name)]
            measured = interleave(chosen, rounds, scene.watch.look, name)
            cases.append(Case.of(name, measured.samples, (PPS,), absent=measured.absent))
    return Outcome(cases, rounds)


EXPERIMENT = Experiment(
    name="allocator",
    title="The allocator's ideas, each beside its opposite",
    question="What is each idea of the allocator worth?",
    held_equal="one process runs an idea and its opposite in every round; on veth one engine in copy mode "
    "sends 60 bytes to a bound port",
    not_claimed="that the quota of a flow matters as little in zero-copy: copy mode completes within the "
    "system call",
    counted_by="the packets of each loop, by CLOCK_MONOTONIC; on veth rx_packets of the peer's interface",
    figures=(NS, PPS),
    measure=measure,
    laboratories={"": Laboratory(queues=1)},
    in_quick=False,
    minutes=1.5,
)

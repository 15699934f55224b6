"""What our own code costs, without a kernel: allocator, packet path and the checks of what arrived."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.experiment import Experiment, Outcome, Plan
from bench.figures import value
from bench.ratios import Target
from bench.result import Case
from bench.scene import BUILD, Scene, everywhere

ENGINE, ADD = "engine", "a lone atomic add"
NS = value("ns_per_operation", "ns/operation", "less")
LIMIT_S = 600
YARDSTICK = "atomic_add"


@dataclass(frozen=True)
class Operation:
    """``name``: of programs/micro.c. ``adds``, ``at_most_ns``: what it may cost, in atomic adds of the same
    round, or in ns."""

    name: str
    case: str
    adds: float | None = None
    at_most_ns: float | None = None


OPERATIONS = (
    Operation("alloc_free", "alloc and free, 64 bytes", adds=1.5),
    Operation("alloc_free_application", "the same in an application's arena", adds=1.5),
    Operation("alloc_free_2048_inflight", "alloc and free with 2048 frags live"),
    Operation("alloc_free_1514_bytes", "alloc and free, 1514 bytes"),
    Operation("cross_thread_return", "alloc here, free on another thread", adds=6.0),
    Operation("path_template", "packet path of a template"),
    Operation("path_one_field", "packet path, one field", at_most_ns=12.0),
    Operation("path_three_fields", "packet path, three fields", at_most_ns=18.0),
    Operation("path_three_random_fields", "packet path, three random fields", at_most_ns=18.0),
    Operation("path_three_fields_1514", "packet path, three fields, 1514 bytes"),
    Operation("path_imix", "packet path, imix"),
    Operation("path_imix_10000_tuples", "packet path, imix over 10,000 5-tuples", at_most_ns=30.0),
    Operation("path_imix_10000_flows", "packet path, imix over 10,000 flows", at_most_ns=30.0),
    Operation("check_66_bytes", "check of a received frame, 66 bytes", at_most_ns=60.0),
    Operation("check_1514_bytes", "check of a received frame, 1514 bytes"),
)


def cases_of(rounds: Mapping[str, Sequence[float]]) -> list[Case]:
    """Of ns per operation by name and round. KeyError: an operation was not measured."""
    samples = {name: [{NS.name: one} for one in values] for name, values in rounds.items()}
    cases = []
    for operation in OPERATIONS:
        arms = {ENGINE: samples[operation.name]}
        if operation.adds is not None:
            arms[ADD] = samples[YARDSTICK]
        case = Case.of(operation.case, arms, (NS,))
        if operation.adds is not None:
            case.compare(ENGINE, ADD, NS, Target(operation.adds, False))
        if operation.at_most_ns is not None:
            median = case.arms[ENGINE][NS.name]["median"]
            case.aim("ns per operation", median, Target(operation.at_most_ns, False))
        cases.append(case)
    return cases


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(21, 3)
    scene.watch.look()
    command = [str(BUILD / "micro"), str(rounds)]
    with everywhere():  # two of its threads hand frags to each other
        said = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT_S).stdout
    scene.watch.look()
    found = {name: one["rounds"] for name, one in json.loads(said).items() if isinstance(one, dict)}
    return Outcome(cases_of(found), rounds)


EXPERIMENT = Experiment(
    name="micro",
    title="Our own code, without a kernel",
    question="What does our own code cost per packet, without a kernel?",
    held_equal="one process runs every operation once a round, some million times, with a 64 MiB umem and "
    "a fake kernel that reads each desc and writes each completion",
    not_claimed="that ns of two machines can be compared, or that packets leave at this speed: the kernel's "
    "part is missing",
    counted_by="the operations of each loop, by CLOCK_MONOTONIC",
    figures=(NS,),
    measure=measure,
    laboratories={},
    minutes=0.7,
)

"""Every experiment by its name, in the order of a full run."""

from __future__ import annotations

from bench.experiment import Experiment
from bench.experiments import (
    acks,
    allocator,
    blind,
    connections,
    flows,
    goodput,
    instructions,
    latency,
    library,
    limit,
    live,
    loss,
    memory,
    micro,
    pace,
    premap,
    rate,
    replay,
    sink,
    start,
)

_IN_ORDER = (
    rate,
    limit,
    flows,
    latency,
    pace,
    replay,
    start,
    memory,
    library,
    live,
    sink,
    goodput,
    connections,
    loss,
    instructions,
    premap,
    acks,
    blind,
    allocator,
    micro,
)
EXPERIMENTS: dict[str, Experiment] = {one.EXPERIMENT.name: one.EXPERIMENT for one in _IN_ORDER}

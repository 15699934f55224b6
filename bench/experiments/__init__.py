"""Every experiment by its name, in the order of a full run."""

from __future__ import annotations

from bench.experiment import Experiment
from bench.experiments import (
    acks,
    allocator,
    blind,
    connections,
    goodput,
    instructions,
    latency,
    library,
    limit,
    loss,
    micro,
    premap,
    rate,
    replay,
)

_IN_ORDER = (
    rate,
    limit,
    latency,
    replay,
    library,
    goodput,
    connections,
    loss,
    premap,
    instructions,
    acks,
    blind,
    allocator,
    micro,
)
EXPERIMENTS: dict[str, Experiment] = {one.EXPERIMENT.name: one.EXPERIMENT for one in _IN_ORDER}

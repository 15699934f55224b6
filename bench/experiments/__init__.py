"""Every experiment by its name, in the order of a full run."""

from __future__ import annotations

from bench.experiment import Experiment
<<<<<<< HEAD
from bench.experiments import library, limit, live, micro, pace, rate, replay, sink, start

EXPERIMENTS: dict[str, Experiment] = {
    one.name: one
    for one in (
        rate.EXPERIMENT,
        limit.EXPERIMENT,
        micro.EXPERIMENT,
        start.EXPERIMENT,
        pace.EXPERIMENT,
        replay.EXPERIMENT,
        library.EXPERIMENT,
        sink.EXPERIMENT,
        live.EXPERIMENT,
    )
}
=======
from bench.experiments import (
    connections,
    goodput,
    latency,
    library,
    limit,
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
    premap,
    micro,
)
EXPERIMENTS: dict[str, Experiment] = {one.EXPERIMENT.name: one.EXPERIMENT for one in _IN_ORDER}
>>>>>>> core

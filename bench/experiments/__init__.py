"""Every experiment by its name, in the order of a full run."""

from __future__ import annotations

from bench.experiment import Experiment
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

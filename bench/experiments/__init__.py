"""Every experiment by its name, in the order of a full run."""

from __future__ import annotations

from bench.experiment import Experiment
from bench.experiments import latency, memory, rate

EXPERIMENTS: dict[str, Experiment] = {
    one.name: one for one in (rate.EXPERIMENT, latency.EXPERIMENT, memory.EXPERIMENT)
}

"""Every experiment by its name, in the order of a full run."""

from __future__ import annotations

from bench.experiment import Experiment
from bench.experiments import connections, goodput, premap, rate

EXPERIMENTS: dict[str, Experiment] = {
    one.EXPERIMENT.name: one.EXPERIMENT for one in (rate, goodput, connections, premap)
}

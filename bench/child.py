"""One experiment in one laboratory, as a process of its own: it may fail alone, and leaves nothing behind.

Usage: python -m bench.child EXPERIMENT LABORATORY PLAN OUT. PLAN: JSON of bench.experiment.Plan; OUT: the
file that the outcome goes to, as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path

from bench.experiment import Plan
from bench.experiments import EXPERIMENTS
from bench.noise import Watch
from bench.scene import Scene, place, stand_aside


def main() -> None:
    name, laboratory, plan, out = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # arms are torn down
    experiment = EXPERIMENTS[name]
    with tempfile.TemporaryDirectory(prefix="xsk-bench-") as folder:
        scene = Scene.here(Path(folder)) if experiment.laboratories else Scene.none(Path(folder))
        stand_aside()
        scene.watch = Watch()
        outcome = experiment.measure(scene, Plan.from_json(json.loads(plan)), laboratory)
        noise = scene.watch.end()
        if caveat := place().get("caveat"):
            noise["noisy"].append(caveat)
        written = {
            "cases": [case.as_json() for case in outcome.cases],
            "rounds": outcome.rounds,
            "versions": dict(outcome.versions),
            "details": dict(outcome.details),
            "noise": noise,
            "scene": scene.facts() if experiment.laboratories else {},
        }
    Path(out).write_text(json.dumps(written))


if __name__ == "__main__":
    main()

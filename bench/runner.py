"""Runs experiments one after the other, each in its laboratories, and writes their results."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from bench import results
from bench.experiment import Experiment, Laboratory, Plan
from bench.scene import BUILD, ROOT
from xsk_engine.errors import UnavailableError

LIMIT_S = 3600
"""of one experiment in one laboratory"""


def check_programs() -> None:
    """UnavailableError: the programs in C that are measured, or measure, are not built."""
    if not (BUILD / "minimal").exists():
        raise UnavailableError(
            "bench run",
            str(BUILD),
            "the benchmark's programs in C are not built; in the sources: make build/native && "
            ".venv/bin/meson compile -C build/native, or make bench-quick, which does everything",
        )


class Place(Protocol):
    """Where laboratories are: veth pairs here, the emulated machine, or two interfaces."""

    def run(self, laboratory: Laboratory, command: list[str], out: Path) -> None:
        """Runs `command` in a laboratory, with the path of a file behind it, which is then in `out`.
        CalledProcessError."""


class Veth:
    """Two network namespaces and a veth pair of this command's own; no root needed."""

    def run(self, laboratory: Laboratory, command: list[str], out: Path) -> None:
        lab = [sys.executable, "-m", "xsk_engine", "lab", "run", "--mtu", str(laboratory.mtu)]
        lab += ["--queues", str(laboratory.queues), "--"]
        subprocess.run([*lab, *command, str(out)], cwd=ROOT, check=True, timeout=LIMIT_S)


def measure(experiment: Experiment, plan: Plan, place: Place) -> list[dict[str, Any]]:
    """The outcomes of its laboratories. CalledProcessError, TimeoutExpired."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="xsk-bench-") as folder:
        for name, laboratory in experiment.labs(plan):
            out = Path(folder) / "outcome.json"
            command = [sys.executable, "-m", "bench.child", experiment.name, name, json.dumps(plan.as_json())]
            if laboratory is None:
                subprocess.run([*command, str(out)], cwd=ROOT, check=True, timeout=LIMIT_S)
            else:
                place.run(laboratory, command, out)
            outcomes.append({**json.loads(out.read_text()), "laboratory": name})
    return outcomes


def run(experiments: Mapping[str, Experiment], plan: Plan, place: Place, folder: Path) -> dict[str, str]:
    """Measures all of them into `folder`. What failed, by experiment, and why; the others are done."""
    failed = {}
    for name, experiment in experiments.items():
        print(f"{name}: {experiment.question}", file=sys.stderr, flush=True)
        try:
            outcomes = measure(experiment, plan, place)
        except (subprocess.SubprocessError, OSError) as error:
            failed[name] = " ".join(str(error).split())
            print(f"{name}: failed: {failed[name]}", file=sys.stderr, flush=True)
            continue
        results.write(folder, results.as_json(experiment, outcomes, results.command_line()))
    return failed

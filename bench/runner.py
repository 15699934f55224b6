"""Runs experiments one after the other, each in its laboratories, and writes their results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import results
from bench.experiment import Experiment, Plan
from bench.places import Place, Veth, run_child
from bench.scene import BUILD
from xsk_engine.errors import UnavailableError, XskError


def check_programs() -> None:
    """UnavailableError: the programs in C that are measured, or measure, are not built."""
    if not (BUILD / "minimal").exists():
        raise UnavailableError(
            "bench run",
            str(BUILD),
            "the benchmark's programs in C are not built; in the sources: make build/native && "
            ".venv/bin/meson compile -C build/native, or make bench-quick, which does everything",
        )


def possible(experiments: Sequence[Experiment], *, asked: bool) -> list[str]:
    """Their names, without those that need root if this is an ordinary user, which is told. UnavailableError:
    one of them was `asked` for."""
    wanting = [one.name for one in experiments if one.needs_root] if os.geteuid() else []
    if wanting and asked:
        raise UnavailableError("bench run", " ".join(wanting), "needs root (sudo)")
    for name in wanting:
        print(f"{name}: left out, it needs root", file=sys.stderr)
    return [one.name for one in experiments if one.name not in wanting]


def measure(experiment: Experiment, plan: Plan, place: Place) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The outcomes of its laboratories, and why there are none of others, which this place does not have.
    CalledProcessError, TimeoutExpired; UnavailableError: it has none of them."""
    outcomes, refused = [], {}
    with tempfile.TemporaryDirectory(prefix="xsk-bench-") as folder:
        for name, laboratory in experiment.labs(plan):
            out = Path(folder) / "outcome.json"
            command = [sys.executable, "-m", "bench.child", experiment.name, name, json.dumps(plan.as_json())]
            try:
                if laboratory is not None:
                    place.run(laboratory, command, out)
                elif isinstance(place, Veth):
                    run_child([*command, str(out)])
                else:
                    raise UnavailableError(
                        "laboratory", experiment.name, "it makes its own, on this host only"
                    )
            except UnavailableError as error:
                refused[name] = str(error)
                continue
            outcomes.append({**json.loads(out.read_text()), "laboratory": name})
    if not outcomes:
        raise UnavailableError("bench", experiment.name, "; ".join(refused.values()))
    return outcomes, refused


def run(experiments: Mapping[str, Experiment], plan: Plan, place: Place, folder: Path) -> dict[str, str]:
    """Measures all of them into `folder`. What failed, by experiment, and why; the others are done."""
    failed = {}

    def fail(name: str, why: object) -> None:
        failed[name] = " ".join(str(why).split())
        print(f"{name}: failed: {failed[name]}", file=sys.stderr, flush=True)

    for name, experiment in experiments.items():
        print(f"{name}: {experiment.question}", file=sys.stderr, flush=True)
        try:
            outcomes, refused = measure(experiment, plan, place)
        except (subprocess.SubprocessError, OSError, XskError) as error:
            fail(name, error)
            continue
        for laboratory, why in refused.items():
            fail(f"{name}, {laboratory}", why)
        results.write(folder, results.as_json(experiment, outcomes, results.command_line()))
    return failed

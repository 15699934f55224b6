"""Result files: writing them, and finding them again."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.experiment import Experiment

REFERENCE = Path(__file__).parent / "results"
"""those of the reference machine, which the README shows"""
PACKAGES = ("xsk-engine", "numpy", "uvloop", "scapy")


def machine() -> dict[str, Any]:
    """Enough to know whether two results may be compared."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if "model name" in line]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of Python and its packages; the arms' programs tell theirs themselves."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def as_json(experiment: Experiment, outcomes: Iterable[Mapping[str, Any]], command: str) -> dict[str, Any]:
    """The form that bench/result.py describes. `outcomes`: of its laboratories, by bench.child."""
    parts = list(outcomes)
    noisy = [text for part in parts for text in part["noise"].get("noisy", ())]
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "question": experiment.question,
        "held_equal": experiment.held_equal,
        "not_claimed": experiment.not_claimed,
        "counted_by": experiment.counted_by,
        "command": command,
        "when": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": versions() | {k: v for part in parts for k, v in part.get("versions", {}).items()},
        "scene": {part["laboratory"]: part["scene"] for part in parts if part["scene"]},
        "noise": {part["laboratory"]: part["noise"] for part in parts},
        "noisy": list(dict.fromkeys(noisy)),
        "rounds": max((part["rounds"] for part in parts), default=0),
        "figures": {figure.name: figure.as_json() for figure in experiment.figures},
        "picture": experiment.picture,
        "cases": [case for part in parts for case in part["cases"]],
        "details": {part["laboratory"]: part["details"] for part in parts if part["details"]},
    }


def write(folder: Path, result: Mapping[str, Any]) -> Path:
    """FOLDER/EXPERIMENT.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['experiment']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def load(path: Path) -> dict[str, dict[str, Any]]:
    """The results in a file, or in all files of a folder, by experiment. ValueError: there are none, or a
    file is none."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = {}
    for file in files:
        try:
            result = json.loads(file.read_text())
        except ValueError:
            result = None
        if not _is_result(result):
            raise ValueError(f"{file}: is no result of this benchmark")
        found[result["experiment"]] = result
    if not found:
        raise ValueError(f"{path}: holds no results; xsk-engine bench run writes some")
    return found


def _is_result(result: Any) -> bool:
    return (
        isinstance(result, dict)
        and isinstance(result.get("experiment"), str)
        and isinstance(result.get("figures"), dict)
        and isinstance(result.get("cases"), list)
        and all(isinstance(case, dict) and "name" in case for case in result["cases"])
    )


def command_line() -> str:
    """As it was typed, or nearly."""
    return " ".join(["xsk-engine", *sys.argv[1:]])

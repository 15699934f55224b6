"""What every benchmark shares: interleaved rounds, medians with spread, and results that say how they came
about. An arm is a function that runs once and returns one figure."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results"
BUILD = ROOT / "build/native/bench"

Arm = Callable[[], float]


def machine() -> dict[str, Any]:
    """Enough to know whether two results may be compared."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if "model name" in line]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def interleave(arms: dict[str, Arm], rounds: int) -> dict[str, list[float]]:
    """Every arm once a round, in turn, so that a slow minute hits all of them."""
    figures: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(rounds):
        # The first of a round has no advantage of its own.
        order = list(arms) if index % 2 == 0 else list(arms)[::-1]
        for name in order:
            figures[name].append(arms[name]())
        print(f"round {index + 1} of {rounds}", end="\r", file=sys.stderr, flush=True)
    return figures


def received(lab: PrivateLab) -> int:
    """Packets that the peer's interface has received."""
    with namespaces.entered(lab.rx_fd):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    line = next(text for text in lines if text.lstrip().startswith(topology.RX_INTERFACE))
    return int(line.split(":")[1].split()[1])


def spread(values: list[float]) -> dict[str, float]:
    """Median, minimum, maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def save(name: str, command: str, result: dict[str, Any]) -> Path:
    """bench/results/NAME.json, with the command and the machine."""
    RESULTS.mkdir(exist_ok=True)
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    path = RESULTS / f"{name}.json"
    path.write_text(
        json.dumps({"command": command, "when": when, "machine": machine()} | result, indent=1) + "\n"
    )
    return path

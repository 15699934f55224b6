"""Experiments on the emulated machine: a guest's module takes the measurements of one boot, and here they
become figures. Instructions and not time: under emulation they repeat and times do not.

The guest runs every arm once a round. Round 0 is traced, as tracing costs instructions: it has the maps; the
others are counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.result import Case
from bench.scene import BUILD, ROOT

# tests.machine is imported where it is needed: every run knows these experiments, and not every one boots.

BOOT_LIMIT_S = 900
PLUGIN = BUILD / "count.so"
UNCOUNTED = "no instruction counts here: qemu-plugin.h of the QEMU in use cannot be had"

Measured = Mapping[str, Any]
"""One line of the guest's: who, `traced`, packets, and what was counted"""


def _per_packet(name: str, *counts: str) -> Figure:
    return Figure(
        name, "per packet", lambda one: sum(one[count] for count in counts) / one["packets"], "less"
    )


def per_1000(count: str, better: str | None = "less") -> Figure:
    return Figure(count, "per 1000 packets", lambda one: 1000 * one[count] / one["packets"], better)


KERNEL, USER = "kernel_instructions", "user_instructions"
COUNTED = (_per_packet("instructions", KERNEL, USER), _per_packet(KERNEL, KERNEL), _per_packet(USER, USER))
"""on the CPU of who is measured, in the counted rounds"""
DMA_MAPS, IOMMU_MAPS = per_1000("dma_maps"), per_1000("iommu_maps")
TRACED = (DMA_MAPS, IOMMU_MAPS)
"""in the traced round"""


def build_plugin() -> Path | None:
    """The instruction counter, or None and why, on stderr."""
    from tests.machine import packages

    try:
        header = packages.qemu_header()
    except packages.MachineUnavailable as error:
        print(f"no instruction counts: {error}", file=sys.stderr)
        return None
    source = ROOT / "bench/programs/tcg"
    includes = [f"-I{source}", f"-I{header}"]
    PLUGIN.parent.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-shared", "-fPIC", "-O2", *includes, str(source / "count.c"), "-o", str(PLUGIN)]
    subprocess.run(command, check=True)
    return PLUGIN


def run(iommu: str, plugin: Path | None, guest: str, rounds: int, arms: Iterable[str]) -> list[Measured]:
    """Every measurement of one boot: `guest` is the module that takes them there, of these arms, or of all if
    there are none. RuntimeError; MachineUnavailable, MachineFailed of tests.machine."""
    from tests.machine.qemu import Machine, MachineConfig

    print(f"IOMMU {iommu}: {rounds} rounds ", end="", file=sys.stderr, flush=True)
    with Machine(MachineConfig(iommu=iommu, plugin=str(plugin) if plugin else None)) as machine:
        command = [sys.executable, "-m", guest, str(rounds), *arms]
        done = machine.python(
            *("-m", "tests.machine.guest.adopt", "--", *command),
            timeout_s=BOOT_LIMIT_S,
            watch=lambda _: print(".", end="", file=sys.stderr, flush=True),
        )
        print(file=sys.stderr)
        if done.exit:
            raise RuntimeError(f"{guest} failed with the IOMMU {iommu}:\n{done.output}")
        lines = (machine.shared / "measured").read_text().splitlines()
    return [json.loads(line) for line in lines]


def versions() -> dict[str, str]:
    """Of the guest."""
    from tests.machine import packages

    return {"guest's kernel": packages.get().release}


def case_of(
    name: str, measured: Sequence[Measured], counted: Sequence[Figure] = COUNTED, region: str = "send"
) -> Case:
    """`region`: whose maps are meant. Arms have the order of the first counted round. Pure."""
    rounds: dict[str, list[dict[str, float]]] = {}
    traced: dict[str, list[dict[str, float]]] = {}
    for one in measured:
        if one["traced"]:
            traced.setdefault(one["arm"], []).append({"packets": one["packets"], **one.get(region, {})})
        else:
            numbers = {key: n for key, n in one.items() if isinstance(n, int | float)}
            rounds.setdefault(one["arm"], []).append(numbers)
    case = Case.of(name, rounds, counted)
    for arm, of in Case.of(name, traced, TRACED).arms.items():
        case.arms.setdefault(arm, {}).update(of)
    if not any(KERNEL in one for one in measured):
        case.notes.append(UNCOUNTED)
    return case


def median(case: Case, arm: str, figure: str) -> float | None:
    """None: it was not measured."""
    of = case.arms.get(arm, {}).get(figure)
    return float(of["median"]) if of else None

"""``make bench-premap``, the project's reason to exist: what does it save to map memory for the device once?

First half, on the emulated machine (two igb behind an emulated Intel IOMMU): DMA maps and instructions per
packet of the kernel's senders and of the engine, with the IOMMU strict, lazy and in passthrough. Instructions
and not time: under emulation they repeat and times do not. Second half: bench/ablation.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench import ablation, premap_picture
from bench.harness import RESULTS, ROOT, save, spread
from tests.machine.packages import MachineUnavailable, qemu_header
from tests.machine.qemu import IOMMU, Machine, MachineConfig

ROUNDS = 5
BOOT_LIMIT_S = 900
PLUGIN = ROOT / "build/native/bench/count.so"
ENGINE, RIVAL = "engine, zero-copy", "minimal C sender, zero-copy"
PATCHED = "engine, zero-copy, 3 fields and checksum patched"
PATCHED_SMALL = "engine, zero-copy, 3 fields and checksum patched, 60 bytes"
USER_TARGET, RATIO_TARGET = 80, 1.10
# Of the traffic programs, whatever the length of the packets.
PATCHED_TARGET = 160

Figures = dict[str, dict[str, Any]]
"""By sender."""


def build_plugin() -> Path | None:
    """The instruction counter, or None and why."""
    try:
        header = qemu_header()
    except MachineUnavailable as error:
        print(f"no instruction counts: {error}", file=sys.stderr)
        return None
    source = ROOT / "bench/tcg"
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-O2",
        f"-I{source}",
        f"-I{header}",
        source / "count.c",
        "-o",
        PLUGIN,
    ]
    subprocess.run(command, check=True)
    return PLUGIN


def run_machine(iommu: str, plugin: Path | None, guest: str, rounds: int) -> list[dict[str, Any]]:
    """Every measurement of one boot: `guest` is the module that takes them there."""
    config = MachineConfig(iommu=iommu, plugin=str(plugin) if plugin else None)
    with Machine(config) as machine:
        done = machine.python(
            *(
                "-m",
                "tests.machine.guest.adopt",
                "--",
                sys.executable,
                "-m",
                guest,
                str(rounds),
            ),
            timeout_s=BOOT_LIMIT_S,
            watch=lambda _: print(".", end="", file=sys.stderr, flush=True),
        )
        print(file=sys.stderr)
        if done.exit:
            raise SystemExit(f"{guest} failed with the IOMMU {iommu}:\n{done.output}")
        lines = (machine.shared / "measured").read_text().splitlines()
    return [json.loads(line) for line in lines]


def per_packet(measured: list[dict[str, Any]]) -> Figures:
    """Medians over the counted rounds, maps of the traced one."""
    # Round 1 runs them in their own order.
    order = [one["sender"] for one in measured if not one["traced"]]
    figures: Figures = {sender: {"packets": []} for sender in dict.fromkeys(order)}
    for one in measured:
        of = figures[one["sender"]]
        if one["traced"]:
            maps = one.get("send", {})
            of["per_1000"] = {k: round(1000 * n / one["packets"], 1) for k, n in maps.items()}
            of["at_open"] = one.get("open")
            continue
        of["packets"].append(one["packets"])
        for name in ("kernel_instructions", "user_instructions"):
            if name in one:
                of.setdefault(name, []).append(one[name] / one["packets"])
    for of in figures.values():
        for name in ("kernel_instructions", "user_instructions", "packets"):
            if name in of:
                of[name] = {k: round(v, 1) for k, v in spread(of[name]).items()}
    return figures


def table(by_iommu: dict[str, Figures]) -> Table:
    """One row per sender; maps are those with the first IOMMU mode, instructions medians."""
    view = Table(box=box.SIMPLE_HEAD, title="per packet of 1514 bytes, igb, emulated")
    first = next(iter(by_iommu.values()))
    view.add_column("sender")
    kernel = [f"kernel instr\n{iommu}" for iommu in by_iommu]
    for column in ("DMA maps\nper 1000", "IOMMU maps\nper 1000", *kernel, "user\ninstr"):
        view.add_column(column, justify="right")
    for sender, of in first.items():
        maps = [f"{of['per_1000'][k]:,.0f}" if of["per_1000"] else "" for k in ("dma_maps", "iommu_maps")]
        counts = [_median(figures[sender], "kernel_instructions") for figures in by_iommu.values()]
        view.add_row(sender, *maps, *counts, _median(of, "user_instructions"))
    return view


def _median(of: dict[str, Any], name: str) -> str:
    return f"{of[name]['median']:,.0f}" if name in of else ""


def verdicts(by_iommu: dict[str, Figures]) -> list[dict[str, Any]]:
    """The targets, each with its figure and whether it is met."""

    def verdict(what: str, value: float, limit: float) -> dict[str, Any]:
        return {"target": what, "value": round(value, 3), "limit": limit, "met": value <= limit}

    strict, passthrough = by_iommu["strict"], by_iommu["passthrough"]
    found = [
        verdict(f"DMA maps per 1000 packets, {iommu}", figures[ENGINE]["per_1000"]["dma_maps"], 0)
        for iommu, figures in by_iommu.items()
    ]
    if "kernel_instructions" not in strict[ENGINE]:
        return found

    def median(figures: Figures, sender: str, name: str) -> float:
        return float(figures[sender][name]["median"])

    for iommu, figures in by_iommu.items():
        ratio = median(figures, ENGINE, "kernel_instructions") / median(figures, RIVAL, "kernel_instructions")
        found.append(verdict(f"kernel instructions, engine : minimal C sender, {iommu}", ratio, RATIO_TARGET))
    kernel = sorted(median(f, ENGINE, "kernel_instructions") for f in (strict, passthrough))
    found.append(verdict("kernel instructions, strict : passthrough", kernel[1] / kernel[0], RATIO_TARGET))
    for sender, limit in (
        (ENGINE, USER_TARGET),
        (PATCHED_SMALL, PATCHED_TARGET),
        (PATCHED, PATCHED_TARGET),
    ):
        worst = max(median(f, sender, "user_instructions") for f in by_iommu.values())
        found.append(verdict(f"user instructions, {sender}", worst, limit))
    return found


def main() -> None:
    plugin = build_plugin()
    by_iommu: dict[str, Figures] = {}
    for iommu in IOMMU:
        print(f"IOMMU {iommu}: {ROUNDS} rounds of all senders", file=sys.stderr)
        by_iommu[iommu] = per_packet(run_machine(iommu, plugin, "bench.premap_guest", ROUNDS))
    checked = verdicts(by_iommu)
    Console(width=140).print(table(by_iommu))
    for sender, of in by_iommu["strict"].items():
        if of["at_open"]:
            print(f"{sender}: {of['at_open']['dma_maps']:,} DMA maps once, when it opens")
    for one in checked:
        print(
            f"{one['target']}: {one['value']} (at most {one['limit']}): {'met' if one['met'] else 'MISSED'}"
        )
    result = {"rounds": ROUNDS, "frame_bytes": 1514, "iommu": by_iommu, "targets": checked}
    print(save("premap", "make bench-premap", result))
    print(premap_picture.draw(by_iommu, RESULTS / "premap.svg"))
    ablation.run()


if __name__ == "__main__":
    main()

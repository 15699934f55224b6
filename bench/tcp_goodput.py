"""The second half of ``make bench-tcp``: what one TCP connection of the engine, and several, bring into a
kernel's socket on veth, beside the kernel's own TCP, and the CPU time of the whole machine for it. Every wire
in a laboratory of its own (tcp_goodput_lab.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness import save, spread
from bench.ratios import Target, cell, judged, ratio, verdict_cells
from bench.tcp_goodput_lab import WIRES

TARGETS = {
    "65535": Target(0.9, at_least=True),
    "9000, TSO and GSO off": Target(0.65, at_least=True),
    "1500, TSO and GSO off": Target(0.8, at_least=True),
}
"""of one flow, by wire; with TSO on the ratio is published"""
WIRE_LIMIT_S = 900
# CPUs that are busy while nothing is measured. More: what is left to the arms, and the CPU time, say little.
IDLE_LIMIT = 0.1
ARMS = ("ours", "theirs")


def measure(wire: str, rounds: int) -> dict[str, Any]:
    """In a laboratory of its own."""
    lab = [sys.executable, "-m", "xsk_engine", "lab", "run", "--queues", "2", "--mtu", str(WIRES[wire].mtu)]
    command = [*lab, "--", sys.executable, "-m", "bench.tcp_goodput_lab", wire, str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=WIRE_LIMIT_S)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(measured: list[dict[str, Any]], target: Target | None) -> list[dict[str, Any]]:
    """One entry for every receiver and number of flows, in their order: spreads over the rounds, and ours :
    theirs of the same round. The target is for one flow."""
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for one in measured:
        cells.setdefault((one["receiver"], one["flows"]), []).append(one)
    found = []
    for (receiver, flows), rounds in cells.items():
        of: dict[str, Any] = {"receiver": receiver, "flows": flows}
        for name in ("gbps", "cpu_s_per_gb"):
            by_arm = {arm: [one[arm][name] for one in rounds] for arm in ARMS}
            of[name] = {
                arm: {k: round(v, 4) for k, v in spread(values).items()} for arm, values in by_arm.items()
            }
            of[f"{name}_rounds"] = by_arm
        rates = of["gbps_rounds"]
        of["ratio"] = judged(ratio(rates["ours"], rates["theirs"]), target if flows == 1 else None)
        of["again"] = sum(one["ours"]["again"] for one in rounds)
        found.append(of)
    return found


def table(by_wire: dict[str, list[dict[str, Any]]]) -> Table:
    view = Table(box=box.SIMPLE_HEAD, title="veth, copy mode, to a kernel's socket; engine : kernel, medians")
    view.add_column("flows: receiver")
    for column in ("Gbit/s", "ratio, of the same\nround (extremes)", "CPU s/GB"):
        view.add_column(column, justify="right")
    view.add_column("target")
    view.add_column("")
    for wire, cells in by_wire.items():
        view.add_section()
        view.add_row(f"[italic]MTU {wire}[/italic]")
        for of in cells:
            rates = " : ".join(f"{of['gbps'][arm]['median']:.1f}" for arm in ARMS)
            costs = " : ".join(f"{of['cpu_s_per_gb'][arm]['median']:.2f}" for arm in ARMS)
            what = f"{of['flows']}: {of['receiver']}"
            view.add_row(what, rates, cell(of["ratio"]), costs, *verdict_cells(of["ratio"]))
    return view


def run(console: Console, rounds: int) -> None:
    """Measures, prints, saves."""
    load = os.getloadavg()[0]
    by_wire: dict[str, list[dict[str, Any]]] = {}
    idle: dict[str, dict[str, float]] = {}
    for wire in WIRES:
        print(f"veth, MTU {wire}: {rounds} rounds ", end="", file=sys.stderr, flush=True)
        result = measure(wire, rounds)
        print(file=sys.stderr)
        idle[wire] = result["idle_cpus"]
        by_wire[wire] = summary(result["measured"], TARGETS.get(wire))
    console.print(table(by_wire))
    print("CPU s/GB: of the whole machine, per 10^9 bytes of payload, less what was used before it began:")
    print(", ".join(f"{cpus['before']:.2f} CPUs (MTU {wire})" for wire, cpus in idle.items()))
    if max(max(cpus.values()) for cpus in idle.values()) > IDLE_LIMIT:
        print("THE MACHINE IS NOT IDLE: other work ran beside this, and its figures are not worth much")
    result = {
        "rounds": rounds,
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "idle_cpus": idle,
        "wires": by_wire,
    }
    print(save("tcp_goodput", "make bench-tcp", result))

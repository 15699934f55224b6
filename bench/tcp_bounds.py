"""``make bench-tcp-bounds``: what bounds a TCP sender on AF_XDP, measured before there is one.

First half, on the emulated machine: what a received ACK costs, in instructions and IOMMU maps, when the
steering program sends it to an AF_XDP socket, and when the kernel's stack has it. Second half, on veth: how
much a stream of segments that waits for no ACK brings into a kernel's TCP socket, beside the kernel's TCP.

``python -m bench.tcp_bounds acks``, or ``blind``, is one half alone.
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
from bench.premap import build_plugin, run_machine
from bench.tcp_blind import MEGABYTES

ROUNDS = 5
GUEST = "bench.tcp_bounds_guest"
OURS, THEIRS = "AF_XDP, zero-copy", "kernel, TCP socket"
HOW = {False: "dense", True: "alone"}
MTU_LIMIT_S = 900

Figures = dict[str, dict[str, Any]]


def per_ack(measured: list[dict[str, Any]]) -> tuple[Figures, Figures]:
    """By receiver: each way of coming ("dense", "alone"), and what costs a second without ACKs."""
    figures: Figures = {}
    idle: Figures = {}
    for one in measured:
        if one.get("idle"):
            names = ("kernel_instructions", "user_instructions")
            idle[one["receiver"]] = {name: one[name] / one["seconds"] for name in names}
            continue
        of = figures.setdefault(one["receiver"], {}).setdefault(HOW[one["alone"]], {})
        if one["traced"]:
            of["per_1000"] = {k: round(1000 * n / one["packets"], 1) for k, n in one["receive"].items()}
            continue
        for name in ("kernel_instructions", "user_instructions"):
            if name in one:
                of.setdefault(name, []).append(one[name] / one["packets"])
        of.setdefault("seconds", []).append(one["seconds"])
        of["packets"] = one["packets"]
    for ways in figures.values():
        for of in ways.values():
            for name in ("kernel_instructions", "user_instructions", "seconds"):
                if name in of:
                    of[name] = {k: round(v, 2) for k, v in spread(of[name]).items()}
    return figures, idle


def ack_table(figures: Figures) -> Table:
    view = Table(box=box.SIMPLE_HEAD, title="per received ACK of 66 bytes, igb, IOMMU strict, emulated")
    view.add_column("receiver")
    for how in HOW.values():
        for column in ("kernel instr", "user instr", "IOMMU maps\nper 1000"):
            view.add_column(f"{how}\n{column}", justify="right")
    for receiver, ways in figures.items():
        cells = []
        for how in HOW.values():
            of = ways[how]
            for name in ("kernel_instructions", "user_instructions"):
                cells.append(f"{of[name]['median']:,.0f}" if name in of else "")
            cells.append(f"{of['per_1000']['iommu_maps']:g}")
        view.add_row(receiver, *cells)
    return view


def ack_ratios(figures: Figures) -> dict[str, dict[str, float]]:
    """Kernel instructions of each receiver as a multiple of zero-copy AF_XDP's; empty without the plugin."""
    ratios: dict[str, dict[str, float]] = {}
    for how in HOW.values():
        if "kernel_instructions" not in figures[OURS][how]:
            return {}
        ours = figures[OURS][how]["kernel_instructions"]["median"]
        ratios[how] = {
            name: round(ways[how]["kernel_instructions"]["median"] / ours, 2)
            for name, ways in figures.items()
        }
    return ratios


def share_of_idle(figures: Figures, idle: Figures) -> dict[str, dict[str, float]]:
    """Kernel instructions per ACK that would have been executed without any, at most."""
    return {
        receiver: {
            how: round(idle[receiver]["kernel_instructions"] * ways["seconds"]["median"] / ways["packets"], 1)
            for how, ways in figures[receiver].items()
        }
        for receiver in idle
    }


def blind(mtu: int) -> dict[str, Any]:
    """One MTU, in a laboratory of its own."""
    lab = [sys.executable, "-m", "xsk_engine", "lab", "run", "--queues", "2", "--mtu", str(mtu), "--"]
    command = [*lab, sys.executable, "-m", "bench.tcp_blind"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=MTU_LIMIT_S)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def blind_tables(by_mtu: dict[int, dict[str, Any]]) -> list[Table]:
    rates = Table(box=box.SIMPLE_HEAD, title="to a kernel's TCP socket: Gbit/s of payload (ACKs per segment)")
    ratios = Table(box=box.SIMPLE_HEAD, title="same round: median (extremes), best of each")
    for view in (rates, ratios):
        view.add_column("")
        for mtu in by_mtu:
            view.add_column(f"MTU {mtu}", justify="right")
    first = next(iter(by_mtu.values()))
    for arm in first["gbps"]:
        cells = (
            f"{one['gbps'][arm]['median']:.1f} ({one['acks_per_segment'][arm]['median']:.2f})"
            for one in by_mtu.values()
        )
        rates.add_row(arm, *cells)
    for pair in first["ratios"]:
        spreads = (one["ratios"][pair] for one in by_mtu.values())
        cells = (f"{r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f}), {r['best']:.2f}" for r in spreads)
        ratios.add_row(pair, *cells)
    return [rates, ratios]


def measure_acks(console: Console) -> None:
    plugin = build_plugin()
    print(f"emulated machine: {ROUNDS} rounds of all receivers", file=sys.stderr)
    figures, idle = per_ack(run_machine("strict", plugin, GUEST, ROUNDS))
    console.print(ack_table(figures))
    ratios, idle_share = ack_ratios(figures), share_of_idle(figures, idle)
    for how, of in ratios.items():
        print(f"{THEIRS} : {OURS}, {how}: {of[THEIRS]} times the kernel instructions")
    print(f"of which without any ACK, at most: {idle_share}")
    result = {"rounds": ROUNDS, "receivers": figures, "times_zero_copy": ratios, "of_which_idle": idle_share}
    print(save("tcp_acks", "make bench-tcp-bounds", result))


def measure_blind(console: Console) -> None:
    load = os.getloadavg()[0]
    by_mtu = {mtu: blind(mtu) for mtu in MEGABYTES}
    print(file=sys.stderr)
    for view in blind_tables(by_mtu):
        console.print(view)
    # It can only be read with the load: what else runs slows the kernel's TCP most, which needs both CPUs.
    result = {"load_average": {"before": load, "after": os.getloadavg()[0]}, "mtu": by_mtu}
    print(save("tcp_blind", "make bench-tcp-bounds", result))


HALVES = {"acks": measure_acks, "blind": measure_blind}


def main() -> None:
    """Both halves, or those named: the second wants a machine that does nothing else."""
    for half in sys.argv[1:] or HALVES:
        HALVES[half](Console(width=140))


if __name__ == "__main__":
    main()

"""The first half of ``make bench-tcp``: what a packet of TCP costs its sender, in zero-copy beside the
kernel's TCP.

On the emulated machine, as the first half of ``make bench-premap``: DMA maps and instructions per packet,
with the IOMMU strict; and where those instructions are.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.blocks import ELSEWHERE
from bench.harness import save, spread
from bench.premap import build_plugin, run_machine
from bench.ratios import Target, cell, judged, ratio, verdict_cells
from bench.tcp_names import ENGINE, ENGINE_IN_PLACE, KERNEL, KERNEL_TSO, LOOP_ALONE, PAIRS

GUEST = "bench.tcp_instructions_guest"
WITH_GRO, WITHOUT_GRO = "GRO at the receiver", "no GRO at the receiver"
# Of all instructions, the kernel's and the user's: of the kernel that segments itself, and of the NIC's TSO.
TARGET, TSO_TARGET = Target(0.15, at_least=False), Target(1.0, at_least=False, required=False)
OTHERS = "scheduler, timers, memory"
# Kernel functions by name: the first that matches.
GROUPS = {
    "DMA and IOMMU": "dma|iommu|iova|qi_|cache_tag|vtdss|map_range|make_range|range_pending|clflush"
    "|pt_compute",
    "receiving, steering": "rx_irq|rx_buffers|bpf_prog|htab|nulls|xdp|xsk_map|xsk_rcv|xsk_flush|xp_alloc",
    "sending: igb, AF_XDP": "igb_xmit_zc|igb_poll|xsk_tx|tx_peek|xp_raw|set_tx_need|xsk_cq|dql_",
    "TCP, IP and packets": "tcp|skb|ip_|inet|igb_xmit|igb_tx|xmit|gso|sk_|csum|napi_|net_rx|neigh",
    "system calls": "SYSCALL|syscall|sys_|sysret|sock|poll|fdget|fput|security|apparmor|aa_|tomoyo|xsk"
    "|eventfd",
}
# Of the engine's user instructions, those of the application's thread, and of the library in it.
APPLICATION = re.compile(
    r"xske_tcp_(write|alloc|submit|info)|xske_arena_(enter|leave)|arena_open_chunk|enter$|hand_over|submit"
    r"|send_(all|some)|write_round|acked_bytes|copy_blocks|alloc$|nap|csum_(copy|long)|sum_\w+"
    r"|libtcp_writer|" + ELSEWHERE
)
SHOWN = (KERNEL, KERNEL_TSO, ENGINE, ENGINE_IN_PLACE, LOOP_ALONE)
"""whose instructions are shown by part; the others' are in the results"""
_LEAST = 1.0
"""instructions per packet of a function that is named in the result"""

Figures = dict[str, dict[str, Any]]
"""By sender."""


def per_packet(measured: list[dict[str, Any]]) -> Figures:
    """Medians over the counted rounds, maps of the traced one, functions of the last."""
    figures: Figures = {one["sender"]: {} for one in measured if not one["traced"]}
    for one in measured:
        of, packets = figures[one["sender"]], one["packets"]
        if one["traced"]:
            of["per_1000"] = {name: round(1000 * n / packets, 1) for name, n in one.get("send", {}).items()}
            of["at_open"] = one.get("open")
            continue
        of.setdefault("acks_per_1000", []).append(1000 * one["acks"] / packets)
        if "kernel_instructions" in one:
            kernel, user = (one[f"{whose}_instructions"] / packets for whose in ("kernel", "user"))
            for name, n in (("kernel", kernel), ("user", user), ("instructions", kernel + user)):
                of.setdefault(name, []).append(n)
        for name in ("seconds", "kicks", "again", "copied", "timeouts"):
            if name in one:
                of.setdefault(name, []).append(one[name])
        of.setdefault("packets", []).append(packets)
        if one.get("functions"):
            of["functions"] = {
                where: {name: round(n / packets, 1) for name, n in by.items() if n / packets >= _LEAST}
                for where, by in one["functions"].items()
            }
            of["parts"] = {name: round(n / packets, 1) for name, n in parts(one["functions"]).items()}
    for of in figures.values():
        of["rounds"] = of.get("instructions", [])
        for name, values in of.items():
            if isinstance(values, list) and name != "rounds":
                of[name] = {k: round(v, 1) for k, v in spread(values).items()}
    return figures


def ratios(figures: Figures) -> dict[str, dict[str, Any]]:
    """All instructions of ours : theirs, by what is compared; of those that were counted."""
    found: dict[str, dict[str, Any]] = {}
    for ours, *theirs in PAIRS.values():
        for their, target in zip(theirs, (TARGET, TSO_TARGET), strict=True):
            rounds = [figures.get(sender, {}).get("rounds") for sender in (ours, their)]
            if rounds[0] and rounds[1]:
                found[f"{ours} : {their}"] = judged(ratio(rounds[0], rounds[1]), target)
    return found


def idle_share(figures: Figures, idle: dict[str, Any]) -> dict[str, float]:
    """Instructions per packet that the sender's CPU would have executed without sending, at most: `seconds`
    are those of a whole run, with the opening of its connection."""
    per_second = idle["instructions"] / idle["seconds"]
    return {
        sender: round(per_second * of["seconds"]["median"] / of["packets"]["median"], 1)
        for sender, of in figures.items()
    }


def parts(functions: dict[str, dict[str, int]]) -> dict[str, int]:
    """Instructions by part: GROUPS, OTHERS, and the user's in two."""
    found = dict.fromkeys((*GROUPS, OTHERS, "user: the loop", "user: the application"), 0)
    for name, n in functions["kernel"].items():
        group = next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), OTHERS)
        found[group] += n
    for name, n in functions["user"].items():
        found["user: the application" if APPLICATION.match(name) else "user: the loop"] += n
    return found


def cost_table(by_gro: dict[str, Figures]) -> Table:
    view = Table(box=box.SIMPLE_HEAD, title="per packet of 1514 bytes, igb, IOMMU strict, emulated")
    view.add_column("sender")
    for column in (
        "ACKs\nper 1000",
        "IOMMU maps\nper 1000",
        "kernel\ninstr",
        "user\ninstr",
        "both\n(extremes)",
    ):
        view.add_column(column, justify="right")
    for how, figures in by_gro.items():
        view.add_section()
        view.add_row(f"[italic]{how}[/italic]")
        for sender, of in figures.items():
            counts = [f"{of[name]['median']:,.0f}" if name in of else "" for name in ("kernel", "user")]
            both = f"{of['instructions']['median']:,.0f}" if "instructions" in of else ""
            if both:
                both += f" ({of['instructions']['min']:,.0f} to {of['instructions']['max']:,.0f})"
            maps = f"{of['per_1000']['iommu_maps']:,.0f}"
            view.add_row(sender, f"{of['acks_per_1000']['median']:,.0f}", maps, *counts, both)
    return view


def ratio_table(by_gro: dict[str, Figures]) -> Table:
    view = Table(box=box.SIMPLE_HEAD, title="all instructions, of the same round: median (extremes)")
    for column in ("", "ratio", "target", ""):
        view.add_column(column)
    for how, figures in by_gro.items():
        view.add_section()
        view.add_row(f"[italic]{how}[/italic]")
        for pair, of in ratios(figures).items():
            view.add_row(pair, cell(of, 3), *verdict_cells(of))
    return view


def parts_table(figures: Figures) -> Table:
    view = Table(box=box.SIMPLE_HEAD, title=f"where they are, instructions per packet ({WITH_GRO})")
    view.add_column("")
    with_parts = {sender: figures[sender]["parts"] for sender in SHOWN if "parts" in figures.get(sender, {})}
    for sender in with_parts:
        view.add_column(sender.replace(": ", ":\n").replace(", ", ",\n"), justify="right")
    for part in next(iter(with_parts.values()), {}):
        view.add_row(part, *(f"{of[part]:,.0f}" for of in with_parts.values()))
    return view


def run(console: Console, rounds: int) -> None:
    """Measures, prints, saves."""
    print(f"emulated machine: {rounds} rounds of all senders", file=sys.stderr)
    *measured, idle = run_machine("strict", build_plugin(), GUEST, rounds)
    by_gro = {
        how: per_packet([one for one in measured if one["gro"] == (how == WITH_GRO)])
        for how in (WITH_GRO, WITHOUT_GRO)
    }
    console.print(cost_table(by_gro), ratio_table(by_gro), parts_table(by_gro[WITH_GRO]))
    share = idle_share(by_gro[WITH_GRO], idle)
    print(f"of which an idle machine's, per packet at most: {max(share.values()):.0f}")
    result = {
        "rounds": rounds,
        "frame_bytes": 1514,
        "iommu": "strict",
        "senders": by_gro,
        "of_which_idle_at_most": share,
        "ratios": {how: ratios(figures) for how, figures in by_gro.items()},
    }
    print(save("tcp_instructions", "make bench-tcp", result))

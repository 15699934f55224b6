"""``make bench-tcp-premap``: what a packet of TCP costs its sender, in zero-copy beside the kernel's TCP.

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

ROUNDS = 3
GUEST = "bench.tcp_premap_guest"
WITH_GRO, WITHOUT_GRO = "GRO at the receiver", "no GRO at the receiver"
OTHERS = "scheduler, timers, interrupts, memory"
# Kernel functions by name: the first that matches.
GROUPS = {
    "DMA and IOMMU": "dma|iommu|iova|qi_|cache_tag|vtdss|map_range|make_range|range_pending|clflush"
    "|pt_compute",
    "receiving, steering, redirect": "rx_irq|rx_buffers|bpf_prog|htab|nulls|xdp|xsk_map|xsk_rcv|xsk_flush"
    "|xp_alloc",
    "sending: igb and AF_XDP": "igb_xmit_zc|igb_poll|xsk_tx|tx_peek|xp_raw|set_tx_need|xsk_cq|dql_",
    "TCP, IP and packets": "tcp|skb|ip_|inet|igb_xmit|igb_tx|xmit|gso|sk_|csum|napi_|net_rx|neigh",
    "system calls": "SYSCALL|syscall|sys_|sysret|sock|poll|fdget|fput|security|apparmor|aa_|tomoyo|xsk"
    "|eventfd",
}
APPLICATION = {"submit", "xske_tcp_write", "xske_tcp_info", "arena_open_chunk", "libtcp_writer.so", ELSEWHERE}
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
        for name in ("kernel_instructions", "user_instructions"):
            if name in one:
                of.setdefault(name, []).append(one[name] / packets)
        for name in ("kicks", "again", "copied", "timeouts"):
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
        for name, values in of.items():
            if isinstance(values, list):
                of[name] = {k: round(v, 1) for k, v in spread(values).items()}
    return figures


def parts(functions: dict[str, dict[str, int]]) -> dict[str, int]:
    """Instructions by part: GROUPS, OTHERS, and the user's in two."""
    found = dict.fromkeys((*GROUPS, OTHERS, "user: the loop", "user: the application"), 0)
    for name, n in functions["kernel"].items():
        group = next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), OTHERS)
        found[group] += n
    for name, n in functions["user"].items():
        found["user: the application" if name in APPLICATION else "user: the loop"] += n
    return found


def cost_table(by_gro: dict[str, Figures]) -> Table:
    view = Table(box=box.SIMPLE_HEAD, title="per packet of 1514 bytes, igb, IOMMU strict, emulated")
    view.add_column("sender")
    for column in (
        "ACKs\nper 1000",
        "DMA maps\nper 1000",
        "IOMMU maps\nper 1000",
        "kernel\ninstr",
        "user\ninstr",
    ):
        view.add_column(column, justify="right")
    for how, figures in by_gro.items():
        view.add_section()
        for sender, of in figures.items():
            maps = [f"{of['per_1000'][k]:,.0f}" for k in ("dma_maps", "iommu_maps")]
            counts = [
                f"{of[name]['median']:,.0f}" if name in of else ""
                for name in ("kernel_instructions", "user_instructions")
            ]
            view.add_row(f"{sender} ({how})", f"{of['acks_per_1000']['median']:,.0f}", *maps, *counts)
    return view


def parts_table(figures: Figures) -> Table:
    view = Table(box=box.SIMPLE_HEAD, title=f"where they are, instructions per packet ({WITH_GRO})")
    view.add_column("")
    with_parts = {sender: of["parts"] for sender, of in figures.items() if "parts" in of}
    for sender in with_parts:
        view.add_column(sender, justify="right")
    for part in next(iter(with_parts.values()), {}):
        view.add_row(part, *(f"{of[part]:,.0f}" for of in with_parts.values()))
    return view


def main() -> None:
    console = Console(width=160)
    print(f"emulated machine: {ROUNDS} rounds of all senders", file=sys.stderr)
    measured = run_machine("strict", build_plugin(), GUEST, ROUNDS)
    by_gro = {
        how: per_packet([one for one in measured if one["gro"] == (how == WITH_GRO)])
        for how in (WITH_GRO, WITHOUT_GRO)
    }
    console.print(cost_table(by_gro))
    console.print(parts_table(by_gro[WITH_GRO]))
    result = {"rounds": ROUNDS, "frame_bytes": 1514, "iommu": "strict", "senders": by_gro}
    print(save("tcp_premap", "make bench-tcp-premap", result))


if __name__ == "__main__":
    main()

"""Second half of ``make bench-premap``: each idea of the allocator beside its opposite. Without a kernel
(bench/ablation.c, ns per packet), and on the veth laboratory, where the receiver's count is the result.

Run without arguments it starts itself in a laboratory; ``measure`` is what runs there.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness import BUILD, ROOT, interleave, received, save, spread
from tests.lab.wire import Wire, frame
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.flow import Traffic
from xsk_engine.lab import topology
from xsk_engine.lab.private import PrivateLab

NATIVE_ROUNDS = 21
LAB_ROUNDS = 9
SLICE_S = 0.25
QUOTAS = (16, 64, 256, 1024, 2048)
BATCHES = (64, 1024, 16_384)
BATCHED_PACKETS = 65_536
SENDER_CPU, OTHER_CPU = 0, 1

PAIRS = {
    "chunks recycled hottest first : memory used in turn (64 MiB)": ("written_hot", "written_in_a_circle"),
    "chunks kept in the arena : given back to the pool after every batch": ("recycled", "not_recycled"),
    "packed frags : a chunk per packet, 64 bytes": ("packed", "chunk_per_packet"),
    "clone : copy, 1514 bytes": ("cloned", "copied"),
    "template posted again : one field patched into every packet, 1514 bytes": (
        "template_1514",
        "copies_1514",
    ),
}

CONFIG = EngineConfig(topology.TX_INTERFACE, cpus=(SENDER_CPU,), mode="copy")


def native() -> dict[str, Any]:
    """The arms of bench/ablation.c."""
    command = [str(BUILD / "ablation"), str(NATIVE_ROUNDS)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return figures


def open_engine() -> Engine:
    """Opened with the sender's CPU for its worker and the other for this thread."""
    os.sched_setaffinity(0, {SENDER_CPU, OTHER_CPU})
    engine = Engine(CONFIG)
    os.sched_setaffinity(0, {OTHER_CPU})
    return engine.open()


def send(lab: PrivateLab, traffic: Traffic) -> float:
    """Packets per second at the peer, opening and closing not counted."""
    engine = open_engine()
    try:
        before, start = received(lab), time.perf_counter()
        asyncio.run(engine.run(traffic))
        return (received(lab) - before) / (time.perf_counter() - start)
    finally:
        engine.close()


def send_in_batches(lab: PrivateLab, packets: int, at_most: int) -> float:
    """The same, with the umem registered anew, and its queue bound, for every batch."""
    sent, start, before = 0, time.perf_counter(), received(lab)
    traffic = Traffic(frame(60), count=packets)
    while sent < at_most:
        engine = open_engine()
        try:
            asyncio.run(engine.run(traffic))
        finally:
            engine.close()
        sent += packets
    return (received(lab) - before) / (time.perf_counter() - start)


def measure() -> dict[str, Any]:
    """Inside a laboratory: packets per second by quota, and by packets per registration."""
    lab = PrivateLab.from_environment()
    with Wire(lab).listening():
        quotas = {
            str(quota): partial(send, lab, Traffic(frame(60), duration_s=SLICE_S, quota_frags=quota))
            for quota in QUOTAS
        }
        # Few packets are enough where each batch costs milliseconds.
        batches = {
            str(batch): partial(send_in_batches, lab, batch, min(BATCHED_PACKETS, 16 * batch))
            for batch in BATCHES
        }
        once = {"once": partial(send, lab, Traffic(frame(60), count=4 * BATCHED_PACKETS))}
        by_quota = interleave(quotas, LAB_ROUNDS)
        by_batch = interleave(batches | once, LAB_ROUNDS)
    return {
        "pps_by_quota_frags": {name: spread(values) for name, values in by_quota.items()},
        "pps_by_packets_per_registration": {name: spread(values) for name, values in by_batch.items()},
    }


def show(figures: dict[str, Any], lab: dict[str, Any]) -> None:
    """Tables on stdout."""
    view = Table(box=box.SIMPLE_HEAD, title="without a kernel, ns per packet")
    for column in ("", "ours", "its opposite", "ratio"):
        view.add_column(column, justify="left" if not column else "right")
    for name, (ours, other) in PAIRS.items():
        a, b = figures[ours]["median"], figures[other]["median"]
        view.add_row(name, f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}")
    Console().print(view)
    for name, values in lab.items():
        view = Table(box=box.SIMPLE_HEAD, title=f"veth, 60 bytes, copy mode: {name}")
        for column in values:
            view.add_column(column, justify="right")
        view.add_row(*(f"{v['median'] / 1e3:,.0f} k" for v in values.values()))
        view.add_row(*(f"{v['min'] / 1e3:,.0f} to {v['max'] / 1e3:,.0f}" for v in values.values()))
        Console().print(view)


def run() -> None:
    """Both parts; writes bench/results/ablation.json."""
    figures = native()
    command = ["xsk-engine", "lab", "run", "--", sys.executable, "-m", "bench.ablation", "measure"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=600)
    lab = json.loads(done.stdout)
    show(figures, lab)
    print(save("ablation", "make bench-premap", {"native": figures, "veth": lab}))


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        run()

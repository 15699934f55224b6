"""``make bench-library``: the library against a minimal C sender, plain sockets and plain asyncio, and when
idle. Runs inside a laboratory with two queues.

Rates are what the peer's interface received, on the same pair, MAC addresses and bound socket (which nobody
reads), in slices as ``bench.limit`` takes them. The engine's thread has one CPU and the application's the
other; a rival's only thread may use both.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import uvloop

import xsk_engine
from bench.harness import save, spread
from bench.limit import SENDER_CPU, SLICE_S, SLICES, Pair, compare, judge, minimal
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

ARMS = Path(__file__).with_name("library_arms.py")
PEER = (topology.RX_IPV4, 9000)
PAYLOAD = 64
FRAME = 14 + 20 + 8 + PAYLOAD
LAG_S, IDLE_S = 5.0, 10.0
READS = 20_000


def arm(name: str) -> Callable[[int], list[str]]:
    def command(queue: int) -> list[str]:
        return [sys.executable, str(ARMS), name, str(queue), str(SENDER_CPU)]

    return command


def pairs(folder: Path) -> list[Pair]:
    return [
        Pair("send_many of 1,000 : minimal C sender", arm("send_many"), minimal(FRAME, folder), 0.85),
        Pair("post of numpy-filled frags : minimal C sender", arm("post"), minimal(FRAME, folder), 0.9),
        Pair("send() in a loop : socket.sendto()", arm("send"), arm("sendto"), 1.5),
        Pair("transport.sendto() : asyncio's own, both on uvloop", arm("transport"), arm("plain"), 2.0),
    ]


def reading_stats() -> dict[str, float]:
    """Microseconds of a snapshot."""
    with xsk_engine.open(topology.TX_INTERFACE) as engine:
        rounds = []
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(READS // 20):
                engine.snapshot()
            rounds.append((time.perf_counter() - start) / (READS // 20) * 1e6)
    return spread(rounds)


async def _lags(sending: bool) -> list[float]:
    """Of asyncio.sleep(1 ms), in ms."""
    async with xsk_engine.aopen(topology.TX_INTERFACE) as engine:
        endpoint = engine.udp(PEER)
        block = numpy.zeros((1000, PAYLOAD), dtype=numpy.uint8)
        lags, stop = [], time.monotonic() + LAG_S

        async def send() -> None:
            while time.monotonic() < stop:
                await endpoint.send_many(block)

        sender = asyncio.ensure_future(send()) if sending else None
        while time.monotonic() < stop:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            lags.append((time.monotonic() - before - 0.001) * 1e3)
        if sender is not None:
            await sender
        return lags


def loop_lag() -> dict[str, Any]:
    """How late timers are while the engine sends all it can, and without it."""
    figures = {}
    for name, sending in (("sending", True), ("idle", False)):
        lags = uvloop.run(_lags(sending))
        cuts = statistics.quantiles(lags, n=100)
        figures[name] = {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(lags), "timers": len(lags)}
    return figures


def idle_cpu() -> float:
    """Percent of a core that an open engine takes, which has sent before."""
    with xsk_engine.open(topology.TX_INTERFACE) as engine:
        endpoint = engine.udp(PEER)
        endpoint.send_many([bytes(PAYLOAD)] * 1000)
        endpoint.drain()
        time.sleep(0.1)
        before = time.process_time()
        time.sleep(IDLE_S)
        return (time.process_time() - before) / IDLE_S * 100


MEMORY = f"""
import numpy, xsk_engine
with xsk_engine.open({topology.TX_INTERFACE!r}) as engine:
    endpoint = engine.udp({PEER!r})
    for _ in range(1000):
        endpoint.send_many(numpy.zeros((1000, {PAYLOAD}), numpy.uint8))
    endpoint.drain()
    rss = int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) * 1024
    print(rss - engine.umem.area.length)
"""


def resident_mb() -> float:
    """MB besides the umem, after a million datagrams."""
    said = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=60, check=True
    )
    return int(said.stdout) / 1e6


def main() -> None:
    lab = PrivateLab.from_environment()
    with namespaces.entered(lab.rx_fd):
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind(PEER)  # a bound port: no ICMP errors; nobody reads
    with sink, tempfile.TemporaryDirectory() as folder:
        facts = {
            "snapshot_us": reading_stats(),
            "loop_lag": loop_lag(),
            "idle_cpu_percent": idle_cpu(),
            "resident_mb_besides_umem": resident_mb(),
        }
        print(facts)
        os.sched_setaffinity(0, {1})
        result = {pair.name: judge(pair, compare(lab, pair)) for pair in pairs(Path(folder))}
    setup = {
        "slices": 2 * SLICES,
        "slice_s": SLICE_S,
        "payload_bytes": PAYLOAD,
        "counted_by": "vrx rx_packets",
    }
    print(save("library", "make bench-library", {"setup": setup, "pairs": result} | facts))


if __name__ == "__main__":
    main()

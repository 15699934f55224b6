"""What ``bench.experiments.library`` starts to learn what an open engine costs. Usage: NAME; prints a JSON
list of samples."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path

import numpy

import xsk_engine
from xsk_engine.lab import topology

PEER = (topology.RX_IPV4, 9000)
PAYLOAD = 64
LAG_S, IDLE_S = 5.0, 10.0
READS = 1000
BATCH, BATCHES = 1000, 1000


def snapshot() -> list[dict[str, float]]:
    """Of all figures: microseconds for each, 20 times."""
    with xsk_engine.open(topology.TX_INTERFACE) as engine:
        rounds = []
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(READS):
                engine.snapshot()
            rounds.append({"snapshot_us": (time.perf_counter() - start) / READS * 1e6})
    return rounds


async def _lags(sending: bool) -> list[float]:
    """Of asyncio.sleep(1 ms), in ms."""
    async with xsk_engine.aopen(topology.TX_INTERFACE) as engine:
        endpoint = engine.udp(PEER)
        block = numpy.zeros((BATCH, PAYLOAD), dtype=numpy.uint8)
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


def lag(*, sending: bool) -> list[dict[str, float]]:
    """How late an event loop's timers are."""
    import uvloop  # here, as its memory is not the engine's

    lags = uvloop.run(_lags(sending))
    cuts = statistics.quantiles(lags, n=100)
    return [{"lag_p50_ms": cuts[49], "lag_p99_ms": cuts[98], "lag_max_ms": max(lags)}]


def idle() -> list[dict[str, float]]:
    """Percent of a core that an open engine takes, which has sent before."""
    with xsk_engine.open(topology.TX_INTERFACE) as engine:
        endpoint = engine.udp(PEER)
        endpoint.send_many([bytes(PAYLOAD)] * BATCH)
        endpoint.drain()
        time.sleep(0.1)
        before = time.process_time()
        time.sleep(IDLE_S)
        return [{"idle_cpu_percent": (time.process_time() - before) / IDLE_S * 100}]


def memory() -> list[dict[str, float]]:
    """MB besides the umem, after a million datagrams."""
    with xsk_engine.open(topology.TX_INTERFACE) as engine:
        endpoint = engine.udp(PEER)
        for _ in range(BATCHES):
            endpoint.send_many(numpy.zeros((BATCH, PAYLOAD), numpy.uint8))
        endpoint.drain()
        resident = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024
        return [{"resident_mb": (resident - engine.umem.area.length) / 1e6}]


if __name__ == "__main__":
    found = {
        "snapshot": snapshot,
        "lag": lambda: lag(sending=True),
        "lag_idle": lambda: lag(sending=False),
        "idle": idle,
        "memory": memory,
    }[sys.argv[1]]()
    print(json.dumps(found))

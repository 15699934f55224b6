"""``make bench-limit``: the engine against a minimal C sender on the same veth pair: same bytes, same CPU,
same sink. What counts is what the peer's interface received. Runs inside a laboratory with two queues.

Both senders run at once, each stopped (SIGSTOP) while the other has its slice: this machine changes its speed
by 70 % within seconds, and only slices that are shorter than that see the same machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from socket import AF_INET, SOCK_DGRAM, socket

from bench.harness import BUILD, interleave, received, save, spread
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.packet import parse_mac, udp_frame, udp_header_bytes

SLICES = 100
WARM_UP_S, SLICE_S = 0.01, 0.08
LIMIT_S = 120  # of one sender's life
SENDER_CPU, OWN_CPU = 0, 1
SIZES = (60, 1514)
TARGET = 0.98


def engine(size: int, queue: int) -> list[str]:
    return [
        *(sys.executable, "-m", "xsk_engine", "send", topology.TX_INTERFACE, "--queue", str(queue)),
        *("--dst-ip", topology.RX_IPV4, "--dst-port", "9000", "--cpu", str(SENDER_CPU)),
        *("--size", str(size), "--duration", f"{LIMIT_S}s"),
    ]


def minimal(size: int, queue: int) -> list[str]:
    frame = udp_frame(  # the bytes that `engine` sends: also the receiver's checksum costs time
        parse_mac(topology.RX_MAC),
        parse_mac(topology.TX_MAC),
        ip_address(topology.TX_IPV4),
        ip_address(topology.RX_IPV4),
        9,
        9000,
        bytes(size - udp_header_bytes(4)),
    )
    place = [topology.TX_INTERFACE, str(queue), str(SENDER_CPU)]
    return [str(BUILD / "minimal"), *place, str(LIMIT_S), frame.hex()]


@contextlib.contextmanager
def stopped_sender(lab: PrivateLab, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Running, seen at the peer, and stopped for now."""
    before = received(lab)
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=partial(os.sched_setaffinity, 0, {SENDER_CPU, OWN_CPU}),
    )
    try:
        deadline = time.monotonic() + 10
        while received(lab) < before + 1000:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                said = process.communicate(timeout=10)[1].decode()
                raise RuntimeError(f"{command}: sends nothing: {said}")
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def one_slice(lab: PrivateLab, process: subprocess.Popen[bytes]) -> float:
    """Packets per second at the peer while only this sender runs."""
    process.send_signal(signal.SIGCONT)
    time.sleep(WARM_UP_S)
    first, start = received(lab), time.perf_counter()
    time.sleep(SLICE_S)
    last, end = received(lab), time.perf_counter()
    process.send_signal(signal.SIGSTOP)
    time.sleep(WARM_UP_S)
    return (last - first) / (end - start)


def compare(lab: PrivateLab, size: int) -> dict[str, list[float]]:
    """Slices of both; half of them with the queues swapped."""
    figures: dict[str, list[float]] = {"engine": [], "minimal": []}
    for engine_queue in (0, 1):
        with (
            stopped_sender(lab, engine(size, engine_queue)) as ours,
            stopped_sender(lab, minimal(size, 1 - engine_queue)) as rival,
        ):
            arms = {"engine": partial(one_slice, lab, ours), "minimal": partial(one_slice, lab, rival)}
            for name, values in interleave(arms, SLICES).items():
                figures[name] += values
    return figures


def main() -> None:
    os.sched_setaffinity(0, {OWN_CPU})
    lab = PrivateLab.from_environment()
    with namespaces.entered(lab.rx_fd):
        sink = socket(AF_INET, SOCK_DGRAM)
        sink.bind((topology.RX_IPV4, 9000))  # a bound port: no ICMP errors; nobody reads
    result = {}
    with sink:
        for size in SIZES:
            figures = compare(lab, size)
            ratios = [e / m for e, m in zip(figures["engine"], figures["minimal"], strict=True)]
            ratio = statistics.median(ratios)
            quartiles = statistics.quantiles(ratios, n=4)
            result[str(size)] = {
                "engine_pps": spread(figures["engine"]),
                "minimal_pps": spread(figures["minimal"]),
                "ratio": spread(ratios) | {"quartiles": [quartiles[0], quartiles[2]]},
            }
            print(
                f"{size:>5} bytes: engine {statistics.median(figures['engine']):,.0f} pps, minimal "
                f"{statistics.median(figures['minimal']):,.0f} pps, ratio {ratio:.3f} "
                f"(quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f}), target {TARGET}: "
                f"{'met' if ratio >= TARGET else 'MISSED'}"
            )
    setup = {"slices": 2 * SLICES, "slice_s": SLICE_S, "cpu": SENDER_CPU, "counted_by": "vrx rx_packets"}
    print(save("limit", "make bench-limit", {"setup": setup, "sizes": result}))


if __name__ == "__main__":
    main()

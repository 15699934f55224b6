"""``make bench-limit``: the engine against a minimal C sender, and against itself, on the same veth pair,
CPU and sink. What counts is what the peer's interface received. Runs inside a laboratory with two queues.

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
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Any

from bench.harness import BUILD, interleave, received, save, spread
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.packet import parse_mac, udp_frame, udp_header_bytes

SLICES = 100
WARM_UP_S, SLICE_S = 0.01, 0.08
LIMIT_S = 120  # of one sender's life
SENDER_CPU, OWN_CPU = 0, 1
UDP = f"ip src={topology.TX_IPV4} dst={topology.RX_IPV4}"
FLOWS = 10_000


@dataclass(frozen=True)
class Pair:
    """Ours and what it is compared with; both are told their queue."""

    name: str
    ours: Callable[[int], list[str]]
    rival: Callable[[int], list[str]]
    target: float


def engine(*what: str) -> Callable[[int], list[str]]:
    """`send` with these options."""

    def command(queue: int) -> list[str]:
        return [
            *(sys.executable, "-m", "xsk_engine", "send", topology.TX_INTERFACE, "--queue", str(queue)),
            *("--cpu", str(SENDER_CPU), "--duration", f"{LIMIT_S}s", *what),
        ]

    return command


def fixed(size: int) -> Callable[[int], list[str]]:
    return engine("--packet", f"{UDP} / udp dst=9000 ; size={size}")


def minimal_sender(frame: bytes, file: Path) -> Callable[[int], list[str]]:
    """The least C sender with this frame, which it finds in `file`."""
    file.write_bytes(frame)

    def command(queue: int) -> list[str]:
        place = [topology.TX_INTERFACE, str(queue), str(SENDER_CPU)]
        return [str(BUILD / "minimal"), *place, str(LIMIT_S), str(file)]

    return command


def minimal(size: int, folder: Path) -> Callable[[int], list[str]]:
    frame = udp_frame(  # the bytes that `fixed` sends: also the receiver's checksum costs time
        parse_mac(topology.RX_MAC),
        parse_mac(topology.TX_MAC),
        ip_address(topology.TX_IPV4),
        ip_address(topology.RX_IPV4),
        9,
        9000,
        bytes(size - udp_header_bytes(4)),
    )
    return minimal_sender(frame, folder / f"frame-{size}")


def pairs(folder: Path) -> list[Pair]:
    many = folder / "flows"
    many.write_text("".join(f"{UDP} / udp src={10_000 + i} dst=9000\n" for i in range(FLOWS)))
    random = f"{UDP} id=random / udp src=random dst=9000 ; @50/4=random"
    tuples = f"{UDP} / udp src=10000-{9_999 + FLOWS} dst=9000"
    return [
        Pair("60 bytes : minimal C sender", fixed(60), minimal(60, folder), 0.98),
        Pair("1514 bytes : minimal C sender", fixed(1514), minimal(1514, folder), 0.98),
        Pair(
            "60 bytes, three random fields : minimal C sender",
            engine("--packet", random),
            minimal(60, folder),
            0.97,
        ),
        Pair("one flow over 10,000 5-tuples : one fixed flow", engine("--packet", tuples), fixed(60), 0.9),
        Pair("10,000 flows : one fixed flow", engine("--flows", str(many)), fixed(60), 0.9),
    ]


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


def compare(lab: PrivateLab, pair: Pair) -> dict[str, list[float]]:
    """Slices of both; half of them with the queues swapped."""
    figures: dict[str, list[float]] = {"ours": [], "rival": []}
    for queue in (0, 1):
        with (
            stopped_sender(lab, pair.ours(queue)) as ours,
            stopped_sender(lab, pair.rival(1 - queue)) as rival,
        ):
            arms = {"ours": partial(one_slice, lab, ours), "rival": partial(one_slice, lab, rival)}
            for name, values in interleave(arms, SLICES).items():
                figures[name] += values
    return figures


def judge(pair: Pair, figures: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and spread; a line of them on stdout."""
    # A machine that stood still for a whole slice says nothing.
    ratios = [o / r for o, r in zip(figures["ours"], figures["rival"], strict=True) if o and r]
    ratio = statistics.median(ratios)
    quartiles = statistics.quantiles(ratios, n=4)
    print(
        f"{pair.name}: {statistics.median(figures['ours']):,.0f} : "
        f"{statistics.median(figures['rival']):,.0f} pps, ratio {ratio:.3f} "
        f"(quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f}), "
        f"target {pair.target}: {'met' if ratio >= pair.target else 'MISSED'}"
    )
    return {
        "ours_pps": spread(figures["ours"]),
        "rival_pps": spread(figures["rival"]),
        "ratio": spread(ratios) | {"quartiles": [quartiles[0], quartiles[2]]},
        "target": pair.target,
    }


def main() -> None:
    os.sched_setaffinity(0, {OWN_CPU})
    lab = PrivateLab.from_environment()
    with namespaces.entered(lab.rx_fd):
        sink = socket(AF_INET, SOCK_DGRAM)
        sink.bind((topology.RX_IPV4, 9000))  # a bound port: no ICMP errors; nobody reads
    with sink, tempfile.TemporaryDirectory() as folder:
        result = {pair.name: judge(pair, compare(lab, pair)) for pair in pairs(Path(folder))}
    setup = {"slices": 2 * SLICES, "slice_s": SLICE_S, "cpu": SENDER_CPU, "counted_by": "vrx rx_packets"}
    print(save("limit", "make bench-limit", {"setup": setup, "pairs": result}))


if __name__ == "__main__":
    main()

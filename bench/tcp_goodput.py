"""``make bench-tcp-goodput``: what a TCP connection of the engine brings into a kernel's socket, beside the
kernel's own TCP, on veth. Runs itself in one laboratory for each MTU.

All arms write the same MiB again and again from Python, into a receiver that is a process of its own and
whose count is the result. Nothing is pinned: the engine has a thread for its loop and one that writes, the
kernel one that writes.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.harness import interleave, save, spread
from xsk_engine import open as open_engine
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

MTUS = (1500, 9000, 65535)
ROUNDS = 9
# Half a second or so. Less: slow start counts; more: a slow minute hits one arm alone.
MEGABYTES = {1500: 300, 9000: 800, 65535: 2000}
PIECE = bytes(1 << 20)
LIMIT_S = 60.0
ENGINE, KERNEL, KERNEL_PLAIN = "engine", "kernel", "kernel, TSO and GSO off"
RECEIVER = """
import socket, sys, time
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
buffer, received = bytearray(1 << 20), connection.recv_into(bytearray(1))
start = time.perf_counter()
while n := connection.recv_into(buffer):
    received += n
print(received, time.perf_counter() - start, flush=True)
"""


def by_engine(port: int, megabytes: int) -> None:
    with (
        open_engine(topology.TX_INTERFACE, tcp=True) as engine,
        engine.tcp(topology.RX_IPV4, port) as connection,
    ):
        for _ in range(megabytes):
            connection.sendall(PIECE, LIMIT_S)


def by_kernel(port: int, megabytes: int) -> None:
    with socket.create_connection((topology.RX_IPV4, port), LIMIT_S) as connection:
        for _ in range(megabytes):
            connection.sendall(PIECE)


def gbps(
    lab: PrivateLab, send: Callable[[int, int], None], megabytes: int, *, segmenting: bool = True
) -> float:
    """10^9 bits of payload per second, from the first byte that the receiver has to the last."""
    switch = "on" if segmenting else "off"
    subprocess.run(
        ["ethtool", "-K", topology.TX_INTERFACE, "tso", switch, "gso", switch], check=True, timeout=30
    )
    with namespaces.entered(lab.rx_fd):
        receiver = subprocess.Popen(
            [sys.executable, "-c", RECEIVER, topology.RX_IPV4], stdout=subprocess.PIPE, text=True
        )
    try:
        assert receiver.stdout is not None
        send(int(receiver.stdout.readline()), megabytes)
        received, seconds = receiver.communicate(timeout=LIMIT_S)[0].split()
    finally:
        receiver.kill()
        receiver.wait(10)
    assert int(received) == megabytes << 20, received
    return int(received) * 8e-9 / float(seconds)


def one_mtu(mtu: int) -> dict[str, Any]:
    """In its laboratory."""
    run = functools.partial(gbps, PrivateLab.from_environment(), megabytes=MEGABYTES[mtu])
    figures = interleave(
        {
            ENGINE: lambda: run(send=by_engine),
            KERNEL: lambda: run(send=by_kernel),
            KERNEL_PLAIN: lambda: run(send=by_kernel, segmenting=False),
        },
        ROUNDS,
    )
    ratios = {
        rival: spread([a / b for a, b in zip(figures[ENGINE], figures[rival], strict=True)])
        for rival in (KERNEL, KERNEL_PLAIN)
    }
    return {
        "megabytes": MEGABYTES[mtu],
        "gbps": {arm: spread(values) for arm, values in figures.items()},
        "engine to": ratios,
    }


def table(results: dict[int, dict[str, Any]]) -> Table:
    view = Table(title="Gbit/s of payload at the receiver; the engine's : theirs, of the same round")
    for name in ("MTU", ENGINE, KERNEL, "ratio", KERNEL_PLAIN, "ratio"):
        view.add_column(name, justify="right")
    for mtu, result in results.items():
        rates = {arm: f"{values['median']:.1f}" for arm, values in result["gbps"].items()}
        ratios = {
            rival: f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"
            for rival, values in result["engine to"].items()
        }
        view.add_row(
            *(str(mtu), rates[ENGINE], rates[KERNEL], ratios[KERNEL]),
            *(rates[KERNEL_PLAIN], ratios[KERNEL_PLAIN]),
        )
    return view


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(one_mtu(int(sys.argv[1]))))
        return
    results = {}
    for mtu in MTUS:
        command = ["xsk-engine", "lab", "run", "--queues", "2", "--mtu", str(mtu), "--"]
        command += [sys.executable, "-m", "bench.tcp_goodput", str(mtu)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=900)
        results[mtu] = json.loads(done.stdout.splitlines()[-1])
    Console().print(table(results))
    load = os.getloadavg()[0]
    path = save(
        "tcp_goodput",
        "make bench-tcp-goodput",
        {"rounds": ROUNDS, "load_average_at_end": load, "mtu": {str(mtu): r for mtu, r in results.items()}},
    )
    print(path)


if __name__ == "__main__":
    main()

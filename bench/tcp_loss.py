"""``make bench-tcp-loss``: what a TCP connection of the engine brings into a kernel's socket over a wire that
loses and reorders, beside the kernel's CUBIC over the same wire.

Every transfer has a laboratory of its own, with a wire (docs/lab.md) whose seed is the round's: the n-th
packet meets the same fate in each arm. Delay makes round trips of 10 ms, so that the figures are about
windows and recovery, and not about how fast either end is; but for the last row. The receiver is a process of
its own, and its count is the result. Through the wire goes nothing longer than the MTU, so TSO stays off; the
second kernel arm has GSO, which segments in front of the wire.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.harness import interleave, save, spread
from xsk_engine import open as open_engine
from xsk_engine.lab import namespaces, private, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.lab.topology import LabOptions
from xsk_engine.lab.wirespec import parse_wire

ROUNDS = 15
ROWS = {
    "loss 0.1 %": "drop=0.001,delay=5ms",
    "loss 1 %": "drop=0.01,delay=5ms",
    "loss 5 %": "drop=0.05,delay=5ms",
    "reordering": "reorder=0.01,reorder_by=10,delay=5ms",
    "ACKs lost, 30 %": "drop=0.3,direction=back,delay=5ms",
    "loss 1 %, no delay": "drop=0.01",
}
# A second or two, or what slow start leaves of it. Less: the first slow start counts; more: a slow minute
# hits one arm alone.
MEGABYTES = dict(zip(ROWS, (12, 4, 1, 50, 50, 40), strict=True))
# Round trips of 0.1 ms, on cores that the wire's threads have first: what counts is how soon a thread wakes.
WITHOUT_TARGET = ("loss 1 %, no delay",)
PIECE = bytes(1 << 18)
LIMIT_S = 60.0
TARGET = 0.8
ENGINE, KERNEL, KERNEL_GSO = "engine", "kernel", "kernel, GSO"
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


def by_engine(port: int, size: int) -> None:
    with (
        open_engine(topology.TX_INTERFACE, tcp=True) as engine,
        engine.tcp(topology.RX_IPV4, port, congestion="cubic") as connection,
    ):
        for _ in range(size // len(PIECE)):
            connection.sendall(PIECE, LIMIT_S)
        connection.close(LIMIT_S)


def by_kernel(port: int, size: int) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        connection.settimeout(LIMIT_S)
        connection.connect((topology.RX_IPV4, port))
        for _ in range(size // len(PIECE)):
            connection.sendall(PIECE)


@contextlib.contextmanager
def laboratory(wire: str) -> Iterator[PrivateLab]:
    """This thread stands in its tx side."""
    lab, forwarder = private.make(LabOptions(wire=parse_wire(wire)))
    try:
        with namespaces.entered(lab.tx_fd):
            yield lab
    finally:
        if forwarder:
            forwarder.end()
        for fd in (lab.tx_fd, lab.rx_fd, lab.wire_net_fd, lab.wire_page_fd):
            if fd is not None:
                os.close(fd)


def mbps(send: Callable[[int, int], None], wire: str, size: int, *, gso: bool = False) -> float:
    """10^6 bits of payload per second, from the first byte that the receiver has to the last."""
    with laboratory(wire) as lab:
        if gso:
            subprocess.run(["ethtool", "-K", topology.TX_INTERFACE, "gso", "on"], check=True, timeout=30)
        with namespaces.entered(lab.rx_fd):
            receiver = subprocess.Popen(
                [sys.executable, "-c", RECEIVER, topology.RX_IPV4], stdout=subprocess.PIPE, text=True
            )
        try:
            assert receiver.stdout is not None
            send(int(receiver.stdout.readline()), size)
            received, seconds = receiver.communicate(timeout=LIMIT_S)[0].split()
        finally:
            receiver.kill()
            receiver.wait(10)
    assert int(received) == size, received
    return int(received) * 8e-6 / float(seconds)


def arms(row: str) -> dict[str, Callable[[], float]]:
    """Each of them counts its own rounds, for the seed."""
    size = MEGABYTES[row] << 20

    def arm(send: Callable[[int, int], None], gso: bool) -> Callable[[], float]:
        seeds = iter(range(1, ROUNDS + 1))
        return lambda: mbps(send, f"{ROWS[row]},seed={next(seeds)}", size, gso=gso)

    return {
        ENGINE: arm(by_engine, False),
        KERNEL: arm(by_kernel, False),
        KERNEL_GSO: arm(by_kernel, True),
    }


def one_row(row: str) -> dict[str, Any]:
    figures = interleave(arms(row), ROUNDS)
    return {
        "wire": ROWS[row],
        "megabytes": MEGABYTES[row],
        "mbps": {arm: spread(values) for arm, values in figures.items()},
        "engine to": {
            rival: spread([a / b for a, b in zip(figures[ENGINE], figures[rival], strict=True)])
            for rival in (KERNEL, KERNEL_GSO)
        },
    }


def table(results: dict[str, dict[str, Any]]) -> Table:
    view = Table(title="Mbit/s of payload at the receiver; the engine's : theirs, of the same round")
    for name in ("wire", ENGINE, KERNEL, "ratio", KERNEL_GSO, "ratio"):
        view.add_column(name, justify="right")
    for row, result in results.items():
        rates = {arm: f"{values['median']:.1f}" for arm, values in result["mbps"].items()}
        ratios = {
            rival: f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"
            for rival, values in result["engine to"].items()
        }
        view.add_row(row, rates[ENGINE], rates[KERNEL], ratios[KERNEL], rates[KERNEL_GSO], ratios[KERNEL_GSO])
    return view


def main() -> None:
    results = {row: one_row(row) for row in ROWS}
    Console().print(table(results))
    missed = [
        row
        for row in ROWS
        if row not in WITHOUT_TARGET and results[row]["engine to"][KERNEL]["median"] < TARGET
    ]
    print(f"target {TARGET} of the kernel's CUBIC: {'MISSED: ' + ', '.join(missed) if missed else 'met'}")
    load = os.getloadavg()[0]
    print(
        save(
            "tcp_loss",
            "make bench-tcp-loss",
            {"rounds": ROUNDS, "target": TARGET, "load_average_at_end": load, "rows": results},
        )
    )


if __name__ == "__main__":
    main()

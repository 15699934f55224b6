"""Goodput of TCP over a wire that loses and reorders.

Every transfer has a laboratory of its own, with a wire (docs/lab.md) whose seed is the round's: the n-th
packet meets the same fate in each arm. Delay makes round trips of 10 ms, so that the figures are about
windows and recovery, and not about how fast either end is; but for the last case. Through the wire goes
nothing longer than the MTU, so TSO stays off; the second kernel arm has GSO, which segments in front of the
wire.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.arm import FunctionArm, Sample
from bench.experiment import Experiment, Outcome, Plan
from bench.figures import Figure
from bench.ratios import Target
from bench.result import Case
from bench.rounds import Measured, interleave
from bench.scene import TX, Scene, everywhere
from xsk_engine import open as open_engine
from xsk_engine.lab import namespaces, private, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.lab.topology import LabOptions
from xsk_engine.lab.wirespec import parse_wire

ENGINE, KERNEL, KERNEL_GSO = "engine TCP", "kernel TCP", "kernel TCP, GSO"
MBPS = Figure("mbps", "Mbit/s", lambda one: 8e-6 * one["bytes"] / one["seconds"])
TARGET = Target(0.8, at_least=True)
PIECE = bytes(1 << 18)
LIMIT_S = 60.0
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


@dataclass(frozen=True)
class Row:
    """A wire. ``megabytes``: MiB of a transfer, which takes a second or two, or what slow start leaves of it.
    Less: the first slow start counts; more: a slow minute hits one arm alone."""

    name: str
    wire: str
    megabytes: int
    target: Target | None = TARGET


ROWS = (
    Row("loss 0.1 %", "drop=0.001,delay=5ms", 12),
    Row("loss 1 %", "drop=0.01,delay=5ms", 4),
    Row("loss 5 %", "drop=0.05,delay=5ms", 1),
    Row("reordering", "reorder=0.01,reorder_by=10,delay=5ms", 50),
    Row("ACKs lost, 30 %", "drop=0.3,direction=back,delay=5ms", 50),
    # Round trips of 0.1 ms, on cores that the wire's threads have first: what counts is how soon a thread
    # wakes.
    Row("loss 1 %, no delay", "drop=0.01", 40, None),
)


def by_engine(port: int, size: int) -> None:
    with (
        open_engine(TX, tcp=True) as engine,
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


def transfer(send: Callable[[int, int], None], wire: str, size: int, *, gso: bool = False) -> Sample:
    """Bytes of payload, and seconds from the first one that the receiver has to the last."""
    with laboratory(wire) as lab:
        if gso:
            subprocess.run(["ethtool", "-K", TX, "gso", "on"], check=True, timeout=30)
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
    return {"bytes": int(received), "seconds": float(seconds)}


def arm(name: str, row: Row, send: Callable[[int, int], None], *, gso: bool = False) -> FunctionArm:
    """It counts its own rounds, for the seed."""
    seeds = itertools.count(1)

    def run() -> Sample:
        return transfer(send, f"{row.wire},seed={next(seeds)}", row.megabytes << 20, gso=gso)

    return FunctionArm(name, run, ours=name == ENGINE)


def compared(row: Row, measured: Measured) -> Case:
    """Pure."""
    case = Case.of(row.name, measured.samples, EXPERIMENT.figures, absent=measured.absent)
    case.compare(ENGINE, KERNEL, MBPS, row.target)
    case.compare(ENGINE, KERNEL_GSO, MBPS)
    case.notes.append(note(row))
    return case


def note(row: Row) -> str:
    return f"wire: {row.wire}, seed: the round; {row.megabytes} MiB"


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds, cases = plan.choose(15, 1), []
    with everywhere():
        for row in ROWS:
            make = functools.partial(arm, row=row)
            arms = [
                make(ENGINE, send=by_engine),
                make(KERNEL, send=by_kernel),
                make(KERNEL_GSO, send=by_kernel, gso=True),
            ]
            chosen = [one for one in arms if plan.wants(one.name)]
            cases.append(compared(row, interleave(chosen, rounds, scene.watch.look, row.name)))
    return Outcome(cases, rounds)


EXPERIMENT = Experiment(
    name="loss",
    title="Goodput of TCP under loss and reordering",
    question="How much does a TCP connection bring over a wire that loses and reorders?",
    held_equal="CUBIC at both, MTU 1500, TSO off, round trips of 10 ms where nothing else is said; a wire "
    "whose seed is the round's, so the n-th packet meets the same fate in every arm",
    not_claimed="that the same packets are lost: after the first loss the arms send different ones, and one "
    "round says little",
    counted_by="bytes that the receiving process has read, from the first to the last",
    figures=(MBPS,),
    measure=measure,
    laboratories={},
    in_quick=False,
    needs_root=True,
    minutes=10,
)

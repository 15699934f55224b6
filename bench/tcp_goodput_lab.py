"""One wire of the second half of ``make bench-tcp``. Runs inside a laboratory; its last line is JSON.

Usage: python -m bench.tcp_goodput_lab WIRE ROUNDS, with a name of WIRES.

Ours and theirs alternate, one right after the other, with the same receiver (tcp_reader.c), whose count of
bytes and time is the result. Their applications are C, too, and write the same 128 KiB: the kernel's from
a thread for each flow (kernel_sender.c), the engine's from one for all (tcp_writer.c).

Which thread runs where, the same rule for both: who puts segments on the wire has CPU 0, everybody else CPU
1. So the engine's loop and the kernel's writer, whose system call sends, are on CPU 0; the reader, what
receives for it (RPS, NAPI threads) and the engine's writer, which only copies, on CPU 1. With several flows
nothing is pinned, as the kernel's writers would have to share a core.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from bench import tcp_application
from bench.harness import BUILD
from bench.tcp_peer import Intake, set_up
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

LIMIT_S = 60
IDLE_S = 2.0
# Higher: the application is the bottleneck at MTU 65535 (measured: 100 us 10 % slower, 400 us a third);
# lower: it takes time from the reader on its core.
NAP_US = 50


@dataclass(frozen=True)
class Wire:
    """``segmenting``: TSO and GSO at the sender's end, which only the kernel's TCP can use. ``megabytes``:
    MiB of a run, ours and theirs: a third of a second or so. Less: slow start counts; more: a slow minute
    hits one arm alone."""

    mtu: int
    segmenting: bool
    megabytes: tuple[int, int]


WIRES = {
    "65535": Wire(65535, True, (1600, 1600)),
    "9000, TSO and GSO off": Wire(9000, False, (600, 600)),
    "1500, TSO and GSO off": Wire(1500, False, (240, 240)),
    "1500, TSO on": Wire(1500, True, (240, 800)),
}
SENDERS_CPU, OTHERS_CPU = 0, 1
PLAIN = Intake()


@dataclass(frozen=True)
class Cell:
    """One row: how packets come in, and how many flows there are. ``pinned``: by the rule above."""

    name: str
    intake: Intake = PLAIN
    flows: int = 1
    pinned: bool = True

    def cpu(self, cpu: int) -> int | None:
        return cpu if self.pinned else None


CELLS = (
    Cell("plain"),
    Cell("RPS", Intake(rps=True)),
    Cell("GRO, NAPI thread", Intake(gro=True, threaded=True)),
    Cell("plain, not pinned", pinned=False),
    Cell("plain, not pinned", flows=4, pinned=False),
    Cell("plain, not pinned", flows=16, pinned=False),
)


def busy_s() -> float:
    """CPU seconds of the whole machine so far, what its host took away not among them."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)


def idle_cpus(seconds: float) -> float:
    """How many CPUs are busy while nothing is measured."""
    before, start = busy_s(), time.perf_counter()
    time.sleep(seconds)
    return (busy_s() - before) / (time.perf_counter() - start)


@dataclass
class Run:
    """What came of one transfer."""

    gbps: float
    cpu_s_per_gb: float
    again: int = 0


class Bench:
    """One laboratory. ``idle``: CPUs that are busy without us, and not counted."""

    def __init__(self, lab: PrivateLab, wire: Wire) -> None:
        self._lab, self._wire = lab, wire
        switch = "on" if wire.segmenting else "off"
        subprocess.run(
            ["ethtool", "-K", topology.TX_INTERFACE, "tso", switch, "gso", switch], check=True, timeout=30
        )
        self.idle = idle_cpus(IDLE_S)

    @contextlib.contextmanager
    def _reading(self, cell: Cell) -> Iterator[tuple[int, Callable[[float, float], Run]]]:
        """The receiver's port, and what to call in the end, with CPU seconds and time as they were before."""
        place = [topology.RX_IPV4, _number(cell.cpu(OTHERS_CPU)), str(cell.flows)]
        with namespaces.entered(self._lab.rx_fd):
            reader = subprocess.Popen([BUILD / "tcp_reader", *place], stdout=subprocess.PIPE, text=True)

        def end(busy_before_s: float, start_s: float) -> Run:
            received, ns = map(int, reader.communicate(timeout=LIMIT_S)[0].split())
            cpu_s = busy_s() - busy_before_s - self.idle * (time.perf_counter() - start_s)
            return Run(8 * received / ns, max(cpu_s, 0.0) / (received * 1e-9))

        try:
            assert reader.stdout is not None
            yield int(reader.stdout.readline()), end
        finally:
            reader.kill()
            reader.wait()

    def ours(self, cell: Cell) -> Run:
        loop = cell.cpu(SENDERS_CPU)
        config = EngineConfig(topology.TX_INTERFACE, tcp=True, cpus=() if loop is None else (loop,))
        with self._reading(cell) as (port, end), Engine(config) as engine, contextlib.ExitStack() as stack:
            connections = [stack.enter_context(engine.tcp(topology.RX_IPV4, port)) for _ in range(cell.flows)]
            before = busy_s(), time.perf_counter()
            each = self._wire.megabytes[0] // cell.flows
            tcp_application.send(connections, each, nap_us=NAP_US, cpu=cell.cpu(OTHERS_CPU))
            again = sum(connection.info().retransmitted_segments for connection in connections)
            stack.close()
            run = end(*before)
        run.again = again
        return run

    def theirs(self, cell: Cell) -> Run:
        each = str(self._wire.megabytes[1] // cell.flows)
        with self._reading(cell) as (port, end):
            before = busy_s(), time.perf_counter()
            place = [topology.RX_IPV4, str(port), _number(cell.cpu(SENDERS_CPU)), each, str(cell.flows)]
            subprocess.run([BUILD / "kernel_sender", "tcp", *place], check=True, timeout=LIMIT_S)
            return end(*before)

    def round(self, number: int) -> Iterator[dict[str, Any]]:
        """Every cell: ours and theirs, right after each other, who is first by turns."""
        for cell in CELLS:
            set_up(self._lab, cell.intake, {OTHERS_CPU} if cell.pinned else {SENDERS_CPU, OTHERS_CPU})
            arms = [("ours", self.ours), ("theirs", self.theirs)]
            figures = {name: vars(arm(cell)) for name, arm in arms[:: 1 if number % 2 else -1]}
            yield {"receiver": cell.name, "flows": cell.flows, "round": number, **figures}


def _number(cpu: int | None) -> str:
    """As the C programs take it."""
    return "-1" if cpu is None else str(cpu)


def main() -> None:
    wire, rounds = WIRES[sys.argv[1]], int(sys.argv[2])
    bench = Bench(PrivateLab.from_environment(), wire)
    measured = []
    for number in range(rounds):
        measured += bench.round(number)
        print(".", end="", file=sys.stderr, flush=True)
    idle = {"before": round(bench.idle, 3), "after": round(idle_cpus(IDLE_S), 3)}
    print(json.dumps({"idle_cpus": idle, "measured": measured}))


if __name__ == "__main__":
    main()

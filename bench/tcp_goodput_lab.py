"""One wire of the second half of ``make bench-tcp``. Runs inside a laboratory; its last line is JSON.

Usage: python -m bench.tcp_goodput_lab WIRE ROUNDS, with a name of WIRES.

Ours and theirs alternate, one right after the other, with the same receiver (tcp_reader.c), whose count of
bytes and time is the result. Their applications are C, too, and write the same 128 KiB from a thread for each
flow (tcp_writer.c, kernel_sender.c).

Which thread runs where, the same rule for both: who puts segments on the wire has CPU 0, everybody else CPU
1. So the engine's loop and the kernel's writers, whose system call sends, are on CPU 0; the reader and the
engine's writers, which only copy, on CPU 1. Other rules: PIN in the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
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
# At 45 Gbit/s a send buffer of 4 MiB lasts 750 us, and a third of it is what the kernel wakes its writers
# for.
NAP_US = 100


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
INTAKES = {
    "plain": Intake(),
    "RPS": Intake(rps=True),
    "GRO, thread": Intake(gro=True, threaded=True),
    "GRO, thread, RPS": Intake(rps=True, gro=True, threaded=True),
}
CELLS = [*((intake, 1) for intake in INTAKES), ("plain", 4), ("plain", 16)]
"""intake and flows"""


@dataclass(frozen=True)
class Pins:
    """CPUs, None for any: of the engine's loop, its writers, the kernel's writers, the reader; and a mask for
    RPS."""

    loop: int | None
    writers: int | None
    kernel: int | None
    reader: int | None
    rps: int


PINS = {
    "senders": Pins(0, 1, 0, 1, 0b10),
    "sides": Pins(0, 0, 0, 1, 0b10),
    "none": Pins(None, None, None, None, 0b11),
}


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

    def __init__(self, lab: PrivateLab, wire: Wire, pins: Pins) -> None:
        self._lab, self._wire, self._pins = lab, wire, pins
        switch = "on" if wire.segmenting else "off"
        subprocess.run(
            ["ethtool", "-K", topology.TX_INTERFACE, "tso", switch, "gso", switch], check=True, timeout=30
        )
        self.idle = idle_cpus(IDLE_S)

    @contextlib.contextmanager
    def _reading(self, flows: int) -> Iterator[tuple[int, Callable[[float, float], Run]]]:
        """The receiver's port, and what to call in the end, with CPU seconds and time as they were before."""
        cpu = -1 if self._pins.reader is None else self._pins.reader
        with namespaces.entered(self._lab.rx_fd):
            reader = subprocess.Popen(
                [str(BUILD / "tcp_reader"), topology.RX_IPV4, str(cpu), str(flows)],
                stdout=subprocess.PIPE,
                text=True,
            )

        def end(busy_before_s: float, start_s: float) -> Run:
            said = reader.communicate(timeout=LIMIT_S)[0].split()
            cpu_s = busy_s() - busy_before_s - self.idle * (time.perf_counter() - start_s)
            received, ns = map(int, said)
            return Run(8 * received / ns, max(cpu_s, 0.0) / (received * 1e-9))

        try:
            assert reader.stdout is not None
            yield int(reader.stdout.readline()), end
        finally:
            reader.kill()
            reader.wait()

    def ours(self, flows: int) -> Run:
        pins = self._pins
        config = EngineConfig(topology.TX_INTERFACE, tcp=True, cpus=() if pins.loop is None else (pins.loop,))
        with self._reading(flows) as (port, end), Engine(config) as engine, contextlib.ExitStack() as stack:
            connections = [stack.enter_context(engine.tcp(topology.RX_IPV4, port)) for _ in range(flows)]
            before = busy_s(), time.perf_counter()
            each = self._wire.megabytes[0] // flows
            tcp_application.send(connections, each, nap_us=NAP_US, cpu=pins.writers)
            again = sum(connection.info().retransmitted_segments for connection in connections)
            stack.close()
            run = end(*before)
        run.again = again
        return run

    def theirs(self, flows: int) -> Run:
        cpu = -1 if self._pins.kernel is None else self._pins.kernel
        with self._reading(flows) as (port, end):
            before = busy_s(), time.perf_counter()
            place = [topology.RX_IPV4, str(port), str(cpu), str(self._wire.megabytes[1] // flows), str(flows)]
            subprocess.run([str(BUILD / "kernel_sender"), "tcp", *place], check=True, timeout=LIMIT_S)
            return end(*before)

    def round(self, number: int) -> Iterator[dict[str, Any]]:
        """Every cell: ours and theirs, right after each other, who is first by turns."""
        for intake, flows in CELLS:
            set_up(self._lab, INTAKES[intake], self._pins.rps)
            arms = [("ours", self.ours), ("theirs", self.theirs)]
            figures = {name: vars(arm(flows)) for name, arm in arms[:: 1 if number % 2 else -1]}
            yield {"intake": intake, "flows": flows, "round": number, **figures}


def main() -> None:
    wire, rounds = WIRES[sys.argv[1]], int(sys.argv[2])
    bench = Bench(PrivateLab.from_environment(), wire, PINS[os.environ.get("PIN") or "senders"])
    measured = []
    for number in range(rounds):
        measured += bench.round(number)
        print(".", end="", file=sys.stderr, flush=True)
    print(json.dumps({"idle_cpus": round(bench.idle, 3), "measured": measured}))


if __name__ == "__main__":
    main()

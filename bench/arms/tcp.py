"""Transfers by TCP into a kernel's socket: by the engine, by the kernel, and by iperf3.

The engine and the kernel have the same receiver (tcp_reader.c), whose count of bytes and time is the result.
Their applications are C, too, and write the same 128 KiB: the kernel's from a thread for each connection
(kernel_sender.c), the engine's from one for all (tcp_writer.c). iperf3 has both ends itself, and its server's
count.

Which thread runs where, the same rule for all: who puts segments on the wire has CPU 0, everybody else CPU 1.
So the engine's loop and the kernel's writer, whose system call sends, are on CPU 0; the reader, what receives
for it (RPS, NAPI threads) and the engine's writer, which only copies, on CPU 1. With several connections
nothing is pinned, as the kernel's writers would have to share a core.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import tcp_application
from bench.arm import AbsentError, FunctionArm, Sample
from bench.noise import cpu_seconds, difference
from bench.scene import BUILD, OTHER_CPU, SENDER_CPU, TX, Scene, engine_mode, everywhere
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.lab import topology

ENGINE, KERNEL = "engine TCP", "kernel TCP"
KERNEL_LENT, IPERF3 = "kernel TCP, MSG_ZEROCOPY", "iperf3"
LIMIT_S = 60
IDLE_S = 2.0
# Higher: the application is the bottleneck at MTU 65535 (measured: 100 us 10 % slower, 400 us a third);
# lower: it takes time from the reader on its core.
NAP_US = 50
_IPERF3_PORT = 5201
_LISTENING = f"{_IPERF3_PORT:04X} 00000000:0000 0A"
"""of /proc/net/tcp: the port, nobody at the other end, TCP_LISTEN"""


@dataclass(frozen=True)
class Wire:
    """``segmenting``: TSO and GSO at the sender's end, which only the kernel's TCP can use. ``megabytes``:
    MiB of a run, of the engine and of the others: a third of a second or so. Less: slow start counts; more: a
    slow minute hits one arm alone."""

    mtu: int
    segmenting: bool
    megabytes: tuple[int, int]

    def set_up(self) -> None:
        switch = "on" if self.segmenting else "off"
        subprocess.run(["ethtool", "-K", TX, "tso", switch, "gso", switch], check=True, timeout=30)


WIRES = {
    "65535": Wire(65535, True, (1600, 1600)),
    "9000, TSO and GSO off": Wire(9000, False, (600, 600)),
    "1500, TSO and GSO off": Wire(1500, False, (240, 240)),
    "1500, TSO on": Wire(1500, True, (240, 800)),
}
"""by what they are called: their MTU, and the sender's offloads"""


def idle_cpus(seconds: float = IDLE_S) -> dict[str, float]:
    """CPU seconds by kind that the whole machine uses in a second while nothing is measured."""
    before, start = cpu_seconds(), time.perf_counter()
    time.sleep(seconds)
    elapsed = time.perf_counter() - start
    return {kind: used / elapsed for kind, used in difference(cpu_seconds(), before).items()}


class _Meter:
    """CPU seconds of the whole machine from here on, less what an idle one uses."""

    def __init__(self, idle: dict[str, float]) -> None:
        self._idle, self._before, self._start = idle, cpu_seconds(), time.perf_counter()

    def used(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self._start
        used = difference(cpu_seconds(), self._before)
        return {kind: max(0.0, seconds - elapsed * self._idle[kind]) for kind, seconds in used.items()}


class Transfers:
    """Those over one wire. ``connections`` share its MiB, `least_megabytes` each. ``idle``: of idle_cpus(). A
    sample has bytes of payload, seconds, CPU seconds, and the engine's segments sent `again`."""

    def __init__(
        self,
        scene: Scene,
        wire: Wire,
        idle: dict[str, float],
        *,
        connections: int = 1,
        pinned: bool = True,
        least_megabytes: int = 1,
    ) -> None:
        self._scene, self._idle = scene, idle
        self._connections, self._pinned = connections, pinned
        self._megabytes = [max(least_megabytes, n // connections) for n in wire.megabytes]

    def arms(self) -> list[FunctionArm]:
        """The engine and the kernel."""
        return [
            FunctionArm(ENGINE, self._engine, ours=True),
            FunctionArm(KERNEL, functools.partial(self._kernel, "tcp")),
        ]

    def others(self) -> list[FunctionArm]:
        """What else sends by TCP, over a single connection."""
        return [
            FunctionArm(KERNEL_LENT, functools.partial(self._kernel, "maybe-zerocopy")),
            FunctionArm(IPERF3, self._iperf3),
        ]

    def _cpu(self, cpu: int) -> int | None:
        return cpu if self._pinned else None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[tuple[int, Callable[[_Meter], dict[str, float]]]]:
        """The receiver's port, and what to call in the end, when all connections are closed."""
        place = [topology.RX_IPV4, _number(self._cpu(OTHER_CPU)), str(self._connections)]
        with self._scene.at_peer():
            reader = subprocess.Popen([BUILD / "tcp_reader", *place], stdout=subprocess.PIPE, text=True)

        def end(meter: _Meter) -> dict[str, float]:
            received, ns = map(int, reader.communicate(timeout=LIMIT_S)[0].split())
            return {"bytes": received, "seconds": ns * 1e-9, **meter.used()}

        try:
            assert reader.stdout is not None
            yield int(reader.stdout.readline()), end
        finally:
            reader.kill()
            reader.wait()

    def _engine(self) -> Sample:
        loop = self._cpu(SENDER_CPU)
        config = EngineConfig(TX, tcp=True, mode=engine_mode(), cpus=() if loop is None else (loop,))
        with (
            everywhere(),
            self._reading() as (port, end),
            Engine(config) as engine,
            contextlib.ExitStack() as stack,
        ):
            opened = range(self._connections)
            connections = [stack.enter_context(engine.tcp(topology.RX_IPV4, port)) for _ in opened]
            meter = _Meter(self._idle)
            cpu = self._cpu(OTHER_CPU)
            tcp_application.send(connections, self._megabytes[0], nap_us=NAP_US, cpu=cpu)
            again = sum(connection.info().retransmitted_segments for connection in connections)
            for connection in connections:  # all at once: each waits for the ACK of its FIN
                connection.shutdown()
            stack.close()
            return {**end(meter), "again": again}

    def _kernel(self, mode: str) -> Sample:
        more = [_number(self._cpu(SENDER_CPU)), str(self._megabytes[1]), str(self._connections)]
        with everywhere(), self._reading() as (port, end):
            meter = _Meter(self._idle)
            command = [str(BUILD / "kernel_sender"), mode, topology.RX_IPV4, str(port), *more]
            subprocess.run(command, check=True, timeout=LIMIT_S)
            return end(meter)

    @contextlib.contextmanager
    def _iperf3_server(self) -> Iterator[subprocess.Popen[str]]:
        with self._scene.at_peer():
            place = ["-4", "-B", topology.RX_IPV4, "-p", str(_IPERF3_PORT)]
            server = _pinned(["iperf3", "-s", "-1", "-J", *place], OTHER_CPU)
        try:
            deadline = time.monotonic() + LIMIT_S
            while not self._iperf3_listens():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise AbsentError(f"iperf3's server: {server.communicate(timeout=5)[0][-200:]}")
                time.sleep(0.01)
            yield server
        finally:
            server.kill()
            server.wait()

    def _iperf3_listens(self) -> bool:
        with self._scene.at_peer():
            return _LISTENING in Path("/proc/thread-self/net/tcp").read_text()

    def _iperf3(self) -> Sample:
        with self._iperf3_server() as server:
            meter = _Meter(self._idle)
            what = ["-n", f"{self._megabytes[1]}M", "-l", "128K"]
            client = _pinned(["iperf3", "-c", topology.RX_IPV4, "-p", str(_IPERF3_PORT), *what], SENDER_CPU)
            try:
                said = client.communicate(timeout=LIMIT_S)[0]
            finally:
                client.kill()
                client.wait()
            if client.returncode:
                raise AbsentError(f"iperf3: {said[-200:]}")
            return iperf3_sample(server.communicate(timeout=LIMIT_S)[0]) | meter.used()


def iperf3_sample(said: str) -> dict[str, float]:
    """Bytes and seconds by its server's own JSON. AbsentError: it says something else. Pure."""
    try:
        received = json.loads(said)["end"]["sum_received"]
        return {"bytes": float(received["bytes"]), "seconds": float(received["seconds"])}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        raise AbsentError(f"iperf3's server says no result: {said[-200:]}") from None


def iperf3_version() -> dict[str, str]:
    """Empty where there is none."""
    try:
        said = subprocess.run(["iperf3", "--version"], capture_output=True, text=True, timeout=10).stdout
    except OSError:
        return {}
    return {"iperf3": said.split()[1]} if len(said.split()) > 1 else {}


def facts() -> dict[str, Any]:
    """What of the kernel's settings its TCP's figures depend on."""
    settings = Path("/proc/sys/net/ipv4")
    return {"tcp_congestion_control": (settings / "tcp_congestion_control").read_text().strip()}


def _number(cpu: int | None) -> str:
    """As the C programs take it."""
    return "-1" if cpu is None else str(cpu)


def _pinned(command: list[str], cpu: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )

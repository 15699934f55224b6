"""Where an experiment stands: the laboratory of this process, its counters, and what is to be known of it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.noise import Watch
from xsk_engine import netdev
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build/native/bench/programs"
TX, RX = topology.TX_INTERFACE, topology.RX_INTERFACE
SENDER_CPU, OTHER_CPU = 0, 1
"""Who puts packets on the wire has the first for itself, everybody else the second."""
PORT = 9000
PLACE_VARIABLE, MODE_VARIABLE = "XSK_BENCH_PLACE", "XSK_BENCH_MODE"
"""What bench/places.py tells of itself (JSON: place, caveat), and the mode that it asks of the engine."""
OFFLOADS = ("tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload")


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """One of bench/programs/ that is a shared library. OSError: it is not built."""
    return ctypes.CDLL(str(BUILD / f"lib{name}.so"))


@dataclass(frozen=True)
class Counted:
    packets: int
    bytes: int


class Scene:
    """The laboratory that this process was started in. ``folder``: for files of this run, removed after it.
    ``watch``: what the machine does meanwhile; its ``look`` belongs into every round."""

    watch: Watch

    def __init__(self, lab: PrivateLab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder

    @staticmethod
    def none(folder: Path) -> Scene:
        """For what needs no laboratory, or makes its own: only `folder` and `watch` are there."""
        return Scene(PrivateLab(-1, -1), folder)

    @staticmethod
    def here(folder: Path) -> Scene:
        """KeyError outside a laboratory."""
        return Scene(PrivateLab.from_environment(), folder)

    def at_peer(self) -> contextlib.AbstractContextManager[None]:
        """This thread stands at the peer's end."""
        return namespaces.entered(self.lab.rx_fd)

    def received(self) -> Counted:
        """By the peer's interface: packets, and their bytes without FCS."""
        with self.at_peer():
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        fields = next(text for text in lines if text.lstrip().startswith(f"{RX}:")).split(":")[1].split()
        return Counted(int(fields[1]), int(fields[0]))

    @contextlib.contextmanager
    def bound_port(self, port: int = PORT) -> Iterator[None]:
        """A UDP port of the peer's that nobody reads: no ICMP errors, and packets go up the whole stack."""
        with self.at_peer():
            sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sink:
            sink.bind((topology.RX_IPV4, port))
            yield

    def facts(self) -> dict[str, Any]:
        """Where it is, and of both ends: driver, MTU, MAC, queues, offloads."""
        facts = {**place(), "kernel": platform.release(), "tx": _end(TX)}
        with self.at_peer():
            facts["rx"] = _end(RX)
        return facts


def _end(interface: str) -> dict[str, Any]:
    device = netdev.get(interface)
    said = subprocess.run(["ethtool", "-k", interface], capture_output=True, text=True, timeout=30).stdout
    switches = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    return {
        "interface": interface,
        "driver": device.driver,
        "mtu": device.mtu,
        "mac": device.mac,
        "queues": device.queues,
        "offloads": {name: switches.get(name, "unknown").split()[0] for name in OFFLOADS},
    }


@contextlib.contextmanager
def everywhere() -> Iterator[None]:
    """This thread, and what it starts, may run on both CPUs: for those that pin themselves, or nobody."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SENDER_CPU, OTHER_CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def place() -> dict[str, str]:
    """Where this process was put: "place", and "caveat", what its figures are not worth; "mode" if one was
    asked for."""
    told: dict[str, str] = json.loads(os.environ.get(PLACE_VARIABLE, '{"place": "laboratory"}'))
    mode = engine_mode()
    return told if mode == "auto" else told | {"mode": mode}


def engine_mode() -> str:
    """For the engine's sockets in this place: auto, copy or zerocopy."""
    return os.environ.get(MODE_VARIABLE, "auto")


def stand_aside() -> None:
    """This process leaves the sender's CPU to the senders, where there are two."""
    cpus = os.sched_getaffinity(0)
    if {SENDER_CPU, OTHER_CPU} <= cpus:
        os.sched_setaffinity(0, {OTHER_CPU})

"""Runs in the emulated machine, between its two NICs: every sender, interleaved, with what each costs.

Usage: python -m bench.premap_guest ROUNDS [ARM...]. One JSON object per measurement goes to
/run/shared/measured. The sender and its NIC's interrupts have CPU 0 for themselves; receivers and Python's
own thread run on CPU 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench import names
from bench.scene import BUILD, OTHER_CPU, SENDER_CPU, library
from tests.lab.wire import frame
from xsk_engine import netdev
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.flow import Flow, Traffic
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.packet import udp_header_bytes
from xsk_engine.program import PassProgram
from xsk_engine.values import Range, Sequence

SHARED = Path("/run/shared")
EVENTS = Path("/sys/kernel/tracing/events")
TCP_PORT, UDP_PORT = 5201, 9000
FRAME_BYTES = 1514

TCP_MEGABYTES, TCP_TSO_MEGABYTES = 24, 64
UDP_PACKETS, COPY_PACKETS, ZEROCOPY_PACKETS = 20_000, 20_000, 60_000


def ethtool(*arguments: str) -> str:
    done = subprocess.run(["ethtool", *arguments], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


# ---- what is counted -----------------------------------------------------------------------------------


class Regions:
    """Counts, when ``tracing``, the DMA mapping calls of vtx's driver and the IOMMU's own page-table work, by
    region: "open" and "send". `cpu`: of the page tables only what this one did."""

    def __init__(self, device: str, cpu: int | None = None) -> None:
        self.tracing = False
        self.counts: dict[str, dict[str, int]] = {}
        # As a histogram shows them. No cpu: of every one.
        self._wanted = {"device": device, "common_cpu": "" if cpu is None else f"common_cpu: {cpu:>10}"}
        self._keys = {
            "dma_maps": ("dma/dma_map_phys", "device"),
            "dma_unmaps": ("dma/dma_unmap_phys", "device"),
            "iommu_maps": ("iommu/map", "common_cpu"),
            "iommu_unmaps": ("iommu/unmap", "common_cpu"),
        }

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if not self.tracing:
            yield
            return
        counts = self.counts.setdefault(name, {})
        for event, key in self._keys.values():
            (EVENTS / event / "trigger").write_text(f"hist:keys={key}")
        try:
            yield
            for name, (event, key) in self._keys.items():
                text = (EVENTS / event / "hist").read_text()
                lines = re.findall(r"\{ (.*?) +\} hitcount: +(\d+)", text)
                counts[name] = sum(int(n) for what, n in lines if self._wanted[key] in what)
        finally:
            for event, key in self._keys.values():
                with contextlib.suppress(OSError):
                    (EVENTS / event / "trigger").write_text(f"!hist:keys={key}")


def instructions() -> tuple[int, int] | None:
    """(kernel, user) of the last region between marks; None without the plugin."""
    path = SHARED / "instructions"
    lines = path.read_text().split("\n") if path.exists() else []
    return tuple(map(int, lines[-2].split())) if len(lines) > 1 else None  # type: ignore[return-value]


def counters(interface: str, *names: str) -> int:
    """The sum of a NIC's own counters."""
    known = dict(re.findall(r"(\w+): (\d+)", ethtool("-S", interface)))
    return sum(int(known[name]) for name in names)


def sent_and_arrived(lab: PrivateLab) -> tuple[int, int]:
    """Frames that vtx has sent (one for a TSO packet, whatever its length), and that have come to vrx."""
    with namespaces.entered(lab.rx_fd):
        arrived = counters(topology.RX_INTERFACE, "rx_packets", "rx_missed_errors")
    return counters(topology.TX_INTERFACE, "tx_packets"), arrived


def pin_interrupts() -> None:
    """Those of vtx to the sender's CPU, those of vrx to the other."""
    for line in Path("/proc/interrupts").read_text().splitlines():
        match = re.match(r" *(\d+):.*\b(vtx|vrx)", line)
        if match:
            cpu = SENDER_CPU if match[2] == "vtx" else OTHER_CPU
            Path(f"/proc/irq/{match[1]}/smp_affinity_list").write_text(str(cpu))


# ---- the senders ---------------------------------------------------------------------------------------

Arm = Callable[[Regions], None]
"""Sends, with marks around the sending alone."""


def kernel(program: str, mode: str, port: int, *more: int, regions: Regions) -> None:
    place = [topology.RX_IPV4, str(port), str(SENDER_CPU)]
    with regions("send"):
        subprocess.run([str(BUILD / program), mode, *place, *map(str, more)], check=True, timeout=90)


def tcp(mode: str, offload: str, megabytes: int, regions: Regions) -> None:
    ethtool("-K", topology.TX_INTERFACE, "tso", offload, "gso", offload)
    kernel("kernel_sender", mode, TCP_PORT, megabytes, regions=regions)


def udp(regions: Regions) -> None:
    kernel("udp_sender", "sendto", UDP_PORT, FRAME_BYTES - udp_header_bytes(4), UDP_PACKETS, regions=regions)


def minimal(_: Regions) -> None:
    """The least that can send in zero-copy: one frame posted for ever from one chunk."""
    place = [topology.TX_INTERFACE, "0", str(SENDER_CPU), "60"]
    what = ["zerocopy", str(ZEROCOPY_PACKETS)]
    program = PassProgram(netdev.get(topology.TX_INTERFACE))
    try:
        netdev.wait_for_link(topology.TX_INTERFACE, 20)
        pin_interrupts()
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(frame(FRAME_BYTES))
            command = [str(BUILD / "minimal"), *place, file.name, *what]
            subprocess.run(command, check=True, timeout=90, stdout=subprocess.DEVNULL)
    finally:
        program.close()


def engine(mode: str, traffic: Traffic, regions: Regions) -> None:
    os.sched_setaffinity(0, {SENDER_CPU, OTHER_CPU})
    one = Engine(EngineConfig(topology.TX_INTERFACE, mode=mode, cpus=(SENDER_CPU,), link_timeout_s=20))
    os.sched_setaffinity(0, {OTHER_CPU})
    with regions("open"):
        one.open()
    with contextlib.closing(one):
        pin_interrupts()
        with regions("send"):
            library("mark").mark_begin()
            asyncio.run(one.run(traffic))
            library("mark").mark_end()
    assert one.snapshot().completed_packets == traffic.count, one.snapshot()


def arms() -> dict[str, Arm]:
    sent = frame(FRAME_BYTES)
    fields = {"@42/8": Sequence(), "udp.src": Range(1024, 51_023), "@50/4": Sequence(7)}
    return {
        names.TSO_OFF: partial(tcp, "tcp", "off", TCP_MEGABYTES),
        names.TSO_ON: partial(tcp, "tcp", "on", TCP_TSO_MEGABYTES),
        names.TSO_SENDFILE: partial(tcp, "sendfile", "on", TCP_TSO_MEGABYTES),
        names.UDP: udp,
        names.ENGINE_COPY: partial(engine, "copy", Traffic(sent, count=COPY_PACKETS)),
        names.ENGINE: partial(engine, "zerocopy", Traffic(sent, count=ZEROCOPY_PACKETS)),
        names.PATCHED: partial(engine, "zerocopy", Traffic(Flow(sent, fields), count=ZEROCOPY_PACKETS)),
        names.PATCHED_SMALL: partial(
            engine, "zerocopy", Traffic(Flow(frame(60), fields), count=ZEROCOPY_PACKETS)
        ),
        names.MINIMAL: minimal,
    }


@contextlib.contextmanager
def receivers(lab: PrivateLab) -> Iterator[None]:
    """A TCP reader that throws everything away, and a bound UDP port that nobody reads."""
    with namespaces.entered(lab.rx_fd):
        listener = socket.create_server((topology.RX_IPV4, TCP_PORT))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((topology.RX_IPV4, UDP_PORT))

    def read() -> None:
        buffer = bytearray(1 << 20)
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    while connection.recv_into(buffer):
                        pass

    threading.Thread(target=read, daemon=True).start()
    with udp, listener:
        yield


def measure(lab: PrivateLab, arm: Arm, regions: Regions) -> dict[str, Any]:
    """One run. Tracing costs instructions, so what is traced and what is counted are different runs."""
    netdev.wait_for_link(topology.TX_INTERFACE, 20)
    pin_interrupts()
    regions.counts = {}
    before = sent_and_arrived(lab)
    arm(regions)
    sent, arrived = (now - then for now, then in zip(sent_and_arrived(lab), before, strict=True))
    # TSO: what arrives is what was cut. Zero-copy outruns the emulated receiver, which drops uncounted.
    figures: dict[str, Any] = {"packets": max(sent, arrived), "sent": sent, "arrived": arrived}
    if regions.tracing:
        return figures | regions.counts
    if (counted := instructions()) is not None:
        figures["kernel_instructions"], figures["user_instructions"] = counted
    return figures


def main() -> None:
    rounds, wanted = int(sys.argv[1]), sys.argv[2:]
    os.sched_setaffinity(0, {OTHER_CPU})
    lab = PrivateLab.from_environment()
    said = ethtool("-i", topology.TX_INTERFACE).splitlines()
    regions = Regions(next(line.split()[1] for line in said if line.startswith("bus-info:")))
    senders = {name: arm for name, arm in arms().items() if not wanted or name in wanted}
    with receivers(lab), (SHARED / "measured").open("w") as out:
        for number in range(rounds + 1):
            # Round 0 is traced and warms everything up; the others are counted.
            regions.tracing = number == 0
            for name, arm in list(senders.items())[:: 1 if number % 2 else -1]:
                figures = {"arm": name, "traced": regions.tracing, **measure(lab, arm, regions)}
                out.write(json.dumps(figures) + "\n")
                out.flush()
                print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()

"""Runs in the emulated machine, between its two NICs: TCP of the kernel and of the engine, and what each costs.

Usage: python -m bench.tcp_premap_guest ROUNDS. One JSON object per measurement goes to /run/shared/measured.
The sender, its application where not said otherwise, and its NIC's interrupts have CPU 0, the counted one, for
themselves; receivers, the interrupts of their NIC and Python's own thread run on CPU 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.blocks import by_function
from bench.harness import BUILD
from bench.premap_guest import (
    OTHER_CPU,
    SENDER_CPU,
    SHARED,
    TCP_PORT,
    Regions,
    counters,
    ethtool,
    instructions,
    pin_interrupts,
    receivers,
    sent_and_arrived,
    tcp,
)
from xsk_engine import netdev
from xsk_engine._ffi.native import library_path
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

TX, RX = topology.TX_INTERFACE, topology.RX_INTERFACE
MEGABYTES, TSO_MEGABYTES = 32, 64
LINK_S = 20
LIMIT_S = 60
# Zero-copy outruns an emulated receiver: what it drops is sent again, and would be counted.
RING = 4096


class TcpFunctions(ctypes.Structure):
    """struct tcp_functions of tcp_writer.c."""

    _fields_ = [("write", ctypes.c_void_p), ("info", ctypes.c_void_p)]


_writer = ctypes.CDLL(str(BUILD / "libtcp_writer.so"))
_library = ctypes.CDLL(library_path())
_functions = TcpFunctions(
    ctypes.cast(_library.xske_tcp_write, ctypes.c_void_p),
    ctypes.cast(_library.xske_tcp_info, ctypes.c_void_p),
)

Told = dict[str, Any]
Arm = Callable[[Regions, bool], Told]
"""Sends, with marks around the sending alone; the second argument: also where the instructions were."""


def of_kernel(offload: str, megabytes: int, regions: Regions, where: bool) -> Told:
    tcp("tcp", offload, megabytes, regions)
    return {"functions": by_function(library_path())} if where else {}


def write_on(cpu: int, handle: int) -> None:
    """All of it, by a thread on this CPU. OSError."""
    results: list[int] = []

    def write() -> None:
        os.sched_setaffinity(threading.get_native_id(), {cpu})
        connection = ctypes.c_void_p(handle)
        results.append(_writer.write_all(ctypes.byref(_functions), connection, MEGABYTES, LIMIT_S))

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    if results != [0]:
        raise OSError(-results[0], os.strerror(-results[0]))


def of_engine(application_cpu: int, regions: Regions, where: bool) -> Told:
    os.sched_setaffinity(0, {SENDER_CPU, OTHER_CPU})
    config = EngineConfig(TX, mode="zerocopy", tcp=True, cpus=(SENDER_CPU,), link_timeout_s=LINK_S)
    engine = Engine(config)
    os.sched_setaffinity(0, {OTHER_CPU})
    with regions("open"):
        engine.open()
    with contextlib.closing(engine):
        pin_interrupts()
        with engine.tcp(topology.RX_IPV4, TCP_PORT) as connection:
            before = engine.snapshot()
            with regions("send"):
                assert connection.handle is not None
                write_on(application_cpu, connection.handle)
            after, info = engine.snapshot(), connection.info()
            told: Told = {"functions": by_function(library_path())} if where else {}
    kicks = after.kick_calls - before.kick_calls
    assert engine.tcp_counters().bad_csum_packets == 0
    return told | {
        "kicks": kicks,
        "again": info.retransmitted_segments,
        "copied": engine.tcp_counters().copied_segments,
        "timeouts": info.timeouts,
        "rtt_ms": info.srtt_ns / 1e6,
    }


def measure(lab: PrivateLab, arm: Arm, regions: Regions, where: bool) -> Told:
    """One run. Tracing costs instructions, so what is traced and what is counted are different runs."""
    netdev.wait_for_link(TX, LINK_S)
    pin_interrupts()
    regions.counts = {}
    acks = counters(TX, "rx_packets")
    before = sent_and_arrived(lab)
    told = arm(regions, where)
    sent, arrived = (now - then for now, then in zip(sent_and_arrived(lab), before, strict=True))
    # TSO: what arrives is what was cut.
    figures: Told = {"packets": max(sent, arrived), "acks": counters(TX, "rx_packets") - acks, **told}
    if regions.tracing:
        return figures | regions.counts
    if (counted := instructions()) is not None:
        figures["kernel_instructions"], figures["user_instructions"] = counted
    return figures


def gro(lab: PrivateLab, on: bool) -> None:
    """Of the receiver: without it, its kernel acknowledges every second segment."""
    with namespaces.entered(lab.rx_fd):
        ethtool("-K", RX, "gro", "on" if on else "off")


def main() -> None:
    rounds = int(sys.argv[1])
    os.sched_setaffinity(0, {OTHER_CPU})
    lab = PrivateLab.from_environment()
    with namespaces.entered(lab.rx_fd):
        ethtool("-G", RX, "rx", str(RING))
        netdev.wait_for_link(RX, LINK_S)
    said = ethtool("-i", TX).splitlines()
    regions = Regions(next(line.split()[1] for line in said if line.startswith("bus-info:")), SENDER_CPU)
    arms: dict[str, Arm] = {
        "kernel TCP, TSO and GSO off": partial(of_kernel, "off", MEGABYTES),
        "kernel TCP, TSO on": partial(of_kernel, "on", TSO_MEGABYTES),
        "engine TCP, zero-copy": partial(of_engine, SENDER_CPU),
        "engine TCP, zero-copy, its loop alone": partial(of_engine, OTHER_CPU),
    }
    with receivers(lab), (SHARED / "measured").open("w") as out:
        for number in range(rounds + 1):
            # Round 0 is traced and warms everything up; the others are counted, the last one by function, too.
            regions.tracing = number == 0
            for with_gro in (True, False):
                gro(lab, with_gro)
                for name, arm in list(arms.items())[:: 1 if number % 2 else -1]:
                    figures = measure(lab, arm, regions, number == rounds)
                    line = {"sender": name, "gro": with_gro, "traced": regions.tracing, **figures}
                    out.write(json.dumps(line) + "\n")
                    out.flush()
                    print(json.dumps({k: v for k, v in line.items() if k != "functions"}), flush=True)


if __name__ == "__main__":
    main()

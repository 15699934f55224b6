"""Runs in the emulated machine, between its two NICs: TCP of the kernel and of the engine, and its cost.

Usage: python -m bench.instructions_guest ROUNDS [ARM...]. One JSON object per measurement goes to
/run/shared/measured. The sender, its application where not said otherwise, and its NIC's interrupts have CPU
0, the counted one, for themselves; receivers, the interrupts of their NIC and Python's own thread run on CPU
1.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bench import names
from bench.blocks import by_function
from bench.premap_guest import (
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
from bench.scene import OTHER_CPU, RX, SENDER_CPU, TX, library
from bench.tcp_application import send
from xsk_engine import netdev
from xsk_engine._ffi.native import library_path
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

MEGABYTES, TSO_MEGABYTES = 32, 64
# It finds 10 % of the send buffer free, or so.
NAP_US = 5000
LINK_S = 20
IDLE_S = 3
# Zero-copy outruns an emulated receiver: what it drops is sent again, and would be counted.
RING = 4096

Told = dict[str, Any]
Arm = Callable[[Regions, bool], Told]
"""Sends, with marks around the sending alone; the second argument: also where the instructions were."""


def of_kernel(mode: str, offload: str, megabytes: int, regions: Regions, where: bool) -> Told:
    tcp(mode, offload, megabytes, regions)
    return {"functions": by_function(library_path())} if where else {}


def of_engine(application_cpu: int, in_place: bool, regions: Regions, where: bool) -> Told:
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
                send([connection], MEGABYTES, nap_us=NAP_US, in_place=in_place, cpu=application_cpu)
            after, info = engine.snapshot(), connection.info()
            told: Told = {"functions": by_function(library_path())} if where else {}
    assert engine.tcp_counters().bad_csum_packets == 0
    return told | {
        "kicks": after.kick_calls - before.kick_calls,
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
    start = time.monotonic()
    told = arm(regions, where)
    told["seconds"] = time.monotonic() - start
    sent, arrived = (now - then for now, then in zip(sent_and_arrived(lab), before, strict=True))
    # TSO: what arrives is what was cut.
    figures: Told = {"packets": max(sent, arrived), "acks": counters(TX, "rx_packets") - acks, **told}
    if regions.tracing:
        return figures | regions.counts
    if (counted := instructions()) is not None:
        figures["kernel_instructions"], figures["user_instructions"] = counted
    return figures


def idle() -> Told:
    """Nobody sends: what of the others' figures is not the packets'."""
    time.sleep(1)  # what the arm before has left behind is done
    library("mark").mark_begin()
    time.sleep(IDLE_S)
    library("mark").mark_end()
    kernel, user = instructions() or (0, 0)
    return {"idle": True, "seconds": IDLE_S, "instructions": kernel + user}


def gro(lab: PrivateLab, on: bool) -> None:
    """Of the receiver: without it, its kernel acknowledges every second segment."""
    with namespaces.entered(lab.rx_fd):
        ethtool("-K", RX, "gro", "on" if on else "off")


def main() -> None:
    rounds, wanted = int(sys.argv[1]), sys.argv[2:]
    os.sched_setaffinity(0, {OTHER_CPU})
    lab = PrivateLab.from_environment()
    with namespaces.entered(lab.rx_fd):
        ethtool("-G", RX, "rx", str(RING))
        netdev.wait_for_link(RX, LINK_S)
    said = ethtool("-i", TX).splitlines()
    regions = Regions(next(line.split()[1] for line in said if line.startswith("bus-info:")), SENDER_CPU)
    arms: dict[str, Arm] = {
        names.TSO_OFF: partial(of_kernel, "tcp", "off", MEGABYTES),
        names.TSO_ON: partial(of_kernel, "tcp", "on", TSO_MEGABYTES),
        names.ENGINE_TCP: partial(of_engine, SENDER_CPU, False),
        names.LENT_TSO_OFF: partial(of_kernel, "zerocopy", "off", MEGABYTES),
        names.LENT_TSO_ON: partial(of_kernel, "zerocopy", "on", TSO_MEGABYTES),
        names.ENGINE_TCP_IN_PLACE: partial(of_engine, SENDER_CPU, True),
        names.ENGINE_TCP_LOOP: partial(of_engine, OTHER_CPU, False),
    }
    arms = {name: arm for name, arm in arms.items() if not wanted or name in wanted}
    with receivers(lab), (SHARED / "measured").open("w") as out:
        for number in range(rounds + 1):
            # Round 0 is traced and warms everything up; the others are counted, the last by function, too.
            regions.tracing = number == 0
            for with_gro in (True, False):
                gro(lab, with_gro)
                for name, arm in list(arms.items())[:: 1 if number % 2 else -1]:
                    if name not in names.WITHOUT_GRO and not with_gro:
                        continue
                    figures = measure(lab, arm, regions, number == rounds)
                    line = {"arm": name, "gro": with_gro, "traced": regions.tracing, **figures}
                    out.write(json.dumps(line) + "\n")
                    out.flush()
                    print(json.dumps({k: v for k, v in line.items() if k != "functions"}), flush=True)
        out.write(json.dumps(idle()) + "\n")


if __name__ == "__main__":
    main()

"""Runs in the emulated machine, between its two NICs: what a received ACK costs, by where it goes.

Usage: python -m bench.acks_guest ROUNDS [ARM...]. One JSON object per measurement goes to
/run/shared/measured. The receiver and its NIC's interrupts have CPU 0, the counted one, for themselves; the
sender, the interrupts of its NIC and Python's own thread run on CPU 1. All arms get the same packets, bare
ACKs of a connection that both kernels know, sent by the engine; but UDP, whose are as long.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from bench import names
from bench.ack_reader import reading, steered
from bench.premap_guest import SHARED, Regions, ethtool, instructions
from bench.scene import library
from bench.tcp_takeover import Place, listen, take_over
from xsk_engine import netdev
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.flow import Traffic
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.packet import parse_mac, udp_frame

RECEIVER_CPU, OTHER_CPU = 0, 1
TCP_PORT, UDP_PORT = 5201, 9000
ACK_BYTES = 66
LINK_S = 20
LIMIT_S = 30.0
# All of a burst finds room in the NIC's ring, however slow the receiver is.
RING, BURST, BURSTS = 4096, 3000, 4
# Its sleeping and waking is counted, too, so it sleeps as long as the ring has room for.
NAP_US = 50_000
# Far enough apart that each has an interrupt of its own.
ALONE_PPS, ALONE = 500, 400
IDLE_S = 1.0
_SO_RCVBUFFORCE, _TCP_INFO, _SEGS_IN_OFFSET = 33, 11, 140


T = TypeVar("T")
Receiving = contextlib.AbstractContextManager[Callable[[], int]]
"""While it lasts packets are received; it yields what counts them where they go."""


def pin_interrupts() -> None:
    """Those of vrx to the receiver's CPU, those of vtx to the other."""
    for line in Path("/proc/interrupts").read_text().splitlines():
        match = re.match(r" *(\d+):.*\b(vtx|vrx)", line)
        if match:
            cpu = RECEIVER_CPU if match[2] == "vrx" else OTHER_CPU
            Path(f"/proc/irq/{match[1]}/smp_affinity_list").write_text(str(cpu))


class Receivers:
    """Where ACKs can go, at vrx."""

    def __init__(self, lab: PrivateLab) -> None:
        self._lab = lab
        listener = listen(lab, TCP_PORT)
        # Kept: without the sender's end there would be RSTs, without the receiver's no connection.
        self._sender = socket.create_connection((topology.RX_IPV4, TCP_PORT), timeout=10)
        self._connection, _ = listener.accept()
        self.place: Place = take_over(self._sender)
        self._ends = (topology.TX_IPV4, self.place.port), (topology.RX_IPV4, TCP_PORT)

    @contextlib.contextmanager
    def _at_peer(self, manager: contextlib.AbstractContextManager[T]) -> Iterator[T]:
        """Opened and closed in the other namespace; the sender's is this thread's in between."""
        with namespaces.entered(self._lab.rx_fd):
            value = manager.__enter__()
        try:
            yield value
        finally:
            with namespaces.entered(self._lab.rx_fd):
                manager.__exit__(None, None, None)

    @contextlib.contextmanager
    def af_xdp(self, mode: str) -> Iterator[Callable[[], int]]:
        where = (topology.RX_INTERFACE, *self._ends)
        one = reading(*where, mode=mode, cpu=RECEIVER_CPU, ring_size=RING, nap_us=NAP_US)
        with self._at_peer(one) as acks:
            yield lambda: acks.packets

    def _segments(self) -> int:
        info = self._connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256)
        return int(struct.unpack_from("=I", info, _SEGS_IN_OFFSET)[0])

    @contextlib.contextmanager
    def tcp(self) -> Iterator[Callable[[], int]]:
        before = self._segments()
        yield lambda: self._segments() - before

    @contextlib.contextmanager
    def passed(self) -> Iterator[Callable[[], int]]:
        with self._at_peer(steered(topology.RX_INTERFACE, *self._ends, None)), self.tcp() as came:
            yield came

    @contextlib.contextmanager
    def udp(self) -> Iterator[Callable[[], int]]:
        """Read on the other CPU, every now and then: a reader's system calls are not in."""
        with namespaces.entered(self._lab.rx_fd):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        total = 0

        def came() -> int:
            nonlocal total
            with contextlib.suppress(BlockingIOError):
                while sock.recv(100, socket.MSG_DONTWAIT):
                    total += 1
            return total

        with sock:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
            sock.bind((topology.RX_IPV4, UDP_PORT))
            yield came


def udp_packet() -> bytes:
    addresses = ip_address(topology.TX_IPV4), ip_address(topology.RX_IPV4)
    macs = parse_mac(topology.RX_MAC), parse_mac(topology.TX_MAC)
    return udp_frame(*macs, *addresses, 9, UDP_PORT, bytes(ACK_BYTES - 42))


class Sending:
    """The engine on vtx, and what its packets cost who receives them."""

    def __init__(self, engine: Engine, regions: Regions) -> None:
        self._engine = engine
        self._regions = regions

    def _send(self, came: Callable[[], int], frame: bytes, count: int, pps: int | None) -> None:
        wanted, deadline = came() + count, time.monotonic() + LIMIT_S
        rate = Fraction(pps) if pps else None
        self._engine.start(Traffic(frame, count=count, rate=rate)).wait(LIMIT_S)
        while (there := came()) < wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{there} packets have come where {wanted} should")
            time.sleep(0.01)

    def measure(self, receiving: Receiving, frame: bytes, alone: bool) -> dict[str, Any]:
        """One run. Tracing costs instructions, so what is traced and what is counted are different runs."""
        with receiving as came:
            netdev.wait_for_link(topology.TX_INTERFACE, LINK_S)
            pin_interrupts()
            self._send(came, frame, 100, 1000)  # warms it up
            before = came()
            self._regions.counts = {}
            with self._regions("receive"):
                library("mark").mark_begin()
                start = time.monotonic()
                for count, pps in [(ALONE, ALONE_PPS)] if alone else [(BURST, None)] * BURSTS:
                    self._send(came, frame, count, pps)
                seconds = time.monotonic() - start
                library("mark").mark_end()
            time.sleep(0.1)
            packets = came() - before
        wanted = ALONE if alone else BURST * BURSTS
        # A few of the kernel's own may be among them.
        assert wanted <= packets < wanted + 10, f"{packets} of {wanted} packets came"
        figures: dict[str, Any] = {"packets": packets, "seconds": seconds}
        if self._regions.tracing:
            return figures | self._regions.counts
        if (counted := instructions()) is not None:
            figures["kernel_instructions"], figures["user_instructions"] = counted
        return figures

    def idle(self, receiving: Receiving) -> dict[str, Any]:
        """Nobody sends: what of the others' figures is not the packets'."""
        with receiving:
            time.sleep(1)  # what the arm before has left behind is done
            library("mark").mark_begin()
            time.sleep(IDLE_S)
            library("mark").mark_end()
        kernel, user = instructions() or (0, 0)
        return {"seconds": IDLE_S, "kernel_instructions": kernel, "user_instructions": user}


def main() -> None:
    rounds, wanted = int(sys.argv[1]), sys.argv[2:]
    lab = PrivateLab.from_environment()
    with namespaces.entered(lab.rx_fd):
        # One queue, so that all come to one socket.
        ethtool("-L", topology.RX_INTERFACE, "combined", "1")
        ethtool("-G", topology.RX_INTERFACE, "rx", str(RING))
        # Or it reports its multicast groups whenever the link comes back, and those packets are mapped.
        Path(f"/proc/sys/net/ipv6/conf/{topology.RX_INTERFACE}/disable_ipv6").write_text("1")
        netdev.wait_for_link(topology.RX_INTERFACE, LINK_S)
        said = ethtool("-i", topology.RX_INTERFACE).splitlines()
    regions = Regions(next(line.split()[1] for line in said if line.startswith("bus-info:")))
    receivers = Receivers(lab)
    ack, datagram = receivers.place.frame(b""), udp_packet()
    arms: dict[str, tuple[Callable[[], Receiving], bytes]] = {
        names.ACKS_ZEROCOPY: (functools.partial(receivers.af_xdp, "zerocopy"), ack),
        names.ACKS_COPY: (functools.partial(receivers.af_xdp, "copy"), ack),
        names.ACKS_TCP: (receivers.tcp, ack),
        names.ACKS_PASSED: (receivers.passed, ack),
        names.ACKS_UDP: (receivers.udp, datagram),
    }
    arms = {name: arm for name, arm in arms.items() if not wanted or name in wanted}
    config = EngineConfig(topology.TX_INTERFACE, mode="zerocopy", cpus=(OTHER_CPU,), link_timeout_s=LINK_S)
    with Engine(config) as engine, (SHARED / "measured").open("w") as out:
        os.sched_setaffinity(0, {OTHER_CPU})
        sending = Sending(engine, regions)

        def tell(name: str, figures: dict[str, Any], **what: Any) -> None:
            text = json.dumps({"arm": name, "traced": regions.tracing, **what, **figures})
            out.write(text + "\n")
            out.flush()
            print(text, flush=True)

        for number in range(rounds + 1):
            # Round 0 is traced and warms everything up; the others are counted.
            regions.tracing = number == 0
            for name, (receiving, frame) in list(arms.items())[:: 1 if number % 2 else -1]:
                for alone in (False, True):
                    tell(name, sending.measure(receiving(), frame, alone), alone=alone)
        tell(names.ACKS_ZEROCOPY, sending.idle(receivers.af_xdp("zerocopy")), idle=True)
        tell(names.ACKS_TCP, sending.idle(receivers.tcp()), idle=True)


if __name__ == "__main__":
    main()

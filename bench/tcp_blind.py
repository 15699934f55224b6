"""One MTU of ``make bench-tcp-bounds``, on veth: what a stream of TCP segments that waits for no ACK brings
into a kernel's TCP socket, beside the kernel's own TCP. Runs inside a laboratory with two queues; its last
line is JSON.

All arms have the same receiver: a socket, and a thread on CPU 1 that reads it. Senders have CPU 0. The blind
stream is a connection of the kernel's taken over (tcp_takeover.py) by one flow of the engine, whose sequence
number is a range. Nothing is sent again, so it counts only if every byte of it comes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.ack_reader import reading
from bench.harness import BUILD, interleave, spread
from bench.tcp_takeover import HEADERS_BYTES, SEQ_FIELD, Place, listen, take_over
from xsk_engine import netdev
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.flow import Flow, Traffic
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.packet import ETHERNET_BYTES
from xsk_engine.values import Range

SENDER_CPU, OTHER_CPU = 0, 1
ROUNDS = 9
# A quarter of a second or so of the blind stream. Less: the kernel's TCP is not up to its speed yet; more: a
# slow minute of the machine hits one arm and not its neighbour.
MEGABYTES = {1500: 150, 9000: 500, 65535: 1500}
# What the kernel sends first in every arm, and nobody counts: the receiver's window is open then.
WARM_UP_BYTES = 64 << 20
# The blind stream asks no window, so it has one that holds a whole run. Not the kernel's senders, whose
# segments would wait in memory that is cold.
BLIND_BUFFER_BYTES = 1 << 30
# The engine sends from queue 1, and its ACKs come to queue 0: a socket that receives needs a umem of its own.
QUEUE = 1
# More than come in the reader's nap of a millisecond.
ACK_RING = 4096
PORT, BLIND_PORT = 5201, 5202
# Ahead of what else runs here: threads that wake each other would wait for a turn each time (measured beside
# other work: a third of the rate, and ratios of single rounds 4 times apart).
PRIORITY = 1
# What iperf3 reads at once, and waits for: with less a reader wakes oftener, and the kernel's TCP is slower.
READ_BYTES = 128 << 10
NAP_S = 0.0005
LIMIT_S = 20.0
_METADATA_BYTES = 24

BLIND, BLIND_STEERED, BLIND_GRO = "blind", "blind, ACKs steered to AF_XDP", "blind, GRO at the receiver"
KERNEL, KERNEL_PLAIN = "kernel TCP", "kernel TCP, TSO and GSO off"
KERNEL_GRO = "kernel TCP, TSO and GSO off, GRO at the receiver"
BLIND_NAP, KERNEL_NAP = "blind, reader naps", "kernel TCP, TSO and GSO off, reader naps"
RATIOS = (
    (BLIND, KERNEL),
    (BLIND, KERNEL_PLAIN),
    (BLIND_STEERED, KERNEL_PLAIN),
    (BLIND_GRO, KERNEL_GRO),
    (BLIND_NAP, KERNEL_NAP),
)


class Reader:
    """Reads a connection to its end, in a thread; rates are from the first byte after the warm-up to the
    last. ``naps``: it looks every now and then, so that no segment has to wake it."""

    def __init__(self, connection: socket.socket, total_bytes: int, naps: bool) -> None:
        self._connection = connection
        self._flags = socket.MSG_DONTWAIT if naps else socket.MSG_WAITALL
        self._total = total_bytes
        self.received = 0
        self._first: tuple[float, int] | None = None
        self._last_s = 0.0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        os.sched_setaffinity(threading.get_native_id(), {OTHER_CPU})
        buffer = bytearray(READ_BYTES)
        with contextlib.suppress(OSError):
            while left := self._total - self.received:
                try:
                    n = self._connection.recv_into(buffer, min(left, READ_BYTES), self._flags)
                except BlockingIOError:
                    time.sleep(NAP_S)
                    continue
                if not n:
                    return
                self.received += n
                self._last_s = time.perf_counter()
                if self._first is None and self.received > WARM_UP_BYTES:
                    self._first = (self._last_s, self.received)

    def wait(self, until_bytes: int) -> None:
        """RuntimeError when they do not come: a segment was lost, and nobody sends it again."""
        deadline = time.monotonic() + LIMIT_S
        while self.received < until_bytes:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.received} of {until_bytes} bytes came")
            time.sleep(0.005)

    def close(self) -> None:
        """Before the connection: a thread that is still in recv() would read the next one's bytes."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)
        self._thread.join(LIMIT_S)

    def gbps(self) -> float:
        """When everything has come. 10^9 bits of payload per second."""
        self._thread.join(LIMIT_S)
        assert self._first is not None
        start_s, before = self._first
        return (self.received - before) * 8e-9 / (self._last_s - start_s)


def ethtool(*arguments: str) -> None:
    subprocess.run(["ethtool", *arguments], capture_output=True, check=True, timeout=30)


class Bench:
    """One laboratory's arms. ``acks``: by arm, the ACKs per segment of each run."""

    def __init__(self, lab: PrivateLab) -> None:
        self._lab = lab
        self.mtu = netdev.get(topology.TX_INTERFACE).mtu
        self.payload_bytes = self.mtu + ETHERNET_BYTES - HEADERS_BYTES
        self.segments = MEGABYTES[self.mtu] * 1_000_000 // self.payload_bytes
        self.acks: dict[str, list[float]] = {}
        self._listener, self._blind_listener = listen(lab, PORT), listen(lab, BLIND_PORT, BLIND_BUFFER_BYTES)
        with namespaces.entered(lab.rx_fd):
            ethtool("-L", topology.RX_INTERFACE, "tx", "1")  # so all ACKs come to vtx's queue 0

    def _offloads(self, tso: bool, gro: bool) -> None:
        switch = {True: "on", False: "off"}
        ethtool("-K", topology.TX_INTERFACE, "tso", switch[tso], "gso", switch[tso])
        with namespaces.entered(self._lab.rx_fd):
            ethtool("-K", topology.RX_INTERFACE, "gro", switch[gro])

    def _sent_by_receiver(self) -> int:
        with namespaces.entered(self._lab.rx_fd):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        line = next(text for text in lines if text.lstrip().startswith(topology.RX_INTERFACE))
        return int(line.split(":")[1].split()[9])

    @contextlib.contextmanager
    def _counting_acks(self, arm: str) -> Iterator[None]:
        before = self._sent_by_receiver()
        yield
        self.acks.setdefault(arm, []).append((self._sent_by_receiver() - before) / self.segments)

    def kernel(self, arm: str, tso: bool = False, gro: bool = False, naps: bool = False) -> float:
        """Gbit/s of payload at the receiver."""
        self._offloads(tso, gro)
        megabytes = (WARM_UP_BYTES + self.segments * self.payload_bytes) >> 20
        command = ["tcp", topology.RX_IPV4, str(PORT), str(SENDER_CPU), str(megabytes)]
        sender = subprocess.Popen([str(BUILD / "kernel_sender"), *command])
        try:
            connection, _ = self._listener.accept()
            with connection, self._counting_acks(arm):
                reader = Reader(connection, megabytes << 20, naps)
                reader.wait(megabytes << 20)
                return reader.gbps()
        finally:
            sender.kill()
            sender.wait(10)

    @contextlib.contextmanager
    def _connected(self, naps: bool) -> Iterator[tuple[Reader, Place]]:
        """A connection taken over after its warm-up, whose next bytes need no wrap of the sequence number."""
        while True:
            sender = socket.create_connection((topology.RX_IPV4, BLIND_PORT), timeout=5)
            connection, _ = self._blind_listener.accept()
            with connection, sender:
                reader = Reader(connection, WARM_UP_BYTES + self.segments * self.payload_bytes, naps)
                try:
                    sender.sendall(bytes(WARM_UP_BYTES))
                    reader.wait(WARM_UP_BYTES)
                    place = take_over(sender)
                    if place.seq + (self.segments + 1) * self.payload_bytes < 1 << 32:
                        yield reader, place
                        return
                finally:
                    reader.close()

    def blind(self, arm: str, gro: bool = False, steered: bool = False, naps: bool = False) -> float:
        """Gbit/s of payload at the receiver."""
        self._offloads(tso=not gro, gro=gro)  # veth hands packets to GRO only where the sender has no TSO
        with contextlib.ExitStack() as stack:
            reader, place = stack.enter_context(self._connected(naps))
            last = place.seq + (self.segments - 1) * self.payload_bytes
            fields = {SEQ_FIELD: Range(place.seq, last, self.payload_bytes)}
            # As the kernel's own segments on veth, whose checksums nobody computes.
            flow = Flow(place.frame(bytes(self.payload_bytes)), fields, checksum="offload")
            if steered:
                ends = (topology.RX_IPV4, BLIND_PORT), (topology.TX_IPV4, place.port)
                one = reading(
                    *(topology.TX_INTERFACE, *ends),
                    mode="copy",
                    cpu=SENDER_CPU,
                    ring_size=ACK_RING,
                    nap_us=1000,
                )
                came = stack.enter_context(one)
            config = EngineConfig(
                topology.TX_INTERFACE,
                queues=(QUEUE,),
                cpus=(SENDER_CPU,),
                tx_metadata_len=_METADATA_BYTES,
                tx_metadata=frozenset({"checksum"}),
            )
            engine = stack.enter_context(Engine(config))
            with self._counting_acks(arm):
                running = engine.start(Traffic(flow, count=self.segments))
                reader.wait(WARM_UP_BYTES + self.segments * self.payload_bytes)
                running.wait(5)
            if steered:
                assert came.packets > self.segments / 100, "the ACKs went elsewhere"
            return reader.gbps()


def main() -> None:
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    bench = Bench(PrivateLab.from_environment())
    arms = {
        KERNEL: functools.partial(bench.kernel, KERNEL, tso=True),
        KERNEL_PLAIN: functools.partial(bench.kernel, KERNEL_PLAIN),
        KERNEL_GRO: functools.partial(bench.kernel, KERNEL_GRO, gro=True),
        KERNEL_NAP: functools.partial(bench.kernel, KERNEL_NAP, naps=True),
        BLIND: functools.partial(bench.blind, BLIND),
        BLIND_STEERED: functools.partial(bench.blind, BLIND_STEERED, steered=True),
        BLIND_GRO: functools.partial(bench.blind, BLIND_GRO, gro=True),
        BLIND_NAP: functools.partial(bench.blind, BLIND_NAP, naps=True),
    }
    gbps = interleave(arms, int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    ratios = {
        f"{ours} : {theirs}": spread([a / b for a, b in zip(gbps[ours], gbps[theirs], strict=True)])
        # Other work on the machine only slows: the best runs are the least disturbed.
        | {"best": max(gbps[ours]) / max(gbps[theirs])}
        for ours, theirs in RATIOS
    }
    result: dict[str, Any] = {
        "payload_bytes": bench.payload_bytes,
        "segments": bench.segments,
        "gbps": {arm: spread(values) for arm, values in gbps.items()},
        "acks_per_segment": {arm: spread(values) for arm, values in bench.acks.items()},
        "ratios": ratios,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

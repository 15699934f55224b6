"""A stream of TCP segments that waits for no ACK, and the kernel's own TCP, into a kernel's socket on veth.

All arms have the same receiver: a socket, and a thread on CPU 1 that reads it. Senders have CPU 0. The blind
stream is a connection of the kernel's taken over (tcp_takeover.py) by one flow of the engine, whose sequence
number is a range. Nothing is sent again, so it counts only if every byte of it comes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.ack_reader import reading
from bench.arm import Sample
from bench.scene import BUILD, OTHER_CPU, RX, SENDER_CPU, TX, Scene
from bench.tcp_takeover import HEADERS_BYTES, SEQ_FIELD, Place, listen, take_over
from xsk_engine import netdev
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.flow import Flow, Traffic
from xsk_engine.lab import topology
from xsk_engine.packet import ETHERNET_BYTES
from xsk_engine.values import Range

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
# What iperf3 reads at once, and waits for: with less a reader wakes oftener, and the kernel's TCP is slower.
READ_BYTES = 128 << 10
NAP_S = 0.0005
LIMIT_S = 20.0
_METADATA_BYTES = 24


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

    def counted(self) -> dict[str, float]:
        """Bytes and seconds, when everything has come."""
        self._thread.join(LIMIT_S)
        assert self._first is not None
        start_s, before = self._first
        return {"bytes": self.received - before, "seconds": self._last_s - start_s}


def ethtool(*arguments: str) -> None:
    subprocess.run(["ethtool", *arguments], capture_output=True, check=True, timeout=30)


class Streams:
    """One laboratory's. A sample has bytes of payload and seconds at the receiver, segments, and the ACKs
    that the receiver's interface has sent meanwhile."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.mtu = netdev.get(TX).mtu
        self.payload_bytes = self.mtu + ETHERNET_BYTES - HEADERS_BYTES
        self.segments = MEGABYTES[self.mtu] * 1_000_000 // self.payload_bytes
        self._listener = listen(scene.lab, PORT)
        self._blind_listener = listen(scene.lab, BLIND_PORT, BLIND_BUFFER_BYTES)
        with scene.at_peer():
            ethtool("-L", RX, "tx", "1")  # so all ACKs come to vtx's queue 0

    def _offloads(self, tso: bool, gro: bool) -> None:
        switch = {True: "on", False: "off"}
        ethtool("-K", TX, "tso", switch[tso], "gso", switch[tso])
        with self._scene.at_peer():
            ethtool("-K", RX, "gro", switch[gro])

    def _sent_by_receiver(self) -> int:
        with self._scene.at_peer():
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        line = next(text for text in lines if text.lstrip().startswith(RX))
        return int(line.split(":")[1].split()[9])

    def _counted(self, reader: Reader, acks_before: int) -> Sample:
        acks = self._sent_by_receiver() - acks_before
        return {**reader.counted(), "segments": self.segments, "acks": acks}

    def kernel(self, tso: bool = False, gro: bool = False, naps: bool = False) -> Sample:
        self._offloads(tso, gro)
        megabytes = (WARM_UP_BYTES + self.segments * self.payload_bytes) >> 20
        command = ["tcp", topology.RX_IPV4, str(PORT), str(SENDER_CPU), str(megabytes)]
        sender = subprocess.Popen([str(BUILD / "kernel_sender"), *command])
        try:
            connection, _ = self._listener.accept()
            with connection:
                acks = self._sent_by_receiver()
                reader = Reader(connection, megabytes << 20, naps)
                reader.wait(megabytes << 20)
                return self._counted(reader, acks)
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

    def blind(self, gro: bool = False, steered: bool = False, naps: bool = False) -> Sample:
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
                    *(TX, *ends),
                    mode="copy",
                    cpu=SENDER_CPU,
                    ring_size=ACK_RING,
                    nap_us=1000,
                )
                came = stack.enter_context(one)
            config = EngineConfig(
                TX,
                queues=(QUEUE,),
                cpus=(SENDER_CPU,),
                tx_metadata_len=_METADATA_BYTES,
                tx_metadata=frozenset({"checksum"}),
            )
            engine = stack.enter_context(Engine(config))
            acks = self._sent_by_receiver()
            running = engine.start(Traffic(flow, count=self.segments))
            reader.wait(WARM_UP_BYTES + self.segments * self.payload_bytes)
            running.wait(5)
            if steered:
                assert came.packets > self.segments / 100, "the ACKs went elsewhere"
            return self._counted(reader, acks)

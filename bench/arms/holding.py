"""Senders that hold packets which are not sent off yet, and what they take for them, by their own or by the
kernel's accounts."""

from __future__ import annotations

import array
import fcntl
import json
import socket
import struct
import subprocess
import time
from collections.abc import Sequence

from bench.arm import AbsentError, Arm, Sample
from bench.scene import PORT, SENDER_CPU, TX, Scene, engine_mode, everywhere
from xsk_engine import Engine, EngineConfig, WouldBlockError
from xsk_engine.lab import topology
from xsk_engine.packet import parse_mac, udp_frame, udp_header_bytes

# Enough that what is taken in slabs (16 chunks of 4 KiB) weighs little per packet.
PACKETS = 1_000
# Less than what a connection may hold before its window has grown: 64 KiB.
TCP_BYTES = 56_000
TCP_PORT = PORT + 2
MOST_FRAG_BYTES = 3_000
"""of a packet of several frags: three for the longest packet here, each in a chunk of its own"""
_UMEM_BYTES = 32 << 20
# include/uapi/asm-generic/socket.h, include/uapi/linux/sock_diag.h, include/uapi/linux/sockios.h
_SO_MEMINFO, _SO_SNDBUFFORCE = 55, 32
_SK_MEMINFO_WMEM_ALLOC, _SK_MEMINFO_WMEM_QUEUED, _SK_MEMINFO_VARS = 2, 5, 9
_SIOCOUTQ = 0x5411
_BUFFER_BYTES = 64 << 20
_SETTLE_S, _PATIENCE_S = 0.05, 10.0


def held(packets: float, payload: float, memory: float) -> Sample:
    """``payload``: bytes that were given; ``memory``: bytes that are taken for them. RuntimeError: it holds
    nothing. Pure."""
    if packets <= 0 or payload <= 0:
        raise RuntimeError("it holds no packets")
    return {"packets": packets, "payload_bytes": payload, "held_bytes": memory}


class EngineArm(Arm):
    """``held``: chunks that are not in the chunk pool, over those before."""

    ours = True

    def __init__(self, name: str, size: int, *, tcp: bool = False) -> None:
        super().__init__(name)
        self._size, self._tcp = size, tcp
        self._engine: Engine | None = None
        self._sample: Sample = {}

    def setup(self) -> None:
        config = EngineConfig(
            TX, cpus=(SENDER_CPU,), tcp=self._tcp, umem_bytes=_UMEM_BYTES, mode=engine_mode()
        )
        with everywhere():
            engine = Engine(config)
        self._engine = engine.open()

    def teardown(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def _taken_bytes(self) -> int:
        assert self._engine is not None
        assert self._engine.umem is not None
        audit = self._engine.umem.audit()
        return (audit.chunks - audit.pooled) * self._engine.umem.chunk_size

    def sample(self) -> Sample:
        return self._sample


class FragsArm(EngineArm):
    """Frags of an application's endpoint, allocated and not posted: as a packet that waits, or whose
    completion has not come."""

    def run(self) -> None:
        assert self._engine is not None
        pieces = -(-self._size // MOST_FRAG_BYTES)
        before = self._taken_bytes()
        with self._engine.raw(quota_chunks=pieces * PACKETS) as endpoint:
            frags = endpoint.alloc(pieces * PACKETS, -(-self._size // pieces))
            self._sample = held(PACKETS, PACKETS * self._size, self._taken_bytes() - before)
            frags.release()


class EngineTcpArm(EngineArm):
    """A connection whose peer reads nothing: written, and not acknowledged."""

    def __init__(self, name: str, size: int, scene: Scene) -> None:
        super().__init__(name, size, tcp=True)
        self._scene = scene

    def run(self) -> None:
        assert self._engine is not None
        with deaf_listener(self._scene):
            before = self._taken_bytes()
            connection = self._engine.tcp(topology.RX_IPV4, TCP_PORT)
            try:
                for _ in range(TCP_BYTES // self._size):
                    connection.send(bytes(self._size), 0)
            except WouldBlockError:
                pass  # as much as it takes
            try:
                time.sleep(_SETTLE_S)
                info = connection.info()
                payload = info.inflight_bytes + info.unsent_bytes
                self._sample = held(payload / self._size, payload, self._taken_bytes() - before)
            finally:
                connection.abort()
                connection.close()


def deaf_listener(scene: Scene) -> socket.socket:
    """At the peer: it never accepts, so nobody reads; with a window as small as the kernel makes it."""
    with scene.at_peer():
        listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind((topology.RX_IPV4, TCP_PORT))
    listener.listen(4)
    return listener


def memory_of(sock: socket.socket, which: int) -> int:
    """One of SO_MEMINFO's, in bytes."""
    told = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * _SK_MEMINFO_VARS)
    return int(struct.unpack(f"{_SK_MEMINFO_VARS}I", told)[which])


def unacknowledged_bytes(sock: socket.socket) -> int:
    value = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), _SIOCOUTQ, value)
    return value[0]


def kernel_tcp(scene: Scene, size: int) -> Sample:
    """As EngineTcpArm; sk_wmem_queued, that is skb->truesize of all that it keeps."""
    with deaf_listener(scene), socket.socket() as sock:
        sock.settimeout(_PATIENCE_S)
        sock.connect((topology.RX_IPV4, TCP_PORT))
        sock.setblocking(False)
        try:
            for _ in range(TCP_BYTES // size):
                sock.send(bytes(size))
        except BlockingIOError:
            pass
        time.sleep(_SETTLE_S)
        payload = unacknowledged_bytes(sock)
        return held(payload / size, payload, memory_of(sock, _SK_MEMINFO_WMEM_QUEUED))


class Dam:
    """A qdisc on the sender's interface that lets next to nothing through (tbf at 8 bit/ms): what is sent
    lies in it. AbsentError where the kernel has none."""

    BURST_BYTES = 16_000  # it passes at once; a packet must fit into it

    def __enter__(self) -> Dam:
        qdisc = ["root", "tbf", "rate", "8kbit", "burst", str(self.BURST_BYTES), "limit", str(_BUFFER_BYTES)]
        _tc("qdisc", "replace", "dev", TX, *qdisc)
        return self

    def __exit__(self, *_: object) -> None:
        _tc("qdisc", "del", "dev", TX, "root")

    @staticmethod
    def packets() -> int:
        """Those that lie in it."""
        (root,) = (one for one in json.loads(_tc("-s", "-j", "qdisc", "show", "dev", TX)) if one.get("root"))
        return int(root["qlen"])


def _tc(*arguments: str) -> str:
    try:
        done = subprocess.run(["tc", *arguments], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        raise AbsentError("tc is not there; apt-get install iproute2") from None
    if done.returncode:
        raise AbsentError(f"tc {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def dammed(sock: socket.socket, data: Sequence[bytes], size: int) -> Sample:
    """Sends all of `data` against a dam, each a packet of `size` bytes; sk_wmem_alloc, that is skb->truesize
    of all that were sent and not let go."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
    with Dam() as dam:
        for one in data:
            sock.send(one)
        # In this order: what trickles away in between makes the memory too little rather than too much.
        packets = dam.packets()
        return held(packets, packets * size, memory_of(sock, _SK_MEMINFO_WMEM_ALLOC))


def kernel_udp(size: int) -> Sample:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((topology.RX_IPV4, PORT))
        return dammed(sock, [bytes(size - udp_header_bytes(4))] * PACKETS, size)


def af_packet(size: int) -> Sample:
    """Through the qdisc: with PACKET_QDISC_BYPASS nothing would hold them."""
    from ipaddress import ip_address

    frame = udp_frame(
        parse_mac(topology.RX_MAC),
        parse_mac(topology.TX_MAC),
        ip_address(topology.TX_IPV4),
        ip_address(topology.RX_IPV4),
        9,
        PORT,
        bytes(size - udp_header_bytes(4)),
    )
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((TX, 0))
        return dammed(sock, [frame] * PACKETS, size)

"""ACKs on an AF_XDP socket: the project's steering program sends one connection's packets to it, and a thread
with a CPU of its own reads them (ack_reader.c)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator

from bench.scene import library
from xsk_engine import netdev as netdevs
from xsk_engine import steering
from xsk_engine._ffi.libbpf import BpfObject
from xsk_engine._ffi.native import native
from xsk_engine.program import AttachedProgram
from xsk_engine.umem import Umem
from xsk_engine.xsk import bind_rx_queues

_CHUNK_BYTES = 4096  # and ack_reader.c
_BY_TUPLE = 4  # STEER_BY_TUPLE, native/bpf/steer.h
_LINK_S = 20


class Acks(ctypes.Structure):
    """struct acks."""

    _fields_ = [("packets", ctypes.c_uint64), ("last", ctypes.c_uint32), ("stop", ctypes.c_uint32)]


def _tuple(src: tuple[str, int], dst: tuple[str, int]) -> bytes:
    """struct steer_tuple of native/bpf/steer.h, TCP over IPv4."""
    addresses = (b"\0" * 12 + socket.inet_aton(address) for address, _ in (src, dst))
    return b"".join(addresses) + struct.pack("!HHBBH", src[1], dst[1], socket.IPPROTO_TCP, 4, 0)


@contextlib.contextmanager
def steered(interface: str, src: tuple[str, int], dst: tuple[str, int], xsk_fd: int | None) -> Iterator[None]:
    """The steering program with one tuple, which goes from queue 0 to this socket; None: the program looks at
    every packet and all pass. In this thread's namespace."""
    program = BpfObject(steering._program_file())
    try:
        if xsk_fd is not None:
            program.update("steer_tuples", _tuple(src, dst), struct.pack("=I", 1))
            program.update("steer_xsks", struct.pack("=I", 0), struct.pack("=I", xsk_fd))
        program.update("steer_rules", struct.pack("=I", 0), struct.pack("=I", _BY_TUPLE))
        attached = AttachedProgram(netdevs.get(interface), lambda: program.program_fd("xske_steer"))
        with contextlib.closing(attached):
            netdevs.wait_for_link(interface, _LINK_S)
            yield
    finally:
        program.close()
    netdevs.wait_for_link(interface, _LINK_S)


@contextlib.contextmanager
def reading(
    interface: str,
    src: tuple[str, int],
    dst: tuple[str, int],
    *,
    mode: str,
    cpu: int,
    ring_size: int,
    nap_us: int,
) -> Iterator[Acks]:
    """What has come, while it comes; queue 0, in this thread's namespace. ``nap_us``: how long the reader
    sleeps when there is nothing, in which no more than ``ring_size`` may come."""
    acks = Acks()
    umem = Umem(ring_size * _CHUNK_BYTES, _CHUNK_BYTES)
    with contextlib.closing(umem):
        (xsk,) = bind_rx_queues(
            umem, netdevs.get(interface), (0,), mode, ring_size=ring_size, multi_buffer=False
        )
        with contextlib.closing(xsk):
            chunks = (ctypes.c_uint64 * ring_size)(*range(0, ring_size * _CHUNK_BYTES, _CHUNK_BYTES))
            native.rx_fill(xsk.fill, chunks, ring_size)

            def read() -> None:
                os.sched_setaffinity(threading.get_native_id(), {cpu})
                rings = ctypes.byref(xsk.rx), ctypes.byref(xsk.fill)
                area = ctypes.c_void_p(umem.area.address)
                library("ack_reader").read_acks(*rings, area, xsk.fd, nap_us, ctypes.byref(acks))

            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            try:
                with steered(interface, src, dst, xsk.fd):
                    yield acks
            finally:
                acks.stop = 1
                thread.join(5)
                assert not thread.is_alive()

"""The kernel's own AF_XDP interface, for what the installed libxdp cannot express: tx metadata, a queue that
is closed and opened again on a living umem, and sockets that receive. Same shape as :mod:`.libxdp`.

Source: Documentation/networking/af_xdp.rst, net/xdp/xsk.c."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import time
from collections.abc import Callable, Sequence
from ctypes import c_uint32
from typing import Any, NamedTuple

from xsk_engine._ffi import uapi
from xsk_engine._ffi.libc import get_option, libc, set_option
from xsk_engine._ffi.native import Ring, dont_fork

_DESC_BYTES = ctypes.sizeof(uapi.XdpDesc)
_ADDR_BYTES = 8

# A queue whose process has just ended stays taken for a moment. Who opens sockets tries again with new ones;
# given ones try again themselves.
_BUSY_S, _BUSY_POLL_S = 2.5, 0.01


_BUSY_POLL_OPTIONS = ("SO_PREFER_BUSY_POLL", "SO_BUSY_POLL", "SO_BUSY_POLL_BUDGET")


def prefer_busy_poll(fd: int, timeout_us: int, budget_packets: int) -> None:
    """The kernel polls the socket's driver when it is asked for packets (Documentation/networking/napi.rst).
    OSError with the refused option as its filename; EPERM without CAP_NET_ADMIN."""
    for name, value in zip(_BUSY_POLL_OPTIONS, (1, timeout_us, budget_packets), strict=True):
        try:
            set_option(fd, getattr(uapi, name), value, uapi.SOL_SOCKET)
        except OSError as error:
            error.filename = name
            raise


def read_busy_poll(fd: int) -> tuple[bool, int, int]:
    """What is in effect: preferred, timeout in us, and the id of the NAPI instance that it drives, 0 for
    none. (The budget can only be set.)"""
    prefer, timeout_us, napi_id = (
        _read_u32(fd, option)
        for option in (uapi.SO_PREFER_BUSY_POLL, uapi.SO_BUSY_POLL, uapi.SO_INCOMING_NAPI_ID)
    )
    return bool(prefer), timeout_us, napi_id


def _read_u32(fd: int, option: int) -> int:
    value = c_uint32()
    get_option(fd, option, value, uapi.SOL_SOCKET)
    return value.value


class Rings(NamedTuple):
    """What a socket does: entries of its tx and completion ring, and of its rx and fill ring; 0: not that."""

    tx: int
    rx: int


class BoundSocket:
    """One AF_XDP socket: ``fd``; ``tx`` and ``cq``, rings for the txq to take over, of one that sends, and
    ``fill``; ``rx`` of one that receives."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = -1
        self.bound = False
        self._maps: list[tuple[int, int]] = []
        self._given = fd is not None
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self.fd = int(libc.socket(uapi.AF_XDP, kind, 0)) if fd is None else os.dup(fd)

    def make_rings(self, rings: Rings) -> None:
        """Sets and maps them. The umem's two must be there, whatever the socket does."""
        tx, rx = rings
        set_option(self.fd, uapi.XDP_UMEM_FILL_RING, rx or tx)
        set_option(self.fd, uapi.XDP_UMEM_COMPLETION_RING, tx or rx)
        for option, entries in ((uapi.XDP_TX_RING, tx), (uapi.XDP_RX_RING, rx)):
            if entries:
                set_option(self.fd, option, entries)
        self.map_rings(rings)

    def map_rings(self, rings: Rings) -> None:
        """Maps those that are set already."""
        tx, rx = rings
        offsets = uapi.XdpMmapOffsets()
        get_option(self.fd, uapi.XDP_MMAP_OFFSETS, offsets)
        self.fill = self._map(offsets.fr, rx or tx, uapi.XDP_UMEM_PGOFF_FILL_RING, _ADDR_BYTES)
        if rx:
            self.rx = self._map(offsets.rx, rx, uapi.XDP_PGOFF_RX_RING, _DESC_BYTES)
        if tx:
            self.tx = self._map(offsets.tx, tx, uapi.XDP_PGOFF_TX_RING, _DESC_BYTES)
            self.cq = self._map(offsets.cr, tx, uapi.XDP_UMEM_PGOFF_COMPLETION_RING, _ADDR_BYTES)

    def _map(self, offsets: Any, entries: int, where: int, entry_bytes: int) -> Ring:
        length = offsets.desc + entries * entry_bytes
        base = libc.mmap(
            None,
            length,
            mmap.PROT_READ | mmap.PROT_WRITE,
            mmap.MAP_SHARED | mmap.MAP_POPULATE,
            self.fd,
            where,
        )
        self._maps.append((base, length))
        ring = Ring(
            mask=entries - 1,
            size=entries,
            producer=base + offsets.producer,
            consumer=base + offsets.consumer,
            ring=base + offsets.desc,
            flags=base + offsets.flags,
        )
        dont_fork(ring, entry_bytes)
        return ring

    def bind(self, ifindex: int, queue: int, flags: int, shared_fd: int = 0) -> None:
        address = uapi.SockaddrXdp(uapi.AF_XDP, flags, ifindex, queue, shared_fd)
        deadline = time.monotonic() + (_BUSY_S if self._given else 0)
        while not self.bound:
            try:
                libc.bind(self.fd, ctypes.byref(address), ctypes.sizeof(address))
                self.bound = True
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_BUSY_POLL_S)

    def close(self) -> None:
        while self._maps:
            libc.munmap(*self._maps.pop())
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Registration:
    """A umem registered on a socket of its own kind; it lives in the kernel while any socket of it does.
    `fds`: sockets that somebody else has opened, to be used instead of new ones."""

    name = "sockopt"

    def __init__(
        self,
        address: int,
        length: int,
        chunk_size: int,
        tx_metadata_len: int,
        ring_size: int,
        fds: Sequence[int] = (),
        *,
        receives: bool = False,
    ) -> None:
        self._rings = Rings(0, ring_size) if receives else Rings(ring_size, 0)
        self._sockets: list[BoundSocket] = []
        self._fds = iter(fds)
        self._first = self._socket()
        flags = uapi.XDP_UMEM_TX_METADATA_LEN if tx_metadata_len else 0
        try:
            set_option(
                self._first.fd,
                uapi.XDP_UMEM_REG,
                uapi.XdpUmemReg(address, length, chunk_size, 0, flags, tx_metadata_len),
            )
        except BaseException:
            self._first.close()
            raise

    def _socket(self) -> BoundSocket:
        return BoundSocket(next(self._fds, None))

    def open(
        self,
        ifname: str,
        ifindex: int,
        queue: int,
        bind_flags: int,
        stock: Callable[[Ring], None] | None = None,
        rings: Rings | None = None,
    ) -> BoundSocket:
        """Binds (ifindex, queue); OSError with bind's errno. `stock` puts chunks on its fill ring before.
        `rings`: others than the registration's."""
        shared = next((s.fd for s in self._sockets if s.bound and s.fd >= 0), None)
        bound = self._first if shared is None else self._socket()
        try:
            bound.make_rings(rings or self._rings)
            if stock:
                stock(bound.fill)
            if shared is None:
                bound.bind(ifindex, queue, bind_flags)
            else:
                # Mode and need_wakeup are the umem's: passing them again is EINVAL.
                bound.bind(ifindex, queue, uapi.XDP_SHARED_UMEM, shared)
        except BaseException:
            bound.close()
            raise
        self._sockets.append(bound)
        return bound

    def close(self) -> None:
        """Closes all sockets, and the umem with the last. Idempotent."""
        while self._sockets:
            self._sockets.pop().close()
        self._first.close()

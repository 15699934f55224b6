"""libxdp: AF_XDP sockets as the library makes them (xdp/xsk.h, the entry points of libxdp 1.2 and later)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any

from xsk_engine._ffi.errcheck import negative_errno
from xsk_engine._ffi.loader import declare, open_library
from xsk_engine._ffi.native import Ring, dont_fork

INHIBIT_PROG_LOAD = 1 << 0


class XskUmemConfig(ctypes.Structure):
    _fields_ = [
        ("fill_size", c_uint32),
        ("comp_size", c_uint32),
        ("frame_size", c_uint32),
        ("frame_headroom", c_uint32),
        ("flags", c_uint32),
    ]


class XskSocketConfig(ctypes.Structure):
    _fields_ = [
        ("rx_size", c_uint32),
        ("tx_size", c_uint32),
        ("libxdp_flags", c_uint32),
        ("xdp_flags", c_uint32),
        ("bind_flags", c_uint16),
    ]


_OUT = POINTER(c_void_p)
_RING = POINTER(Ring)
_TABLE: dict[str, Any] = {
    "xsk_umem__create": (
        [_OUT, c_void_p, c_uint64, _RING, _RING, POINTER(XskUmemConfig)],
        c_int,
        negative_errno,
    ),
    "xsk_umem__delete": ([c_void_p], c_int, negative_errno),
    "xsk_socket__create_shared": (
        [_OUT, c_char_p, c_uint32, c_void_p, _RING, _RING, _RING, _RING, POINTER(XskSocketConfig)],
        c_int,
        negative_errno,
    ),
    "xsk_socket__delete": ([c_void_p], None, None),
    "xsk_socket__fd": ([c_void_p], c_int, negative_errno),
}
libxdp = declare(open_library("libxdp.so.1", "install it: apt-get install libxdp1"), "libxdp.so.1", _TABLE)


class BoundSocket:
    """One bound AF_XDP socket: ``fd``, and its ``tx`` and ``cq`` rings for the txq to take over."""

    def __init__(self, handle: c_void_p, tx: Ring, cq: Ring, fill: Ring) -> None:
        self._handle: c_void_p | None = handle
        self.fd = int(libxdp.xsk_socket__fd(handle))
        self.tx = tx
        self.cq = cq
        for ring, entry_bytes in ((tx, 16), (cq, 8), (fill, 8)):
            dont_fork(ring, entry_bytes)
        self._fill = fill  # libxdp keeps a pointer to it

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            libxdp.xsk_socket__delete(handle)


class Registration:
    """A umem registered through libxdp. The first socket's queue stays taken until this is closed."""

    name = "libxdp"

    def __init__(
        self, address: int, length: int, chunk_size: int, tx_metadata_len: int, ring_size: int
    ) -> None:
        if tx_metadata_len:
            raise NotImplementedError("libxdp up to 1.5.1 cannot register tx metadata")
        self._ring_size = ring_size
        self._fill, self._cq = Ring(), Ring()
        self._sockets: list[BoundSocket] = []
        self._handle: c_void_p | None = None
        handle = c_void_p()
        config = XskUmemConfig(ring_size, ring_size, chunk_size, 0, 0)
        libxdp.xsk_umem__create(
            ctypes.byref(handle),
            address,
            length,
            ctypes.byref(self._fill),
            ctypes.byref(self._cq),
            ctypes.byref(config),
        )
        self._handle = handle

    def open(
        self,
        ifname: str,
        ifindex: int,
        queue: int,
        bind_flags: int,
        stock: Callable[[Ring], None] | None = None,
    ) -> BoundSocket:
        """Binds (ifname, queue); OSError with bind's errno. After a failure close the registration.

        `stock` puts chunks on the queue's fill ring; before bind for the first queue, right after it for
        the others, whose rings libxdp makes in the same call.
        """
        first = not self._sockets
        fill, cq = (self._fill, self._cq) if first else (Ring(), Ring())
        if stock and first:
            stock(fill)
        tx, handle = Ring(), c_void_p()
        config = XskSocketConfig(0, self._ring_size, INHIBIT_PROG_LOAD, 0, bind_flags)
        libxdp.xsk_socket__create_shared(
            ctypes.byref(handle),
            ifname.encode(),
            queue,
            self._handle,
            None,
            ctypes.byref(tx),
            ctypes.byref(fill),
            ctypes.byref(cq),
            ctypes.byref(config),
        )
        try:
            if stock and not first:
                stock(fill)
            socket = BoundSocket(handle, tx, cq, fill)
        except BaseException:
            libxdp.xsk_socket__delete(handle)
            raise
        self._sockets.append(socket)
        return socket

    def close(self) -> None:
        """Closes the sockets that are left, then the umem. Idempotent."""
        while self._sockets:
            self._sockets.pop().close()
        handle, self._handle = self._handle, None
        if handle is not None:
            libxdp.xsk_umem__delete(handle)

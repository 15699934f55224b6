"""The umem: one region, registered once, and the chunk table over it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable
from ctypes import byref, c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.memory import Area
from xsk_engine._ffi.native import native
from xsk_engine.errors import BrokenError, ClosedError
from xsk_engine.inside import Inside

if TYPE_CHECKING:
    import numpy

CHUNK_SIZES = (2048, 4096)


@dataclass(frozen=True)
class Audit:
    """Where every chunk is, counted in chunks. Clean when nothing is ``lost`` or ``doubled``."""

    chunks: int
    """all of them"""
    pooled: int
    """in the chunk pool"""
    stacked: int
    """on the arenas' local stacks"""
    returned: int
    """on the arenas' return lists"""
    referenced: int
    """held by somebody"""
    inflight: int
    """of the referenced: posted and not completed"""
    lost: int
    """nowhere: a bug"""
    doubled: int
    """in two places: a bug"""
    arenas: int
    """open arenas, and closed ones whose frags are still held"""
    inflight_descs: int
    """posts not completed, as the chunks count them"""


class Umem:
    """``length`` bytes cut into chunks of ``chunk_size`` (2048 or 4096) bytes.

    ``tx_metadata_len`` bytes (multiple of 8, below 256) are kept in front of every desc; usable bytes per
    chunk are ``chunk_size - tx_metadata_len``. ``shared``: as Area's. ValueError for other sizes. Open and
    close in one thread.
    """

    def __init__(
        self,
        length: int,
        chunk_size: int = 4096,
        *,
        tx_metadata_len: int = 0,
        numa_node: int | None = None,
        shared: bool = False,
    ) -> None:
        if chunk_size not in CHUNK_SIZES:
            raise ValueError(f"chunk_size: {chunk_size} is not one of {CHUNK_SIZES}")
        if length < chunk_size or length % chunk_size:
            raise ValueError(f"umem: {length} bytes are not a whole number of {chunk_size}-byte chunks")
        if tx_metadata_len % 8 or not 0 <= tx_metadata_len < 256:
            raise ValueError(f"tx_metadata_len: {tx_metadata_len} is not a multiple of 8 below 256")
        self.chunk_size = chunk_size
        self.tx_metadata_len = tx_metadata_len
        self.registration: Any = None
        self.handle: c_void_p | None = None
        self.event_fd = -1
        """eventfd of who waits for chunks; -1: nobody can"""
        self.in_use = threading.RLock()
        """held by who gives frags back that no endpoint knows: the collector, in any thread"""
        self.inside = Inside()
        self.area = Area(length, numa_node, shared=shared)
        try:
            config = ffi.UmemConfig(self.area.address, length, chunk_size, tx_metadata_len)
            self.handle = ffi.create(native.umem_create, byref(config))
        except BaseException:
            self.area.close()
            raise

    @property
    def usable_bytes(self) -> int:
        """The longest frag."""
        return self.chunk_size - self.tx_metadata_len

    def array(self) -> numpy.ndarray:
        """A writable uint8 view of all chunks, shape (chunks, chunk_size). Write only where you hold a frag
        that is not inflight. The mapping lives until the last view dies."""
        import numpy

        whole = numpy.frombuffer(self.area.view(0, self.area.length), dtype=numpy.uint8)
        return whole.reshape(-1, self.chunk_size)

    def register(self, registration: Callable[..., Any], ring_size: int, **rest: Any) -> None:
        """Registers the region with the kernel, which pins it; OSError (ENOBUFS: locked-memory limit).
        `registration` is the class that does it, and `rest` what it alone takes."""
        self.registration = registration(
            self.area.address, self.area.length, self.chunk_size, self.tx_metadata_len, ring_size, **rest
        )

    def unregister(self) -> None:
        """Closes its sockets and lets the kernel forget it. Idempotent."""
        registration, self.registration = self.registration, None
        if registration is not None:
            registration.close()

    def audit(self, *, strict: bool = True) -> Audit:
        """Counts the chunks. ``strict`` only while nothing allocates or releases: BrokenError if any is
        lost or in two places. Not strict: approximate, any time."""
        out = ffi.Audit()
        with self.inside.here():
            if self.handle is None:
                raise ClosedError("umem.audit", "", "it is closed")
            result = native.umem_audit(self.handle, int(strict), byref(out))
        audit = Audit(*(getattr(out, name) for name in Audit.__dataclass_fields__))
        if result:
            raise BrokenError("umem.audit", "", str(audit), errno=errno.EUCLEAN)
        return audit

    def wake_owners(self) -> None:
        """Chunks have come back that somebody waits for; as the loop says it. Any thread."""
        if self.event_fd >= 0:
            with contextlib.suppress(BlockingIOError):  # full: whoever watches it has not looked yet
                os.write(self.event_fd, (1).to_bytes(8, sys.byteorder))

    def forget(self) -> None:
        """In a forked child, which has no mapping of it."""
        self.registration = self.handle = None
        self.in_use = threading.RLock()
        self.area.close_fd()

    def close(self) -> None:
        """Idempotent. No frag may be used afterwards."""
        self.unregister()
        with self.in_use:
            handle, self.handle = self.handle, None
        if handle is not None:
            native.umem_destroy(handle)
            self.area.close()

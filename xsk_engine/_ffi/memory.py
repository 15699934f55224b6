"""Mappings and what Python needs to point into them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
from pathlib import Path

from xsk_engine._ffi import libc
from xsk_engine.errors import ClosedError, UnavailableError

_MAP_FIXED = 0x10  # include/uapi/asm-generic/mman-common.h, as the next
_MAP_HUGETLB = 0x40000
_MFD_HUGETLB = 0x4  # include/uapi/linux/memfd.h
_HUGE_PAGE_BYTES = 2 << 20
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def _free_huge_pages() -> int:
    try:
        node = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
        return int(node.read_text())
    except (OSError, ValueError):
        return 0


def _map_shared(length: int, flags: int) -> tuple[mmap.mmap, int]:
    """A memfd of this length for ever, and its mapping."""
    fd = os.memfd_create("xsk-umem", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    try:
        os.ftruncate(fd, length)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        # Python's mmap of an fd keeps a second one, which a forked child could not close.
        area = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        place = ctypes.addressof(ctypes.c_char.from_buffer(area))
        libc.libc.mmap(place, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED, fd, 0)
        return area, fd
    except BaseException:
        os.close(fd)
        raise


class Area:
    """Anonymous memory, huge pages when there are some; not inherited over fork (MADV_DONTFORK).

    ``address`` and ``length`` in bytes, ``page_size`` in bytes, ``numa_node`` as asked or None. A child
    process that touches it dies: it is not mapped there. ``shared``: somebody else is to map it, too, through
    ``fd``, a memfd that can neither shrink nor grow; otherwise that is -1.
    """

    def __init__(self, length: int, numa_node: int | None = None, *, shared: bool = False) -> None:
        self.length = length
        self.fd = -1
        self._shared = shared
        self.page_size = mmap.PAGESIZE
        self.numa_node = numa_node
        self._map = self._map_memory(length)
        self._pin = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._pin)
        self._map.madvise(mmap.MADV_DONTFORK)
        if numa_node is not None:
            with contextlib.suppress(OSError):  # a wish: a container may forbid it
                libc.prefer_numa_node(self.address, length, numa_node)

    def _map_memory(self, length: int) -> mmap.mmap:
        pages, rest = divmod(length, _HUGE_PAGE_BYTES)
        if not rest and pages <= _free_huge_pages():
            with contextlib.suppress(OSError):  # somebody was faster
                area = self._map_pages(length, huge=True)
                self.page_size = _HUGE_PAGE_BYTES
                return area
        try:
            area = self._map_pages(length, huge=False)
        except OSError as error:
            raise UnavailableError(
                "mmap",
                f"umem of {length} bytes",
                "no memory for it; use a smaller --umem-mb",
                errno=error.errno,
            ) from None
        with contextlib.suppress(OSError):  # a kernel without THP
            area.madvise(mmap.MADV_HUGEPAGE)
        return area

    def _map_pages(self, length: int, *, huge: bool) -> mmap.mmap:
        if self._shared:
            area, self.fd = _map_shared(length, _MFD_HUGETLB if huge else 0)
            return area
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (_MAP_HUGETLB if huge else 0)
        return mmap.mmap(-1, length, flags=flags)

    def view(self, offset: int, length: int) -> memoryview:
        """Writable bytes [offset, offset + length). ClosedError after close()."""
        try:
            whole = memoryview(self._map)
        except ValueError:
            raise ClosedError("umem", "", "its engine is closed") from None
        return whole[offset : offset + length]

    def close_fd(self) -> None:
        """Nobody else is to map it any more. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Unmaps now, or when the last view of it dies."""
        del self._pin
        self.close_fd()
        with contextlib.suppress(BufferError):  # a view lives: its death unmaps
            self._map.close()

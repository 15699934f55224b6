"""What a driver in zero-copy receives into.

Such a driver takes the whole queue: without chunks on the fill ring, everything that others (ssh, ARP) would
receive on it is lost. Packets that the program passes are copied out of these chunks, which the kernel then
uses again by itself, so the ring is filled once.
"""

from __future__ import annotations

from ctypes import c_uint64

from xsk_engine._ffi.native import Ring, native
from xsk_engine.arena import Arena
from xsk_engine.umem import Umem


class RxStock:
    """``chunks`` chunks for each queue's fill ring, held as long as the umem lives, or until a
    TcpStack, which takes them over, has dropped them. One thread."""

    def __init__(self, umem: Umem, chunks: int) -> None:
        self._umem = umem
        self._chunks = chunks
        self._addrs: dict[int, list[int]] = {}

    def put(self, queue: int, fill: Ring) -> None:
        """The same chunks every time the queue is bound."""
        if queue not in self._addrs:
            self._addrs[queue] = self._take()
        addrs = self._addrs[queue]
        native.rx_fill(fill, (c_uint64 * len(addrs))(*addrs), len(addrs))

    def _take(self) -> list[int]:
        arena = Arena(self._umem, self._chunks, 0)
        try:
            with arena:
                return [arena.alloc(self._umem.usable_bytes) for _ in range(self._chunks)]
        finally:
            arena.close()

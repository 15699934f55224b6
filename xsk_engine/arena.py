"""An arena as Python holds it: an endpoint's, or one to take chunks from."""

from __future__ import annotations

import errno
import os
from ctypes import byref, c_uint64, c_void_p

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import long, native, short
from xsk_engine.errors import BrokenError, BusyError, ClosedError, WouldBlockError
from xsk_engine.stats import ArenaStats
from xsk_engine.umem import Umem


class Arena:
    """The chunks of one endpoint; ``quota_chunks`` is the most it may own.

    Used by one thread at a time: entered as a context manager around a batch of calls, BusyError when
    another thread is inside.
    """

    def __init__(self, umem: Umem, quota_chunks: int, txq_id: int, *, poison: bool = False) -> None:
        self._umem = umem
        config = ffi.ArenaConfig(quota_chunks, txq_id, ffi.ARENA_POISON if poison else 0)
        self._handle: c_void_p | None = ffi.create(native.arena_open, umem.handle, byref(config))

    @property
    def handle(self) -> c_void_p:
        """ClosedError after close()."""
        if self._handle is None:
            raise ClosedError("arena", "", "it is closed")
        return self._handle

    def __enter__(self) -> Arena:
        try:
            native.arena_enter(self.handle)
        except OSError as error:
            raise BusyError("arena", "", "another thread is using this endpoint", errno=error.errno) from None
        return self

    def __exit__(self, *_: object) -> None:
        native.arena_leave(self.handle)

    def alloc(self, length: int) -> int:
        """The addr of a frag of `length` bytes. Entered only. WouldBlockError at the quota, ValueError for a
        length outside 1 to the umem's usable_bytes, BrokenError where a dead frag was written."""
        addr = c_uint64()
        try:
            native.frag_alloc(self.handle, length, byref(addr))
        except OSError as error:
            if error.errno is None:  # a signal handler's
                raise
            if error.errno == errno.EAGAIN:
                raise WouldBlockError(
                    "alloc", f"{length} bytes", "quota or umem exhausted; wait for completions"
                ) from None
            if error.errno in (errno.EINVAL, errno.EMSGSIZE):
                text = f"frag: {length} bytes are not in 1 to {self._umem.usable_bytes}"
                raise ValueError(text) from None
            raise BrokenError(
                "alloc", f"{length} bytes", os.strerror(error.errno), errno=error.errno
            ) from None
        return addr.value

    def park(self) -> None:
        """Gives back every chunk that nobody references. Entered only."""
        native.arena_park(self.handle)

    def park_if_idle(self) -> None:
        """Likewise, not entered, unless another thread is inside."""
        long.arena_park_if_idle(self.handle)

    def stats(self) -> ArenaStats:
        """Any thread; approximate while used."""
        raw = ffi.ArenaStats()
        out = byref(raw)  # before the handle is read: others may run here, and close it
        short.arena_read_stats(self.handle, out)
        return ArenaStats(*(getattr(raw, name) for name in ArenaStats.__dataclass_fields__))

    def close(self) -> None:
        """Idempotent; frags that are still held stay valid."""
        if self._handle is not None:
            try:
                native.arena_close(self._handle)
            except OSError as error:
                raise BusyError(
                    "arena.close", "", "another thread is using this endpoint", errno=error.errno
                ) from None
            self._handle = None

"""What applications hold. So far: whole frames, one call each."""

from __future__ import annotations

import errno
import time
from ctypes import byref, c_void_p

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.errors import ClosedError, WouldBlockError
from xsk_engine.frag import Arena
from xsk_engine.stats import ArenaStats
from xsk_engine.umem import Umem
from xsk_engine.worker import Worker

SUBMIT_ENTRIES = 1024
_REMOVE_DEADLINE_S = 2.0
_POLL_S = 0.001


class RawEndpoint:
    """Sends whole Ethernet frames (without FCS) on one queue, from an arena of its own.

    ``send`` from one thread at a time: BusyError for a second one.
    """

    def __init__(self, umem: Umem, worker: Worker, quota_chunks: int) -> None:
        self._umem = umem
        self._worker = worker
        self._arena: Arena | None = Arena(umem, quota_chunks, worker.index)
        try:
            self._handle: c_void_p | None = ffi.create(
                native.endpoint_create, worker.loop, self._arena.handle, SUBMIT_ENTRIES
            )
        except BaseException:
            self._arena.close()
            raise
        worker.command(ffi.ADD_ENDPOINT, self._handle)

    def send(self, frame: bytes | bytearray | memoryview) -> None:
        """Copies the frame into the umem and hands it to the loop.

        ValueError: empty, or longer than one chunk. WouldBlockError: quota or submit ring exhausted,
        nothing was sent. ClosedError after close().
        """
        if self._arena is None or self._handle is None:
            raise ClosedError("send", "raw", "the endpoint is closed")
        data = memoryview(frame).cast("B")
        with self._arena as arena:
            frag = arena.alloc(data.nbytes)
            frag.view[:] = data
            desc = ffi.Desc(frag.addr, frag.length, 0)
            try:
                native.endpoint_submit(self._handle, byref(desc), 1)
            except OSError as error:
                frag.release(arena)
                if error.errno == errno.EAGAIN:
                    raise WouldBlockError("send", "raw", "the submit ring is full") from None
                raise ClosedError("send", "raw", "the loop has ended", errno=error.errno) from None
            frag.spend()

    def stats(self) -> ArenaStats:
        """Its arena's figures; any thread."""
        if self._arena is None:
            raise ClosedError("stats", "raw", "the endpoint is closed")
        return self._arena.stats()

    def close(self) -> None:
        """What was submitted and not posted is dropped; what is inflight completes. Idempotent."""
        if self._handle is None:
            return
        if self._worker.alive:
            self._worker.command(ffi.REMOVE_ENDPOINT, self._handle)
            deadline = time.monotonic() + _REMOVE_DEADLINE_S
            while (
                native.endpoint_state(self._handle) != ffi.ENDPOINT_REMOVED
                and self._worker.alive
                and time.monotonic() < deadline
            ):
                time.sleep(_POLL_S)
        self.detach()

    def detach(self) -> None:
        """Frees it when its loop does not know it any more."""
        handle, self._handle = self._handle, None
        arena, self._arena = self._arena, None
        if handle is not None:
            native.endpoint_destroy(handle)
        if arena is not None:
            arena.close()

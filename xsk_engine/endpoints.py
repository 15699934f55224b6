"""What applications hold. So far: whole frames, one call each."""

from __future__ import annotations

import contextlib
import errno
import time
from ctypes import byref, c_void_p

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.errors import BrokenError, ClosedError, WouldBlockError
from xsk_engine.frag import Arena
from xsk_engine.stats import ArenaStats
from xsk_engine.umem import Umem
from xsk_engine.worker import Worker

SUBMIT_ENTRIES = 1024
# A loop that moves to another mode answers when it has: link timeout and rebinding. Higher: a loop that is
# stuck is noticed late.
_REMOVE_DEADLINE_S = 10.0
_POLL_S = 0.001


class RawEndpoint:
    """Sends whole Ethernet frames (without FCS) on one queue, from an arena of its own.

    ``send`` from one thread at a time: BusyError for a second one.
    """

    def __init__(self, umem: Umem, worker: Worker, quota_chunks: int) -> None:
        self._worker = worker
        self._arena = Arena(umem, quota_chunks, worker.index)
        self._handle: c_void_p | None = None
        try:
            handle = ffi.create(native.endpoint_create, worker.loop, self._arena.handle, SUBMIT_ENTRIES)
            try:
                worker.command(ffi.ADD_ENDPOINT, handle)
            except BaseException:
                native.endpoint_destroy(handle)
                raise
        except BaseException:
            self._arena.close()
            raise
        self._handle = handle

    def send(self, frame: bytes | bytearray | memoryview) -> None:
        """Copies the frame into the umem and hands it to the loop.

        ValueError: empty, or longer than one chunk. WouldBlockError: quota or submit ring exhausted,
        nothing was sent. ClosedError after close(). BusyError: another thread is sending.
        """
        data = memoryview(frame).cast("B")
        with self._arena as arena:
            # Looked at inside: close() enters as well.
            if self._handle is None:
                raise ClosedError("send", "raw", "the endpoint is closed")
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
        """Its arena's figures; any thread. ClosedError after close()."""
        return self._arena.stats()

    def close(self) -> None:
        """What was submitted and not posted is dropped; what is inflight completes. Idempotent. BusyError
        while another thread is sending."""
        if self._handle is None:
            return
        with self._arena:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            self._remove(handle)
        self._arena.close()

    def _remove(self, handle: c_void_p) -> None:
        with contextlib.suppress(ClosedError):
            self._worker.command(ffi.REMOVE_ENDPOINT, handle)
        deadline = time.monotonic() + _REMOVE_DEADLINE_S
        while native.endpoint_state(handle) != ffi.ENDPOINT_REMOVED and self._worker.alive:
            if time.monotonic() > deadline:
                # The loop still knows it: freeing it would crash.
                raise BrokenError("close", "raw", "its loop does not answer; the endpoint leaks")
            time.sleep(_POLL_S)
        native.endpoint_destroy(handle)

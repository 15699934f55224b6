"""What all endpoints have in common, and their calls that never wait."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable
from ctypes import byref, c_void_p
from operator import index
from typing import TYPE_CHECKING, Any

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import long, native, short
from xsk_engine.arena import Arena
from xsk_engine.config import EndpointConfig
from xsk_engine.errors import BrokenError, BusyError, ClosedError, DeadlineError, WouldBlockError, XskError
from xsk_engine.frag import Frags, Hold
from xsk_engine.single import Single
from xsk_engine.stats import EndpointStats
from xsk_engine.waiting import check_timeout, wait_until

if TYPE_CHECKING:
    from xsk_engine.datagram import Datagram
    from xsk_engine.umem import Umem
    from xsk_engine.worker import Worker

BytesLike = bytes | bytearray | memoryview
"""what may be sent: anything with the buffer protocol"""

# A loop that moves to another mode answers when it has: link timeout and rebinding. Higher: a loop that is
# stuck is noticed late.
_REMOVE_DEADLINE_S = 10.0

_LET_OTHERS_S = 0.0001
AGAIN = -errno.EAGAIN
# Longer than a link may be away (5 s) before that is an error of its own.
DRAIN_S = 10.0
_MOST_FRAGS, _MOST_BYTES = 1 << 24, 1 << 16


class Endpoint(Single):
    """What all endpoints have in common: an arena, a submit ring into a worker's loop, a header or none.

    One thread at a time may use it; a call that would race raises BusyError. Used after fork by the child:
    BrokenError. One that nobody holds any more sends what was sent, and is closed then.
    """

    def __init__(
        self,
        umem: Umem,
        worker: Worker,
        interface: str,
        max_frame_bytes: int,
        config: EndpointConfig,
    ) -> None:
        if config.timestamps and umem.tx_metadata_len < ffi.TX_METADATA_BYTES:
            raise ValueError("timestamps: the engine was not opened with timestamps=True")
        self.interface = interface
        self.timeout = config.timeout
        self.umem = umem
        self.worker = worker
        self._pid = os.getpid()
        self._in_use = threading.Lock()
        self._closed = False
        self.gone = False  # close() has come to its end
        self.ending = False  # its engine closes: nobody comes in any more
        self._max_frame_bytes = max_frame_bytes
        self._header: ffi.Header | None = None
        self.head: int | None = None
        """address of the header, for native calls"""
        self._arena = Arena(umem, config.quota_chunks, worker.index, poison=config.debug)
        self._where = ""
        self.handle: int | None = None
        self._leaving: c_void_p | None = None
        """the handle while the loop is asked to forget it"""
        self.owner: object = None
        """its engine, which lives as long as it is held"""
        self.at_close: Callable[[Any], None] | None = None
        """called with it when it is closed"""
        self.at_end: Callable[[Any], None] | None = None
        """called with it when nobody holds it any more and it is open: in any thread, under any lock"""
        try:
            self._open(config)
        except BaseException:
            if self.handle is not None:
                self.close()
            else:
                self._arena.close()
            raise

    @property
    def timeout(self) -> float:
        """Seconds that a call may wait for room before WouldBlockError; 0: it never waits. May be set;
        ValueError for what is not 0 or more."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._timeout = check_timeout("timeout", seconds)

    def _open(self, config: EndpointConfig) -> None:
        raw = ffi.EndpointConfig(
            self._arena.handle,
            config.entries,
            self._max_frame_bytes,
            ffi.ENDPOINT_TIMESTAMPS if config.timestamps else 0,
            config.batch,
        )
        handle = ffi.create(native.endpoint_create, self.worker.loop, byref(raw))
        try:
            self.worker.command(ffi.ADD_ENDPOINT, handle)
        except ClosedError:
            native.endpoint_destroy(handle)
            raise self.why_over("open") from None
        except BusyError:
            native.endpoint_destroy(handle)
            raise
        except BaseException:  # a signal's handler has raised, and the loop may have it
            self._ask_to_remove(handle)
            self._await_removal(handle)
            native.endpoint_destroy(handle)
            raise
        self.handle = handle.value
        self.arena_handle: int | None = self._arena.handle.value

    def set_datagram(self, datagram: Datagram) -> None:
        """What stands in front of every payload from now on."""
        data = datagram.header()
        header = ffi.Header(len=len(data), ip_offset=datagram.ip_offset)
        ctypes.memmove(header.words, data, len(data))
        self._header = header
        self.head = ctypes.addressof(header)
        self.source = (str(datagram.src), datagram.src_port)
        self.remote = (str(datagram.dst), datagram.dst_port)
        self._where = f" to {datagram.dst} port {datagram.dst_port}"

    def set_mac(self, mac: bytes) -> None:
        """Another Ethernet destination from now on; any thread."""
        header = self._header
        if header is not None:
            native.header_set_mac(byref(header), mac)

    # -- errors ----------------------------------------------------------------------------------------

    def failed(self, operation: str, result: int, size: int = 0) -> Exception:
        """What a native call's negative errno means here."""
        name = f"{type(self).__name__}, {self.interface}"
        number = -result
        if os.getpid() != self._pid:
            return BrokenError(operation, name, "this process was forked; only the parent may use it")
        if number == errno.EAGAIN:
            return WouldBlockError(
                operation,
                name,
                f"no room within {self.timeout:g} s: quota or submit ring exhausted",
                errno=number,
            )
        if number == errno.EBUSY:
            return BusyError(operation, name, "another thread is using this endpoint", errno=number)
        if number == errno.EMSGSIZE:
            return ValueError(self.too_long(size))
        if number == errno.EUCLEAN:
            return BrokenError(
                operation,
                name,
                "a frag was written after it was posted or released; look for a view that was kept",
                errno=number,
            )
        if number == errno.EPIPE or self.handle is None:
            return self.why_over(operation)
        if operation == "post":
            return ValueError("post: a frag of another endpoint, or shorter than its header")
        return ValueError(f"{operation}: {os.strerror(number)}")

    def why_over(self, operation: str) -> XskError:
        name = f"{type(self).__name__}, {self.interface}"
        if self._closed:
            return ClosedError(operation, name, "the endpoint is closed")
        failure = self.worker.failure()
        if failure is not None:
            return BrokenError(operation, name, str(failure), errno=failure.errno)
        time.sleep(_LET_OTHERS_S)  # who tries again and again would keep the GIL from who closes
        return ClosedError(operation, name, "the engine is closed")

    def too_long(self, size: int) -> str:
        front = self._header.len if self._header is not None else 0
        if not front and size < 14:
            return f"frame: {size} bytes; an Ethernet header alone has 14"
        most = self._max_frame_bytes - front
        if size <= most:
            return f"payload: {size} bytes take more chunks than the quota, or more descs than the rings have"
        return f"payload: {size} bytes; at most {most} fit into a packet on {self.interface}"

    # -- sending, without waiting: a negative errno says why not ---------------------------------------------

    def try_send(self, payload: Any) -> int:
        if type(payload) is not bytes:
            payload = bytes(memoryview(payload))
        n = len(payload)  # before the handle is read: a handler may close it
        return int(short.endpoint_send(self.handle, self.head, payload, n))

    def using(self, operation: str) -> threading.Lock:
        """To be entered at once, behind inside.here(), around calls without the GIL: nobody else may come in,
        or close. BusyError."""
        if self.ending and operation != "close":  # who calls again and again would keep it open
            raise self.why_over(operation)
        if self._in_use.locked():  # who comes in this very moment waits for one call
            raise self.failed(operation, -errno.EBUSY)
        return self._in_use

    def check_open(self, operation: str) -> None:
        if self.handle is None:
            raise self.failed(operation, -errno.EPIPE)

    def try_alloc(self, n: int, size: int) -> Frags | int:
        import numpy

        span = ffi.Span()
        with self.umem.inside.here(), self.using("alloc"):
            result = long.endpoint_alloc(self.handle, self.head, n, size, byref(span))
        if result:
            return int(result)
        front = self._header.len if self._header is not None else 0
        try:
            addrs = numpy.arange(n, dtype=numpy.uint64) * span.pitch + span.addr
            hold = Hold(self.umem, addrs, front, size, f"an endpoint on {self.interface}")
            hold.owner = self.owner
        except BaseException:  # no memory for it, say
            for i in range(n):
                native.frag_unref(self.umem.handle, None, span.addr + i * span.pitch)
            raise
        return Frags(hold, span.pitch)

    def alloc_error(self, result: int, n: int, size: int) -> Exception:
        if result == -errno.E2BIG:
            return ValueError(
                f"alloc: {n} frags of {size} bytes: more than the quota of chunks, or than the umem has"
            )
        if result == -errno.EMSGSIZE:
            front = self._header.len if self._header is not None else 0
            most = min(self.umem.usable_bytes, self._max_frame_bytes) - front
            return ValueError(f"alloc: {size} bytes; a frag has room for at most {most} here")
        return self.failed("alloc", result)

    # -- facts and the end -----------------------------------------------------------------------------------

    def _counters(self) -> ffi.EndpointCounters:
        raw = ffi.EndpointCounters()
        out = byref(raw)  # before the handle is read: others may run here, and close the engine
        short.endpoint_read(self.handle, out)
        return raw

    def stats(self) -> EndpointStats:
        """Its figures now.

            print(endpoint.stats().submitted_packets)

        Any thread. ClosedError after close().
        """
        self.check_open("stats")
        raw, arena = self._counters(), self._arena.stats()
        return EndpointStats(
            submitted_packets=raw.submitted_packets,
            submitted_bytes=raw.submitted_bytes,
            # A desc may be posted before its sender has counted it.
            waiting_descs=max(raw.submitted_descs - raw.posted_descs, 0),
            inflight_descs=raw.posted_descs - raw.completed_descs,
            completed_descs=raw.completed_descs,
            owned_chunks=arena.owned_chunks,
            quota_waits=arena.quota_waits,
        )

    def sent_so_far(self) -> int:
        """Descs; for the two below."""
        return int(self._counters().submitted_descs)

    def is_flushed(self, target: int) -> bool:
        """The first `target` descs are on the tx ring, or further."""
        return bool(self._counters().posted_descs >= target)

    def is_drained(self, target: int) -> bool:
        """So many have completed."""
        return bool(self._counters().completed_descs >= target)

    def late(self, operation: str, timeout: float) -> XskError:
        raw = self._counters()
        waiting, inflight = raw.submitted_descs - raw.posted_descs, raw.posted_descs - raw.completed_descs
        return DeadlineError(
            operation,
            f"{type(self).__name__}, {self.interface}, {timeout:g} s",
            f"{waiting} descs wait for the ring and {inflight} for their completion; is the link up?",
            errno=errno.ETIMEDOUT,
        )

    def park(self) -> None:
        """What it owns and nobody references goes back to the pool."""
        with contextlib.suppress(XskError), self.umem.inside.here(), self.using("park"):
            self._arena.park_if_idle()

    def ask_for_chunks(self) -> None:
        """The idle endpoints' go back to the pool."""
        with contextlib.suppress(XskError):
            self.worker.command(ffi.PARK)

    def close(self) -> None:
        """What was sent and not posted yet is dropped (``flush`` first); what is inflight completes. Frags
        that are held stay valid until they are released. Idempotent. BusyError, and nothing has happened,
        while another thread uses it or its loop takes no command."""
        is_closing = self._closed and not self.gone and self._in_use.locked()
        if is_closing or os.getpid() != self._pid:
            return  # another thread does it, or what a signal's handler has interrupted
        try:
            if not self.gone:
                with self.umem.inside.here(), self.using("close"):
                    self._leave()
                    self.gone = True
        except BrokenError:
            self.gone = True  # it leaks
            raise
        finally:
            if self.gone and self.at_close is not None:
                self.at_close(self)

    def _leave(self) -> None:
        """A signal's handler may raise anywhere in here; when close() is called again it goes on. The loop
        may be asked twice, and must then have heard both."""
        if self.handle is not None or self._leaving is not None:
            is_first = self._leaving is None
            if is_first:  # without a handle nobody comes in any more
                self._leaving, self._closed = c_void_p(self.handle), True
                self.handle = self.arena_handle = None
            assert self._leaving is not None
            try:
                self._ask_to_remove(self._leaving)
            except BusyError:
                if is_first:  # nothing has happened
                    self.handle, self.arena_handle = self._leaving.value, self._arena.handle.value
                    self._leaving, self._closed = None, False
                raise
            self._await_removal(self._leaving)
            handle, self._leaving = self._leaving, None
            native.endpoint_destroy(handle)
        self._arena.close()

    def __del__(self) -> None:
        at_end = getattr(self, "at_end", None)  # None as well: it was never made
        if at_end is not None and not self.gone and os.getpid() == self._pid:
            at_end(self)

    def _ask_to_remove(self, handle: c_void_p) -> None:
        with contextlib.suppress(ClosedError):
            self.worker.command(ffi.REMOVE_ENDPOINT, handle)

    def _await_removal(self, handle: c_void_p) -> None:
        text = "its loop does not answer; the endpoint leaks"  # which may know it: freeing it would crash
        late = BrokenError("close", self.interface, text, errno=errno.ETIMEDOUT)
        heard = self.worker.hears()

        def is_removed() -> bool:  # by a command, and no second one is to come; or by the loop as it ends
            return heard() and native.endpoint_state(handle) == ffi.ENDPOINT_REMOVED

        wait_until(lambda: is_removed() or not self.worker.alive, _REMOVE_DEADLINE_S, lambda: late)

    def forget(self) -> None:
        """In a forked child: everything is the parent's."""
        self.handle = self.arena_handle = None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} on {self.interface}{self._where} {'closed' if self._closed else 'open'}>"
        )

    @property
    def closed(self) -> bool:
        """close() was called, or its engine's."""
        return self._closed


def check_alloc(n: int, size: int) -> tuple[int, int]:
    """ValueError, TypeError."""
    n, size = index(n), index(size)
    if not 1 <= n <= _MOST_FRAGS:
        raise ValueError(f"alloc: {n} frags; 1 to {_MOST_FRAGS} are possible")
    if not 1 <= size <= _MOST_BYTES:
        raise ValueError(f"alloc: {size} bytes; 1 to {_MOST_BYTES} are possible")
    return n, size

"""A TCP connection as the native code has it: opened, asked how it is, and what its errors mean."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from ctypes import byref
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi import nativetcp as tcp
from xsk_engine.arena import Arena
from xsk_engine.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    DeadlineError,
    TcpAbortedError,
    TcpError,
    TcpRefusedError,
    TcpResetError,
    TcpTimeoutError,
    UnavailableError,
    WouldBlockError,
    XskError,
)
from xsk_engine.packet import IPAddress
from xsk_engine.single import Single
from xsk_engine.steering import Tuple
from xsk_engine.tcpinfo import RECOVERY_STATES, STATES, TcpInfo
from xsk_engine.tcpoptions import TcpOptions
from xsk_engine.waiting import check_timeout

if TYPE_CHECKING:
    from xsk_engine.tcpstack import TcpStack

AGAIN = -errno.EAGAIN
# Blocks that wait for the loop. Lower: a writer of small pieces waits for it; higher: 16 bytes each.
_ENTRIES = 1024
# Up to so many bytes are copied with the GIL held: 1 us of work. Lower: handing the GIL over costs more than
# the copy; higher: other threads wait.
_SHORT_BYTES = 8192
_SCRATCH_BYTES = 64 << 10

_WORDS = [field[0] for field in tcp.TcpInfo._fields_]
_OPENING = (tcp.NEW, tcp.SYN_SENT, tcp.SYN_RECEIVED)
_FIN_ACKED = (tcp.FIN_WAIT_2, tcp.TIME_WAIT, tcp.CLOSED)

_ENDS: dict[int, tuple[type[TcpError], str]] = {
    errno.ECONNREFUSED: (TcpRefusedError, "nobody listens there; check address and port"),
    errno.ECONNRESET: (TcpResetError, "the peer has reset the connection"),
    errno.ECONNABORTED: (TcpAbortedError, "this side has reset the connection"),
    errno.ETIMEDOUT: (TcpTimeoutError, "the peer does not answer; check the way there and back"),
    errno.EHOSTUNREACH: (TcpError, "a router has no way to the peer; check the address and the route"),
    errno.ENETUNREACH: (TcpError, "a router has no way to that network; check the address and the route"),
}


@dataclass(frozen=True)
class Ends:
    """A connection's two ends, and what stands in front of its segments: Ethernet and IP headers of `header`
    bytes, IP from `ip_offset` on. `mtu` of the way. `holder` has the local port."""

    tuple: Tuple
    header: bytes
    ip_offset: int
    mtu: int
    holder: socket.socket


def _pair(address: IPAddress, port: int) -> tuple[str, int]:
    return str(address), port


class TcpHandle(Single):
    """What all TCP connections have in common: an arena, and a state machine in a worker's loop. One thread
    at a time may write, one may read, and any ask for ``state`` and ``info()``; a call that would race raises
    BusyError. Used after fork by the child: BrokenError.
    """

    def __init__(self, stack: TcpStack, ends: Ends, options: TcpOptions) -> None:
        self.local: tuple[str, int] = _pair(ends.tuple.local, ends.tuple.local_port)
        """(address, port) of this side"""
        self.remote: tuple[str, int] = _pair(ends.tuple.remote, ends.tuple.remote_port)
        """(address, port) of the peer"""
        self.options = options
        """as it was opened"""
        self._stack = stack
        self._inside = stack.umem.inside
        self._ends = ends
        self._pid = os.getpid()
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._asking = threading.RLock()
        """nobody frees it while somebody looks; a signal's handler may look, too"""
        self._closed = self._shut = self._retired = self._released = False
        self._block: tuple[int, memoryview] | None = None
        """addr and payload of what alloc() has given out"""
        self._words = tcp.TcpInfo()
        """who writes looks into it"""
        self._scratch = ctypes.create_string_buffer(_SCRATCH_BYTES)
        self._last: TcpInfo | None = None
        self._last_error = 0
        umem = stack.umem
        quota = options.quota_chunks(ends.mtu, umem.chunk_size, umem.usable_bytes)
        self._arena = Arena(umem, min(quota, stack.most_chunks), stack.worker.index, poison=stack.debug)
        try:
            self.handle: int | None = ffi.create(
                tcp.native.open, stack.handle, byref(self._config(ends, options))
            ).value
        except BaseException:
            self._arena.close()
            raise

    def _config(self, ends: Ends, options: TcpOptions) -> tcp.TcpConnConfig:
        header = ffi.Header(len=len(ends.header), ip_offset=ends.ip_offset)
        ctypes.memmove(header.words, ends.header, len(ends.header))
        flags = (("nodelay", tcp.NODELAY), ("keepalive", tcp.KEEPALIVE), ("pacing", tcp.PACING))
        times = ("connect_timeout", "user_timeout", "keepalive_idle", "keepalive_interval", "time_wait")
        return tcp.TcpConnConfig(
            arena=self._arena.handle,
            header=header,
            local_port=ends.tuple.local_port,
            remote_port=ends.tuple.remote_port,
            mtu=ends.mtu,
            flags=sum(bit for name, bit in flags if getattr(options, name)),
            congestion=tcp.CONGESTION[options.congestion],
            entries=_ENTRIES,
            receive_buffer_bytes=options.receive_buffer_bytes,
            send_buffer_bytes=options.send_buffer_bytes,
            keepalive_probes=options.keepalive_probes,
            **{f"{name}_ns": int(getattr(options, f"{name}_s") * 1e9) for name in times},
        )

    # -- errors ----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.remote[0]} port {self.remote[1]}, {self._stack.interface}"

    def failed(self, operation: str, result: int) -> Exception:
        """What a native call's negative errno means here."""
        number = -result
        if os.getpid() != self._pid:
            text = "this process was forked; only the parent may use it"
            return BrokenError(operation, self.name, text)
        if number == errno.EAGAIN:
            text = "no room, or nothing came, within the timeout"
            return WouldBlockError(operation, self.name, text, errno=number)
        if number == errno.EBUSY:
            return BusyError(operation, self.name, "another thread is using this connection", errno=number)
        if number == errno.EUCLEAN:
            text = "memory was written after it was submitted; look for a view that was kept"
            return BrokenError(operation, self.name, text, errno=number)
        if number == errno.EINVAL:
            return ValueError(f"{operation}: {os.strerror(number)}")
        if number in (errno.EPIPE, errno.ENOTCONN) or self._closed:
            return self.why_over(operation)
        return self.ended(operation, number)

    def ended(self, operation: str, number: int) -> XskError:
        """By this errno."""
        kind, text = _ENDS.get(number, (TcpError, os.strerror(number)))
        failure = self._stack.worker.failure()
        if number == errno.ECONNABORTED and failure is not None:
            text = f"the engine has ended: {failure}"
        return kind(operation, self.name, text, errno=number)

    def why_over(self, operation: str) -> XskError:
        """It is not, or no longer, to be used so."""
        if self._closed:
            return ClosedError(operation, self.name, "the connection is closed")
        if self._shut and operation != "recv":
            return ClosedError(operation, self.name, "shutdown() was called")
        number = self.error
        if number:
            return self.ended(operation, number)
        failure = self._stack.worker.failure()
        if failure is not None:
            return BrokenError(operation, self.name, str(failure), errno=failure.errno)
        return ClosedError(operation, self.name, "the connection is over, or the engine is closed")

    def late(self, operation: str, timeout_s: float, text: str) -> XskError:
        """DeadlineError."""
        return DeadlineError(operation, f"{self.name}, {timeout_s:g} s", text, errno=errno.ETIMEDOUT)

    def using(self, operation: str, lock: threading.Lock) -> threading.Lock:
        """The lock, to be entered at once, behind inside.here(), around native calls: nobody else may come
        in, or free it. BusyError."""
        if lock.locked():  # who comes in this very moment waits for one call
            raise self.failed(operation, -errno.EBUSY)
        return lock

    def timeout_of(self, timeout_s: float | None) -> float:
        """Of a call. ValueError for what is not 0 or more."""
        return self.options.timeout_s if timeout_s is None else check_timeout("timeout_s", timeout_s)

    def not_received(self, result: int, seconds: float) -> NoReturn:
        """What a call that receives raises."""
        if result == AGAIN:
            raise self.late("recv", seconds, "nothing came; the connection goes on")
        raise self.failed("recv", result)

    # -- what it says of itself ------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """As RFC 9293 has it: "ESTABLISHED", "CLOSE-WAIT", ... Any thread, also after close()."""
        return STATES[self.state_number]

    @property
    def state_number(self) -> int:
        with self._inside.here(), self._asking:
            return int(tcp.short.state(self.handle)) if self.handle is not None else tcp.CLOSED

    @property
    def error(self) -> int:
        """The errno that has ended it, or 0. Any thread."""
        with self._inside.here(), self._asking:
            return int(tcp.short.error(self.handle)) if self.handle is not None else self._last_error

    @property
    def is_opening(self) -> bool:
        return self.state_number in _OPENING

    @property
    def is_sent_off(self) -> bool:
        """All that was written, and the end, is acknowledged; or it is over."""
        return self.state_number in _FIN_ACKED

    @property
    def is_over(self) -> bool:
        """Its memory may go."""
        return self.state_number in (tcp.NEW, tcp.CLOSED)

    def check_connected(self) -> None:
        """After is_opening. What has become of it, if that is an error."""
        number = self.error
        if number == 0 and self.state_number != tcp.CLOSED:
            return
        if number == errno.ETIMEDOUT:
            text = f"no answer within {self.options.connect_timeout_s:g} s; check the address, or a firewall"
            raise TcpTimeoutError("connect", self.name, text, errno=number)
        if number == errno.ENOBUFS:
            text = "as many connections as tcp_connections says are open or in TIME-WAIT"
            raise UnavailableError("connect", self.name, text, errno=number)
        raise self.ended("connect", number) if number else self.why_over("connect")

    def is_flushed(self) -> bool:
        """Everything written so far is acknowledged. TcpError: it never will be."""
        # In this order: the last acknowledgement may come between the two looks, and the end with it.
        is_over = self.state_number == tcp.CLOSED or not self._stack.worker.alive
        if self._has_all():
            return True
        if is_over:
            raise self.why_over("flush")
        return False

    def _has_all(self) -> bool:
        """The peer has acknowledged everything that was written so far."""
        info = self.info()
        return info.acked_bytes >= info.written_bytes

    def info(self) -> TcpInfo:
        """What it says of itself now; the last of it after close().
        No system call; any thread.

            print(connection.info().srtt_ns)
        """
        with self._inside.here(), self._asking:
            return self._info()

    def _info(self) -> TcpInfo:
        if self.handle is None and self._last is not None:
            return self._last
        raw = tcp.TcpInfo()
        tcp.short.info(self.handle, byref(raw))
        values = {name: getattr(raw, name) for name in _WORDS}
        names = {"state": STATES[raw.state], "recovery_state": RECOVERY_STATES[raw.recovery_state]}
        return TcpInfo(**{**values, **names})

    def set_mac(self, mac: bytes) -> None:
        """Another Ethernet destination from now on; any thread."""
        with self._inside.here(), self._asking:
            if self.handle is not None:
                tcp.native.set_mac(self.handle, mac)

    def announce(self, what: int) -> None:
        """The next event is for this connection, too; look again before you wait."""
        with self._inside.here(), self._asking:
            if self.handle is not None:
                tcp.announce(self.handle, what)

    def still_awaits(self, what: int) -> bool:
        """Nothing of it has happened since announce()."""
        with self._inside.here(), self._asking:
            return self.handle is not None and tcp.short.awaited(self.handle) & what == what

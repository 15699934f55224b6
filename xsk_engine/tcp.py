"""TCP connections whose calls wait: for applications without an event loop."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from xsk_engine.endpoint import BytesLike
from xsk_engine.tcpconn import Connection, writable
from xsk_engine.tcphandle import AGAIN
from xsk_engine.waiting import pauses, wait_until

T = TypeVar("T")
C = TypeVar("C", bound="TcpConnection")


class _Incoming(io.RawIOBase):
    """What a connection receives."""

    def __init__(self, connection: TcpConnection) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._connection.forget_file()


class TcpConnection(Connection):
    """A TCP connection, as :meth:`Engine.tcp` opens it. Calls wait at most ``timeout_s`` seconds, None: as
    long as the connection's options say; 0: never.

    One thread at a time may write, and one read. What ends the connection is raised: TcpResetError (which is
    Python's ConnectionResetError, too), TcpTimeoutError and others of TcpError. ClosedError after close(),
    TcpAbortedError, too, when the engine has failed.

        with engine.tcp("10.77.0.2", 9001) as connection:
            connection.sendall(b"hello")
            print(connection.recv(100))
    """

    at_close: Callable[[], object] | None = None
    """closes what only this connection uses"""
    _files = 0
    """of makefile(), not closed yet"""
    _close_with_last_file = False

    def _patiently(self, attempt: Callable[[], T], timeout_s: float) -> T:
        """Its first result that is not EAGAIN, or that."""
        result = attempt()
        if result != AGAIN:
            return result
        deadline = time.monotonic() + timeout_s
        for pause in pauses():
            left = deadline - time.monotonic()
            if left <= 0:
                return result
            time.sleep(min(pause, left))
            result = attempt()
            if result != AGAIN:
                return result
        raise AssertionError("pauses have no end")

    def wait_connected(self) -> None:
        """Until it is established. Engine.tcp() does it."""
        seconds = self.options.connect_timeout_s + 1
        wait_until(
            lambda: not self.is_opening or not self._stack.worker.alive,
            seconds,
            lambda: self.late("connect", seconds, "the engine's loop does not get on"),
        )
        self.check_connected()

    def send(self, data: BytesLike, timeout_s: float | None = None) -> int:
        """Copies as many bytes as the send buffer has room for, at least one, and returns how many; 0 for no
        bytes. WouldBlockError: no room within the timeout; nothing was taken.

            sent = connection.send(b"hello")
        """
        if not memoryview(data).nbytes:
            return 0
        result = self._patiently(lambda: self.try_send(data), self.timeout_of(timeout_s))
        if result < 0:
            raise self.failed("send", result)
        return result

    def sendall(self, data: BytesLike, timeout_s: float | None = None) -> None:
        """Copies all of it, waiting for room as long as there is progress within every ``timeout_s``.
        Whatever it raises, ``error.sent`` says how many bytes were taken before.

            connection.sendall(bytes(1_000_000))
            connection.flush()
        """
        view = memoryview(data).cast("B")
        sent = 0
        try:
            while sent < len(view):
                sent += self.send(view[sent:], timeout_s)
        except BaseException as error:
            error.sent = sent  # type: ignore[attr-defined]
            raise

    def alloc(self, timeout_s: float | None = None) -> memoryview:
        """Memory of the umem, to be filled in place and given to submit(): no copy. As long as a block may
        be; the same one until it is submitted. WouldBlockError: no room within the timeout.

            view = connection.alloc()
            view[:5] = b"hello"
            connection.submit(5)
        """
        result = self._patiently(self.try_alloc, self.timeout_of(timeout_s))
        if isinstance(result, int):
            raise self.failed("alloc", result)
        return result

    def submit(self, n: int, timeout_s: float | None = None) -> None:
        """Sends the first ``n`` bytes of what alloc() gave, which is released: views derived from it must not
        be written any more. WouldBlockError: no room within the timeout; it is still held.

            connection.alloc()[:2] = b"ab"
            connection.submit(2)
        """
        self.check_submit(n)
        result = self._patiently(lambda: self.try_submit(n), self.timeout_of(timeout_s))
        if result < 0:
            raise self.failed("submit", result)

    def recv(self, n: int, timeout_s: float | None = None) -> bytes:
        """Up to ``n`` bytes, as soon as there are some; b"" when the peer has ended its stream. DeadlineError
        (which is a TimeoutError): nothing came within the timeout.

            answer = connection.recv(65536, 1.0)
        """
        seconds = self.timeout_of(timeout_s)
        result = self._patiently(lambda: self.try_recv(n), seconds)
        return result if isinstance(result, bytes) else self.not_received(result, seconds)

    def recv_into(self, buffer: BytesLike, timeout_s: float | None = None) -> int:
        """As recv(), into a writable buffer.
        How many bytes; 0 when the peer has ended its stream.

            buffer = bytearray(65536)
            received = connection.recv_into(buffer)
        """
        view = writable(buffer)
        seconds = self.timeout_of(timeout_s)
        result = self._patiently(lambda: self.try_recv_into(view), seconds)
        return result if result >= 0 else self.not_received(result, seconds)

    def makefile(self, mode: str = "rb", buffering: int = -1) -> io.BufferedReader:
        """A file that reads what comes, as socket.makefile("rb"): for http.client and the like. Reading waits
        as long as recv() may; DeadlineError then. ValueError for another mode.

            print(connection.makefile().read(5))  # recv() may give fewer
        """
        if mode not in ("r", "rb"):
            raise ValueError(f"makefile: mode {mode!r}; only 'rb' is possible, sendall() writes")
        self._files += 1
        return io.BufferedReader(_Incoming(self), buffering if buffering > 0 else io.DEFAULT_BUFFER_SIZE)

    def forget_file(self) -> None:
        """One of them is closed."""
        self._files -= 1
        if not self._files and self._close_with_last_file:
            self.close()

    def flush(self, timeout_s: float | None = None) -> None:
        """Waits until the peer has acknowledged everything written so far. DeadlineError after the timeout;
        nothing is lost then.

            connection.flush(1.0)
        """
        seconds = self.timeout_of(timeout_s)
        wait_until(self.is_flushed, seconds, lambda: self.late("flush", seconds, "not all is acknowledged"))

    def shutdown(self) -> None:
        """Ends this side's stream behind what was written; the peer's goes on.
        Idempotent; it does not wait.

            connection.shutdown()
        """
        self.begin_shutdown()

    def close(self, timeout_s: float | None = None) -> None:
        """Ends both streams and waits until the peer has acknowledged all that was written. Unread data, and
        what still comes, is answered with a reset. Idempotent.

        DeadlineError after the timeout: it goes on by itself; abort() ends it. TcpError: the peer has not got
        everything. 0: returns at once. BusyError while another thread uses it. While files of makefile() are
        open, the last one's close() does it.
        """
        seconds = self.timeout_of(timeout_s)
        if self._files:
            self._close_with_last_file = True
            return
        try:
            if self.begin_close():
                self._wait_sent_off(seconds)
        finally:
            self._stack.reap()
            self._close_engine()

    def _wait_sent_off(self, seconds: float) -> None:
        if not seconds:
            return
        wait_until(
            lambda: self.is_sent_off or not self._stack.worker.alive,
            seconds,
            lambda: self.late("close", seconds, "the peer has not acknowledged all yet"),
        )
        self.check_closed()

    def abort(self) -> None:
        """As Connection.abort."""
        super().abort()
        self._close_engine()

    def _close_engine(self) -> None:
        if os.getpid() == self._pid and self.at_close is not None:
            at_close, self.at_close = self.at_close, None
            at_close()

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(None if kind is None else 0)

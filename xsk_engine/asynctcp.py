"""TCP connections whose calls are awaited: what would wait lets the event loop go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from xsk_engine._ffi import nativetcp as tcp
from xsk_engine.bell import Bell
from xsk_engine.endpoint import BytesLike
from xsk_engine.tcpconn import Connection, writable
from xsk_engine.tcphandle import AGAIN

# Bytes that are copied before others have their turn: 100 us. Lower: the task switch counts; higher: the
# event loop's lag.
_SLICE_BYTES = 256 << 10
# A wait looks again after so long even if nobody wakes it: chunks that other owners give back ring no bell.
_LOOK_S = 0.02

T = TypeVar("T")
C = TypeVar("C", bound="AsyncTcpConnection")


class AsyncTcpConnection(Connection):
    """As TcpConnection, but its calls are awaited; in the event loop's thread. A call that is cancelled has
    taken nothing more than it says.

        connection = await engine.tcp("10.77.0.2", 9001)
        await connection.sendall(b"hello")
        print(await connection.recv(100))
    """

    bell: Bell
    stream: Callable[[], bool] | None = None
    """of a stream's transport: does it hold bytes that go first?"""

    def _must_wait(self) -> bool:
        return self.stream is not None and self.stream()

    def try_send(self, data: BytesLike) -> int:
        return AGAIN if self._must_wait() else super().try_send(data)

    def try_submit(self, n: int) -> int:
        return AGAIN if self._must_wait() else super().try_submit(n)

    def try_send_first(self, data: BytesLike) -> int:
        """By the transport: what it holds goes before what is sent or submitted here."""
        return super().try_send(data)

    def is_flushed(self) -> bool:
        return not self._must_wait() and super().is_flushed()

    async def _patiently(self, attempt: Callable[[], T], what: int, timeout_s: float) -> T:
        """Its first result that is not EAGAIN, or that."""
        result = attempt()
        deadline = time.monotonic() + timeout_s
        while result == AGAIN and (left := deadline - time.monotonic()) > 0:
            self.announce(what)
            result = attempt()  # what happened before the announcement rings no bell
            if result == AGAIN:
                await self.bell.wait(min(_LOOK_S, left))
                result = attempt()
        return result

    async def _until(self, done: Callable[[], bool], what: int, timeout_s: float) -> bool:
        """False: not within so many seconds."""
        return await self._patiently(lambda: True if done() else AGAIN, what, timeout_s) is True

    def _is_gone(self) -> bool:
        return not self._stack.worker.alive

    async def wait_connected(self) -> None:
        """Until it is established. AsyncEngine.tcp() does it."""
        seconds = self.options.connect_timeout_s + 1
        if not await self._until(lambda: not self.is_opening or self._is_gone(), tcp.CHANGED, seconds):
            raise self.late("connect", seconds, "the engine's loop does not get on")
        self.check_connected()

    async def send(self, data: BytesLike, timeout_s: float | None = None) -> int:
        """As TcpConnection.send.
        Cancelled, it has taken nothing.

            sent = await connection.send(b"hello")
        """
        if not memoryview(data).nbytes:
            return 0
        result = await self._patiently(lambda: self.try_send(data), tcp.WRITABLE, self.timeout_of(timeout_s))
        if result < 0:
            raise self.failed("send", result)
        return result

    async def sendall(self, data: BytesLike, timeout_s: float | None = None) -> None:
        """As TcpConnection.sendall; others run in between.
        Cancelled, ``error.sent`` says how far it got.

            await connection.sendall(bytes(1_000_000))
            await connection.flush()
        """
        view = memoryview(data).cast("B")
        sent = 0
        try:
            while sent < len(view):
                sent += await self.send(view[sent : sent + _SLICE_BYTES], timeout_s)
                if sent < len(view):
                    await asyncio.sleep(0)
        except BaseException as error:
            error.sent = sent  # type: ignore[attr-defined]
            raise

    async def alloc(self, timeout_s: float | None = None) -> memoryview:
        """As TcpConnection.alloc.
        Cancelled, nothing is held.

            view = await connection.alloc()
            view[:5] = b"hello"
            await connection.submit(5)
        """
        result = await self._patiently(self.try_alloc, tcp.WRITABLE, self.timeout_of(timeout_s))
        if isinstance(result, int):
            raise self.failed("alloc", result)
        return result

    async def submit(self, n: int, timeout_s: float | None = None) -> None:
        """As TcpConnection.submit.
        Cancelled, it is still held.

            (await connection.alloc())[:2] = b"ab"
            await connection.submit(2)
        """
        self.check_submit(n)
        result = await self._patiently(lambda: self.try_submit(n), tcp.WRITABLE, self.timeout_of(timeout_s))
        if result < 0:
            raise self.failed("submit", result)

    async def recv(self, n: int, timeout_s: float | None = None) -> bytes:
        """As TcpConnection.recv.
        Cancelled, it has received nothing.

            answer = await connection.recv(65536, 1.0)
        """
        seconds = self.timeout_of(timeout_s)
        result = await self._patiently(lambda: self.try_recv(n), tcp.READABLE, seconds)
        return result if isinstance(result, bytes) else self.not_received(result, seconds)

    async def recv_into(self, buffer: BytesLike, timeout_s: float | None = None) -> int:
        """As TcpConnection.recv_into.
        Cancelled, it has received nothing.

            received = await connection.recv_into(bytearray(65536))
        """
        view = writable(buffer)
        seconds = self.timeout_of(timeout_s)
        result = await self._patiently(lambda: self.try_recv_into(view), tcp.READABLE, seconds)
        return result if result >= 0 else self.not_received(result, seconds)

    async def flush(self, timeout_s: float | None = None) -> None:
        """As TcpConnection.flush.
        What other tasks write meanwhile is waited for, too.

            await connection.flush(1.0)
        """
        seconds = self.timeout_of(timeout_s)
        if not await self._until(self.is_flushed, tcp.DRAINED, seconds):
            raise self.late("flush", seconds, "not all is acknowledged")

    def shutdown(self) -> None:
        """As TcpConnection.shutdown.
        It does not wait.

            connection.shutdown()
        """
        self.begin_shutdown()

    async def close(self, timeout_s: float | None = None) -> None:
        """As TcpConnection.close."""
        seconds = self.timeout_of(timeout_s)
        if not self.begin_close():
            return
        try:
            if seconds:
                if not await self._until_sent_off(seconds):
                    raise self._not_sent_off(seconds)
                self.check_closed()
        finally:
            self._stack.reap()

    async def close_with_progress(self) -> None:
        """As close(), but it waits as long as the peer acknowledges something within every `user_timeout_s`:
        the kernel's sockets go on, too."""
        seconds = self.options.user_timeout_s
        if not self.begin_close():
            return
        try:
            acked = -1
            while not await self._until_sent_off(seconds):
                if (now := self.info().acked_bytes) == acked:
                    raise self._not_sent_off(seconds)
                acked = now
            self.check_closed()
        finally:
            self._stack.reap()

    async def _until_sent_off(self, seconds: float) -> bool:
        return await self._until(lambda: self.is_sent_off or self._is_gone(), tcp.CHANGED, seconds)

    def _not_sent_off(self, seconds: float) -> Exception:
        return self.late("close", seconds, "the peer has not acknowledged all yet")

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.close(None if kind is None else 0)

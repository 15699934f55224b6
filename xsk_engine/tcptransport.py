"""A stream transport for asyncio code that knows nothing of AF_XDP: a TCP connection of an engine."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable
from typing import Any

from xsk_engine._ffi import nativetcp as tcp
from xsk_engine.aio import AsyncEngine
from xsk_engine.asynctcp import AsyncTcpConnection
from xsk_engine.errors import ClosedError, XskError
from xsk_engine.sharing import Lease
from xsk_engine.socketlike import address_of, why_lost
from xsk_engine.tcphandle import AGAIN
from xsk_engine.writebuffer import WriteBuffer

_log = logging.getLogger("xsk_engine")

# Bytes that are copied at a time, and reads, before others have their turn: 100 us. Lower: the turn itself
# counts; higher: the event loop's lag.
_WRITE_BYTES, _READ_BYTES, _READS_PER_TURN = 256 << 10, 256 << 10, 4
# What waits for room looks again after so long: chunks that other owners give back ring no bell.
_LOOK_S = 0.02
_WARN_AFTER = 5  # writes to a connection that is over, as asyncio's own


class XskTcpTransport(asyncio.Transport):
    """What :func:`create_connection` returns. In the event loop's thread.

    ``get_extra_info``: peername, sockname, xsk_connection (the AsyncTcpConnection), tcp_info (a KernelTcpInfo
    of this moment), and xsk_engine. There is no socket.

        print(transport.get_extra_info("tcp_info").tcpi_rtt)
    """

    _start_tls_compatible = True  # asks for nothing but what is here: asyncio's start_tls() may use it

    def __init__(self, engine: AsyncEngine, lease: Lease, connection: AsyncTcpConnection, protocol: Any):
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._lease = lease
        self._connection = connection
        self._bell = engine.bell
        self._protocol = protocol
        self._reading = self._into_buffer = False
        self._paused = True
        """by pause_reading(), or not begun"""
        self._awaits_bytes = False
        """announced, and not looked at since"""
        self._ended = False
        """the peer's stream"""
        self._eof = False
        """write_eof() was called"""
        self._buffer = WriteBuffer(self._tell)
        self._look: asyncio.Handle | None = None
        """while something is buffered"""
        self._patience: asyncio.TimerHandle | None = None
        self._closing = self._lost = False
        self._lost_writes = 0
        self._facts: dict[str, Callable[[], Any]] = {
            "peername": lambda: address_of(connection.remote),
            "sockname": lambda: address_of(connection.local),
            "xsk_connection": lambda: connection,
            "xsk_engine": lambda: engine,
            "tcp_info": lambda: connection.info().tcp_info(),
        }
        connection.stream = lambda: bool(self._buffer)
        self.set_protocol(protocol)
        self._over: asyncio.Future[BaseException | None] = self._loop.create_future()
        """None: an orderly end"""
        self._life = self._loop.create_task(self._live())
        self._bell.at_close.add(self._engine_closes)
        self._loop.call_soon(self._protocol.connection_made, self)
        self._loop.call_soon(self._begin)

    # -- facts -----------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio.BaseTransport; the names are those of the class."""
        return self._facts[name]() if name in self._facts else default

    def get_protocol(self) -> Any:
        """As asyncio.BaseTransport."""
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        """As asyncio.BaseTransport. A BufferedProtocol's buffers are read into."""
        self._protocol = protocol
        self._into_buffer = isinstance(protocol, asyncio.BufferedProtocol)

    def is_closing(self) -> bool:
        """close() or abort() was called, or the connection is over."""
        return self._closing

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<XskTcpTransport {self._connection.local} -> {self._connection.remote} {state}>"

    def _tell(self, what: str, *arguments: Any) -> None:
        """The protocol; what it raises is its own, and the transport goes on."""
        try:
            getattr(self._protocol, what)(*arguments)
        except Exception as error:
            self._complain(f"{what}() failed", error)

    def _complain(self, text: str, error: BaseException) -> None:
        context = {"message": text, "exception": error, "transport": self, "protocol": self._protocol}
        self._loop.call_exception_handler(context)

    # -- receiving -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._bell.listen(self._turn)
        self.resume_reading()

    def is_reading(self) -> bool:
        """As asyncio.ReadTransport."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """What comes stays in the connection, whose window closes. Idempotent."""
        self._paused = True

    def resume_reading(self) -> None:
        """As asyncio.ReadTransport. Idempotent."""
        if self._paused and not self._closing:
            self._paused = False
            self._loop.call_soon(self._read)

    def _turn(self) -> None:
        """Something has happened, perhaps to this connection."""
        if self._awaits_bytes and not self._connection.still_awaits(tcp.READABLE):
            self._awaits_bytes = False
            self._read()
        if self._buffer:
            self._write()

    def _may_read(self) -> bool:
        return not (self._paused or self._ended or self._closing)

    def _read(self) -> None:
        if self._reading:  # a protocol that is told of bytes runs the event loop, or what else
            return
        self._reading = True
        try:
            for _ in range(_READS_PER_TURN):
                if not self._may_read():
                    return
                result = self._read_once()
                if result == AGAIN:
                    self._connection.announce(tcp.READABLE)
                    result = self._read_once()  # what came before the announcement rings no bell
                if result == AGAIN:
                    self._awaits_bytes = True
                    return
                if result < 0:
                    self._end(self._why("recv", result))
                elif result == 0:
                    self._has_ended()
            self._loop.call_soon(self._read)
        except Exception as error:  # the protocol's
            self._complain("the protocol does not take what was received", error)
            self._end(error)
        finally:
            self._reading = False

    def _read_once(self) -> int:
        """How many bytes the protocol was told of; 0: the end; or a negative errno."""
        if self._into_buffer:
            buffer = self._protocol.get_buffer(-1)
            if not len(buffer):
                raise RuntimeError("get_buffer() returned an empty buffer")
            count: int = self._attempt(self._connection.try_recv_into, memoryview(buffer).cast("B"))
            if count > 0:
                self._protocol.buffer_updated(count)
            return count
        data = self._attempt(self._connection.try_recv, _READ_BYTES)
        if isinstance(data, int):
            return data
        if data:
            self._protocol.data_received(data)
        return len(data)

    def _attempt(self, what: Callable[[Any], Any], argument: Any) -> Any:
        """Its result; EAGAIN when somebody else has closed the connection, which ends this, too."""
        try:
            return what(argument)
        except XskError as error:
            self._end(why_lost(error))
            return AGAIN

    def _has_ended(self) -> None:
        self._ended = True
        if not self._protocol.eof_received():
            self.close()

    # -- sending ---------------------------------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        """Bytes that wait here; what the connection has taken is not counted."""
        return self._buffer.size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high) in bytes."""
        return self._buffer.low, self._buffer.high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio.WriteTransport. ValueError unless high >= low >= 0."""
        self._buffer.set_limits(high, low)

    def write(self, data: Any) -> None:
        """Takes all of it: into the send buffer as far as there is room, the rest waits here.

        TypeError for what is no bytes, RuntimeError after write_eof().
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing:
            self._lost_writes += 1
            if self._lost and self._lost_writes == _WARN_AFTER:
                _log.warning("write(%s): the connection is over", self._connection.name)
            return
        view = memoryview(data).cast("B") if memoryview(data).c_contiguous else memoryview(bytes(data))
        taken = 0
        if view and not self._buffer:
            taken = self._attempt(self._connection.try_send_first, data)
            if taken < 0 and taken != AGAIN:
                self._end(self._why("send", taken))
            if self._closing:
                return
        rest = view[max(taken, 0) :]
        if rest:
            self._keep(rest if isinstance(data, bytes) else memoryview(bytes(rest)))

    def _keep(self, rest: memoryview) -> None:
        if self._look is None:
            self._look = self._loop.call_soon(self._look_again)
        self._buffer.add(rest)

    def _look_again(self) -> None:
        self._look = None
        if self._buffer:
            self._look = self._loop.call_later(_LOOK_S, self._look_again)
            self._write()

    def _write(self) -> None:
        """What is buffered, as far as there is room."""
        budget, announced = _WRITE_BYTES, False
        while self._buffer and budget > 0:
            taken = self._attempt(self._connection.try_send_first, self._buffer.first())
            if taken == AGAIN:
                if announced:
                    break
                self._connection.announce(tcp.WRITABLE)
                announced = True
            elif taken < 0:
                self._end(self._why("send", taken))
                return
            else:
                budget -= taken
                self._buffer.took(taken)
        if self._over.done():  # who waits for room hears of that instead
            return
        if self._buffer and budget <= 0:
            self._loop.call_soon(self._write)
        self._buffer.note()
        if not self._buffer:
            self._is_drained()

    def _is_drained(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._closing:
            self._finish(None)
        elif self._eof:
            self._shutdown()

    def can_write_eof(self) -> bool:
        """True."""
        return True

    def write_eof(self) -> None:
        """Ends this side's stream behind what was written; receiving goes on. Idempotent."""
        if self._closing or self._eof:
            return
        self._eof = True
        if not self._buffer:
            self._shutdown()

    def _shutdown(self) -> None:
        try:
            self._connection.begin_shutdown()
        except XskError as error:
            self._end(why_lost(error))

    # -- the end ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Takes and receives no more; when the peer has acknowledged all that was written,
        ``connection_lost(None)``. Its error says that the peer has not got everything: TimeoutError when it
        has acknowledged nothing for ``user_timeout_s``. Idempotent."""
        if self._closing:
            return
        self._closing = True
        if self._buffer:
            self._expect_progress(-1)
        else:
            self._finish(None)

    def _expect_progress(self, acked: int) -> None:
        """While what is buffered goes out: a peer that takes no more does not keep it for ever."""
        if self._over.done():
            return
        seconds, now = self._connection.options.user_timeout_s, self._connection.info().acked_bytes
        if now == acked:
            self._end(self._connection.late("close", seconds, "the peer takes no more"))
        else:
            self._patience = self._loop.call_later(seconds, self._expect_progress, now)

    def abort(self) -> None:
        """Resets the connection: what the peer has not received is lost. Idempotent."""
        self._force_close(None)

    def _force_close(self, error: BaseException | None) -> None:
        """By asyncio's TLS, too."""
        self._closing = self._lost = True
        self._buffer.clear()
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._connection.abort()
        self._finish(error)

    def _end(self, error: BaseException) -> None:
        """It has failed."""
        self._force_close(error)

    def _finish(self, error: BaseException | None) -> None:
        self._bell.ignore(self._turn)
        self._bell.at_close.discard(self._engine_closes)
        if self._patience is not None:
            self._patience.cancel()
        if not self._over.done():
            self._over.set_result(error)

    def _engine_closes(self) -> None:
        failure = self._engine.engine.failure()
        self._end(why_lost(failure or ClosedError("transport", repr(self), "its engine was closed")))

    def _why(self, operation: str, result: int) -> Exception:
        return why_lost(self._connection.failed(operation, result))

    async def _live(self) -> None:
        """Ends with the transport, or with the event loop: nothing is left in either case.

        After an orderly end the protocol hears of it last, so who waits for that may end the event loop; of
        a failure it hears at once.
        """
        told = released = False
        try:
            error = await self._over
            if error is None and not self._lost:
                error = await self._sent_off()
            if error is not None:
                told = True
                self._tell("connection_lost", error)
            released = True
            await self._lease.release()
        except asyncio.CancelledError:
            forgotten, self._closing, self._lost = not self._closing, True, True
            self._bell.ignore(self._turn)
            self._bell.at_close.discard(self._engine_closes)
            if self._look is not None:
                self._look.cancel()
            self._connection.begin_close()
            if not released:
                self._lease.release_now()
            if forgotten:
                warnings.warn(f"unclosed transport {self!r}", ResourceWarning, stacklevel=1)
            raise
        finally:
            self._lost = True
            if not told:
                self._tell("connection_lost", None)

    async def _sent_off(self) -> Exception | None:
        """What has kept the peer from getting all that was written."""
        try:
            await self._connection.close_with_progress()
        except XskError as error:
            self._connection.abort()
            return None if self._lost else why_lost(error)  # abort() was called meanwhile
        return None

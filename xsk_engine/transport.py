"""A datagram transport for asyncio code that knows nothing of AF_XDP: it sends through an engine and receives
through an ordinary socket on the same port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import warnings
from asyncio.trsock import TransportSocket
from collections import deque
from typing import Any

from xsk_engine.aio import AsyncEngine
from xsk_engine.errors import BusyError, ClosedError
from xsk_engine.peers import Peer, Peers
from xsk_engine.remote import Remote
from xsk_engine.sharing import Lease
from xsk_engine.writebuffer import HIGH_WATER, water_marks

_log = logging.getLogger("xsk_engine")

WAITING_PER_NEIGHBOUR = 64
"""datagrams; the oldest are dropped, as the kernel does it (net.ipv4.neigh.default.unres_qlen)"""
# Bytes that are written at a time, and datagrams read, before others have their turn.
_WRITES_PER_TURN, _READS_PER_TURN = 256, 64
_HEADER_BYTES = 8
"""that a datagram counts in the buffer besides its own, or empty ones would cost nothing"""
_MAX_DATAGRAM = 1 << 16
_RETRY_S = 0.02
_FLUSH_S = 1.0
"""for what was sent before close()"""


class XskDatagramTransport(asyncio.DatagramTransport):
    """What :func:`create_datagram_endpoint` returns. In the event loop's thread.

    ``get_extra_info``: socket, sockname, peername, and xsk_engine (the AsyncEngine it sends through).

        transport.sendto(b"hello")
        print(transport.get_extra_info("sockname"), transport.dropped_datagrams)
    """

    def __init__(
        self,
        engine: AsyncEngine,
        lease: Lease,
        sock: socket.socket,
        protocol: Any,
        peer: Remote | None,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._lease = lease
        self._sock = sock
        self._protocol = protocol
        self._bell = engine.bell
        self._buffer: deque[tuple[Peer, bytes]] = deque()
        self._buffered = 0
        self._paused = False
        self._closing = False
        self._lost = self._aborted = False
        self._error: Exception | None = None
        self._retry: asyncio.TimerHandle | None = None
        """while something is buffered"""
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self.dropped_datagrams = 0
        """that waited for a neighbour in vain"""
        self._source: tuple[str, int] = sock.getsockname()[:2]
        self._remote = (str(peer.dst), peer.dst_port) if peer is not None else None
        self._peers = Peers(engine, self._source, options, self._watch, self._drop_waiting)
        self._default = self._peers.make(peer) if peer is not None else None
        self._extra = {
            "socket": TransportSocket(sock),
            "sockname": sock.getsockname(),
            "peername": sock.getpeername() if peer is not None else None,
            "xsk_engine": engine,
        }
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._life = self._loop.create_task(self._live())
        self._bell.at_close.add(self._engine_closes)
        self._loop.call_soon(self._protocol.connection_made, self)
        self._loop.call_soon(self._start_reading)

    # -- facts -----------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio.BaseTransport; the names are those of the class."""
        return self._extra.get(name, default)

    def get_protocol(self) -> Any:
        """As asyncio.BaseTransport."""
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        """As asyncio.BaseTransport."""
        self._protocol = protocol

    def is_closing(self) -> bool:
        """close() or abort() was called, or the engine has ended."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Bytes, 8 for each datagram included."""
        return self._buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high) in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio.WriteTransport. ValueError unless high >= low >= 0."""
        self._high, self._low = water_marks(high, low)
        self._note_buffer()

    async def connected(self, seconds: float) -> None:
        """Until the neighbour of remote_addr is known, at most so long."""
        ready = self._default.endpoint.ready if self._default is not None else None
        if ready is not None:
            await asyncio.wait([ready], timeout=seconds)

    # -- sending ---------------------------------------------------------------------------------------

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Sends now, or when there is room. Too long for a packet: ``error_received`` with EMSGSIZE.

        While its neighbour is not known, the last 64 datagrams wait for it. TypeError for what is no bytes,
        ValueError without an address, or for another than remote_addr.

            transport.sendto(b"hello")
        """
        if self._closing:
            if self._lost:
                _log.warning("sendto(%s): the transport is closed", self._remote or addr)
            return
        peer = self._default
        if addr is not None or peer is None:
            peer = self._find_peer(addr)
        if not self._buffer and peer.endpoint.ready is None:
            result = peer.endpoint.try_send(data)
            if result == 0:
                return
            if result != -errno.EAGAIN:
                self._report(peer, result, len(data))
                return
        self._keep(peer, bytes(memoryview(data)))

    def _find_peer(self, addr: Any) -> Peer:
        if addr is None:
            raise ValueError("sendto: without remote_addr every datagram needs an address")
        if self._default is None:
            return self._peers.find(addr)
        if tuple(addr[:2]) != self._remote:
            raise ValueError(f"sendto: this transport sends to {self._remote} only")
        return self._default

    def _drop_waiting(self, peer: Peer) -> None:
        self._buffered -= sum(len(data) + _HEADER_BYTES for data in peer.waiting)
        self.dropped_datagrams += len(peer.waiting)
        peer.waiting.clear()

    def _watch(self, peer: Peer) -> None:
        if peer.endpoint.ready is not None:
            peer.endpoint.ready.add_done_callback(lambda ready: self._on_ready(peer, ready))

    def _on_ready(self, peer: Peer, ready: asyncio.Future[None]) -> None:
        if self._lost or ready.cancelled():
            return
        error = ready.exception()
        if error is None:
            while peer.waiting:
                data = peer.waiting.popleft()
                self._buffered -= len(data) + _HEADER_BYTES
                self._keep(peer, data)
            self._write()
            return
        self._drop_waiting(peer)
        number = getattr(error, "errno", None) or errno.EHOSTUNREACH
        self._tell("error_received", OSError(number, str(error)))
        self._note_buffer()
        self._lose_if_empty()

    def _keep(self, peer: Peer, data: bytes) -> None:
        self._buffered += len(data) + _HEADER_BYTES
        if peer.endpoint.ready is None:
            self._buffer.append((peer, data))
            peer.queued += 1
            if self._retry is None:
                self._bell.listen(self._write)
                self._retry = self._loop.call_later(0, self._write_again)
        else:
            if peer.endpoint.ready.done():  # nobody answered the last time
                peer.endpoint.ask_again()
                self._watch(peer)
            peer.waiting.append(data)
            if len(peer.waiting) > WAITING_PER_NEIGHBOUR:
                self._buffered -= len(peer.waiting.popleft()) + _HEADER_BYTES
                self.dropped_datagrams += 1
        self._note_buffer()

    def _write_again(self) -> None:
        """Also when no event comes: other endpoints may have chunks that they do not use."""
        if self._buffer and not self._lost:
            self._buffer[0][0].endpoint.ask_for_chunks()
            self._retry = self._loop.call_later(_RETRY_S, self._write_again)
        self._write()

    def _write(self) -> None:
        """What is buffered, as far as there is room."""
        if self._lost:
            return
        for _ in range(_WRITES_PER_TURN):
            if not self._buffer:
                break
            peer, data = self._buffer[0]
            result = peer.endpoint.try_send(data)
            if result == -errno.EAGAIN:
                peer.endpoint.announce()
                result = peer.endpoint.try_send(data)
            if result == -errno.EAGAIN:
                break
            self._buffer.popleft()
            peer.queued -= 1
            self._buffered -= len(data) + _HEADER_BYTES
            if result:
                self._report(peer, result, len(data))
        else:
            self._loop.call_soon(self._write)
        if not self._buffer and self._retry is not None:
            self._retry.cancel()
            self._retry = None
            self._bell.ignore(self._write)
        self._note_buffer()
        self._lose_if_empty()

    def _lose_if_empty(self) -> None:
        if self._closing and not self._lost and not self._pending():
            self._lose()

    def _report(self, peer: Peer, result: int, size: int) -> None:
        if result == -errno.EMSGSIZE:
            text = f"{os.strerror(errno.EMSGSIZE)}: {peer.endpoint.too_long(size)}"
            self._tell("error_received", OSError(errno.EMSGSIZE, text))
        else:  # the engine has ended
            self._end(peer.endpoint.failed("sendto", result, size))

    def _engine_closes(self) -> None:
        failure = self._engine.engine.failure()
        self._end(failure or ClosedError("transport", repr(self), "its engine was closed"))

    def _tell(self, what: str, *arguments: Any) -> None:
        """The protocol; what it raises is its own, and the transport goes on."""
        try:
            getattr(self._protocol, what)(*arguments)
        except Exception as error:
            context = {"message": f"{what}() failed", "exception": error, "transport": self}
            self._loop.call_exception_handler({**context, "protocol": self._protocol})

    def _pending(self) -> bool:
        return bool(self._buffer) or any(peer.waiting for peer in self._all_peers())

    def _note_buffer(self) -> None:
        if self._closing:
            return
        # With one peer, who listens to pause_writing loses nothing while it is asked for.
        full = self._default is not None and len(self._default.waiting) >= WAITING_PER_NEIGHBOUR
        if not self._paused and (full or self._buffered > self._high):
            self._paused = True
            self._tell("pause_writing")
        elif self._paused and not full and self._buffered <= self._low:
            self._paused = False
            self._tell("resume_writing")

    # -- receiving -------------------------------------------------------------------------------------

    def _start_reading(self) -> None:
        if not self._closing:
            self._loop.add_reader(self._sock.fileno(), self._read)

    def _stop_reading(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())

    def _read(self) -> None:
        for _ in range(_READS_PER_TURN):
            if self._closing:
                return
            try:
                data, address = self._sock.recvfrom(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # an ICMP answer, say
                self._tell("error_received", error)
                return
            self._tell("datagram_received", data, address)

    # -- the end ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Takes no more, sends what is buffered, then ``connection_lost(None)``. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._stop_reading()
        if not self._pending():
            self._loop.call_soon(self._lose)

    def abort(self) -> None:
        """Closes at once: what is buffered is dropped. Idempotent."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._aborted = True
        self._error = error
        self._closing = True
        self._stop_reading()
        self._buffer.clear()
        for peer in self._all_peers():
            peer.waiting.clear()
        self._buffered = 0
        self._loop.call_soon(self._lose)

    def _all_peers(self) -> list[Peer]:
        return [*self._peers, *([self._default] if self._default is not None else [])]

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = True
        self._bell.ignore(self._write)
        self._bell.at_close.discard(self._engine_closes)
        if self._retry is not None:
            self._retry.cancel()
        if not self._over.done():
            self._over.set_result(None)

    async def _live(self) -> None:
        """Ends with the transport, or with the event loop: nothing is left in either case. The protocol hears
        of it last, so who waits for that may end the event loop."""
        released = False
        try:
            await self._over
            if not self._aborted:  # what fails there is closed, or has failed
                flushes = [peer.endpoint.flush(_FLUSH_S) for peer in self._all_peers()]
                await asyncio.gather(*flushes, return_exceptions=True)
            await asyncio.to_thread(self._close_endpoints)
            self._sock.close()
            released = True
            await self._lease.release()
        except asyncio.CancelledError:
            forgotten, self._closing, self._lost = not self._closing, True, True
            self._stop_reading()
            self._close_endpoints()
            self._sock.close()
            if not released:
                self._lease.release_now()
            if forgotten:
                warnings.warn(f"unclosed transport {self!r}", ResourceWarning, stacklevel=1)
            raise
        finally:
            self._tell("connection_lost", self._error)

    def _close_endpoints(self) -> None:
        for peer in self._all_peers():
            with contextlib.suppress(BusyError):  # its engine is just closing it
                peer.endpoint.close()

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<XskDatagramTransport {self._source} -> {self._remote or 'any'} {state}>"

"""What all TCP connections have in common: their calls that never wait, and their end."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
from ctypes import byref, c_uint32, c_uint64, c_void_p
from typing import Any

from xsk_engine._ffi import nativetcp as tcp
from xsk_engine._ffi.native import native
from xsk_engine.errors import BusyError, ClosedError, TcpAbortedError
from xsk_engine.tcphandle import TcpHandle

# Up to so many bytes are copied with the GIL held: 1 us of work. Lower: handing the GIL over costs more than
# the copy; higher: other threads wait.
_SHORT_BYTES = 8192


def writable(buffer: Any) -> memoryview:
    """Its bytes. ValueError, TypeError."""
    view = memoryview(buffer).cast("B")
    if view.readonly or not len(view):
        raise ValueError("recv_into: a writable buffer of at least one byte is needed")
    return view


class Connection(TcpHandle):
    """What all TCP connections have in common. One thread at a time may write, one may read, and any ask for
    ``state`` and ``info()``; a call that would race raises BusyError. Used after fork by the child:
    BrokenError.
    """

    # -- without waiting: a negative errno says why not ------------------------------------------------------

    def try_send(self, data: Any) -> int:
        """How many bytes of `data`, from its start, were taken. TypeError for what is no bytes."""
        if type(data) is not bytes:
            view = memoryview(data)
            if view.nbytes > _SHORT_BYTES:
                return self._try_send_at(view)
            data = bytes(view)
        if len(data) > _SHORT_BYTES:
            return self._try_send_at(memoryview(data))
        with self._inside.here(), self.using("send", self._writing):
            return int(tcp.short.write(self._used("send"), data, len(data)))

    def _try_send_at(self, view: memoryview) -> int:
        import numpy

        if not view.c_contiguous:
            view = memoryview(bytes(view))
        array = numpy.frombuffer(view, dtype=numpy.uint8)
        address, _ = array.__array_interface__["data"]
        with self._inside.here(), self.using("send", self._writing):
            return int(tcp.long.write(self._used("send"), address, array.nbytes))

    def try_alloc(self) -> memoryview | int:
        if self._block is not None:
            return self._block[1]
        addr, room = c_uint64(), c_uint32()
        with self._inside.here(), self.using("alloc", self._writing):
            result = int(tcp.short.alloc(self._used("alloc"), byref(addr), byref(room)))
            if result == 0:
                self._block = addr.value, self._stack.umem.area.view(addr.value, room.value)
                return self._block[1]
        return result

    def try_submit(self, n: int) -> int:
        assert self._block is not None
        addr, view = self._block
        with self._inside.here(), self.using("submit", self._writing):
            handle = self._used("submit")
            before = self._written(handle)
            # From here it is the send queue's, until that says no: a signal's handler may raise when the
            # call has returned, and what the queue has must not go back.
            self._block, is_taken = None, True
            try:
                result = int(tcp.short.submit(handle, addr, n))
                is_taken = result == 0
            except BaseException:
                is_taken = self._written(handle) != before
                raise
            finally:
                if not is_taken:
                    self._block = addr, view
        if result == 0:
            with contextlib.suppress(BufferError):  # something was derived from it
                view.release()
        return result

    def _written(self, handle: int) -> int:
        """Bytes that it has taken ever; who writes only."""
        tcp.short.info(handle, byref(self._words))
        return int(self._words.written_bytes)

    def check_submit(self, n: int) -> None:
        """ClosedError, ValueError."""
        if self._block is None:
            raise ClosedError("submit", self.name, "nothing is held; alloc() gives memory")
        room = len(self._block[1])
        if not 1 <= n <= room:
            raise ValueError(f"submit: {n} bytes; 1 to {room} are possible")

    def try_recv(self, n: int) -> bytes | int:
        """Up to `n` bytes; b"": the peer has ended its stream. ValueError for none."""
        if n < 1:
            raise ValueError(f"recv: {n} bytes; at least 1")
        n = min(n, self.options.receive_buffer_bytes)
        with self._inside.here(), self.using("recv", self._reading):
            if n > len(self._scratch):
                self._scratch = ctypes.create_string_buffer(n)
            result = self._read(ctypes.addressof(self._scratch), n)
            return ctypes.string_at(self._scratch, result) if result >= 0 else result

    def try_recv_into(self, view: memoryview) -> int:
        target = (ctypes.c_char * view.nbytes).from_buffer(view)
        with self._inside.here(), self.using("recv", self._reading):
            return self._read(ctypes.addressof(target), view.nbytes)

    def _read(self, address: int, n: int) -> int:
        functions = tcp.short if n <= _SHORT_BYTES else tcp.long
        return int(functions.read(self._used("recv"), address, n))

    def _used(self, operation: str) -> int:
        """The handle, while one of the locks is held."""
        if self._closed or self.handle is None:
            raise self.failed(operation, -errno.EPIPE)
        return self.handle

    # -- the life of it --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Sends SYN. By the stack."""
        tcp.native.connect(self.handle)

    def begin_shutdown(self) -> None:
        with self._inside.here(), self.using("shutdown", self._writing):
            if not self._shut:
                result = int(tcp.short.shutdown(self._used("shutdown")))
                if result < 0:
                    raise self.failed("shutdown", result)
                self._shut = True

    def begin_close(self) -> bool:
        """False: it was closed before. BusyError. What a signal's handler has interrupted goes on with the
        next call."""
        is_closing = self._closed and self._writing.locked() and self._reading.locked()
        if self._retired or is_closing or os.getpid() != self._pid:
            return False
        with (
            self._inside.here(),
            self.using("close", self._writing),
            self.using("close", self._reading),
        ):
            if self._retired:
                return False
            self._closed = True
            self._release_block()
            was_over = self.is_over
            if self.handle is not None:
                tcp.short.close(self.handle)
            self._stack.retire(self)
            self._retired = True
        self._stack.reap()
        return not was_over

    def check_closed(self) -> None:
        """After is_sent_off: not all has arrived."""
        number = self.error
        if not number or self._has_all():
            return
        if number == errno.ECONNABORTED:
            text = "closed with received data that nobody has read, which resets it; what was written is lost"
            raise TcpAbortedError("close", self.name, text, errno=number)
        raise self.ended("close", number)

    def abort(self) -> None:
        """Resets the connection: the peer gets an RST, and what it has not received is lost. Idempotent. Any
        thread.

            connection.abort()
        """
        if os.getpid() != self._pid:
            return
        with self._inside.here(), self._asking:
            if self.handle is not None:
                tcp.short.abort(self.handle)
        with contextlib.suppress(BusyError):  # who is inside hears of it, and closes it himself
            self.begin_close()

    def _release_block(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            with contextlib.suppress(BufferError):
                block[1].release()
            if self._stack.umem.handle is not None:
                native.frag_unref(self._stack.umem.handle, None, block[0])

    def release(self) -> None:
        """Frees it, once it is over or the loop has ended, and lets go of tuple and port. By the stack.
        Idempotent; what a signal's handler has interrupted goes on with the next call."""
        with self._inside.here(), self._writing, self._reading, self._asking:
            if self._released:
                return
            self._closed = True
            self._release_block()
            if self.handle is not None:
                self._last, self._last_error = self._info(), int(tcp.short.error(self.handle))
                with contextlib.suppress(OSError):  # the map goes with the engine
                    self._stack.steering.remove_tuple(self._ends.tuple)
                handle, self.handle = c_void_p(self.handle), None
                tcp.native.conn_destroy(handle)
            self._arena.close()
            self._ends.holder.close()
            self._released = True

    def forget(self) -> int:
        """In a forked child: everything is the parent's; the fd that it has a copy of."""
        self._writing, self._reading = threading.Lock(), threading.Lock()  # another thread may have had them
        self._asking = threading.RLock()
        self.handle = None
        self._closed = self._retired = self._released = True
        return self._ends.holder.detach()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self.remote[0]} port {self.remote[1]} {self.state}>"

    @property
    def closed(self) -> bool:
        """close() or abort() was called, or its engine's close()."""
        return self._closed

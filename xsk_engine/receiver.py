"""The receiving side of a umem: a Python thread inside one long native call, for all queues of an
interface."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
from collections.abc import Callable, Sequence
from ctypes import byref
from dataclasses import dataclass

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.libc import new_eventfd
from xsk_engine._ffi.native import native
from xsk_engine.arena import Arena
from xsk_engine.capture import Capture
from xsk_engine.checking import Checker
from xsk_engine.errors import BrokenError
from xsk_engine.netdev import NetDev
from xsk_engine.umem import Umem
from xsk_engine.xsk import RxXsk

# A loop looks at least every 100 ms whether it is to stop (native/receive.c).
_JOIN_S = 3.0
_TAGS_BYTES = 8  # two VLAN tags
_INSTRUCTION_BYTES = 8  # struct sock_filter, include/uapi/linux/filter.h


@dataclass(frozen=True)
class ReceiveStats:
    """What has come off the receive rings, at one moment."""

    packets: int
    """received, whatever they are"""
    bytes: int
    """of their frames, without FCS"""
    bad_descs: int
    """descs that no kernel may give: a kernel bug"""
    uncaptured_packets: int
    """the file of --pcap took too long for them"""
    overrun_packets: int
    """a packet socket had no room for them"""
    first_ns: int
    """CLOCK_MONOTONIC of the first, 0 if none"""
    last_ns: int
    """and of the last"""


class Receiver:
    """A thread that has what comes checked and captured: from AF_XDP sockets on all `xsks`, whose fill rings
    get chunks of `umem`, or from a packet socket with this classic BPF `packet_filter`. `busy_poll`: it never
    sleeps, and has the kernel poll the drivers of the `xsks`. `at_start`: what its thread does first.

    start(), stop() and close() in one thread; stats() and failure() from any. OSError. The sockets are closed
    between stop() and close(), by `close_sockets`: until then the kernel writes into the chunks."""

    def __init__(
        self,
        netdev: NetDev,
        checker: Checker | None,
        capture: Capture | None,
        *,
        umem: Umem | None = None,
        xsks: Sequence[RxXsk] = (),
        close_sockets: Callable[[], None] = lambda: None,
        packet_filter: bytes = b"",
        busy_poll: bool = False,
        at_start: Callable[[], None] = lambda: None,
    ) -> None:
        self._interface = netdev.name
        self._umem = umem
        self._close_sockets = close_sockets
        self._at_start = at_start
        self._counters = ffi.ReceiveCounters()
        self._failure: BrokenError | None = None
        self._thread: threading.Thread | None = None
        self._arena: Arena | None = None
        self._stack = contextlib.ExitStack()
        queues = (ffi.RxqConfig * len(xsks))(*(ffi.RxqConfig(x.rx, x.fill, x.fd) for x in xsks))
        instructions = ctypes.create_string_buffer(packet_filter, max(len(packet_filter), 1))
        with contextlib.ExitStack() as stack:
            stop_fd = new_eventfd()
            stack.callback(os.close, stop_fd)
            if umem is not None:
                self._arena = Arena(umem, umem.area.length // umem.chunk_size, 0)
                stack.callback(self._arena.close)
            config = ffi.ReceiverConfig(
                arena=self._arena.handle if self._arena is not None else None,
                queues=queues,
                queue_count=len(xsks),
                stop_fd=stop_fd,
                check=checker.handle if checker is not None else None,
                capture=capture.handle if capture is not None else None,
                counters=ctypes.pointer(self._counters),
                ifindex=netdev.ifindex,
                max_frame_bytes=netdev.max_frame_bytes + _TAGS_BYTES,
                filter=ctypes.addressof(instructions),
                filter_count=len(packet_filter) // _INSTRUCTION_BYTES,
                flags=ffi.RECEIVER_BUSY_POLL if busy_poll else 0,
            )
            with self._arena or contextlib.nullcontext():
                self._handle = ffi.create(native.receiver_create, byref(config))
            stack.callback(self._destroy)
            self._stack = stack.pop_all()

    def _destroy(self) -> None:
        self._close_sockets()
        with self._arena or contextlib.nullcontext():
            native.receiver_destroy(self._handle)

    def start(self) -> None:
        """From now on."""
        self._thread = threading.Thread(target=self._run, name=f"xsk-rx {self._interface}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._at_start()
            native.receiver_run(self._handle)
        except OSError as error:
            gone = "the device is gone" if error.errno == errno.ENXIO else "the kernel gives nothing more"
            self._failure = BrokenError("receive", self._interface, gone, errno=error.errno)
        except Exception as error:  # whatever it is: nobody would hear of it
            self._failure = BrokenError("receive", self._interface, f"its thread has died: {error!r}")

    def failure(self) -> BrokenError | None:
        """Why it has ended by itself, or None."""
        return self._failure

    def stats(self) -> ReceiveStats:
        """No system call."""
        return ReceiveStats(*(getattr(self._counters, name) for name in ReceiveStats.__dataclass_fields__))

    def stop(self) -> None:
        """Takes what has arrived, then nothing more. Idempotent. BrokenError when its thread does not end."""
        if self._thread is None:
            return
        native.receiver_stop(self._handle)
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            self._stack.pop_all()  # leaking what it uses is the lesser evil
            raise BrokenError("stop", self._interface, "its thread does not end; the receiver leaks")

    def audit(self) -> None:
        """Conservation, once it is stopped: every chunk that it has is the kernel's. BrokenError."""
        if self._umem is None:
            return
        audit = self._umem.audit()
        if audit.inflight != audit.referenced or self._counters.bad_descs:
            raise BrokenError("audit", self._interface, f"chunks are missing: {audit}", errno=errno.EUCLEAN)

    def close(self) -> None:
        """After stop(). Idempotent."""
        self._stack.close()

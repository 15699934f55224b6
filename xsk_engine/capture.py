"""What is sent, as it is sent, into a pcap file (draft-ietf-opsawg-pcap, times in nanoseconds)."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import select
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from ctypes import c_void_p
from typing import BinaryIO

from xsk_engine import shortage
from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.errors import BrokenError

_RING_BYTES = 16 << 20
"""lower: the loop waits for the disk sooner; higher: memory"""
_BLOCK_BYTES = 1 << 20
_POLL_S = 0.002
_PATIENCE_S = 1.0
"""for a file that takes nothing, once everything is sent"""
_SNAPLEN, _LINKTYPE_ETHERNET = 262144, 1
HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _SNAPLEN, _LINKTYPE_ETHERNET)
"""in front of the records, in this machine's byte order"""


class Capture:
    """The ring into which one loop copies what it posts, at most ``packets`` (0: all). While it is full the
    loop posts nothing, so somebody must read. ``clock``: the loop's; ``clock_start_ns``: of a loop with one
    of its own.

    Create and close in one thread, read in one."""

    def __init__(
        self, packets: int, *, clock: int = time.CLOCK_MONOTONIC, clock_start_ns: int | None = None
    ) -> None:
        if clock_start_ns is None:
            offset = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(clock)
        else:
            offset = -clock_start_ns
        self.handle: c_void_p | None = ffi.create(
            native.capture_create, _RING_BYTES, packets, offset & (1 << 64) - 1
        )
        self._block = ctypes.create_string_buffer(_BLOCK_BYTES)

    def read(self) -> bytes:
        """The next records' bytes; a record may be split between two calls. b"" when there are none now."""
        length = native.capture_read(self.handle, self._block, _BLOCK_BYTES)
        return ctypes.string_at(self._block, length)

    def stop(self) -> None:
        """It takes nothing more, and nobody waits for it. Any thread."""
        native.capture_close(self.handle)

    def close(self) -> None:
        """After the loop has ended. Idempotent."""
        handle, self.handle = self.handle, None
        if handle is not None:
            native.capture_destroy(handle)


class PcapWriter:
    """Drains captures into an unbuffered binary file in a thread of its own. Packets of several queues
    stand one queue's block behind the other's; their times tell the order.

    UnavailableError: no thread can be started. close() writes what is left; BrokenError when the file takes
    no more.
    """

    def __init__(self, file: BinaryIO, captures: Sequence[Capture]) -> None:
        self._file = file
        self._captures = list(captures)
        self._rest = [b""] * len(captures)
        self._failure: Exception | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pcap-out", daemon=True)
        with shortage.named("pcap-out", str(getattr(file, "name", ""))):
            self._thread.start()

    def _run(self) -> None:
        try:
            self._write(HEADER)
            while not self._stopped.is_set():
                if not self._drain():
                    self._stopped.wait(_POLL_S)
            while self._drain():
                pass
        except Exception as error:  # whatever it is: the loop waits for its reader
            self._failure = error
        for capture in self._captures:
            capture.stop()

    def _write(self, data: bytes) -> None:
        _write_all(self._file, data, self._stopped.is_set)

    def _drain(self) -> int:
        read = 0
        for i, capture in enumerate(self._captures):
            data = capture.read()
            read += len(data)
            if len(self._captures) > 1:
                data, self._rest[i] = _whole_records(self._rest[i] + data)
            self._write(data)
        return read

    def close(self) -> None:
        """While the captures are still open. Idempotent."""
        self._stopped.set()
        self._thread.join()  # which gives up when nobody reads
        failure, self._failure = self._failure, None
        if failure is not None:
            name = str(getattr(self._file, "name", ""))
            number = getattr(failure, "errno", None)
            raise BrokenError("pcap-out", name, "the file is not complete", errno=number)


def _whole_records(data: bytes) -> tuple[bytes, bytes]:
    """What can be written now, and the beginning of a record."""
    at = 0
    while len(data) >= at + 16:
        end = at + 16 + int(struct.unpack_from("=8xI", data, at)[0])
        if end > len(data):
            break
        at = end
    return data[:at], data[at:]


def _write_all(file: BinaryIO, data: bytes, is_last: Callable[[], bool]) -> None:
    """OSError. Once `is_last`, a file that takes nothing for a while is given up."""
    left, since = memoryview(data), time.monotonic()
    fd = file.fileno()
    waits = os.get_blocking(fd) and not stat.S_ISREG(os.fstat(fd).st_mode)
    most = select.PIPE_BUF if waits else len(data)
    while left:
        if select.select([], [fd], [], _PATIENCE_S / 10)[1]:
            written = file.write(left[:most])  # a part of it, or None: it was not ready
            if written:
                left, since = left[written:], time.monotonic()
        elif is_last() and time.monotonic() - since > _PATIENCE_S:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def write_blocks(file: BinaryIO, blocks: Iterable[bytes]) -> int:
    """Records into an unbuffered file; how many bytes. OSError. Waits for a slow reader."""
    total = 0
    for block in itertools.chain([HEADER], blocks):
        _write_all(file, block, lambda: False)
        total += len(block)
    return total

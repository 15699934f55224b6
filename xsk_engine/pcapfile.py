"""Capture files, read by libpcap: pcap and pcapng, times in us or ns, compressed or not."""

from __future__ import annotations

import bz2
import contextlib
import ctypes
import gzip
import io
import lzma
import os
import select
import stat
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from ctypes import c_void_p
from typing import Any

from xsk_engine import shortage
from xsk_engine._ffi import libpcap

_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_BLOCK_BYTES = 1 << 16
_LOOK_S = 0.1
"""how long a pipe without data is waited for before somebody may say stop"""
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)


def can_be_read_twice(path: str) -> bool:
    """A regular file; neither a pipe nor stdin. ValueError: it is not there, or a directory."""
    if path == "-":
        if sys.stdin is None:
            raise ValueError("-: stdin is closed")
        return False
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path}: it is a directory")
    return stat.S_ISREG(mode)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """Its descriptor, for passes one after the other. ValueError: as PcapFile."""
    fd = _open(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _open(path: str) -> int:
    try:
        if path == "-":
            return os.dup(0)
        # A named pipe that nobody writes to yet would be waited for.
        flags = os.O_RDONLY | os.O_CLOEXEC | (0 if can_be_read_twice(path) else os.O_NONBLOCK)
        return os.open(path, flags)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


class _Source(io.RawIOBase):
    """What is behind a file descriptor; ends when somebody says so, also while there is nothing in it."""

    def __init__(self, fd: int, is_over: Callable[[], bool]) -> None:
        self._fd = fd
        self._is_over = is_over

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._is_over():
            if select.select([self._fd], [], [], _LOOK_S)[0]:
                return os.readv(self._fd, [buffer])
        return 0

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class PcapFile:
    """One pass over a file; ``-`` is stdin. ValueError: not there, not readable, not a capture of Ethernet.
    `fd`: what opened() has given for it, read from its beginning.

    One thread at a time. It ends as if the file did once ``is_over`` says so, also while it waits for a pipe.
    """

    def __init__(self, path: str, is_over: Callable[[], bool] = lambda: False, fd: int | None = None) -> None:
        self._pcap = libpcap.load()
        self._path = path
        self._handle: int | None = None
        self._is_over = is_over
        self._closed = threading.Event()
        self._pump: threading.Thread | None = None
        self._source_damage = self._file_damage = ""
        try:
            self._open_pcap(self._stream(_open(path) if fd is None else os.dup(fd)))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None

    def _stream(self, fd: int) -> int:
        """What libpcap reads: the file, or a pipe into which a thread puts what is in it. libpcap could not
        be stopped while it waits for a pipe of somebody else's."""
        if self._path != "-" and stat.S_ISREG(os.fstat(fd).st_mode):
            os.lseek(fd, 0, os.SEEK_SET)
            start = os.pread(fd, 8, 0)
            if not any(start.startswith(magic) for magic in _COMPRESSED):
                return fd
        reading, writing = os.pipe()
        source = io.BufferedReader(
            _Source(fd, lambda: self._closed.is_set() or self._is_over()), _BLOCK_BYTES
        )
        pump = threading.Thread(target=self._run_pump, args=(source, writing), name="pump", daemon=True)
        try:
            with shortage.named("read", self._path):
                pump.start()
        except BaseException:
            source.close()
            os.close(reading)
            os.close(writing)
            raise
        self._pump = pump
        return reading

    def _run_pump(self, source: io.BufferedReader, writing: int) -> None:
        try:
            with open(writing, "wb", buffering=0) as pipe, source:
                start = source.peek(8)
                opener = next((o for magic, o in _COMPRESSED.items() if start.startswith(magic)), None)
                file = source if opener is None else opener(source, "rb")
                while block := file.read1(_BLOCK_BYTES):  # what stands before a damage comes first
                    left = memoryview(block)
                    while left:  # who is stopped and continued has written a part
                        left = left[pipe.write(left) :]
        except BrokenPipeError:  # closed before its end
            pass
        except _UNREADABLE as error:
            self._source_damage = str(error)

    def _open_pcap(self, fd: int) -> None:
        reason = ctypes.create_string_buffer(libpcap.ERRBUF_BYTES)
        stream = self._pcap.stdio.fdopen(fd, b"rb")
        handle = self._pcap.fopen_offline_with_tstamp_precision(stream, libpcap.TSTAMP_PRECISION_NANO, reason)
        if handle is None:
            self._pcap.stdio.fclose(stream)
            self.close()
            raise ValueError(f"{self._path}: {self._source_damage or reason.value.decode(errors='replace')}")
        self._handle = handle  # and the stream with it
        link = self._pcap.datalink(handle)
        if link != libpcap.LINKTYPE_ETHERNET:
            name = self._pcap.datalink_val_to_description(link) or b"unknown"
            self.close()
            raise ValueError(f"{self._path}: its packets are {name.decode()}, not Ethernet")

    def feed(self, handler: int, user: c_void_p, most: int) -> int:
        """Calls the native pcap_handler at this address for the next packets, at most `most`; how many, 0 at
        the end. GIL released."""
        read: int = self._pcap.dispatch(self._handle, most, handler, user)
        if read < 0:
            self._file_damage = self._pcap.geterr(self._handle).decode(errors="replace")
            return 0
        return read

    @property
    def damage(self) -> str:
        """Why it ended before its end; "" when it did not."""
        return self._source_damage or self._file_damage

    def close(self) -> None:
        """Idempotent."""
        handle, self._handle = self._handle, None
        self._closed.set()
        if handle is not None:
            self._pcap.close(handle)
        if self._pump is not None:
            self._pump.join()

    def __enter__(self) -> PcapFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""Capture files, read by libpcap: pcap and pcapng, times in us or ns, compressed or not."""

from __future__ import annotations

import bz2
import contextlib
import ctypes
import gzip
import lzma
import os
import stat
import threading
import zlib
from collections.abc import Callable
from ctypes import c_void_p
from typing import Any

from xsk_engine._ffi import libpcap

_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_BLOCK_BYTES = 1 << 16
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)


def _opener(path: str) -> Callable[..., Any] | None:
    """What decompresses it; None: nothing."""
    with open(path, "rb") as file:
        start = file.read(8)
    return next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), None)


def can_be_read_twice(path: str) -> bool:
    """A regular file; neither a pipe nor stdin. ValueError: it is not there."""
    try:
        return path != "-" and stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


class PcapFile:
    """One pass over a file; ``-`` is stdin. ValueError: not there, not readable, not a capture of Ethernet.

    One thread at a time.
    """

    def __init__(self, path: str) -> None:
        self._pcap = libpcap.load()
        self._path = path
        self._handle: int | None = None
        self._decompressor: threading.Thread | None = None
        self._damage = ""
        try:
            fd = self._open()
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        self._open_pcap(fd)

    def _open(self) -> int:
        if self._path == "-":
            return os.dup(0)
        opener = _opener(self._path) if can_be_read_twice(self._path) else None
        if opener is None:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        reading, writing = os.pipe()
        self._decompressor = threading.Thread(
            target=self._decompress, args=(opener, writing), name="decompress", daemon=True
        )
        self._decompressor.start()
        return reading

    def _decompress(self, opener: Callable[..., Any], writing: int) -> None:
        try:
            with open(writing, "wb") as pipe, opener(self._path, "rb") as file:
                while block := file.read1(_BLOCK_BYTES):  # what stands before a damage comes first
                    pipe.write(block)
        except BrokenPipeError:  # closed before its end
            pass
        except _UNREADABLE as error:
            self._damage = str(error)

    def _open_pcap(self, fd: int) -> None:
        reason = ctypes.create_string_buffer(libpcap.ERRBUF_BYTES)
        stream = self._pcap.stdio.fdopen(fd, b"rb")
        handle = self._pcap.fopen_offline_with_tstamp_precision(stream, libpcap.TSTAMP_PRECISION_NANO, reason)
        if handle is None:
            self._pcap.stdio.fclose(stream)
            raise ValueError(f"{self._path}: {reason.value.decode(errors='replace')}")
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
            self._damage = self._pcap.geterr(self._handle).decode(errors="replace")
            return 0
        return read

    @property
    def damage(self) -> str:
        """Why it ended before its end; "" when it did not."""
        return self._damage

    def close(self) -> None:
        """Idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._pcap.close(handle)
        if self._decompressor is not None:
            self._decompressor.join()

    def __enter__(self) -> PcapFile:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):
            self.close()

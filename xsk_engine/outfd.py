"""Descriptors to write to that hold up nobody: not who writes, and not others who have the same file open."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import stat
import sys
from collections.abc import Iterator
from typing import TextIO

_AT_ONCE_BYTES = 4096
"""PIPE_BUF: what a pipe that is ready takes without making us wait (pipe(7)), where it is not our own"""
_LOOK_S = 1.0


def opened(path: str) -> int:
    """Of a new or emptied file; ``-`` is stdout. A FIFO waits for its reader here only.
    OSError."""
    if path == "-" and sys.stdout is None:  # closed before we were started
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), path)
    if path == "-":
        return own(1)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        return own(fd)
    finally:
        os.close(fd)


def own(fd: int) -> int:
    """Another descriptor of the same pipe or terminal, non-blocking all by itself: O_NONBLOCK belongs to the
    open file, which a shell, a terminal and other programs share (open(2)). Of anything else, and of what may
    not be opened again, a duplicate; who writes to that asks first, and writes little. OSError."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        flags = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK
        with contextlib.suppress(OSError):  # it was opened by somebody who might, or has no reader now
            return os.open(f"/proc/self/fd/{fd}", flags)
    return os.dup(fd)


class Outlet:
    """What is on its way to a descriptor, as of own(). One thread."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.waiting = bytearray()

    def push(self, timeout_s: float = 0) -> None:
        """As much as it takes now, or after up to so long each time. OSError: it takes no more."""
        while self.waiting and select.select([], [self.fd], [], timeout_s)[1]:
            try:
                written = os.write(self.fd, self.waiting[:_AT_ONCE_BYTES])
            except BlockingIOError:
                return
            del self.waiting[:written]

    def push_all(self) -> None:
        """However long it takes; a signal's handler may raise. OSError."""
        while self.waiting:
            self.push(_LOOK_S)


class Patient(io.RawIOBase):
    """Waits where a non-blocking descriptor takes no more; Python's files leave it out then."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        while True:
            select.select([], [self._fd], [])  # a signal's handler may raise here, with nothing written
            with contextlib.suppress(BlockingIOError):
                return os.write(self._fd, data[:_AT_ONCE_BYTES])


class _Shown(io.TextIOBase):
    def __init__(self, fd: int, encoding: str) -> None:
        super().__init__()
        self._outlet = Outlet(fd)
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._outlet.fd)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._outlet.push()
            if not self._outlet.waiting:
                self._outlet.waiting += text.encode(self._encoding, "replace")
                self._outlet.push()
        return len(text)


@contextlib.contextmanager
def shown() -> Iterator[TextIO]:
    """stderr, for what a person is shown while something runs. Nobody is waited for: what finds no room is
    left out, whole pieces of it, and a reader that goes away ends nothing. Where somebody has put a stderr of
    his own in Python, that."""
    number = -1
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = sys.stderr.fileno()
    if number != 2:
        yield sys.stderr
        return
    fd = own(2)
    try:
        yield _Shown(fd, sys.stderr.encoding)  # type: ignore[misc]
    finally:
        os.close(fd)

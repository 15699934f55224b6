"""Text that a user names by its file."""

from __future__ import annotations

import errno
import sys

_MOST_MIB = 64


def read(path: str, most_mib: int, *, is_stdin: bool = False) -> str:
    """OSError: it cannot be read, or has no end (more than so many Mi characters). UnicodeDecodeError: no
    text."""
    if is_stdin and sys.stdin is None:  # closed before we were started
        raise OSError(errno.EBADF, "it is closed", path)
    with open(0 if is_stdin else path, encoding="utf-8", closefd=not is_stdin) as file:
        text = file.read((most_mib << 20) + 1)
    if len(text) > most_mib << 20:
        raise OSError(errno.EFBIG, f"it is longer than {most_mib} MiB", path)
    return text


def read_lines(path: str) -> list[str]:
    """As read(); its lines."""
    return read(path, _MOST_MIB).split("\n")

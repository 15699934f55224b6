"""Text that a user names by its file."""

from __future__ import annotations

import errno

_MOST_CHARACTERS = 64 << 20


def read_lines(path: str) -> list[str]:
    """OSError: it cannot be read, or has no end (more than 64 Mi characters). UnicodeDecodeError: no text."""
    with open(path, encoding="utf-8") as file:
        text = file.read(_MOST_CHARACTERS + 1)
    if len(text) > _MOST_CHARACTERS:
        raise OSError(errno.EFBIG, "it is longer than 64 MiB", path)
    return text.split("\n")

"""What a stream's transport holds because the connection has no room for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

HIGH_WATER = 64 << 10  # as asyncio's own
# Pieces below the first are joined up to the second. Lower: a segment for each small write; higher: copies
# for nothing.
_SMALL_BYTES, _JOINED_BYTES = 4 << 10, 64 << 10


def water_marks(high: int | None, low: int | None) -> tuple[int, int]:
    """(high, low) as asyncio.WriteTransport.set_write_buffer_limits means them. ValueError unless
    high >= low >= 0."""
    if high is None:
        high = HIGH_WATER if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    return high, low


class WriteBuffer:
    """Bytes in order. `tell`: called with "pause_writing" above the high-water mark, and with
    "resume_writing" at the low one."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.high, self.low = HIGH_WATER, HIGH_WATER // 4
        self.size = 0
        """bytes"""
        self._pieces: deque[memoryview] = deque()
        self._tell = tell
        self._paused = False

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def set_limits(self, high: int | None, low: int | None) -> None:
        """As asyncio.WriteTransport. ValueError unless high >= low >= 0."""
        self.high, self.low = water_marks(high, low)
        self.note()

    def add(self, piece: memoryview) -> None:
        """Which nobody writes any more."""
        self._pieces.append(piece)
        self.size += len(piece)
        self.note()

    def first(self) -> memoryview:
        """The first piece, or several small ones together."""
        first = self._pieces[0]
        if len(first) < _SMALL_BYTES and len(self._pieces) > 1:
            parts, size = [first], len(self._pieces.popleft())
            while self._pieces and size + len(self._pieces[0]) <= _JOINED_BYTES:
                size += len(self._pieces[0])
                parts.append(self._pieces.popleft())
            first = memoryview(b"".join(parts))
            self._pieces.appendleft(first)
        return first

    def took(self, n: int) -> None:
        """So many bytes of the first piece have gone; note() tells, when that is done."""
        self.size -= n
        if n == len(self._pieces[0]):
            self._pieces.popleft()
        else:
            self._pieces[0] = self._pieces[0][n:]

    def clear(self) -> None:
        """Nobody is told."""
        self._pieces.clear()
        self.size = 0

    def note(self) -> None:
        """Tells, if there is something to tell."""
        if not self._paused and self.size > self.high:
            self._paused = True
            self._tell("pause_writing")
        elif self._paused and self.size <= self.low:
            self._paused = False
            self._tell("resume_writing")

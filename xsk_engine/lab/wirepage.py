"""The page in which a wire counts: memory that its process shares with whoever has the page's fd."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from typing import Any

from xsk_engine._ffi import native as ffi
from xsk_engine.lab.wirespec import BACK, FORWARD, WireSpec, parse_wire

NAME = "xsk-wire"
"""of the memfd, by which it is found among a process's fds"""

# The specification's text, then a block of counters per direction.
_BYTES, _BLOCK_BYTES = 4096, 1024

_SETTLE_S = 0.06
"""a wire looks at its receive ring at least every 50 ms"""


class WirePage:
    """Owns `fd`. Any thread."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _BYTES)

    @staticmethod
    def create(spec: WireSpec) -> WirePage:
        """A new one, its fd close-on-exec."""
        fd = os.memfd_create(NAME)
        os.truncate(fd, _BYTES)
        page = WirePage(fd)
        text = str(spec).encode()
        page._map[: len(text)] = text
        return page

    def close(self) -> None:
        """The fd; who reads its counters at the moment may go on."""
        os.close(self.fd)

    @property
    def spec(self) -> WireSpec:
        """What the wire was made with."""
        return parse_wire(self._map[:_BLOCK_BYTES].rstrip(b"\0").decode())

    def counters(self, direction: int) -> Any:
        """The block itself, for the wire to write."""
        return ffi.WireCounters.from_buffer(self._map, (1 + direction) * _BLOCK_BYTES)

    def read(self) -> dict[str, Any]:
        """``{"wire": ..., "forward": {"taken_packets": ..., ...}, "back": {...}}``."""
        report: dict[str, Any] = {"wire": str(self.spec)}
        for direction, name in ((FORWARD, "forward"), (BACK, "back")):
            copy = ffi.WireCounters()
            ffi.native.wire_read(ctypes.byref(self.counters(direction)), ctypes.byref(copy))
            report[name] = {field: getattr(copy, field) for field, *_ in ffi.WireCounters._fields_}
        return report

    def settled(self, timeout_s: float) -> dict[str, Any]:
        """The counts once the wire holds nothing and nothing new has come for a moment; after `timeout_s`
        whatever they are."""
        deadline = time.monotonic() + timeout_s
        last = self.read()
        while True:
            time.sleep(_SETTLE_S)
            now = self.read()
            held = now["forward"]["held_packets"] + now["back"]["held_packets"]
            if (now == last and not held) or time.monotonic() > deadline:
                return now
            last = now

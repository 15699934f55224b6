"""What a soak holds at each moment, and whether that is flat."""

from __future__ import annotations

import ctypes
import itertools
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class _Mallinfo(ctypes.Structure):
    """mallinfo2(3)."""

    _NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _NAMES.split()]


_libc = ctypes.CDLL(None)
_M_ARENA_MAX = -8  # mallopt(3)
_libc.mallinfo2.restype = _Mallinfo

MIB = 1 << 20
# Of each how much more per 10 minutes is still flat, and in which unit. Lower: pages that cannot be given
# back because something else lies in them; higher: 1 MiB is 1800 bytes a second, and less is not seen.
SLOPES = {
    "rss_bytes": (1.0, MIB, "MiB"),
    "malloc_bytes": (0.5, MIB, "MiB"),
    "python_blocks": (2000.0, 1, "blocks"),
    "mappings": (20.0, 1, "mappings"),
}
JUDGED_FROM_S = 120.0
"""a last half that is shorter says nothing of slopes"""
EXACT = ("fds", "threads", "socket_mappings")


def few_arenas() -> None:
    """Before there are threads: glibc gives each its own arena, up to 8 per core, and what is left over in
    all of them grew for as long as it was watched (290 s)."""
    _libc.mallopt(_M_ARENA_MAX, 2)


def trim() -> None:
    """What malloc keeps and nobody uses goes back to the system: the rest is held by somebody."""
    _libc.malloc_trim(0)


def held() -> dict[str, int]:
    """By this process, now."""
    malloc = _libc.mallinfo2()
    maps = Path("/proc/self/maps").read_text()
    return {
        "rss_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"),
        "malloc_bytes": malloc.uordblks + malloc.hblkhd,
        "python_blocks": sys.getallocatedblocks(),
        "fds": len(os.listdir("/proc/self/fd")) - 1,  # without the one that reads
        "threads": len(os.listdir("/proc/self/task")),
        "mappings": maps.count("\n"),
        "socket_mappings": maps.count("socket:"),
    }


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    found: str
    bound: str
    ok: bool


def slope(points: Sequence[tuple[str, float, float]]) -> float | None:
    """Theil and Sen's: the median of the slopes between any two points (group, x, y) of the same group; a few
    that lie far off do not move it."""
    slopes = [
        (y2 - y1) / (x2 - x1)
        for (group1, x1, y1), (group2, x2, y2) in itertools.combinations(points, 2)
        if group1 == group2 and x1 != x2
    ]
    return statistics.median(slopes) if slopes else None


def findings(samples: Sequence[dict[str, Any]]) -> list[Finding]:
    """Of the samples at rest: between two rounds or two engines. Those of one `place` hold the same."""
    found = []
    places = {sample["place"]: sample for sample in reversed(samples)}  # the first of each
    for name in EXACT:
        off = [s for s in samples if s[name] > places[s["place"]][name]]
        last = samples[-1] if samples else {}
        told = (
            f"{off[-1][name]} at {off[-1]['at_s']:.0f} s, {places[off[-1]['place']][name]} before"
            if off
            else f"{last.get(name)}"
        )
        found.append(Finding(name, told, "as at the first rest of its kind", bool(samples) and not off))
    last_half = [s for s in samples if s["at_s"] >= samples[-1]["at_s"] / 2]
    seconds = last_half[-1]["at_s"] - last_half[0]["at_s"] if last_half else 0.0
    for name, (bound, unit, text) in SLOPES.items():
        per_s = slope([(s["place"], s["at_s"], s[name] / unit) for s in last_half])
        if per_s is None or seconds < JUDGED_FROM_S:
            found.append(Finding(f"{name}, slope", "too short to say", "", True))
            continue
        told = f"{per_s * 600:+.2f} {text} per 10 min"
        found.append(Finding(f"{name}, slope", told, f"below {bound:g}", per_s * 600 < bound))
    return found

"""Where counted instructions were: what the QEMU plugin says of translated blocks, as functions. In the guest."""

from __future__ import annotations

import bisect
import subprocess
from collections import Counter
from pathlib import Path

BLOCKS = Path("/run/shared/instructions.blocks")
_KERNEL_FROM = 1 << 63


class Symbols:
    """Names of addresses, by the one at or before them."""

    def __init__(self, symbols: list[tuple[int, str]]) -> None:
        symbols.sort()
        self._starts = [start for start, _ in symbols]
        self._names = [name for _, name in symbols]

    def name(self, address: int) -> str:
        index = bisect.bisect_right(self._starts, address) - 1
        return self._names[index] if index >= 0 else "unknown"


def _kernel() -> Symbols:
    """Also modules' ("name [igb]") and BPF programs', as long as they are loaded."""
    lines = (line.split(maxsplit=2) for line in Path("/proc/kallsyms").read_text().splitlines())
    return Symbols(
        [(int(where, 16), name.replace("\t", " ")) for where, kind, name in lines if kind in "tTwW"]
    )


def _library(path: str) -> Symbols:
    said = subprocess.run(["nm", path], capture_output=True, text=True, check=True, timeout=60).stdout
    found = (line.split() for line in said.splitlines())
    return Symbols([(int(one[0], 16), one[2]) for one in found if len(one) == 3 and one[1] in "tT"])


def _mapped(address: int, maps: list[tuple[int, int, int, str]]) -> tuple[str, int]:
    """The file of this process at an address, and the offset from where its first mapping begins."""
    for start, end, first, path in maps:
        if start <= address < end:
            return path, address - first
    return "another process", 0


def _own_maps() -> list[tuple[int, int, int, str]]:
    first: dict[str, int] = {}
    maps = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        parts = line.split(maxsplit=5)
        if len(parts) == 6:
            start, end = (int(text, 16) for text in parts[0].split("-"))
            maps.append((start, end, first.setdefault(parts[5], start), parts[5]))
    return maps


def by_function(library: str) -> dict[str, dict[str, int]]:
    """Instructions of the last region: "kernel" and "user", each by function. Those of `library` in this process
    by name, others' by file. Empty without the plugin."""
    if not BLOCKS.exists():
        return {}
    kernel, ours, maps = _kernel(), _library(library), _own_maps()
    found: dict[str, Counter[str]] = {"kernel": Counter(), "user": Counter()}
    for line in BLOCKS.read_text().splitlines():
        address, count = int(line.split()[0], 16), int(line.split()[1])
        if address >= _KERNEL_FROM:
            found["kernel"][kernel.name(address)] += count
            continue
        path, offset = _mapped(address, maps)
        found["user"][ours.name(offset) if path == library else Path(path).name] += count
    return {where: dict(counter.most_common()) for where, counter in found.items()}

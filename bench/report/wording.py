"""Numbers and names as a reader wants them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_SUFFIXES = {"packets/s": "pps", "Gbit/s": "gbps", "Mbit/s": "mbps"}
"""how a unit ends a figure's name, where that is not the unit itself"""
_WRITTEN = {"cpu": "CPU", "dma": "DMA", "iommu": "IOMMU", "tcp": "TCP", "acks": "ACKs", "ack": "ACK"}
_MOST_DIGITS = 4


def plain(text: object) -> str:
    """One line without what a terminal would obey."""
    return "".join(sign for sign in " ".join(str(text).split()) if sign.isprintable())


def number(value: float) -> str:
    """1,234,567; 123; 12.3; 1.23; 0.0123; whole numbers as they are."""
    size = abs(value)
    if size >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.3g}"


def times(value: float, digits: int = 2) -> str:
    """A ratio: 12,345; 12.3; 0.98; 0.012."""
    if abs(value) >= 10:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
    return f"{value:.{digits}f}" if abs(value) >= 0.1 else f"{value:.2g}"


def ratio(of: Mapping[str, Any]) -> str:
    """Median and interval; where rounds were not kept, extremes, and said so, if those were. As many digits
    as it takes that the median reads on its own side of its target."""
    digits = next((n for n in range(2, _MOST_DIGITS) if not _hides(of, n)), _MOST_DIGITS)
    median = times(of["median"], digits)
    for low, high, what in (("low", "high", ""), ("min", "max", ", extremes")):
        if low in of:
            return f"{median} ({times(of[low], digits)} to {times(of[high], digits)}{what})"
    return median


def _hides(of: Mapping[str, Any], digits: int) -> bool:
    if "target" not in of:
        return False
    sign, bound = str(of["target"]).split()[:2]
    shown = float(times(of["median"], digits).replace(",", ""))
    return (shown >= float(bound) if sign == ">=" else shown <= float(bound)) != bool(of["met"])


def verdict(met: bool) -> str:
    return "met" if met else "not met"


def change(percent: float) -> str:
    """With its sign."""
    return "from 0" if math.isinf(percent) else f"{percent:+.1f} %"


def heading(name: str, unit: str) -> str:
    """Of a figure's column: `cpu_user_ns_per_packet` in ns/packet is "CPU user, ns/packet"."""
    words = re.sub(r"(?<=p99)_(?=9)", ".", _without(name, unit)).replace("_", " ").split()
    text = " ".join(_WRITTEN.get(word, word) for word in words)
    return plain(f"{text}, {unit}" if text and unit else text or unit)


def _without(name: str, unit: str) -> str:
    """A figure's name without the unit, or its beginning, behind."""
    suffix = "percent" if unit.startswith("%") else _SUFFIXES.get(unit)
    suffix = suffix or unit.lower().replace("/", "_per_").replace(" ", "_")
    while suffix:
        if name == suffix or name.endswith(f"_{suffix}"):
            return name[: -len(suffix)].rstrip("_")
        suffix = suffix.rpartition("_")[0]
    return name


def machine(of: Mapping[str, Any]) -> str:
    """The machine of a result in a few words."""
    cpu, cores, kernel = (of.get(name, "unknown") for name in ("cpu", "cores", "kernel"))
    return plain(f"{cpu}, {cores} cores, Linux {kernel}")

"""Figures: what is made of samples, with their units and which way is better. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.arm import Sample


@dataclass(frozen=True)
class Figure:
    """``of``: its value for one sample. ``pooled``: of all rounds' samples added up, as one value; for what a
    single run counts too coarsely, as CPU time in ticks of 4 or 10 ms. ``better``: "more" or "less", or None
    where neither is."""

    name: str
    unit: str
    of: Callable[[Sample], float]
    better: str | None = "more"
    pooled: bool = False

    def values(self, samples: Sequence[Sample]) -> list[float]:
        """One for every sample, or one for all. Empty where they have no such counts."""
        try:
            if self.pooled:
                return [self.of({key: sum(one[key] for one in samples) for key in samples[0]})]
            return [self.of(one) for one in samples]
        except (KeyError, IndexError, ZeroDivisionError):
            return []

    def as_json(self) -> dict[str, Any]:
        return {"unit": self.unit, "better": self.better, "pooled": self.pooled}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, extremes, and the values themselves in the order of their rounds; six digits are kept."""
    return {
        "median": rounded(statistics.median(values)),
        "min": rounded(min(values)),
        "max": rounded(max(values)),
        "rounds": [rounded(value) for value in values],
    }


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


def value(name: str, unit: str, better: str | None = "more", *, pooled: bool = False) -> Figure:
    """A figure that the sample holds as it is."""
    return Figure(name, unit, lambda one: one[name], better, pooled)


def _per(count: str, per: str, scale: float = 1.0) -> Callable[[Sample], float]:
    return lambda one: scale * one[count] / one[per]


PPS = Figure("pps", "packets/s", _per("packets", "seconds"))
GBPS = Figure("gbps", "Gbit/s", _per("bytes", "seconds", 8e-9))
"""of what ``bytes`` counts: frames of a stream, payload of TCP"""
CPU_KINDS = ("user", "system", "softirq")
CPU_PER_PACKET = tuple(
    Figure(f"cpu_{kind}_ns_per_packet", "ns/packet", _per(f"cpu_{kind}_s", "packets", 1e9), "less", True)
    for kind in CPU_KINDS
)
CPU_PER_GIGABYTE = tuple(
    Figure(f"cpu_{kind}_s_per_gb", "s/GB", _per(f"cpu_{kind}_s", "bytes", 1e9), "less", True)
    for kind in CPU_KINDS
)
"""bytes of payload"""
CPU_TOTAL_PER_GIGABYTE = Figure(
    "cpu_s_per_gb",
    "s/GB",
    lambda one: 1e9 * sum(one[f"cpu_{kind}_s"] for kind in CPU_KINDS) / one["bytes"],
    "less",
    True,
)

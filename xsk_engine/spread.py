"""How many times are spread: the figures of a histogram in JSON's types, and in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from xsk_engine.units import format_ns

_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p99_9": 99.9}
TOLD = ("min", *_PERCENTILES, "max")


class Times(Protocol):
    """A histogram over ns."""

    @property
    def count(self) -> int: ...

    @property
    def mean_ns(self) -> float: ...

    @property
    def min_ns(self) -> int: ...

    @property
    def max_ns(self) -> int: ...

    def percentile_ns(self, percent: float) -> int:
        """At most a bucket above the true one."""


def as_dict(times: Times, buckets: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Mean, extremes and percentiles; `buckets` as [largest ns, how many]."""
    return {
        "count": times.count,
        "mean_ns": round(times.mean_ns, 3),
        "min_ns": times.min_ns,
        **{f"{name}_ns": times.percentile_ns(percent) for name, percent in _PERCENTILES.items()},
        "max_ns": times.max_ns,
        "buckets": [list(bucket) for bucket in buckets],
    }


def in_words(figures: Mapping[str, Any], told: Iterable[str] = TOLD) -> str:
    """``min 1.4 us, p50 1.6 us, p99.9 ...`` of what as_dict() has made."""
    return ", ".join(f"{name.replace('_', '.')} {format_ns(figures[f'{name}_ns'])}" for name in told)

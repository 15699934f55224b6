"""Ratios of two arms, round by round, how sure they are, and whether they are what they should be. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from bench.figures import rounded, spread

RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 1  # the same rounds give the same interval


@dataclass(frozen=True)
class Target:
    """A bound of a median. ``required``: else an aim."""

    bound: float
    at_least: bool
    required: bool = True

    def is_met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}{'' if self.required else ' (aim)'}"


def quotients(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of the same round; without rounds in which the machine stood still, so that one of both is 0.
    ValueError: not as many of both."""
    if len(ours) != len(theirs):
        raise ValueError(f"ratio: {len(ours)} rounds of ours, {len(theirs)} of theirs")
    return [a / b for a, b in zip(ours, theirs, strict=True) if a > 0 and b > 0]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap: between these is the median of 95 % of the samples that are drawn, with repetition, from
    `values` (Efron 1979). One value: itself, twice. ValueError: none."""
    if not values:
        raise ValueError("interval: no values")
    random = numpy.random.default_rng(_SEED)
    drawn = random.choice(numpy.asarray(values, dtype=float), size=(RESAMPLES, len(values)))
    tail = (1 - CONFIDENCE) / 2
    low, high = numpy.quantile(numpy.median(drawn, axis=1), [tail, 1 - tail])
    return float(low), float(high)


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Median, extremes and rounds of ours : theirs, with the interval of the median: low, high. ValueError:
    not as many rounds of both, or none that both have."""
    values = quotients(ours, theirs)
    if not values:
        raise ValueError("ratio: no round in which both did something")
    low, high = interval(values)
    return spread(values) | {"low": rounded(low), "high": rounded(high)}


def significant(a: Sequence[float], b: Sequence[float]) -> bool:
    """Do the intervals of both medians lie apart?"""
    (a_low, a_high), (b_low, b_high) = interval(a), interval(b)
    return a_high < b_low or b_high < a_low


def percent(before: float, after: float) -> float:
    """Of change; infinite from 0."""
    if before == 0:
        return math.copysign(math.inf, after) if after else 0.0
    return (after / before - 1) * 100

"""Ratios of two arms, round by round, and whether they are what they should be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.harness import spread


@dataclass(frozen=True)
class Target:
    """A bound of a ratio's median. ``required``: else an aim, or None for a figure that is only published."""

    bound: float
    at_least: bool
    required: bool = True

    def is_met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}{'' if self.required else ' (aim)'}"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """The spread of ours : theirs, each of one round. ValueError: not as many of both, or none."""
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"ratio: {len(ours)} rounds of ours, {len(theirs)} of theirs")
    return {name: round(value, 4) for name, value in spread(_quotients(ours, theirs)).items()}


def _quotients(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def judged(of: dict[str, float], target: Target | None) -> dict[str, Any]:
    """A ratio's spread with its target and whether its median meets it; for the results."""
    if target is None:
        return dict(of)
    return of | {"target": str(target), "met": target.is_met(of["median"])}


def cell(of: dict[str, float], digits: int = 2) -> str:
    """Median (extremes)."""
    return f"{of['median']:.{digits}f} ({of['min']:.{digits}f} to {of['max']:.{digits}f})"


def verdict_cells(of: dict[str, Any]) -> tuple[str, str]:
    """What was wanted, and "met" or "not met"; empty without a target."""
    if "target" not in of:
        return "", ""
    return of["target"], "met" if of["met"] else "not met"

"""Parsing of what users write: ``1Mpps``, ``5s``, ``0,2-3``. Pure; errors are ``ValueError``.

k, M and G are 1000, rates name their layer; times are s, ms, us.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_DECIMAL = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3}
_TIMES = {"": Fraction(1), "s": Fraction(1), "ms": Fraction(1, 1000), "us": Fraction(1, 10**6)}
_NUMBER = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*((?:[A-Za-z%_][A-Za-z%_0-9]*)?)")
_MAX_LIST = 4096
_MOST_DIGITS = 40
_ROUNDS_UP = 0.9995
"""with three digits it is the next unit's 1 from here on"""
_ADDRESS = re.compile(r"(?:(?P<host>\[[^]]+\]|[^:]+):)?(?P<port>\d{1,5})")


def whole(text: str) -> int | None:
    """Of decimal digits; None for anything else, and for more of them than any number here has: int() takes
    long for those, and refuses most of them in words that no user understands."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def _split(text: str, what: str) -> tuple[Fraction, str]:
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{what}: {text!r} is not a positive number, with its unit if it has one")
    return Fraction(match[1]), match[2]


@dataclass(frozen=True)
class Rate:
    """``value`` of ``unit``: "pps", "bps_l2" (bits of frames without FCS), "bps_l1" (with FCS, preamble and
    gap), "percent" (of the link's speed at layer 1)."""

    unit: str
    value: Fraction
    text: str = ""

    def __str__(self) -> str:
        return self.text or f"{float(self.value):g} {self.unit}"

    def of_link(self, bits_per_s: int | None) -> Rate:
        """A percentage as bps_l1. ValueError when the link has no speed."""
        if self.unit != "percent":
            return self
        if not bits_per_s:
            raise ValueError(f"rate: {self}: the interface has no link speed; use pps or bps")
        return Rate("bps_l1", self.value * bits_per_s / 100, self.text)

    def pps(self, mean_bytes: float) -> float:
        """Packets per second, for packets of so many bytes on average at the rate's layer."""
        return float(self.value) if self.unit == "pps" else float(self.value) / 8 / mean_bytes


_RATE_UNITS = {"pps": "pps", "bps": "bps_l2", "bps_l2": "bps_l2", "bps_l1": "bps_l1", "%": "percent"}
_MOST = {"pps": 10**9, "bps_l2": 10**13, "bps_l1": 10**13, "percent": 100}


def parse_rate(text: str) -> Rate | None:
    """``100kpps``, ``1Gbps`` (frames without FCS; also bps_l2), ``1Gbps_l1``, ``50%`` (of the link), or
    None for ``max``."""
    if text.strip() == "max":
        return None
    number, unit = _split(text, "rate")
    for suffix, name in _RATE_UNITS.items():
        if unit.endswith(suffix) and unit[: -len(suffix)] in _DECIMAL and (name != "percent" or unit == "%"):
            value = number * _DECIMAL[unit[: -len(suffix)]]
            break
    else:
        raise ValueError(f"rate: {text!r}: use max, N[kMG]pps, N[kMG]bps, N[kMG]bps_l1 or N%, as 100kpps")
    if not value:
        raise ValueError("rate: 0 sends nothing; use max, or a number above 0")
    if value > _MOST[name] or value < Fraction(1, 1000):
        raise ValueError(f"rate: {text!r} is outside 0.001 to {format_si(_MOST[name])} {name}")
    return Rate(name, value, text.strip())


def parse_count(text: str) -> int:
    """A number of packets, ``1000000`` or ``1M``, at least 1."""
    number, unit = _split(text, "count")
    if unit not in _DECIMAL:
        raise ValueError(f"count: unknown unit {unit!r}; use k, M or G")
    count = number * _DECIMAL[unit]
    if count.denominator != 1 or not 1 <= count < 2**63:
        raise ValueError(f"count: {text!r} is not a whole number of packets above 0")
    return int(count)


def parse_seconds(text: str) -> float:
    """Seconds of ``5``, ``5s``, ``20ms``, ``100us``; above 0."""
    number, unit = _split(text, "time")
    if unit not in _TIMES:
        raise ValueError(f"time: unknown unit {unit!r}; use s, ms or us")
    seconds = number * _TIMES[unit]
    if not Fraction(1, 10**9) <= seconds <= 10 * 365 * 86400:
        raise ValueError(f"time: {text!r} must be a nanosecond or more, and below ten years")
    return float(seconds)


def parse_int_list(text: str, what: str) -> list[int]:
    """The numbers of ``0,2-3``: in that order, each once."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,30})(?:-(\d{1,30}))?\s*", part)
        if not match:
            raise ValueError(f"{what}: {text!r} is not a list like 0,2-3")
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low:
            raise ValueError(f"{what}: {part!r} runs backwards")
        if high - low >= _MAX_LIST or high >= 2**31:
            raise ValueError(f"{what}: {part!r} is out of range")
        numbers.extend(range(low, high + 1))
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"{what}: {text!r} names a number twice")
    return numbers


def parse_address(text: str) -> tuple[str, int]:
    """``9100``, ``127.0.0.1:9100``, ``[::1]:9100``; without a host, loopback. ValueError."""
    match = _ADDRESS.fullmatch(text)
    if not match or not 1 <= int(match["port"]) <= 65535:
        raise ValueError(f"metrics: {text!r} is not [HOST:]PORT, as 9100 or 127.0.0.1:9100")
    host = (match["host"] or "127.0.0.1").strip("[]")
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"metrics: {host!r} is no IP address") from None
    return host, int(match["port"])


def _in_steps(value: float, steps: Sequence[tuple[float, str]], rest: str = "") -> str:
    """Three digits and the name of the largest step that is not above it, or ``rest``."""
    for size, name in steps:
        if abs(value) >= size * _ROUNDS_UP:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} {rest}"


def format_si(value: float, unit: str = "") -> str:
    """``1.26 M`` + unit: three digits that a person reads."""
    return (_in_steps(value, ((1e9, "G"), (1e6, "M"), (1e3, "k"))) + unit).rstrip()


def format_ns(ns: float) -> str:
    """``12.3 us``: three digits of a time."""
    return _in_steps(ns, ((1e9, "s"), (1e6, "ms"), (1e3, "us")), "ns")

"""What a laboratory's wire does to packets, as ``--wire`` says it. Pure; errors are ``ValueError``."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from fractions import Fraction

from xsk_engine.units import parse_seconds, whole

FORWARD, BACK = 0, 1
"""from tx to rx, and the other way"""

_DIRECTIONS = {"forward": (FORWARD,), "back": (BACK,), "both": (FORWARD, BACK)}
_FAULTS = ("drop", "dup", "reorder", "corrupt")
_MAX_DELAY_S = 10
_MAX_REORDER_BY = 1000
_SHARES = 1 << 32


@dataclass(frozen=True)
class WireSpec:
    """Chances are of packets with an IP header, from 0 to 1, together 1 at most: one of the four faults at
    most meets a packet."""

    drop: Fraction = Fraction(0)
    dup: Fraction = Fraction(0)
    reorder: Fraction = Fraction(0)
    corrupt: Fraction = Fraction(0)
    delay_ns: int = 0
    """of every frame, in both directions"""
    seed: int = 1
    direction: str = "forward"
    """in which there are faults: forward, back or both"""
    reorder_by: int = 3
    """so many later packets go ahead of one that is held back"""

    def __post_init__(self) -> None:
        for name in _FAULTS:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"wire: {name}={float(getattr(self, name)):g} is not a chance from 0 to 1")
        if sum(getattr(self, name) for name in _FAULTS) > 1:
            raise ValueError(f"wire: {' + '.join(_FAULTS)} is more than 1: one fault at most meets a packet")
        if not 0 <= self.delay_ns <= _MAX_DELAY_S * 10**9:
            raise ValueError(f"wire: delay is not a time from 0 to {_MAX_DELAY_S}s, as 500us or 1ms")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"wire: seed={self.seed} is not a number of 64 bits")
        if self.direction not in _DIRECTIONS:
            raise ValueError(f"wire: direction={self.direction} is none of {', '.join(_DIRECTIONS)}")
        if not 1 <= self.reorder_by <= _MAX_REORDER_BY:
            raise ValueError(f"wire: reorder_by={self.reorder_by} is not in 1 to {_MAX_REORDER_BY}")

    def shares(self, direction: int) -> tuple[int, int, int, int]:
        """Of drop, dup, reorder and corrupt in 2^32 packets of that direction."""
        if direction not in _DIRECTIONS[self.direction]:
            return 0, 0, 0, 0
        drop, dup, reorder, corrupt = (int(getattr(self, name) * _SHARES) for name in _FAULTS)
        return drop, dup, reorder, corrupt

    def __str__(self) -> str:
        """The options that make it again; ``clean`` when there are none."""
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            if field.name == "delay_ns":
                words.append(f"delay={_time(value)}")
            elif field.name in _FAULTS:
                words.append(f"{field.name}={_decimal(value)}")
            else:
                words.append(f"{field.name}={value}")
        return ",".join(words) or "clean"


def _time(ns: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns % size == 0:
            return f"{ns // size}{unit}"
    return f"{_decimal(Fraction(ns, 1000))}us"


def _decimal(value: Fraction) -> str:
    """All digits: what is parsed has a decimal point and so an end."""
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    text = f"{int(value * 10**digits):0{digits + 1}}"
    return f"{text[:-digits]}.{text[-digits:]}" if digits else text


def _chance(name: str, text: str) -> Fraction:
    if not re.fullmatch(r"\d{0,3}\.?\d{1,12}", text, re.ASCII) or not 0 <= Fraction(text) <= 1:
        raise ValueError(f"wire: {name}={text} is not a chance from 0 to 1 of at most 12 digits, as 0.01")
    return Fraction(text)


def _delay(text: str) -> int:
    if text in ("0", "0s", "0ms", "0us"):
        return 0
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise ValueError(f"wire: delay={text}: {str(error).removeprefix('time: ')}") from None
    if seconds > _MAX_DELAY_S:
        raise ValueError(f"wire: delay={text} is more than {_MAX_DELAY_S}s")
    return round(seconds * 10**9)


def _whole(name: str, text: str) -> int:
    number = whole(text)
    if number is None:
        raise ValueError(f"wire: {name}={text} is not a whole number")
    return number


def parse_wire(text: str) -> WireSpec:
    """``drop=0.01,dup=0.001,reorder=0.01,corrupt=0.001,delay=1ms,seed=7``, each of them as you like, and
    ``direction=``, ``reorder_by=``; ``clean`` is a wire that only forwards."""
    values: dict[str, Fraction | int | str] = {}
    if text.strip() == "clean":
        return WireSpec()
    if not text.isprintable():  # errors quote it as it is
        raise ValueError(f"wire: {text!r} is not NAME=VALUE, as drop=0.01; or clean")
    for word in text.split(","):
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not value:
            raise ValueError(f"wire: {word.strip()!r} is not NAME=VALUE, as drop=0.01; or clean")
        if name in values or (name == "delay" and "delay_ns" in values):
            raise ValueError(f"wire: {name} is there twice")
        if name in _FAULTS:
            values[name] = _chance(name, value)
        elif name == "delay":
            values["delay_ns"] = _delay(value)
        elif name in ("seed", "reorder_by"):
            values[name] = _whole(name, value)
        elif name == "direction":
            values[name] = value
        else:
            known = ", ".join((*_FAULTS, "delay", "seed", "direction", "reorder_by"))
            raise ValueError(f"wire: there is no {name!r}; there are {known}")
    return WireSpec(**values)  # type: ignore[arg-type]

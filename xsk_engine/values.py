"""Values of a field, from packet to packet: what a user may write where a header field stands. Pure.

``7``, ``1000-1999`` (``/2``: every second one; ``1999-1000`` goes down), ``a,b,c``, ``random(1000-1999)``,
``random`` (all the field can hold), ``sequence``, ``flow-id`` (both with ``+N``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_CHOICES = 65536
_MOST_HYPHENS = 11
"""of a range of MAC addresses that are written with them"""


@dataclass(frozen=True)
class Range:
    """``first`` to ``last``, both included, in steps of ``step`` >= 1, up or down, and then again. ValueError
    for another step."""

    first: int
    last: int
    step: int = 1

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ValueError(f"range: step {self.step} is not 1 or more")

    @property
    def count(self) -> int:
        """How many values there are."""
        return abs(self.last - self.first) // self.step + 1

    @property
    def signed_step(self) -> int:
        """Negative when it goes down."""
        return self.step if self.last >= self.first else -self.step

    def __getitem__(self, index: int) -> int:
        return self.first + self.signed_step * index


@dataclass(frozen=True)
class Choice:
    """These values in turn, and then again. ValueError for none, or more than 65536."""

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= MAX_CHOICES:
            raise ValueError(f"list: {len(self.values)} values; 1 to {MAX_CHOICES} are possible")

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.values)

    def __getitem__(self, index: int) -> int:
        return self.values[index]


@dataclass(frozen=True)
class Random:
    """Uniform from the values of a range, by the traffic's seed; None: anything the field can hold."""

    among: Range | None = None


@dataclass(frozen=True)
class Sequence:
    """The flow's own sequence, 0 for its first packet, plus ``base``; wraps in the field's width."""

    base: int = 0


@dataclass(frozen=True)
class FlowId:
    """The flow's place in the traffic, 0 for the first, plus ``base``."""

    base: int = 0


Values = int | Range | Choice | Random | Sequence | FlowId

_TIED = re.compile(r"(sequence|flow-id)(?:\+(.+))?")
_RANDOM = re.compile(r"random(?:\((.*)\))?")


def as_values(given: object, number: Callable[[str], int], name: str) -> Values:
    """What a program may write: Values, their text, a list (Choice) or a range. ValueError names the
    field."""
    if isinstance(given, str):
        try:
            return parse_values(given, number)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if isinstance(given, range) and given:
        return Range(given[0], given[-1], abs(given.step))
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, int) for one in given):
        return Choice(tuple(given))
    if isinstance(given, (int, Range, Choice, Random, Sequence, FlowId)):
        return given
    raise ValueError(
        f"{name}: {given!r} is no value; use a number, Range, Choice, Random, Sequence, FlowId or text"
    )


def _parse_range(text: str, number: Callable[[str], int]) -> Range | None:
    """None when it is no range. A hyphen may also be part of a number (a MAC address)."""
    body, slash, step = text.partition("/")
    if body.count("-") > _MOST_HYPHENS:
        return None
    for at in (i for i, c in enumerate(body) if c == "-" and i):
        try:
            first, last = number(body[:at].strip()), number(body[at + 1 :].strip())
        except ValueError:
            continue
        return Range(first, last, _parse_step(step) if slash else 1)
    return None


def _parse_step(text: str) -> int:
    if not re.fullmatch(r"\s*[1-9]\d{0,39}\s*", text):
        raise ValueError(f"{text!r} is no step; use a whole number above 0")
    return int(text)


def parse_values(text: str, number: Callable[[str], int]) -> Values:
    """What a user wrote, with ``number`` parsing one value. ValueError says what is wrong."""
    text = text.strip()
    if match := _TIED.fullmatch(text):
        base = number(match[2]) if match[2] else 0
        return Sequence(base) if match[1] == "sequence" else FlowId(base)
    if match := _RANDOM.fullmatch(text):
        if match[1] is None:
            return Random()
        among = _parse_range(match[1], number)
        if among is None:
            raise ValueError(f"{text!r} needs a range, as random(1000-1999)")
        return Random(Range(min(among.first, among.last), max(among.first, among.last), among.step))
    if "," in text:
        return Choice(tuple(number(part.strip()) for part in text.split(",")))
    try:
        return number(text)
    except ValueError:
        if (found := _parse_range(text, number)) is not None:
            return found
        raise

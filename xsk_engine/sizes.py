"""Lengths of a flow's packets: ``60``, ``60-1514``, ``random(60-1514)``, ``60:7,590:4,1514:1``, ``imix``.
Pure.

Bytes of the Ethernet frame without FCS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from xsk_engine.textfile import read_lines
from xsk_engine.units import whole

MAX_FRAME_BYTES = 65535 + 14 + 8
_MAX_ORDER = 1 << 20
_IMIX = ((60, 7), (590, 4), (1514, 1))


@dataclass(frozen=True)
class Sizes:
    """Packet ``i`` has ``distinct[order[i % len(order)]]`` bytes, or one of ``order`` at random."""

    distinct: tuple[int, ...]
    order: tuple[int, ...]
    random: bool = False

    @property
    def longest(self) -> int:
        """Bytes."""
        return max(self.distinct)

    @property
    def shortest(self) -> int:
        """Bytes."""
        return min(self.distinct)

    @property
    def mean(self) -> float:
        """Bytes."""
        return sum(self.distinct[i] for i in self.order) / len(self.order)


def in_turn(weights: Sequence[int]) -> tuple[int, ...]:
    """Indexes 0, 1, ... each as often as its weight says, spread as evenly as they can be."""
    places = [((2 * k + 1) / (2 * weight), i) for i, weight in enumerate(weights) for k in range(weight)]
    return tuple(i for _, i in sorted(places))


def of(sizes: Sequence[int], *, random: bool = False) -> Sizes:
    """These lengths in turn, or at random."""
    for size in sizes:
        if not 14 <= size <= MAX_FRAME_BYTES:
            raise ValueError(f"size: {size} is not in 14 to {MAX_FRAME_BYTES} bytes")
    if not 1 <= len(sizes) <= _MAX_ORDER:
        raise ValueError(f"size: {len(sizes)} lengths; 1 to {_MAX_ORDER} are possible")
    distinct = tuple(sorted(set(sizes)))
    index = {size: i for i, size in enumerate(distinct)}
    return Sizes(distinct, tuple(index[size] for size in sizes), random)


def weighted(pairs: Sequence[tuple[int, int]]) -> Sizes:
    """(bytes, weight) pairs, taking turns."""
    if sum(weight for _, weight in pairs) > _MAX_ORDER or any(weight < 1 for _, weight in pairs):
        raise ValueError(f"size: weights must be 1 or more, and together at most {_MAX_ORDER}")
    return of([pairs[i][0] for i in in_turn([weight for _, weight in pairs])])


def _range(text: str) -> list[int] | None:
    match = re.fullmatch(r"(\d{1,9})-(\d{1,9})(?:/(\d{1,9}))?", text)
    if not match:
        return None
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if not step:
        raise ValueError(f"size: {text!r}: a step of 0 does not get anywhere")
    if max(first, last) > MAX_FRAME_BYTES:
        raise ValueError(f"size: {text!r}: at most {MAX_FRAME_BYTES} bytes are possible")
    return list(range(first, last + 1, step) if last >= first else range(first, last - 1, -step))


def parse_sizes(text: str) -> Sizes:
    """What a user writes; ``@FILE``: one length per line. ValueError says what is wrong."""
    text = text.strip()
    if text == "imix":
        return weighted(_IMIX)
    if text.startswith("@"):
        return _from_file(text[1:])
    if match := re.fullmatch(r"random\((.*)\)", text):
        among = _range(match[1])
        if among is None:
            raise ValueError(f"size: {text!r} needs a range, as random(60-1514)")
        return of(among, random=True)
    if (among := _range(text)) is not None:
        return of(among)
    pairs = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?::(\d{1,9}))?\s*", part)
        if not match:
            raise ValueError(
                f"size: {text!r}: use 60, 60-1514, random(60-1514), 60:7,590:4,1514:1, imix or @FILE"
            )
        pairs.append((int(match[1]), int(match[2] or 1)))
    return weighted(pairs)


def _length(text: str) -> int:
    length = whole(text)
    if length is None:
        raise ValueError(f"{text!r} is no length")
    return length


def _from_file(path: str) -> Sizes:
    try:
        return of([_length(line.strip()) for line in read_lines(path) if line.strip()])
    except OSError as error:
        raise ValueError(f"size: {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"size: {path}: {error}; one length in bytes per line") from None

"""A field that changes: where it lies, which bytes hold it, and how its values come. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xsk_engine.flow import FIELD_PATH, NAMES
from xsk_engine.headers import Packet
from xsk_engine.layers import integer
from xsk_engine.values import MAX_CHOICES, Choice, Random, Range, Values
from xsk_engine.values import Sequence as Counter

RANGE, LIST, RANDOM, LENGTH, TIME = range(5)
"""native enum xske_patch_kind"""

_U64 = (1 << 64) - 1
_BYTE_RANGE = re.compile(r"@(\d{1,9})/(\d{1,9})")


def locate(packet: Packet, path: str) -> tuple[int, int, Callable[[str], int]]:
    """(bit, bits, parser) of ``udp.src``, ``ipv4[1].ttl``, ``@42/8``."""
    if match := _BYTE_RANGE.fullmatch(path):
        at, width = int(match[1]), int(match[2])
        if not 1 <= width <= 8:
            raise ValueError(f"{path}: a width of 1 to 8 bytes is possible")
        return at * 8, width * 8, integer
    match = FIELD_PATH.fullmatch(path)
    if not match:
        raise ValueError(f"{path!r} is no field; use a name like udp.src or ipv4[1].ttl, or bytes like @42/8")
    name, which = match[1], int(match[2] or 0)
    found = [place for place in packet.headers if place.layer.name in NAMES.get(name, (name,))]
    if which >= len(found):
        there = ", ".join(place.layer.name for place in packet.headers)
        raise ValueError(f"{path}: the packet has {len(found)} {name} headers (it has: {there})")
    one = found[which].layer.find(match[3])
    return found[which].bit(one), one.bits, one.parse


@dataclass
class Change:
    """One field that changes, while it is compiled."""

    bit: int
    bits: int
    values: Values
    name: str
    hold: int = 1


def nest(changes: Sequence[Change]) -> None:
    hold = 1
    for change in reversed(changes):
        if isinstance(change.values, (Range, Choice)):
            change.hold = hold
            hold *= change.values.count
            if hold > _U64:
                raise ValueError("nested ranges: more than 2^64 combinations")


def halves(change: Change) -> list[Change]:
    """A field of more than 64 bits as two."""
    if change.bits <= 64:
        return [change]
    low_bits = 64
    values, high, low = change.values, _half(change, 0), _half(change, 1)
    if isinstance(values, Counter):
        low.values = replace(values, base=values.base & _U64)
        return [low]
    if isinstance(values, Random):
        among = values.among
        if among is None:
            high.values = low.values = Random()
            return [high, low]
        first, last = among.first, among.last
        if first >> low_bits == last >> low_bits:
            low.values = Random(Range(first & _U64, last & _U64, among.step))
            return [low]
        if not first & _U64 and last & _U64 == _U64 and among.step == 1:
            high.values, low.values = Random(Range(first >> low_bits, last >> low_bits)), Random()
            return [high, low]
        raise ValueError(f"{change.name}: random over more than 64 bits needs whole /64s")
    if isinstance(values, Range) and values.first >> low_bits == values.last >> low_bits:
        low.values = Range(values.first & _U64, values.last & _U64, values.step)
        return [low]
    assert isinstance(values, (Range, Choice))
    if values.count > MAX_CHOICES:
        raise ValueError(f"{change.name}: a range across /64s may have {MAX_CHOICES} addresses")
    each = [values[i] for i in range(values.count)]
    high.values = Choice(tuple(value >> low_bits for value in each))
    low.values = Choice(tuple(value & _U64 for value in each))
    return [high, low]


def _half(change: Change, half: int) -> Change:
    """The upper (0) or lower (1) 64 bits of it."""
    return Change(change.bit + 64 * half, 64, change.values, change.name, change.hold)


def container(change: Change, limit: int) -> tuple[int, int, int, int]:
    """Offset, width, shift and mask of the bytes that hold a field, within the first `limit` bytes."""
    first, last = change.bit // 8, (change.bit + change.bits - 1) // 8
    width = next((w for w in (1, 2, 4, 8) if w >= last - first + 1), 0)
    if not width:
        raise ValueError(f"{change.name}: it lies across 9 bytes")
    if last >= limit:
        raise ValueError(f"{change.name}: bytes {first} to {last} lie behind the shortest packet's {limit}")
    offset = min(first, limit - width)
    if offset < 0:
        raise ValueError(f"{change.name}: the packet is too short for it")
    shift = (offset + width) * 8 - change.bit - change.bits
    return offset, width, shift, ((1 << change.bits) - 1) << shift


def generator(change: Change, key: int) -> dict[str, Any]:
    values = change.values
    if isinstance(values, Range):
        return {
            "kind": RANGE,
            "base": values.first,
            "step": values.signed_step & _U64,
            "modulo": values.count if values.count <= _U64 else 0,
            "hold": change.hold,
        }
    if isinstance(values, Choice):
        return {"kind": LIST, "values": values.values, "hold": change.hold}
    if isinstance(values, Random):
        among = values.among or Range(0, (1 << change.bits) - 1)
        modulo = among.count if among.count <= _U64 else 0
        return {"kind": RANDOM, "base": among.first, "step": among.step, "modulo": modulo, "key": key}
    assert isinstance(values, Counter)
    return {"kind": RANGE, "base": values.base, "step": 1}


def write(data: bytearray, change: Change, value: int) -> None:
    first, end = change.bit // 8, (change.bit + change.bits + 7) // 8
    if end > len(data):
        raise ValueError(f"{change.name}: bytes {first} to {end - 1} lie behind the template's {len(data)}")
    shift = end * 8 - change.bit - change.bits
    mask = ((1 << change.bits) - 1) << shift
    was = int.from_bytes(data[first:end], "big")
    data[first:end] = (was & ~mask | value << shift & mask).to_bytes(end - first, "big")

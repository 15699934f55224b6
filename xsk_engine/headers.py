"""From layers to the bytes of a packet and back: where each field lies, what each checksum covers. Pure.

Lengths and checksums stay 0 here: they depend on the packet, and native/flow.c writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from xsk_engine.layers import (
    EXTENSIONS,
    GRE_OPTIONAL,
    LAYERS,
    PROTOCOLS,
    VXLAN_PORT,
    Field,
    Layer,
)
from xsk_engine.values import Choice, FlowId, Random, Range, Values
from xsk_engine.values import Sequence as Counter

_CHECKSUMMED = {"udp": 6, "tcp": 16, "icmp": 2, "icmpv6": 2}  # byte offsets within the header
IN_WORDS_OF_4, IN_WORDS_OF_8 = {"ipv4": ("ihl", 5), "tcp": ("offset", 5)}, ("hopopts", "dstopts", "routing")
MAX_HEADERS_BYTES = 2048


@dataclass(frozen=True)
class Header:
    """One layer as asked for: its fields' values, and the bytes of its variable part."""

    name: str
    values: Mapping[str, Values] = field(default_factory=dict)
    tail: bytes = b""

    @property
    def layer(self) -> Layer:
        """Its table."""
        return LAYERS[self.name]


@dataclass(frozen=True)
class Located:
    """A header in a packet: bytes ``start`` to ``start + length``; what it carries ends at ``end`` (0: with
    the packet)."""

    layer: Layer
    start: int
    length: int
    end: int = 0
    given: frozenset[str] = frozenset()
    """automatic fields whose value the user has chosen"""

    def bit(self, one: Field) -> int:
        """Of the field, counted from the packet's start."""
        return self.start * 8 + one.at


@dataclass(frozen=True)
class Check:
    """An Internet checksum in a packet; byte offsets from its start. ``end`` 0: the packet's end."""

    layer: str
    offset: int
    start: int
    end: int = 0
    pseudo_offset: int = 0
    pseudo_len: int = 0
    constant: int = 0
    ip: int = -1
    """index of the header whose addresses it covers too"""

    def covers(self, first: int, last: int) -> bool | None:
        """All bytes first..last, or none of them, or (None) a part."""
        inside = {
            (self.start <= at and (not self.end or at < self.end))
            or self.pseudo_offset <= at < self.pseudo_offset + self.pseudo_len
            for at in range(first, last + 1)
        }
        return inside.pop() if len(inside) == 1 else None


@dataclass(frozen=True)
class Length:
    """A field that holds the packet's length less ``base``."""

    bit: int
    bits: int
    base: int


@dataclass(frozen=True)
class Packet:
    """Headers in their place. ``dynamic``: (bit, bits, values, what it is called) of each field that
    changes."""

    data: bytes
    headers: tuple[Located, ...]
    dynamic: tuple[tuple[int, int, Values, str], ...] = ()
    headers_end: int = 0
    """where the payload begins"""


def gre_layer(header: Header) -> Layer:
    """GRE has a word for each of checksum, key and sequence, if asked for."""
    words = [(name, bit) for name, bit in GRE_OPTIONAL if name in header.values]
    extra, at = [], 32
    for name, _ in words:
        extra.append(Field(name, at, 16 if name == "csum" else 32, automatic=name == "csum"))
        at += 32
    has = sum(bit for _, bit in words)
    fields = (*(replace(f, default=has) if f.name == "has" else f for f in header.layer.fields), *extra)
    return replace(header.layer, fields=fields, length=at // 8)


def _shape(header: Header) -> tuple[Layer, bytes]:
    """The layer as it is in this packet, and its variable part, padded."""
    layer, tail = header.layer, header.tail
    if header.name == "gre":
        return gre_layer(header), b""
    if tail and not layer.tail:
        raise ValueError(f"{header.name} has no variable part")
    if not layer.tail:
        return layer, b""
    pad = -(layer.length + len(tail)) % layer.unit
    if header.name in ("hopopts", "dstopts") and pad:  # RFC 8200, 4.2: Pad1, PadN
        tail += b"\0" if pad == 1 else bytes([1, pad - 2]) + bytes(pad - 2)
    else:
        tail += bytes(pad)
    if len(tail) > layer.max_tail:
        raise ValueError(f"{header.name}: {len(tail)} bytes of {layer.tail}; at most {layer.max_tail} fit")
    return layer, tail


def _next_number(header: Header, following: Header | None) -> int:
    layer = header.layer
    if following is None or following.name == "hex":
        return layer.next_nothing
    return layer.next_numbers[following.name]


def _may_follow(header: Header, following: Header) -> bool:
    return following.name == "hex" or following.name in header.layer.carries


def _automatic(header: Header, following: Header | None, tail_bytes: int) -> dict[str, int]:
    values: dict[str, int] = {}
    if header.layer.next_field:
        values[header.layer.next_field] = _next_number(header, following)
    if header.name in IN_WORDS_OF_4:
        name, words = IN_WORDS_OF_4[header.name]
        values[name] = words + tail_bytes // 4
    if header.name in IN_WORDS_OF_8:
        values["len"] = (header.layer.length + tail_bytes) // 8 - 1
    if header.name == "mpls":
        values["s"] = int(following is None or following.name != "mpls")
    if header.name == "udp" and following is not None and following.name == "vxlan":
        values |= {"dst": VXLAN_PORT, "src": 49152}
    return values


def representative(values: Values) -> int:
    """The first value, for the template."""
    if isinstance(values, (Range, Choice)):
        return values[0]
    if isinstance(values, (Counter, FlowId)):
        return values.base
    if isinstance(values, Random):
        return values.among[0] if values.among else 0
    return values


def check_fits(values: Values, bits: int, name: str) -> None:
    """ValueError when a value needs more bits than there are."""
    if isinstance(values, Range):
        among = [values.first, values.last]
    elif isinstance(values, Random):
        among = [values.among.first, values.among.last] if values.among else []
    elif isinstance(values, Choice):
        among = list(values.values)
    else:
        among = [representative(values)]
    for value in among:
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name}: {value} does not fit into {bits} bits (0 to {(1 << bits) - 1})")


def build(headers: Sequence[Header]) -> Packet:
    """The headers one behind the other. ValueError for what no packet can be."""
    if not headers or headers[0].name not in ("eth", "hex"):
        headers = (Header("eth"), *headers)
    data = bytearray()
    located: list[Located] = []
    dynamic: list[tuple[int, int, Values, str]] = []
    for i, header in enumerate(headers):
        following = headers[i + 1] if i + 1 < len(headers) else None
        if following is not None and not _may_follow(header, following):
            can = ", ".join((*header.layer.carries, "hex"))
            raise ValueError(f"{following.name} cannot follow {header.name}; what can: {can}")
        layer, tail = _shape(header)
        place = Located(
            layer,
            len(data),
            layer.length + len(tail),
            given=frozenset(n for n in header.values if n != "csum" or header.name != "gre"),
        )
        automatic = _automatic(header, following, len(tail))
        number = 0
        for one in layer.fields:
            values = header.values.get(one.name, automatic.get(one.name, one.default))
            check_fits(values, one.bits, f"{header.name} {one.name}")
            if not isinstance(values, int):
                dynamic.append((place.bit(one), one.bits, values, f"{header.name}.{one.name}"))
            number |= representative(values) << layer.length * 8 - one.at - one.bits
        if unknown := set(header.values) - {one.name for one in layer.fields}:
            layer.find(unknown.pop())
        data += number.to_bytes(layer.length, "big") + tail
        located.append(place)
    if len(data) > MAX_HEADERS_BYTES:
        raise ValueError(f"headers: {len(data)} bytes; at most {MAX_HEADERS_BYTES} are possible")
    # in the order in which they were written, which is what nesting goes by
    order = {f"{h.name}.{name}": n for h in headers for n, name in enumerate(h.values)}
    ranked = sorted(enumerate(dynamic), key=lambda d: (_header_of(located, d[1][0]), order.get(d[1][3], 0)))
    return Packet(bytes(data), tuple(located), tuple(d for _, d in ranked), len(data))


def _header_of(located: Sequence[Located], bit: int) -> int:
    return max(i for i, place in enumerate(located) if place.start * 8 <= bit)


def _ip_before(located: Sequence[Located], index: int) -> int:
    """The IP header that an upper layer's pseudo header speaks of, or -1."""
    for i in range(index - 1, -1, -1):
        name = located[i].layer.name
        if name in ("ipv4", "ipv6"):
            return i
        if name not in EXTENSIONS:
            return -1
    return -1


def _upper_check(located: Sequence[Located], index: int) -> Check | None:
    place, ip = located[index], _ip_before(located, index)
    name = place.layer.name
    check = Check(name, place.start + _CHECKSUMMED[name], place.start, place.end)
    if name == "icmp":
        return check
    if ip < 0:
        return None
    addresses = (12, 8) if located[ip].layer.name == "ipv4" else (8, 32)
    return replace(
        check,
        pseudo_offset=located[ip].start + addresses[0],
        pseudo_len=addresses[1],
        constant=PROTOCOLS[name],
        ip=ip,
    )


def checks(located: Sequence[Located], *, upper: bool = True) -> list[Check]:
    """The checksums of a packet, an inner one before those that cover it. Not those whose value was given.

    ``upper`` False: only those of IPv4 headers.
    """
    found: list[Check] = []
    for i, place in enumerate(located):
        name = place.layer.name
        if "csum" in place.given:
            continue
        if name == "ipv4":
            found.append(Check(name, place.start + 10, place.start, place.start + place.length))
        elif not upper:
            continue
        elif name == "gre" and any(f.name == "csum" for f in place.layer.fields):
            found.append(Check(name, place.start + 4, place.start, place.end))
        elif name in _CHECKSUMMED:
            carries = located[i + 1].layer.name if i + 1 < len(located) else ""
            ip = _ip_before(located, i)
            if name == "udp" and carries == "vxlan" and ip >= 0 and located[ip].layer.name == "ipv4":
                continue  # RFC 7348, 5: SHOULD be 0
            check = _upper_check(located, i)
            if check is not None:
                found.append(check)
    return found[::-1]


def lengths(located: Sequence[Located], frame_len: int) -> list[Length]:
    """The length fields that follow the packet's length, unless given."""
    found = []
    for place in located:
        if "len" in place.given or place.layer.name not in ("ipv4", "ipv6", "udp"):
            continue
        one = place.layer.find("len")
        behind = place.length if place.layer.name == "ipv6" else 0
        pad = frame_len - place.end if place.end else 0
        found.append(Length(place.bit(one), one.bits, place.start + behind + pad))
    return found

"""Where the headers are in the bytes of a frame, and what they say in words. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace

from xsk_engine.headers import IN_WORDS_OF_4, IN_WORDS_OF_8, Header, Located, Packet, gre_layer
from xsk_engine.layers import (
    ETHERTYPES,
    EXPERIMENTAL_ETHERTYPE,
    EXTENSIONS,
    GRE_OPTIONAL,
    LAYERS,
    PROTOCOLS,
    TRANSPARENT_ETHERNET,
    VXLAN_PORT,
    Field,
    Layer,
)


def _read(data: bytes, bit: int, bits: int) -> int:
    first, last = bit // 8, (bit + bits + 7) // 8
    return int.from_bytes(data[first:last], "big") >> (last * 8 - bit - bits) & (1 << bits) - 1


def _length_of(data: bytes, layer: Layer, start: int) -> tuple[Layer, int]:
    value = {one.name: _read(data, start * 8 + one.at, one.bits) for one in layer.fields}
    if layer.name in IN_WORDS_OF_4:
        return layer, value[IN_WORDS_OF_4[layer.name][0]] * 4
    if layer.name in IN_WORDS_OF_8:
        return layer, (value["len"] + 1) * 8
    if layer.name == "gre":
        present = {name: 0 for name, bit in GRE_OPTIONAL if value["has"] & bit}
        layer = gre_layer(Header("gre", present))
    return layer, layer.length


def _what_follows(data: bytes, place: Located, value: Mapping[str, int]) -> str | None:
    name = place.layer.name
    if name in ("eth", "vlan", "qinq", "gre"):
        known = {number: one for one, number in ETHERTYPES.items()}
        if name == "gre":
            known[TRANSPARENT_ETHERNET] = "eth"
        return known.get(value["type"]) if value["type"] != EXPERIMENTAL_ETHERTYPE else None
    if name == "mpls":
        if not value["s"]:
            return "mpls"
        return {4: "ipv4", 6: "ipv6"}.get(_read(data, (place.start + 4) * 8, 4))
    if name == "ipv4" and (value["frag"] or value["version"] != 4):
        return None
    if name == "fragment" and value["offset"]:
        return None
    if name in ("ipv4", "ipv6", *EXTENSIONS):
        number = value["proto" if name == "ipv4" else "nh"]
        return {n: one for one, n in PROTOCOLS.items()}.get(number)
    if name == "udp":
        return "vxlan" if value["dst"] == VXLAN_PORT else None
    return "eth" if name == "vxlan" else None


def _end_of(place: Located, value: Mapping[str, int], before: int, size: int) -> int:
    """Where what an IP header carries ends; what is behind is padding."""
    if place.layer.name == "ipv4":
        end = place.start + value["len"]
    elif place.layer.name == "ipv6" and value["len"]:
        end = place.start + place.length + value["len"]
    else:
        return before
    return end if end < (before or size) else before


def dissect(data: bytes) -> Packet:
    """Finds the headers that LAYERS knows in an Ethernet frame; what it does not know is payload."""
    located: list[Located] = []
    name: str | None = "eth"
    start = end = 0
    while name is not None:
        layer = LAYERS[name]
        if len(data) < start + layer.length:
            break
        layer, length = _length_of(data, layer, start)
        if length < layer.length or len(data) < start + length:
            break
        place = Located(layer, start, length, end)
        value = {one.name: _read(data, place.bit(one), one.bits) for one in layer.fields}
        end = _end_of(place, value, end, len(data))
        place = replace(place, end=end)
        if layer.name == "udp" and not value["csum"]:
            place = replace(place, given=frozenset({"csum"}))  # none was wanted
        located.append(place)
        name = _what_follows(data, place, value)
        start += length
    return Packet(bytes(data), tuple(located), (), start)


_TOLD = {
    "eth": ("src", "dst"),
    "vlan": ("id", "pcp"),
    "qinq": ("id", "pcp"),
    "mpls": ("label",),
    "arp": ("op", "spa", "tpa"),
    "ipv4": ("src", "dst", "ttl", "dscp", "id"),
    "ipv6": ("src", "dst", "hlim", "flow"),
    "udp": ("src", "dst"),
    "tcp": ("src", "dst", "flags", "seq"),
    "icmp": ("type", "id", "seq"),
    "icmpv6": ("type", "id", "seq"),
    "gre": ("key",),
    "vxlan": ("vni",),
    "fragment": ("offset", "id"),
}


def _in_words(place: Located, data: bytes) -> str:
    """``udp src=9 dst=9000``: a header's telling fields."""
    words = [place.layer.name]
    for one in place.layer.fields:
        if one.name in _TOLD.get(place.layer.name, ()):
            words.append(f"{one.name}={_value_text(one, _read(data, place.bit(one), one.bits))}")
    return " ".join(words)


def _value_text(one: Field, value: int) -> str:
    if one.bits == 48:
        return value.to_bytes(6, "big").hex(":")
    if one.bits == 128:
        return str(ipaddress.IPv6Address(value))
    return (
        str(ipaddress.IPv4Address(value))
        if one.name in ("src", "dst", "spa", "tpa") and one.bits == 32
        else str(value)
    )


def in_words(frame: bytes) -> str:
    """One line about a frame: its layers with the fields that tell packets apart."""
    packet = dissect(frame)
    parts = [_in_words(place, packet.data) for place in packet.headers]
    rest = len(frame) - packet.headers_end
    return " / ".join([*parts, *([f"{rest} bytes"] if rest else [])])

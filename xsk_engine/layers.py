"""The protocol layers: which fields they have, where, and which number says what comes next. Pure tables.

Sources: IEEE 802.3, 802.1Q; RFC 791, 8200, 768, 9293, 792, 4443, 826, 2784, 2890, 7348, 3032; numbers by
IANA."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from xsk_engine.packet import parse_mac

ETHERTYPES = {"ipv4": 0x0800, "arp": 0x0806, "vlan": 0x8100, "ipv6": 0x86DD, "mpls": 0x8847, "qinq": 0x88A8}
EXPERIMENTAL_ETHERTYPE = 0x88B5
PROTOCOLS = {
    "hopopts": 0,
    "icmp": 1,
    "ipv4": 4,
    "tcp": 6,
    "udp": 17,
    "ipv6": 41,
    "routing": 43,
    "fragment": 44,
    "gre": 47,
    "icmpv6": 58,
    "dstopts": 60,
    "mpls": 137,
}
EXPERIMENTAL_PROTOCOL, NO_NEXT_HEADER = 253, 59
TRANSPARENT_ETHERNET = 0x6558
VXLAN_PORT = 4789
_TCP_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}


def integer(text: str) -> int:
    """``64``, ``0x40``."""
    if not re.fullmatch(r"\s*(0[xX][0-9A-Fa-f]{1,40}|\d{1,40})\s*", text):
        raise ValueError(f"{text.strip()!r} is not a whole number (64, 0x40)")
    return int(text, 0) if text.strip()[:2].lower() == "0x" else int(text)


def _mac(text: str) -> int:
    return int.from_bytes(parse_mac(text), "big")


def _ipv4(text: str) -> int:
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError:
        hint = (
            " (a network is 10.0.0.0-10.0.0.255; layers stand apart with blanks: ' / ')"
            if "/" in text
            else ""
        )
        raise ValueError(f"{text!r} is not an IPv4 address{hint}") from None


def _ipv6(text: str) -> int:
    try:
        return int(ipaddress.IPv6Address(text.split("%")[0]))
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv6 address") from None


def _tcp_flags(text: str) -> int:
    letters = text.strip().upper()
    if letters and set(letters) <= set(_TCP_FLAGS):
        return sum(_TCP_FLAGS[letter] for letter in set(letters))
    try:
        return integer(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number or letters of FSRPAUEC (SA is SYN and ACK)") from None


@dataclass(frozen=True)
class Field:
    """``bits`` bits, ``at`` bits behind the layer's start. ``automatic``: filled in unless given."""

    name: str
    at: int
    bits: int
    default: int = 0
    parse: Callable[[str], int] = integer
    automatic: bool = False


@dataclass(frozen=True)
class Layer:
    """A header of ``length`` bytes before its variable part. ``carries``: how it names the next layer: the
    field, and the numbers. ``tail``: the name of a variable part in hex, padded to ``unit`` bytes."""

    name: str
    length: int
    fields: tuple[Field, ...]
    next_field: str = ""
    next_numbers: dict[str, int] = field(default_factory=dict)
    next_nothing: int = 0
    carries: tuple[str, ...] = ()
    tail: str = ""
    unit: int = 4
    max_tail: int = 40

    def find(self, name: str) -> Field:
        """ValueError with what there is."""
        for one in self.fields:
            if name in (one.name, _ALIASES.get((self.name, one.name))):
                return one
        extra = [self.tail] if self.tail else []
        raise ValueError(
            f"{self.name} has no field {name!r}; there are {', '.join([f.name for f in self.fields] + extra)}"
        )


_ALIASES = {
    ("udp", "src"): "sport",
    ("udp", "dst"): "dport",
    ("tcp", "src"): "sport",
    ("tcp", "dst"): "dport",
    ("ipv6", "hlim"): "ttl",
    ("ipv4", "ttl"): "hlim",
}
_INNER_MACS = (0x020000000002, 0x020000000001)
_TEST_NET = int(ipaddress.IPv4Address("192.0.2.0"))  # RFC 5737
_DOCUMENTATION = int(ipaddress.IPv6Address("2001:db8::"))  # RFC 3849
EXTENSIONS = ("hopopts", "dstopts", "routing", "fragment")
_OVER_IP = tuple(PROTOCOLS)


def _ether_next(at: int) -> Field:
    return Field("type", at, 16, automatic=True)


def _options(name: str) -> Layer:
    fields = (Field("nh", 0, 8, automatic=True), Field("len", 8, 8, automatic=True))
    return Layer(name, 2, fields, "nh", PROTOCOLS, NO_NEXT_HEADER, _OVER_IP, "options", 8, 2046)


LAYERS: dict[str, Layer] = {
    layer.name: layer
    for layer in (
        Layer(
            "eth",
            14,
            (
                Field("dst", 0, 48, _INNER_MACS[0], _mac),
                Field("src", 48, 48, _INNER_MACS[1], _mac),
                _ether_next(96),
            ),
            "type",
            ETHERTYPES,
            EXPERIMENTAL_ETHERTYPE,
            tuple(ETHERTYPES),
        ),
        *(
            Layer(
                name,
                4,
                (Field("pcp", 0, 3), Field("dei", 3, 1), Field("id", 4, 12, 1), _ether_next(16)),
                "type",
                ETHERTYPES,
                EXPERIMENTAL_ETHERTYPE,
                tuple(ETHERTYPES),
            )
            for name in ("vlan", "qinq")
        ),
        Layer(
            "mpls",
            4,
            (
                Field("label", 0, 20, 16),
                Field("tc", 20, 3),
                Field("s", 23, 1, automatic=True),
                Field("ttl", 24, 8, 64),
            ),
            carries=("mpls", "ipv4", "ipv6", "eth"),
        ),
        Layer(
            "arp",
            28,
            (
                Field("htype", 0, 16, 1),
                Field("ptype", 16, 16, 0x0800),
                Field("hlen", 32, 8, 6),
                Field("plen", 40, 8, 4),
                Field("op", 48, 16, 1),
                Field("sha", 64, 48, _INNER_MACS[1], _mac),
                Field("spa", 112, 32, _TEST_NET + 1, _ipv4),
                Field("tha", 144, 48, 0, _mac),
                Field("tpa", 192, 32, _TEST_NET + 2, _ipv4),
            ),
        ),
        Layer(
            "ipv4",
            20,
            (
                Field("version", 0, 4, 4),
                Field("ihl", 4, 4, automatic=True),
                Field("dscp", 8, 6),
                Field("ecn", 14, 2),
                Field("len", 16, 16, automatic=True),
                Field("id", 32, 16),
                Field("flags", 48, 3, 2),
                Field("frag", 51, 13),
                Field("ttl", 64, 8, 64),
                Field("proto", 72, 8, automatic=True),
                Field("csum", 80, 16, automatic=True),
                Field("src", 96, 32, _TEST_NET + 1, _ipv4),
                Field("dst", 128, 32, _TEST_NET + 2, _ipv4),
            ),
            "proto",
            PROTOCOLS,
            EXPERIMENTAL_PROTOCOL,
            tuple(name for name in PROTOCOLS if name not in (*EXTENSIONS, "icmpv6")),
            "options",
        ),
        Layer(
            "ipv6",
            40,
            (
                Field("version", 0, 4, 6),
                Field("dscp", 4, 6),
                Field("ecn", 10, 2),
                Field("flow", 12, 20),
                Field("len", 32, 16, automatic=True),
                Field("nh", 48, 8, automatic=True),
                Field("hlim", 56, 8, 64),
                Field("src", 64, 128, _DOCUMENTATION + 1, _ipv6),
                Field("dst", 192, 128, _DOCUMENTATION + 2, _ipv6),
            ),
            "nh",
            PROTOCOLS,
            NO_NEXT_HEADER,
            _OVER_IP,
        ),
        _options("hopopts"),
        _options("dstopts"),
        Layer(
            "routing",
            4,
            (
                Field("nh", 0, 8, automatic=True),
                Field("len", 8, 8, automatic=True),
                Field("type", 16, 8, 253),
                Field("left", 24, 8),
            ),
            "nh",
            PROTOCOLS,
            NO_NEXT_HEADER,
            _OVER_IP,
            "data",
            8,
            2044,
        ),
        Layer(
            "fragment",
            8,
            (
                Field("nh", 0, 8, automatic=True),
                Field("offset", 16, 13),
                Field("more", 31, 1),
                Field("id", 32, 32),
            ),
            "nh",
            PROTOCOLS,
            NO_NEXT_HEADER,
            _OVER_IP,
        ),
        Layer(
            "udp",
            8,
            (
                Field("src", 0, 16, 9),
                Field("dst", 16, 16, 9),
                Field("len", 32, 16, automatic=True),
                Field("csum", 48, 16, automatic=True),
            ),
            carries=("vxlan",),
        ),
        Layer(
            "tcp",
            20,
            (
                Field("src", 0, 16, 9),
                Field("dst", 16, 16, 9),
                Field("seq", 32, 32),
                Field("ack", 64, 32),
                Field("offset", 96, 4, automatic=True),
                Field("flags", 104, 8, 2, _tcp_flags),
                Field("window", 112, 16, 65535),
                Field("csum", 128, 16, automatic=True),
                Field("urg", 144, 16),
            ),
            tail="options",
        ),
        Layer(
            "icmp",
            8,
            (
                Field("type", 0, 8, 8),
                Field("code", 8, 8),
                Field("csum", 16, 16, automatic=True),
                Field("id", 32, 16),
                Field("seq", 48, 16),
            ),
        ),
        Layer(
            "icmpv6",
            8,
            (
                Field("type", 0, 8, 128),
                Field("code", 8, 8),
                Field("csum", 16, 16, automatic=True),
                Field("id", 32, 16),
                Field("seq", 48, 16),
            ),
        ),
        Layer(
            "gre",
            4,
            (Field("has", 0, 4, automatic=True), Field("version", 13, 3), _ether_next(16)),
            "type",
            {**ETHERTYPES, "eth": TRANSPARENT_ETHERNET},
            EXPERIMENTAL_ETHERTYPE,
            ("ipv4", "ipv6", "eth", "mpls", "arp"),
        ),
        Layer(
            "vxlan",
            8,
            (Field("flags", 0, 8, 8), Field("vni", 32, 24, 1)),
            carries=("eth",),
        ),
        Layer("hex", 0, (), tail="bytes", unit=1, max_tail=65535),
    )
}
"""By name, in the order of a packet, more or less."""

GRE_OPTIONAL = (("csum", 0x8), ("key", 0x2), ("seq", 0x1))
"""Optional words of GRE in their order, with their bit among the first four (RFC 2784, 2890)."""

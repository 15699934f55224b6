"""What is rewritten in a capture file's packets: ``ip.dst=10.77.0.2``. Pure; errors are ``ValueError``."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from xsk_engine.packet import parse_mac
from xsk_engine.units import whole

LAYERS = ("eth", "ipv4", "ipv6", "ports", "tag", "untag")
"""native enum xske_edit_layer"""


@dataclass(frozen=True)
class Edit:
    """``value`` where ``mask`` says so, ``offset`` bytes into the header ``layer`` (one of LAYERS; of IP the
    outermost). ``keep_group``: not where the first byte says multicast or broadcast."""

    layer: str
    offset: int
    value: bytes
    mask: bytes
    keep_group: bool = False


def _whole(layer: str, offset: int, value: bytes) -> tuple[Edit, ...]:
    return (Edit(layer, offset, value, b"\xff" * len(value)),)


def _number(text: str, most: int) -> int:
    number = whole(text)
    if number is None or number > most:
        raise ValueError(f"{text!r} is not a number from 0 to {most}")
    return number


def _address(text: str, offset4: int, offset6: int) -> tuple[Edit, ...]:
    try:
        one = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"{text!r} is no address, nor a prefix as 10.77.0.0/24") from None
    layer, offset = ("ipv4", offset4) if one.version == 4 else ("ipv6", offset6)
    return (Edit(layer, offset, one.ip.packed, one.netmask.packed),)


def _dscp(text: str) -> tuple[Edit, ...]:
    dscp = _number(text, 63)
    # IPv6 has the traffic class 4 bits into the header (RFC 8200, 3)
    return (
        Edit("ipv4", 1, bytes([dscp << 2]), b"\xfc"),
        Edit("ipv6", 0, (dscp << 6).to_bytes(2, "big"), b"\x0f\xc0"),
    )


def _ttl(text: str) -> tuple[Edit, ...]:
    ttl = bytes([_number(text, 255)])
    return (*_whole("ipv4", 8, ttl), *_whole("ipv6", 7, ttl))


def _vlan(text: str) -> tuple[Edit, ...]:
    if text == "none":
        return (Edit("untag", 0, b"\0", b"\0"),)
    return (Edit("tag", 0, _number(text, 4095).to_bytes(2, "big"), b"\x0f\xff"),)


_FIELDS: dict[str, Callable[[str], tuple[Edit, ...]]] = {
    "eth.dst": lambda text: _whole("eth", 0, parse_mac(text)),
    "eth.src": lambda text: _whole("eth", 6, parse_mac(text)),
    "vlan": _vlan,
    "ip.src": lambda text: _address(text, 12, 8),
    "ip.dst": lambda text: _address(text, 16, 24),
    "ip.ttl": _ttl,
    "ip.dscp": _dscp,
    "port.src": lambda text: _whole("ports", 0, _number(text, 65535).to_bytes(2, "big")),
    "port.dst": lambda text: _whole("ports", 2, _number(text, 65535).to_bytes(2, "big")),
}
FIELDS = tuple(_FIELDS)
_ELSEWHERE = {
    **{f"{layer}.{end}": f"port.{end}" for layer in ("udp", "tcp") for end in ("src", "dst")},
    **{f"{layer}.{end[0]}port": f"port.{end}" for layer in ("udp", "tcp") for end in ("src", "dst")},
    **{f"{layer}.{one}": f"ip.{one}" for layer in ("ipv4", "ipv6") for one in ("src", "dst", "ttl", "dscp")},
    "vlan.id": "vlan",
}
"""what flows call the same"""


def parse_edit(text: str) -> tuple[Edit, ...]:
    """``FIELD=VALUE`` with a field of FIELDS: a MAC address, an IP address (with ``/24`` its first 24 bits),
    a number, ``vlan=none``."""
    from difflib import get_close_matches

    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise ValueError(f"edit: {text!r} is not FIELD=VALUE, as ip.dst=10.77.0.2")
    if name not in _FIELDS:
        near = get_close_matches(_ELSEWHERE.get(name, name), FIELDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FIELDS)}"
        raise ValueError(f"edit: unknown field {name!r}; {hint}")
    try:
        return _FIELDS[name](value)
    except ValueError as error:
        raise ValueError(f"edit {name}: {error}") from None


def to_neighbour(dst_mac: str, src_mac: str) -> tuple[Edit, ...]:
    """To this neighbour and from this interface; what goes to groups still does."""
    (dst,) = _whole("eth", 0, parse_mac(dst_mac))
    return (Edit(dst.layer, 0, dst.value, dst.mask, keep_group=True), *_whole("eth", 6, parse_mac(src_mac)))

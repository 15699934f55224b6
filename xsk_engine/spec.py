"""A flow as text: ``vlan id=10-12 / ip dst=10.77.0.2 / udp dst=1000-1099 ; size=imix ; weight=3``. Pure.

Layers from the outside in, with `` / `` between them (blanks on both sides), then settings after ``;``.
Ethernet in front may be left out; ``ip`` is IPv4 or IPv6 by its addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

from xsk_engine import units
from xsk_engine.flow import Flow, Pace
from xsk_engine.headers import Header
from xsk_engine.layers import LAYERS, integer
from xsk_engine.payload import parse_hex, parse_payload
from xsk_engine.sizes import parse_sizes
from xsk_engine.values import Values, parse_values

_SWITCH = {"": True, "on": True, "yes": True, "off": False, "no": False}


def _switch(text: str) -> bool:
    if text not in _SWITCH:
        raise ValueError(f"{text!r} is neither on nor off")
    return _SWITCH[text]


def _seconds(text: str) -> Fraction:
    return Fraction(units.parse_seconds(text)).limit_denominator(10**9)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return parse


SETTINGS: dict[str, Callable[[str], Any]] = {
    "size": parse_sizes,
    "payload": parse_payload,
    "signature": _switch,
    "advance": _one_of(("together", "nest")),
    "checksum": _one_of(("software", "offload", "none")),
    "weight": units.parse_count,
    "count": units.parse_count,
    "rate": units.parse_rate,
    "burst": units.parse_count,
    "burst-gap": _seconds,
    "poisson": _switch,
    "name": str,
}
_PACE = {"rate": "rate", "burst": "burst", "burst-gap": "burst_gap_s", "poisson": "poisson"}
_NAMES = {"size": "sizes"}


def _which_ip(text: str) -> str:
    return "ipv6" if ":" in text else "ipv4"


def parse_field(layer: str, name: str, text: str) -> tuple[str, Values]:
    """The field's own name, and what it holds. ValueError names both."""
    if layer == "gre" and name in ("key", "seq", "csum"):
        if name == "csum":
            if text not in ("1", "on"):
                raise ValueError(f"gre csum: {text!r}: on, or leave it out")
            return name, 0
        return name, parse_values(text, integer)
    found = LAYERS[layer].find(name)
    try:
        return found.name, parse_values(text, found.parse)
    except ValueError as error:
        raise ValueError(f"{layer} {name}: {error}") from None


def parse_header(text: str) -> Header:
    """One layer: ``udp dst=1000-1099 src=7``; ``hex c0ffee``."""
    words = text.split()
    if not words:
        raise ValueError("packet: an empty layer; layers are written as: vlan id=7 / ip dst=10.0.0.1 / udp")
    name = words[0].lower()
    if name == "ip":
        name = _which_ip(text)
    if name not in LAYERS:
        raise ValueError(f"packet: no layer {name!r}; there are ip, {', '.join(LAYERS)}")
    layer, values, tail = LAYERS[name], {}, b""
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if name == "hex" and not equals:
            tail += parse_hex(word)
        elif not equals:
            raise ValueError(f"packet: {name}: {word!r} is not field=value")
        elif layer.tail and key == layer.tail:
            tail = parse_hex(value)
        else:
            own, parsed = parse_field(name, key, value)
            if own in values:
                raise ValueError(f"packet: {name} {own}: it is given twice")
            values[own] = parsed
    return Header(name, values, tail)


def parse_flow(text: str, defaults: Flow | None = None) -> Flow:
    """A flow from its text (docs/traffic.md), with the settings of ``defaults`` where it says nothing.
    ValueError says what is wrong. Any thread.

        flow = xsk_engine.parse_flow("ip dst=10.77.0.2 / udp dst=1000-1099 ; size=imix ; payload=text:hello")
        engine.start(flow, rate="10kpps", count=100).wait(1.0)
    """
    packet, *settings = text.split(";")
    pairs = [tuple(part.strip() for part in setting.partition("=")[::2]) for setting in settings]
    return make_flow(packet, [(key, value) for key, value in pairs if key], defaults)


def parse_setting(key: str, value: str) -> Any:
    """What a setting's text means. ValueError names it."""
    try:
        if key.startswith("@"):
            if not re.fullmatch(r"@\d+/\d+", key):
                raise ValueError("it is not @offset/width, as @42/4")
            return parse_values(value, integer)
        if key in SETTINGS:
            return SETTINGS[key](value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    near = get_close_matches(key, SETTINGS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SETTINGS)} and @offset/width"
    raise ValueError(f"no setting {key!r}; {hint}")


def make_flow(packet: str, settings: Sequence[tuple[str, str]], defaults: Flow | None = None) -> Flow:
    """The same, of its layers and (name, text) of each setting."""
    headers = tuple(parse_header(part) for part in re.split(r"\s+/\s+", packet.strip()))
    flow = replace(defaults or Flow(headers), template=headers)
    pace: dict[str, Any] = {}
    for key, value in settings:
        try:
            parsed = parse_setting(key, value)
        except ValueError as error:
            raise ValueError(f"packet: {error}") from None
        if key.startswith("@"):
            flow = replace(flow, fields={**flow.fields, key: parsed})
        elif key in _PACE:
            pace[_PACE[key]] = parsed
        else:
            flow = replace(flow, **{_NAMES.get(key, key): parsed})
    if pace:
        flow = replace(flow, pace=Pace(**pace))
    if flow.count is not None and flow.pace is None:
        raise ValueError("packet: count: only a flow with a rate of its own counts its own packets")
    return flow


def simple_packet(fields: dict[str, str], protocol: str) -> tuple[Header, ...]:
    """The packet of the plain options: ``{"ip.dst": "10.77.0.2", "udp.dst": "9", "vlan": ["10", "20"],
    ...}``."""
    headers: dict[str, dict[str, Values]] = {"eth": {}}
    tags = list(fields.pop("vlan", ()))
    stack: list[Header] = []
    source, destination = fields.get("ip.src", ""), fields.get("ip.dst", "")
    if re.search(r"[.:]", source) and _which_ip(source) != _which_ip(destination):
        raise ValueError(f"addresses: {source} and {destination} are of different IP versions")
    version = _which_ip(fields.get("ip.dst", "") + fields.get("ip.src", ""))
    upper = "icmpv6" if protocol == "icmp" and version == "ipv6" else protocol
    names = {"ip": version, "port": upper}
    for path, text in fields.items():
        layer, _, name = path.partition(".")
        layer = names.get(layer, layer)
        own, parsed = parse_field(layer, name, text)
        headers.setdefault(layer, {})[own] = parsed
    stack.append(Header("eth", headers["eth"]))
    for i, tag in enumerate(tags):
        kind = "vlan" if i == len(tags) - 1 else "qinq"
        stack.append(Header(kind, dict([parse_field("vlan", "id", tag)])))
    return (*stack, Header(version, headers.get(version, {})), Header(upper, headers.get(upper, {})))

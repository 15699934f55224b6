"""What to send: flows, and the traffic they make together. Data only; :mod:`.flowprogram` makes programs of
it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from xsk_engine.headers import Header
from xsk_engine.layers import Field
from xsk_engine.payload import Payload
from xsk_engine.sizes import Sizes
from xsk_engine.units import Rate
from xsk_engine.values import as_values

DEFAULT_BATCH = 64
MAX_BATCH = 4096
MAX_FLOWS = 100_000
FIELD_PATH = re.compile(r"(\w+)(?:\[(\d{1,9})\])?\.(\w+)")
"""``udp.src``, ``ipv4[1].dst``"""
NAMES = {"ip": ("ipv4", "ipv6")}

CHECKSUMS = ("software", "offload", "none")
ADVANCES = ("together", "nest")


@dataclass(frozen=True)
class Flow:
    """A template and what changes in it from packet to packet.

    ``template``: a whole Ethernet frame without FCS (bytes, bytearray, memoryview, a uint8 numpy array, or
    a scapy packet), or the headers to build one from. ``fields``: what changes: ``{"udp.src": Range(1000,
    1999)}``; ``ipv4[1].dst`` is the second IPv4 header's, ``@42/8`` bytes 42 to 49. The same may stand in a
    Header. parse_flow() makes one from text. Immutable: any thread.

        frame = bytes.fromhex("027700000002 027700000001 88b5") + bytes(46)
        flow = xsk_engine.Flow(frame, {"@14/4": xsk_engine.Sequence()})
        engine.start(flow, count=100).wait(1.0)
    """

    template: Any
    fields: Mapping[str, Any] = field(default_factory=dict)
    sizes: Sizes | None = None
    """None: the template's length, or what the headers and the payload need, at least 60"""
    payload: Payload = field(default_factory=Payload)
    """behind headers; a whole frame has its own"""
    signature: bool = False
    """the last 24 bytes say flow, sequence and time (payload.py)"""
    advance: str = "together"
    """ranges and lists step together, or nest: the one written last is the fastest"""
    checksum: str = "software"
    """or "offload" to the device, or "none" (that of IPv4 headers stays)"""
    weight: int = 1
    """how often its turn comes among the flows that share a rate"""
    pace: Pace | None = None
    """a rate of its own"""
    count: int | None = None
    """packets, with a pace of its own"""
    name: str = ""
    """what figures call it"""
    signature_id: int | None = None
    """the flow id in its signature, from 0 to 2^32 - 1; None: its place in the traffic"""


@dataclass(frozen=True)
class Pace:
    """``rate`` None: as fast as it goes. ``burst`` packets at once, then ``burst_gap_s`` seconds until the
    next, or None to keep the rate on average. ``poisson``: exponential gaps with the rate's mean. ValueError
    for what does not go together."""

    rate: Rate | None = None
    burst: int = 0
    burst_gap_s: Fraction | None = None
    poisson: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None and self.rate.value <= 0:
            raise ValueError(f"rate: {self.rate} is not above 0")
        if self.burst < 0 or self.burst > 1 << 20:
            raise ValueError(f"burst: {self.burst} is not in 1 to {1 << 20} packets")
        if self.burst_gap_s is not None and self.burst_gap_s < Fraction(1, 10**9):
            raise ValueError("burst-gap: a nanosecond is the least")
        if self.burst_gap_s is not None and not self.burst:
            raise ValueError("burst-gap: it needs a burst of so many packets")
        if self.burst and self.burst_gap_s is None and self.rate is None:
            raise ValueError("burst: it needs a burst gap, or a rate to keep on average")
        if self.poisson and (self.rate is None or self.burst):
            raise ValueError("poisson: it needs a rate, and no bursts")


@dataclass(frozen=True)
class Traffic:
    """Flows, and what holds for them together.

    ``flows``: one or several, each a Flow or a whole frame. ``count`` packets in all, or for ``duration_s``
    seconds, whichever ends first (None: no limit), at ``rate`` packets per second (or a Pace), by those
    that have no rate of their own. At most ``batch`` packets per turn of a loop, at most ``quota_frags``
    descs inflight (0: the ring's size). The same ``seed`` gives the same packets, on any number of queues.
    Immutable: any thread.

        traffic = xsk_engine.Traffic([flow], count=100, rate=10_000)
        engine.start(traffic).wait(1.0)
    """

    flows: Flow | bytes | Sequence[Flow | bytes]
    count: int | None = None
    duration_s: float | None = None
    rate: Pace | Fraction | int | None = None
    seed: int = 1
    batch: int = DEFAULT_BATCH
    quota_frags: int = 0
    timestamps: bool = False
    """take the kernel's tx timestamps"""

    def __post_init__(self) -> None:
        if self.count is not None and not 1 <= self.count < 1 << 63:
            raise ValueError(f"count: {self.count} packets; at least one")
        if self.duration_s is not None and not 0 < self.duration_s < 1e9:
            raise ValueError(f"duration: {self.duration_s} s is not above 0")
        if not 0 <= self.quota_frags < 1 << 32:
            raise ValueError(f"quota_frags: {self.quota_frags} is not in 0 to {(1 << 32) - 1}")
        if self.rate is not None:
            self.pace  # noqa: B018 - or a wrong rate would be found when it runs

    @property
    def pace(self) -> Pace:
        """Of the flows without a rate of their own."""
        if isinstance(self.rate, Pace):
            return self.rate
        return Pace(Rate("pps", Fraction(self.rate)) if self.rate is not None else None)

    @property
    def all_flows(self) -> tuple[Flow, ...]:
        """As a tuple of Flow."""
        many = self.flows if isinstance(self.flows, (list, tuple)) else (self.flows,)
        return tuple(one if isinstance(one, Flow) else Flow(one) for one in many)


def headers_of(flow: Flow) -> tuple[Header, ...] | None:
    """What its template is built from; None for a whole frame."""
    template = flow.template
    if isinstance(template, (list, tuple)) and all(isinstance(one, Header) for one in template):
        return tuple(template)
    return None


def in_headers(flow: Flow) -> Flow:
    """The same flow with the fields that name a header's field in that header; a whole frame as it is."""
    headers = headers_of(flow)
    if headers is None:
        return flow
    stack = list(headers if headers and headers[0].name in ("eth", "hex") else (Header("eth"), *headers))
    rest = {}
    for path, values in flow.fields.items():
        match = FIELD_PATH.fullmatch(path)
        found = [
            i for i, header in enumerate(stack) if match and header.name in NAMES.get(match[1], (match[1],))
        ]
        if match is None or int(match[2] or 0) >= len(found):
            rest[path] = values
            continue
        at = found[int(match[2] or 0)]
        gre = stack[at].name == "gre" and match[3] in ("key", "seq", "csum")
        one = Field(match[3], 0, 32) if gre else stack[at].layer.find(match[3])
        own = {one.name: as_values(values, one.parse, path)}
        stack[at] = replace(stack[at], values={**stack[at].values, **own})
    return replace(flow, template=tuple(stack), fields=rest)

"""Random flows for hypothesis, and scapy's opinion of the packets that come of them."""

import scapy.contrib.mpls
import scapy.layers.vxlan  # noqa: F401
from hypothesis import strategies as st
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6Unknown, IPv6, _ICMPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import NoPayload, Packet

from xsk_engine import dryrun, sizes
from xsk_engine.flow import Flow
from xsk_engine.headers import Header
from xsk_engine.layers import LAYERS
from xsk_engine.payload import Payload
from xsk_engine.values import Choice, FlowId, Random, Range, Sequence

# What says how the rest is to be read stays as it is, or scapy and we would read different packets.
STRUCTURAL = {
    "version",
    "ihl",
    "offset",
    "type",
    "proto",
    "nh",
    "has",
    "len",
    "s",
    "hlen",
    "plen",
    "frag",
    "flags",
}
UPPER = ["udp", "tcp"]


def values_for(field):
    most = (1 << field.bits) - 1
    number = st.integers(0, most)
    step = st.integers(1, 7)
    return st.one_of(
        number,
        st.builds(lambda a, n, s: Range(a, min(a + n, most), s), number, st.integers(0, 300), step),
        st.builds(lambda a, n, s: Range(a, max(a - n, 0), s), number, st.integers(0, 300), step),
        st.builds(lambda v: Choice(tuple(v)), st.lists(number, min_size=1, max_size=5)),
        st.just(Random()),
        st.builds(lambda a, n: Random(Range(a, min(a + n, most))), number, st.integers(0, 300)),
        st.builds(Sequence, number),
        st.builds(FlowId, number.filter(lambda v: v < most)),
    ).filter(lambda v: field.bits <= 64 or not crosses_64_bits(v))


def crosses_64_bits(values):
    if isinstance(values, Random):
        values = values.among
    return isinstance(values, Range) and values.first >> 64 != values.last >> 64


@st.composite
def header(draw, name):
    layer = LAYERS[name]
    able = [f for f in layer.fields if not f.automatic and f.name not in STRUCTURAL]
    if name == "tcp":
        able.append(layer.find("flags"))
    chosen = draw(st.lists(st.sampled_from(able), max_size=4, unique=True)) if able else []
    values = {field.name: draw(values_for(field)) for field in chosen}
    if name == "gre" and draw(st.booleans()):
        values |= {"key": draw(st.integers(0, 2**32 - 1)), "csum": 0}
    if name == "udp":
        values.setdefault("dst", 9)
        if values["dst"] == 4789 or not isinstance(values["dst"], int):
            values["dst"] = 9000
    tail = b""
    if name == "tcp" and draw(st.booleans()):
        tail = bytes.fromhex("020405b4 01030307".replace(" ", ""))
    if name == "ipv4" and draw(st.booleans()):
        tail = bytes([0x94, 4, 0, 0])  # router alert, RFC 2113
    return Header(name, values, tail)


@st.composite
def ip_and_above(draw):
    version = draw(st.sampled_from(["ipv4", "ipv6"]))
    upper = draw(st.sampled_from([*UPPER, "icmp" if version == "ipv4" else "icmpv6"]))
    extensions = []
    if version == "ipv6" and draw(st.booleans()):
        extensions = [Header("hopopts", {}, bytes([5, 2, 0, 0])), Header("dstopts", {}, b"\x1e\x01\x07")]
    return [draw(header(version)), *extensions, draw(header(upper))]


@st.composite
def stacks(draw):
    front = draw(st.sampled_from([[], ["vlan"], ["qinq", "vlan"], ["mpls", "mpls"]]))
    headers = [draw(header("eth")), *[draw(header(name)) for name in front]]
    kind = draw(st.sampled_from(["plain", "plain", "plain", "arp", "gre", "vxlan"]))
    if kind == "arp" and front != ["mpls", "mpls"]:
        return [*headers, draw(header("arp"))]
    if kind == "gre":
        return [*headers, draw(header("ipv4")), draw(header("gre")), *draw(ip_and_above())]
    if kind == "vxlan":
        outer = draw(header(draw(st.sampled_from(["ipv4", "ipv6"]))))
        inner = [draw(header("eth")), *draw(ip_and_above())]
        return [*headers, outer, Header("udp", {"src": Range(49152, 65535)}), draw(header("vxlan")), *inner]
    return [*headers, *draw(ip_and_above())]


all_sizes = st.one_of(
    st.none(),
    st.integers(400, 1514).map(lambda n: sizes.of([n])),
    st.just(sizes.parse_sizes("400-420")),
    st.just(sizes.parse_sizes("random(400-900)")),
    st.just(sizes.parse_sizes("401:3,1001:2,1513:1")),
)
payloads = st.one_of(
    st.just(Payload()),
    st.binary(min_size=1, max_size=40).map(Payload),
    st.just(Payload(bytes(range(256)), repeat=True)),
    st.just(Payload(by_seed=True)),
)


@st.composite
def flows(draw):
    return Flow(
        draw(stacks()),
        sizes=draw(all_sizes),
        payload=draw(payloads),
        signature=draw(st.booleans()),
        advance=draw(st.sampled_from(["together", "nest"])),
    )


def sent(traffic, most):
    """The first frames, as the loop makes them."""
    return [frame for _, frame in dryrun.packets(traffic, most)]


def _layers(packet):
    while not isinstance(packet, NoPayload):
        yield packet
        packet = packet.payload


def _rebuilt(packet: Packet) -> Packet:
    """The same with lengths and checksums of scapy's making; a UDP checksum of 0 stays."""
    again = packet.copy()
    for layer in _layers(again):
        own = {
            IP: ("chksum", "len"),
            UDP: ("chksum", "len"),
            TCP: ("chksum",),
            ICMP: ("chksum",),
            GRE: ("chksum",),
            IPv6: ("plen",),
        }
        names = next((n for kind, n in own.items() if isinstance(layer, kind)), ())
        if isinstance(layer, (_ICMPv6, ICMPv6Unknown)):
            names = ("cksum",)
        for name in names:
            if name in layer.fields and not (
                name == "chksum" and isinstance(layer, UDP) and not layer.chksum
            ):
                delattr(layer, name)  # and not from .fields: scapy would keep the bytes that it has read
    return again


def why_wrong(frame: bytes) -> str:
    """How scapy would have built it otherwise; "" when it would not."""
    parsed = Ether(frame)
    again = raw(_rebuilt(parsed))
    if again == frame:
        return ""
    at = next((i for i, (a, b) in enumerate(zip(again, frame, strict=False)) if a != b), len(again))
    return (
        f"differs at byte {at}: {frame.hex()}\nscapy's:              {again.hex()}\n{parsed.show2(dump=True)}"
    )

"""Frames that scapy builds, checked: what is ours, what a flipped bit makes of it, where a packet ends."""

import struct

import pytest
from checker import feed, helper, kind, signature, verdict
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, in4_pseudoheader
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
    PadN,
    in6_pseudoheader,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from xsk_engine._ffi import native as ffi
from xsk_engine.checking import Checker
from xsk_engine.payload import MAGIC, REFLECTED_MAGIC

ETH = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
V4, V6 = {"src": "10.1.2.3", "dst": "10.4.5.6"}, {"src": "fd00::1", "dst": "fd00::2"}
ROUTER_ALERT = bytes([0x94, 4, 0, 0])  # RFC 2113
SIGNATURE = signature(3, 5, 1000)
PARTIAL = ffi.CHECK_CSUM_PARTIAL

TAGS = [(), (Dot1Q(vlan=7),), (Dot1AD(vlan=100), Dot1Q(vlan=7))]
EXTENSIONS = [
    IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(12))]),
    IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\x55" * 4)]),
    IPv6ExtHdrRouting(type=0, segleft=0, addresses=["fd00::9"]),
    IPv6ExtHdrRouting(type=0, segleft=2, addresses=["fd00::9", "fd00::8"]),
    IPv6ExtHdrSegmentRouting(segleft=1, addresses=["fd00::7", "fd00::6"]),
]


def stack(*layers):
    packet = ETH.copy()
    for layer in layers:
        packet = packet / layer.copy()
    return packet


@st.composite
def frames(draw, tail=SIGNATURE):
    """(bytes, offset of the IP header, end of the packet); padded behind it."""
    tags = draw(st.sampled_from(TAGS))
    before = draw(st.binary(max_size=70))
    if draw(st.booleans()):
        options = draw(st.sampled_from([b"", ROUTER_ALERT, ROUTER_ALERT * 10]))
        network = [IP(**V4, options=options, id=draw(st.integers(0, 65535)))]
        upper = draw(st.sampled_from([UDP(sport=9, dport=10), TCP(sport=9, dport=10), ICMP(), "options"]))
        if upper == "options":
            upper = TCP(sport=9, dport=10, options=[("Timestamp", (1, 2)), ("EOL", None)])
    else:
        network = [IPv6(**V6), *EXTENSIONS[: draw(st.integers(0, 1))]]
        network += draw(st.lists(st.sampled_from(EXTENSIONS[1:]), max_size=3))
        # Which address is final is for one routing header to say.
        routing = (IPv6ExtHdrRouting, IPv6ExtHdrSegmentRouting)
        assume(sum(isinstance(layer, routing) for layer in network) <= 1)
        upper = draw(st.sampled_from([UDP(sport=9, dport=10), TCP(sport=9, dport=10), ICMPv6EchoRequest()]))
    frame = raw(stack(*tags, *network, upper) / (before + tail))
    return frame + draw(st.binary(max_size=20)), 14 + 4 * len(tags), len(frame)


places = st.lists(st.integers(0, 200), max_size=12)


@given(frame=frames(), at=places)
@settings(max_examples=400, deadline=None)
def test_ours_is_received_in_any_pieces(frame, at):
    data, _, _ = frame
    result = verdict(data, 1700, at=at)
    assert kind(result) == "received"
    assert (result.unverified_packets, result.csum_partial_packets) == (0, 0)
    flow = result.flows[0]
    assert (flow.flow_id, flow.highest_sequence, flow.received_bytes) == (3, 5, len(data))
    assert flow.latency.max_ns == 700


def sent_back(frame, end):
    """The magic as a reflector leaves it, and not a byte more. The packet ends at `end`."""
    at = end - len(SIGNATURE)
    assert frame[at : at + 4] == MAGIC.to_bytes(4, "big")
    return frame[:at] + REFLECTED_MAGIC.to_bytes(4, "big") + frame[at + 4 :]


@given(frame=frames(), at=places)
@settings(max_examples=200, deadline=None)
def test_no_checksum_notices_that_it_was_sent_back(frame, at):
    """Wherever the signature stands; and who waits for what comes back takes nothing else for it."""
    data, _, end = frame
    assert kind(verdict(sent_back(data, end), at=at, reflected=True)) == "received"
    assert kind(verdict(data, at=at, reflected=True)) == "foreign"
    assert kind(verdict(sent_back(data, end), at=at)) == "foreign"


@given(frame=frames(tail=b"\0" * 24), at=places)
@settings(max_examples=150, deadline=None)
def test_what_has_no_signature_is_foreign(frame, at):
    assert kind(verdict(frame[0], at=at)) == "foreign"


def uncovered(frame, at):
    """Bits from the IP header on that no checksum covers, and that say nothing of what follows: RFC 8200."""
    if frame[at] >> 4 == 4:
        return set()
    bits = bits_of(at, at + 4) - bits_of(at, at + 0.5) | bits_of(at + 7, at + 8)
    following, here = frame[at + 6], at + 40
    while following in (0, 43, 60):
        end = here + (frame[here + 1] + 1) * 8
        bits |= bits_of(here + 2, end)
        kind_of, left = frame[here + 2], frame[here + 3]
        if following == 43:
            bits -= bits_of(here + 3, here + 4) if not left else set()
            bits -= {bit for bit in bits_of(here + 3, here + 4) if left == 0x80 >> bit % 8}
        if following == 43 and left:
            final = here + 8 if kind_of == 4 else end - 16
            bits -= bits_of(here + 2, here + 3) | bits_of(final, final + 16)
            bits |= bits_of(at + 24, at + 40)
            if kind_of == 0:
                bits |= bits_of(here + 2.75, here + 2.875)  # type 2 has the address where type 0 has it
        following, here = frame[here], end
    if following == 17:  # UDP has a length of its own: IPv6's may be more, as far as the frame goes
        said = int.from_bytes(frame[at + 4 : at + 6], "big")
        longer = {at * 8 + 32 + bit for bit in range(16) if not said & 0x8000 >> bit}
        bits |= {bit for bit in longer if at + 40 + (said | 0x8000 >> bit % 16) <= len(frame)}
    return bits


def bits_of(start, end):
    """Of bytes."""
    return set(range(int(start * 8), int(end * 8)))


def flipped(frame, bit):
    data = bytearray(frame)
    data[bit // 8] ^= 0x80 >> bit % 8
    return bytes(data)


def where(frame, at):
    """Offset and protocol of the transport header."""
    if frame[at] >> 4 == 4:
        return at + (frame[at] & 15) * 4, frame[at + 9]
    following, here = frame[at + 6], at + 40
    while following in (0, 43, 60):
        following, here = frame[here], here + (frame[here + 1] + 1) * 8
    return here, following


FIELD = {17: 6, 6: 16, 1: 2, 58: 2}
LAYERS = {17: UDP, 6: TCP, 58: ICMPv6EchoRequest}


def still_legal(frame, at, end, bit):
    """The checksum itself, flipped into `none` or into the pseudo header's sum: the rest is intact, then."""
    upper, protocol = where(frame, at)
    field = upper + FIELD[protocol]
    if bit // 8 not in (field, field + 1):
        return False
    value = int.from_bytes(flipped(frame, bit)[field : field + 2], "big")
    pseudo = pseudo_sum(frame, at, end)
    return (protocol == 17 and value == 0) or value == pseudo


def fold(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_sum(frame, at, end):
    """As scapy has the pseudo header."""
    upper, protocol = where(frame, at)
    if frame[at] >> 4 == 4:
        return fold(in4_pseudoheader(protocol, IP(frame[at:end]), end - upper))
    parsed = IPv6(frame[at:end])
    return fold(raw(in6_pseudoheader(protocol, parsed[LAYERS[protocol]], end - upper)))


@given(frame=frames(), data=st.data(), at=places)
@settings(max_examples=500, deadline=None)
def test_a_flipped_bit_is_never_received(frame, data, at):
    original, ip, end = frame
    bit = data.draw(st.integers(ip * 8, end * 8 - 1))
    assume(not still_legal(original, ip, end, bit))
    result = verdict(flipped(original, bit), at=at)
    if bit in uncovered(original, ip):
        assert kind(result) == "received"
    elif original[ip] >> 4 == 4:
        assert kind(result) in ("corrupt", "truncated")
    else:
        assert kind(result) in ("corrupt", "truncated", "foreign")
    if bit >= where(original, ip)[0] * 8:
        assert kind(result) == "corrupt"


FIXED = {
    "udp": stack(IP(**V4), UDP(sport=9, dport=10)) / SIGNATURE,
    "odd tcp": stack(Dot1Q(vlan=7), IP(**V4, options=ROUTER_ALERT), TCP(sport=9, dport=10))
    / (b"x" + SIGNATURE),
    "icmp": stack(IP(**V4), ICMP()) / SIGNATURE,
    "udp over ipv6": stack(IPv6(**V6), UDP(sport=9, dport=10)) / (b"odd" + SIGNATURE),
    "extensions": stack(IPv6(**V6), *EXTENSIONS[:3], TCP(sport=9, dport=10)) / SIGNATURE,
    "final address": stack(IPv6(**V6), EXTENSIONS[3], UDP(sport=9, dport=10)) / SIGNATURE,
    "segments": stack(IPv6(**V6), EXTENSIONS[4], ICMPv6EchoRequest()) / SIGNATURE,
}


@pytest.mark.parametrize("name", FIXED)
def test_every_single_bit(name):
    frame = raw(FIXED[name])
    ip = 18 if name == "odd tcp" else 14
    free, checker = uncovered(frame, ip), Checker(8)
    received = bits = 0
    for bit in range(ip * 8, len(frame) * 8):
        if not still_legal(frame, ip, len(frame), bit):
            feed(checker, flipped(frame, bit), at=(bit // 9, 40))
            bits += 1
            received += bit in free
    result = checker.read()
    assert result.received_packets + result.duplicate_packets == received
    assert result.corrupt_packets + result.truncated_packets + result.foreign_packets == bits - received
    if not free:
        assert result.foreign_packets == 0
    checker.close()


@given(frame=frames(), at=places)
@settings(max_examples=200, deadline=None)
def test_unfinished_checksums(frame, at):
    data, ip, end = frame
    upper, protocol = where(data, ip)
    field = upper + FIELD[protocol]
    partial = bytearray(data)
    value = pseudo_sum(data, ip, end) if protocol != 1 else 0x1234
    assume(value != int.from_bytes(data[field : field + 2], "big"))
    partial[field : field + 2] = value.to_bytes(2, "big")
    if protocol != 1:
        result = verdict(bytes(partial), at=at)
        assert (kind(result), result.csum_partial_packets) == ("received", 1)
    result = verdict(bytes(partial), flags=PARTIAL, at=at)
    assert (kind(result), result.csum_partial_packets) == ("received", 1)
    partial[field] ^= 0x10
    assume(protocol != 17 or partial[field] or partial[field + 1])
    assume(
        int.from_bytes(partial[field : field + 2], "big") != int.from_bytes(data[field : field + 2], "big")
    )
    assert kind(verdict(bytes(partial), at=at)) == "corrupt"
    assert kind(verdict(bytes(partial), flags=PARTIAL, at=at)) == "received"
    result = verdict(data, flags=PARTIAL, at=at)
    assert (kind(result), result.csum_partial_packets) == ("received", 0), "right is right"


def test_the_ipv4_header_is_never_partial():
    frame = bytearray(raw(FIXED["udp"]))
    frame[24] ^= 1
    assert kind(verdict(bytes(frame), flags=PARTIAL)) == "corrupt"


@given(frame=frames(), data=st.data(), at=places)
@settings(max_examples=200, deadline=None)
def test_cut_short_is_truncated(frame, data, at):
    whole, _, end = frame
    length = data.draw(st.integers(0, end - 1))
    assert kind(verdict(whole[:length], at=at)) == "truncated"


@given(data=st.binary(max_size=120), at=places, flags=st.sampled_from([0, PARTIAL]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_one_thing_and_pieces_make_no_difference(data, at, flags):
    for head in (b"", raw(ETH)[:12] + b"\x08\0E", raw(ETH)[:12] + b"\x86\xdd\x60"):
        frame = head + data
        assert verdict(frame, 5, flags, at) == verdict(frame, 5, flags)


@pytest.mark.parametrize(
    ("packet", "expected", "unverified"),
    [
        (stack(IP(**V4), UDP(sport=9, dport=10, chksum=0)) / SIGNATURE, "received", 1),
        (stack(IPv6(**V6), UDP(sport=9, dport=10, chksum=0)) / SIGNATURE, "corrupt", 0),
        (stack(IP(**V4, proto=99)) / SIGNATURE, "received", 1),
        (stack(IPv6(**V6, nh=99)) / SIGNATURE, "foreign", 0),
        (stack() / (b"\x88\xb5" + SIGNATURE), "received", 1),
        (stack(ARP(psrc="10.0.0.1", pdst="10.0.0.2")), "foreign", 0),
        (stack(IP(**V4, flags="MF"), UDP()) / SIGNATURE, "foreign", 0),
        (stack(IP(**V4, frag=9)) / SIGNATURE, "foreign", 0),
        (stack(IPv6(**V6), IPv6ExtHdrFragment(nh=17, offset=3)) / SIGNATURE, "foreign", 0),
        (stack(IP(**V4, chksum=1), UDP()) / SIGNATURE, "corrupt", 0),
        (stack(IP(**V4), UDP(len=7)) / SIGNATURE, "corrupt", 0),
        (stack(IP(**V4), UDP(len=7, chksum=0)) / SIGNATURE, "corrupt", 0),
        (stack(IP(**V4), ICMP(id=0x7873, seq=0x6B65)) / SIGNATURE[4:], "foreign", 0),
        (stack(IP(**V4), UDP(len=60)) / SIGNATURE, "corrupt", 0),
        (stack(IP(**V4, len=19), UDP(sport=9, dport=10, chksum=0)) / SIGNATURE, "corrupt", 0),
        (stack(IP(**V4, len=0), UDP(sport=9, dport=10)) / SIGNATURE, "corrupt", 0),
        (stack(IP(**V4), TCP(chksum=1)) / b"nobody's", "corrupt", 0),
        (stack(IP(**V4), UDP(sport=9, dport=10)) / signature(8, 0), "unknown_flow", 0),
        (stack(IP(**V4), UDP(sport=9, dport=10)) / SIGNATURE[:23], "foreign", 0),
        (stack(IPv6(**V6), EXTENSIONS[0], EXTENSIONS[0], UDP(sport=9, dport=10)) / SIGNATURE, "foreign", 0),
        (stack(IPv6(**V6), *[EXTENSIONS[1]] * 16, UDP(sport=9, dport=10)) / SIGNATURE, "received", 0),
        (stack(IPv6(**V6), *[EXTENSIONS[1]] * 17, UDP(sport=9, dport=10)) / SIGNATURE, "foreign", 0),
        (stack(Dot1AD(), Dot1Q(), Dot1Q(), IP(**V4), UDP()) / b"three tags", "foreign", 0),
    ],
    ids=lambda value: value.summary()[-50:] if hasattr(value, "summary") else None,
)
def test_what_else_there_is(packet, expected, unverified):
    data = raw(packet)
    if data[14:16] == b"\x88\xb5":  # an ethertype that scapy has no layer for
        data = data[:12] + data[14:]
    result = verdict(data)
    assert (kind(result), result.unverified_packets) == (expected, unverified)


def test_padding_to_60_bytes_hides_nothing():
    """A packet of ours that is shorter: 20 bytes of IPv4 and the signature."""
    frame = raw(stack(IP(**V4, proto=99)) / SIGNATURE).ljust(60, b"\0")
    assert frame[58:] == b"\0\0"
    assert kind(verdict(frame)) == "received"


def test_what_stands_behind_the_datagram_is_none_of_it():
    """UDP shorter than IP says: a signature there would be under no checksum."""
    packet = stack(IP(**V4, len=28 + 24 + 24), UDP(sport=9, dport=10, len=32)) / SIGNATURE
    udp = raw(stack(IP(**V4), UDP(sport=9, dport=10)) / SIGNATURE)[34:]
    frame = raw(packet)[:34] + udp
    assert kind(verdict(frame + signature(2, 9))) == "received"
    assert verdict(frame + signature(2, 9)).flows[0].flow_id == 3


def test_nothing_and_next_to_nothing():
    assert kind(verdict(b"")) == "truncated"
    checker = Checker(1)
    helper.check(checker.handle, b"", None, 0, 0, 0)
    assert checker.read().truncated_packets == 1
    checker.close()

"""Segments between scapy and native/tcp: what it builds is read, and nothing wrong as right."""

import ctypes
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import (
    LOCAL,
    MAX_PIECES,
    REMOTE,
    ROUTER_ALERT,
    TAGS,
    V4,
    V6,
    Out,
    Segment,
    c_sizes,
    flipped,
    fold,
    read,
    stack,
)
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, in4_pseudoheader
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    in6_pseudoheader,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q

u8, u16, u32 = st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1)
places = st.lists(st.integers(0, 200), max_size=MAX_PIECES - 1)
steps = st.integers(1, 90)
payloads = st.binary(max_size=90)
blocks = st.tuples(u32, u32)


OPTIONS = {  # scapy's name: its value, and bytes of the option
    "MSS": st.integers(1, 65535).map(lambda value: (value, 4)),
    "WScale": st.integers(0, 254).map(lambda value: (value, 3)),
    "SAckOK": st.just((b"", 2)),
    "Timestamp": st.tuples(u32, u32).map(lambda value: (value, 10)),
    "SAck": st.lists(blocks, min_size=1, max_size=4).map(lambda value: (sum(value, ()), 2 + 8 * len(value))),
    "NOP": st.just((None, 1)),
    200: st.binary(max_size=12).map(lambda value: (value, 2 + len(value))),  # not assigned
}


@st.composite
def options(draw):
    """As scapy takes them: any order, any combination that fits."""
    chosen, room = [], 40
    for name in draw(st.lists(st.sampled_from(list(OPTIONS)), unique=True)):
        value, length = draw(OPTIONS[name])
        if length <= room:
            chosen.append((name, value))
            room -= length
    if room and draw(st.booleans()):
        chosen.append(("EOL", None))
    return chosen


@st.composite
def segments(draw):
    """(frame, what reading it must say, where IP begins, where the packet ends); padded behind it."""
    tags, version = draw(st.sampled_from(TAGS)), draw(st.sampled_from([4, 6]))
    some, payload = draw(options()), draw(payloads)
    if version == 4:
        network = IP(**V4, options=draw(st.sampled_from([b"", ROUTER_ALERT, ROUTER_ALERT * 10])), flags="DF")
    else:
        network = IPv6(**V6, fl=draw(st.integers(0, 2**20 - 1)))
    fields = {name: draw(kind) for name, kind in (("seq", u32), ("ack", u32), ("window", u16))}
    ports, flags = (draw(u16), draw(u16)), draw(u8)
    tcp = TCP(sport=ports[0], dport=ports[1], flags=flags, options=some, **fields)
    frame = raw(stack(*tags, network, tcp) / payload)
    got, sacks = dict(some), dict(some).get("SAck", ())
    expected = {
        "kind": "tcp",
        "version": version,
        "local": LOCAL[version],
        "remote": REMOTE[version],
        "local_port": ports[1],
        "remote_port": ports[0],
        **fields,
        "flags": flags,
        "payload": payload,
        "csum_partial": False,
        "mss": got.get("MSS"),
        "wscale": got.get("WScale"),
        "sack_permitted": "SAckOK" in got,
        "timestamp": got.get("Timestamp"),
        "sacks": tuple(zip(sacks[::2], sacks[1::2], strict=True)),
        "mtu": 0,
        "icmp": None,
    }
    return frame + draw(st.binary(max_size=20)), expected, 14 + 4 * len(tags), len(frame)


def test_the_structs_are_c_s():
    assert c_sizes() == (ctypes.sizeof(Segment), ctypes.sizeof(Out))


@given(segment=segments(), at=places, step=steps, verify=st.booleans())
@settings(max_examples=500, deadline=None)
def test_what_scapy_builds_is_read(segment, at, step, verify):
    frame, expected, _, _ = segment
    assert read(frame, at, verify, step)._asdict() == expected


def test_eighteen_pieces_and_no_more():
    frame = raw(stack(IP(**V4), TCP(options=[("Timestamp", (1, 2))])) / bytes(range(100)))
    assert read(frame, range(2, 172, 10)).payload == bytes(range(100))
    assert read(frame, range(2, 182, 10)) == "malformed"


# ---- truncated, flipped, unfinished --------------------------------------------------------------


@given(segment=segments(), at=places, verify=st.booleans())
@settings(max_examples=25, deadline=None)
def test_cut_short_anywhere_is_malformed(segment, at, verify):
    frame, _, _, end = segment
    for length in range(end):
        assert read(frame[:length], at, verify) == "malformed"


def bits_of(start, end):
    """Of bytes."""
    return set(range(int(start * 8), int(end * 8)))


def uncovered(frame, ip):
    """Bits that no checksum covers, and that say nothing of what follows: MACs, tags; RFC 8200, 8.1."""
    bits = bits_of(0, 12)
    for tag in range(14, ip, 4):
        bits |= bits_of(tag, tag + 2)
    if frame[ip] >> 4 == 6:  # traffic class, flow label, hop limit
        bits |= bits_of(ip + 0.5, ip + 4) | bits_of(ip + 7, ip + 8)
    return bits


def pseudo_sum(frame, ip, end):
    """As scapy has the pseudo header, and where TCP begins."""
    if frame[ip] >> 4 == 4:
        tcp = ip + (frame[ip] & 15) * 4
        return fold(in4_pseudoheader(6, IP(frame[ip:end]), end - tcp)), tcp
    parsed = IPv6(frame[ip:end])
    return fold(raw(in6_pseudoheader(6, parsed[TCP], end - ip - 40))), ip + 40


ALL = [("SAckOK", b""), ("Timestamp", (1, 2)), ("NOP", None), ("WScale", 7), ("MSS", 1460)]
NOPS = [("NOP", None)] * 2
ACK = [*NOPS, ("Timestamp", (9, 8)), *NOPS, ("SAck", (1, 2, 3, 4))]
FIXED = {
    "syn": stack(IP(**V4), TCP(flags="S", options=ALL)),
    "odd payload": stack(IP(**V4, options=ROUTER_ALERT), TCP(flags="PA", options=ACK)) / b"odd",
    "tags": stack(*TAGS[2], IP(**V4), TCP(flags="FA")) / bytes(16),
    "ipv6": stack(IPv6(**V6), TCP(flags="A", options=ACK)) / b"payload",
    "ipv6 and a tag": stack(*TAGS[1], IPv6(**V6), TCP(flags="SA", options=ALL)),
}


@pytest.mark.parametrize("name", FIXED)
def test_no_single_flipped_bit_is_read_as_right(name):
    frame = raw(FIXED[name])
    ip = {"tags": 22, "ipv6 and a tag": 18}.get(name, 14)
    free, right = uncovered(frame, ip), read(frame)
    pseudo, tcp = pseudo_sum(frame, ip, len(frame))
    assert right.kind == "tcp"
    for bit in range(len(frame) * 8):
        damaged = flipped(frame, bit)
        found = read(damaged, at=(bit // 9, 40))
        if bit in free:
            assert found == right
        elif struct.unpack_from(">H", damaged, tcp + 16)[0] == pseudo:
            assert found == right._replace(csum_partial=True)
        elif bit >= tcp * 8:
            assert found == "bad csum"
        else:
            assert found in ("bad csum", "malformed", "foreign")


@given(segment=segments(), data=st.data(), at=places)
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_in_any_segment(segment, data, at):
    frame, expected, ip, end = segment
    bit = data.draw(st.integers(0, end * 8 - 1))
    damaged = flipped(frame, bit)
    pseudo, tcp = pseudo_sum(frame, ip, end)
    found = read(damaged, at)
    if bit in uncovered(frame, ip):
        assert found._asdict() == expected
    elif struct.unpack_from(">H", damaged, tcp + 16)[0] != pseudo:
        assert found in ("bad csum", "malformed", "foreign")


@given(segment=segments(), at=places, other=st.integers(1, 65534))
@settings(max_examples=200, deadline=None)
def test_unfinished_checksums(segment, at, other):
    frame, expected, ip, end = segment
    pseudo, tcp = pseudo_sum(frame, ip, end)
    right = struct.unpack_from(">H", frame, tcp + 16)[0]
    partial = bytearray(frame)
    wrong = (right + other) % 65536
    for value in (pseudo, wrong):
        struct.pack_into(">H", partial, tcp + 16, value)
        found = read(bytes(partial), at)
        if value == pseudo != right:
            assert found._asdict() == expected | {"csum_partial": True}
        elif value not in (right, pseudo) and {value, right} != {0, 0xFFFF}:  # these two are one number
            assert found == "bad csum"
        assert read(bytes(partial), at, verify=False)._asdict() == expected, "the device knows better"


def test_who_has_verified_need_not_be_verified():
    frame = bytearray(raw(FIXED["odd payload"]))
    frame[24] ^= 0xFF
    frame[-1] ^= 1
    assert read(bytes(frame)) == "bad csum"
    assert read(bytes(frame), verify=False).payload == b"ode"


# ---- options and headers that are not what they should be ----------------------------------------


def with_options(data):
    """A segment with these bytes of options, its checksums right."""
    tcp = raw(TCP(dataofs=5 + len(data) // 4, chksum=0))[:20] + data
    return raw(stack(IP(**V4, proto=6)) / tcp_sealed(tcp))


def tcp_sealed(tcp):
    pseudo = in4_pseudoheader(6, IP(**V4), len(tcp))
    check = 0xFFFF ^ fold(pseudo + tcp + bytes(len(tcp) % 2))
    return tcp[:16] + check.to_bytes(2, "big") + tcp[18:]


NOTHING = {"mss": None, "wscale": None, "sack_permitted": False, "timestamp": None, "sacks": ()}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("01010101", {}),
        ("00020000", {}),  # behind the end of the list
        ("02040218", {"mss": 0x218}),
        ("02030201", {}),  # of another length than RFC 9293 has
        ("0206010101010101", {}),
        ("02040218 02040219", {"mss": 0x219}),
        ("030301 01", {"wscale": 1}),
        ("03030f 01", {"wscale": 15}),
        ("0303ff 01", {"wscale": 254}),
        ("030401 01", {}),
        ("0402 0101", {"sack_permitted": True}),
        ("0403 0101", {}),
        ("080a 00000001 00000002 0000", {"timestamp": (1, 2)}),
        ("0809 00000001 000000 0101 01", {}),
        ("0502 0101", {}),
        ("0509 00000001000000 010101", {}),
        ("050a 0000000100000002 0101", {"sacks": ((1, 2),)}),
        ("050b 0000000100000002 01 01", {}),
        ("0522" + "00000001 00000002" * 4 + "0000", {"sacks": ((1, 2),) * 4}),
        ("050a 00000001 00000002 050a 00000003 00000004", {"sacks": ((3, 4),)}),
        ("fe08 0000 00000000", {}),
        ("01010104", None),  # no length
        ("01010204", None),  # longer than the header
        ("02000101", None),
        ("02010101", None),
        ("fe010101", None),
        ("01fe0401", None),
        ("080a 00000001 0000", None),
    ],
)
@pytest.mark.parametrize("at", [(), range(50, 67)])
def test_options_byte_by_byte(data, expected, at):
    data = bytes.fromhex(data)
    found = read(with_options(data.ljust(-(-len(data) // 4) * 4, b"\1")), at)
    if expected is None:
        assert found == "malformed"
    else:
        assert {name: getattr(found, name) for name in NOTHING} == NOTHING | expected


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (stack(IP(**V4), TCP(dataofs=4)), "malformed"),
        (stack(IP(**V4), TCP(dataofs=6)), "malformed"),
        (stack(IP(**V4, proto=6)) / bytes(19), "malformed"),
        (stack(IP(**V4, len=19), TCP()), "malformed"),
        (stack(IP(**V4, len=41), TCP()), "malformed"),
        (stack(IP(**V4, ihl=4), TCP()), "malformed"),
        (stack(IP(**V4, version=6), TCP()), "malformed"),
        (stack(IPv6(**V6, version=4), TCP()), "malformed"),
        (stack(IPv6(**V6, plen=21), TCP()), "malformed"),
        (stack(IPv6(**V6, plen=0), TCP()), "malformed"),
        (stack(IP(**V4, chksum=1), TCP()), "bad csum"),
        (stack(IP(**V4), TCP(chksum=1)), "bad csum"),
        (stack(IP(**V4, flags="MF"), TCP()), "foreign"),
        (stack(IP(**V4, frag=9), TCP()), "foreign"),
        (stack(IP(**V4), UDP()), "foreign"),
        (stack(IP(**V4), ICMP()), "foreign"),
        (stack(IP(**V4, proto=58), ICMPv6EchoRequest()), "foreign"),
        (stack(IPv6(**V6), UDP()), "foreign"),
        (stack(IPv6(**V6), ICMPv6EchoRequest()), "foreign"),
        (stack(IPv6(**V6), IPv6ExtHdrDestOpt(), TCP()), "foreign"),
        (stack(IPv6(**V6), IPv6ExtHdrFragment(nh=6), TCP()), "foreign"),
        (stack(IPv6(**V6, nh=59)), "foreign"),
        (stack(ARP(psrc="10.0.0.1", pdst="10.0.0.2")), "foreign"),
        (stack(Dot1AD(), Dot1Q(), Dot1Q(), IP(**V4), TCP()), "foreign"),
    ],
    ids=lambda value: value.summary()[-50:] if hasattr(value, "summary") else None,
)
def test_what_else_there_is(packet, expected):
    assert read(raw(packet)) == expected


def test_nothing():
    assert read(b"") == "malformed"

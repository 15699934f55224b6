"""Segments that native/tcp writes: as scapy would build them, and read again as they were meant."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import LOCAL, MAX_PIECES, NO_WSCALE, REMOTE, TAGS, V4, V6, fold, header, read, stack, write
from scapy.compat import raw
from scapy.layers.inet import IP, TCP, in4_pseudoheader
from scapy.layers.inet6 import IPv6, in6_pseudoheader
from scapy.layers.l2 import Ether

u8, u16, u32 = st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1)
places = st.lists(st.integers(0, 200), max_size=MAX_PIECES - 1)
sack_lists = st.lists(st.tuples(u32, u32), max_size=4)
NOP = ("NOP", None)


@st.composite
def templates(draw):
    """(an endpoint's header, scapy's packet of it)"""
    tags = draw(st.sampled_from(TAGS))
    if draw(st.booleans()):
        network = IP(**V4, tos=draw(u8), id=draw(u16), ttl=draw(u8), flags=draw(st.sampled_from(["", "DF"])))
        network.len, network.chksum = draw(u16), draw(u16)
    else:
        network = IPv6(**V6, tc=draw(u8), fl=draw(st.integers(0, 2**20 - 1)), hlim=draw(u8), plen=draw(u16))
    packet = stack(*tags, network)
    return header(raw(packet), 14 + 4 * len(tags)), packet


@st.composite
def meant(draw):
    """Arguments of write()."""
    fields = {name: draw(u32) for name in ("seq", "ack")}
    fields |= {name: draw(u16) for name in ("local_port", "remote_port", "window")}
    fields |= {"flags": draw(u8), "mss": draw(st.just(0) | u16), "sack_permitted": draw(st.booleans())}
    fields["wscale"] = draw(st.just(NO_WSCALE) | st.integers(0, 14))
    fields["timestamp"] = draw(st.none() | st.tuples(u32, u32))
    return fields | {"sacks": draw(sack_lists)}


def options_of(m):
    """As scapy has them, in the order and with the NOPs that were asked for; and the SACK blocks that fit."""
    found, length = [], 0
    if m["mss"]:
        found, length = [("MSS", m["mss"])], 4
    if m["timestamp"]:
        found += [("SAckOK", b"")] if m["sack_permitted"] else [NOP, NOP]
        found += [("Timestamp", m["timestamp"])]
        length += 12
    elif m["sack_permitted"]:
        found += [NOP, NOP, ("SAckOK", b"")]
        length += 4
    if m["wscale"] != NO_WSCALE:
        found += [NOP, ("WScale", m["wscale"])]
        length += 4
    sacks = [block for i, block in enumerate(m["sacks"]) if length + 4 + 8 * (i + 1) <= 40]
    if sacks:
        found += [NOP, NOP, ("SAck", sum(sacks, ()))]
    return found, sacks


def built(packet, m, payload, **tcp):
    """The frame by scapy, from nothing but the template and what is meant."""
    packet = packet.copy()
    if IP in packet:
        packet[IP].flags = "DF"
        packet[IP].proto, packet[IP].len, packet[IP].chksum = 6, None, None
    else:
        packet[IPv6].nh, packet[IPv6].plen = 6, None
    fields = {name: m[name] for name in ("seq", "ack", "window", "flags")}
    segment = TCP(sport=m["local_port"], dport=m["remote_port"], options=options_of(m)[0], **fields, **tcp)
    return raw(packet / segment / payload)


@given(template=templates(), m=meant(), payload=st.binary(max_size=90))
@settings(max_examples=500, deadline=None)
def test_bytes_are_scapy_s(template, m, payload):
    found, packet = template
    frame = write(found, payload, **m)
    assert frame == built(packet, m, payload)
    assert Ether(frame)[TCP].options == options_of(m)[0], "no padding but NOPs"


@given(template=templates(), m=meant(), payload=st.binary(max_size=90), at=places)
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_read(template, m, payload, at):
    found, packet = template
    back = read(write(found, payload, **m), at)
    version = 4 if IP in packet else 6
    # Scapy's src is who sends; LOCAL and REMOTE are as its dst sees them.
    assert (back.kind, back.version, back.local, back.remote) == (
        "tcp",
        version,
        LOCAL[version],
        REMOTE[version],
    )
    assert (back.local_port, back.remote_port) == (m["remote_port"], m["local_port"])
    for name in ("seq", "ack", "flags", "window", "sack_permitted", "timestamp"):
        assert getattr(back, name) == m[name]
    assert (back.mss or 0, back.sacks, back.payload) == (m["mss"], tuple(options_of(m)[1]), payload)
    assert back.wscale == (None if m["wscale"] == NO_WSCALE else m["wscale"])
    assert not back.csum_partial


def pseudo_of(frame, at):
    """Of TCP in the IP packet at `at`, which has no options."""
    if frame[at] >> 4 == 4:
        return fold(in4_pseudoheader(6, IP(frame[at:]), len(frame) - at - 20))
    parsed = IPv6(frame[at:])
    return fold(raw(in6_pseudoheader(6, parsed[TCP], len(frame) - at - 40)))


@given(template=templates(), m=meant(), payload=st.binary(max_size=90))
@settings(max_examples=200, deadline=None)
def test_partial_is_the_pseudo_header_and_nothing_else_differs(template, m, payload):
    found, packet = template
    frame = write(found, payload, partial=True, **m)
    at = found.ip_offset
    assert frame == built(packet, m, payload, chksum=pseudo_of(frame, at))
    # A device finishes it: sums from TCP on, the field included, and puts the complement there.
    tcp = at + (20 if frame[at] >> 4 == 4 else 40)
    covered = frame[tcp:] + bytes(len(payload) % 2)
    finished = frame[: tcp + 16] + struct.pack(">H", 0xFFFF ^ fold(covered)) + frame[tcp + 18 :]
    assert finished == write(found, payload, **m)
    assert read(frame).payload == payload == read(finished).payload
    assert not read(finished).csum_partial


@pytest.mark.parametrize(("timestamp", "fit"), [((1, 2), 3), (None, 4)])
def test_as_many_blocks_as_fit(timestamp, fit):
    sacks = tuple((i, i + 1) for i in range(0, 8, 2))
    frame = write(header(raw(stack(IP(**V4))), 14), timestamp=timestamp, sacks=sacks)
    assert read(frame).sacks == sacks[:fit]
    assert len(frame) == 14 + 20 + 20 + (12 if timestamp else 0) + 4 + 8 * fit


def test_the_protocol_of_the_template_does_not_matter():
    plain, other = (header(raw(stack(IP(**V4, proto=proto))), 14) for proto in (6, 17))
    assert write(plain, b"x") == write(other, b"x")
    plain, other = (header(raw(stack(IPv6(**V6, nh=nh))), 14) for nh in (6, 17))
    assert write(plain, b"x") == write(other, b"x")

"""ICMP errors that scapy builds about segments of ours."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import LOCAL, MAX_PIECES, REMOTE, ROUTER_ALERT, TAGS, V4, V6, flipped, read, stack
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, checksum
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
)

u16, u32 = st.integers(0, 65535), st.integers(0, 2**32 - 1)
places = st.lists(st.integers(0, 200), max_size=MAX_PIECES - 1)

ROUTER4, ROUTER6 = {"src": "10.9.9.9", "dst": V4["dst"]}, {"src": "fe80::9", "dst": V6["dst"]}
OURS4, OURS6 = ({"src": v["dst"], "dst": v["src"]} for v in (V4, V6))
TOO_BIG4 = ICMP(type=3, code=4, nexthopmtu=1400)


def four(icmp, embedded, *before, **ip):
    return stack(*before, IP(**ROUTER4, **ip), icmp) / embedded


def six(icmp, embedded, *before):
    return stack(*before, IPv6(**ROUTER6), icmp) / embedded


# Types and codes.
ERRORS4 = [(3, 4), (3, 4), (3, 0), (3, 1), (3, 3), (3, 13), (11, 0), (11, 1), (12, 0)]


@st.composite
def errors(draw):
    """(frame, kind, mtu, (type, code), version, ports, sequence); padded behind the packet."""
    tags, ports, seq = draw(st.sampled_from(TAGS)), (draw(u16), draw(u16)), draw(u32)
    tcp = raw(TCP(sport=ports[0], dport=ports[1], seq=seq, options=[("Timestamp", (1, 2))]) / b"payload")
    tcp = tcp[: draw(st.integers(8, len(tcp)))]
    version, mtu = draw(st.sampled_from([4, 6])), 0
    if version == 4:
        type_, code = draw(st.sampled_from(ERRORS4))
        icmp = ICMP(type=type_, code=code)
        if (type_, code) == (3, 4):
            icmp.nexthopmtu = mtu = draw(st.just(0) | u16)
        # As it was when it was sent: its length is more than what is left of it, its checksum may be wrong.
        embedded = IP(
            **OURS4,
            proto=6,
            len=draw(u16),
            chksum=draw(u16),
            flags=draw(st.sampled_from(["DF", "MF"])),
            options=draw(st.sampled_from([b"", ROUTER_ALERT])),
        )
        frame = four(icmp, raw(embedded) + tcp, *tags, options=draw(st.sampled_from([b"", ROUTER_ALERT])))
    else:
        icmp = draw(
            st.sampled_from(
                [
                    ICMPv6PacketTooBig(),
                    ICMPv6DestUnreach(code=4),
                    ICMPv6TimeExceeded(code=0),
                    ICMPv6ParamProblem(code=1, ptr=9),
                ]
            )
        ).copy()
        if icmp.type == 2:
            icmp.mtu = mtu = draw(u32)
        type_, code = icmp.type, icmp.code
        frame = six(icmp, raw(IPv6(**OURS6, nh=6, plen=draw(u16))) + tcp, *tags)
    kind = "too big" if (version, type_, code) in ((4, 3, 4), (6, 2, 0)) else "unreachable"
    frame = raw(frame) + draw(st.binary(max_size=10))
    return frame, kind, mtu, (type_, code), version, ports, seq


@given(error=errors(), at=places, verify=st.booleans())
@settings(max_examples=400, deadline=None)
def test_what_an_error_says(error, at, verify):
    frame, kind, mtu, icmp, version, ports, seq = error
    found = read(frame, at, verify)
    assert (found.kind, found.mtu, found.icmp, found.version) == (kind, mtu, icmp, version)
    assert (found.local, found.remote) == (LOCAL[version], REMOTE[version])
    assert (found.local_port, found.remote_port, found.seq) == (*ports, seq)
    assert (found.ack, found.flags, found.payload) == (0, 0, b"")


TCP8 = raw(TCP(sport=5, dport=6, seq=7))[:8]
FIXED = {
    "too big": four(TOO_BIG4, raw(IP(**OURS4, proto=6, len=1500)) + TCP8),
    "unreachable": four(ICMP(type=3, code=1), raw(IP(**OURS4, proto=6, options=ROUTER_ALERT)) + TCP8),
    "too big, ipv6": six(ICMPv6PacketTooBig(mtu=1280), raw(IPv6(**OURS6, nh=6, plen=1460)) + TCP8),
}


@pytest.mark.parametrize("name", FIXED)
def test_cut_short_anywhere_is_malformed(name):
    frame = raw(FIXED[name])
    assert read(frame).seq == 7
    for length in range(len(frame)):
        assert read(frame[:length], at=(length // 2,)) == "malformed"


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("verify", [True, False])
def test_no_single_flipped_bit_is_believed(name, verify):
    """No checksum covers MACs and IPv6's traffic class, flow label and hop limit. IPv4's is not asked without
    `verify`; the one of ICMP always is."""
    frame = raw(FIXED[name])
    right, free, may = read(frame), set(range(12 * 8)), set()
    if frame[14] >> 4 == 6:
        free |= set(range(14 * 8 + 4, 18 * 8)) | set(range(21 * 8, 22 * 8))
    elif not verify:
        may = set(range(14 * 8, 34 * 8))
    for bit in range(len(frame) * 8):
        found = read(flipped(frame, bit), (bit // 9,), verify)
        if bit in free:
            assert found == right
        elif bit not in may:
            assert found in ("bad csum", "malformed", "foreign")


@pytest.mark.parametrize("version", [4, 6])
def test_the_embedded_packet_cut_short(version):
    """The router has sent less than RFC 792 asks for; the error itself is whole."""
    ip = IP(**OURS4, proto=6) if version == 4 else IPv6(**OURS6, nh=6)
    embedded = raw(ip) + TCP8
    build = (lambda b: four(TOO_BIG4, b)) if version == 4 else (lambda b: six(ICMPv6PacketTooBig(), b))
    for length in range(len(embedded)):
        assert read(raw(build(embedded[:length]))) == "malformed"
    assert read(raw(build(embedded))).kind == "too big"


def emb4(**fields):
    return raw(IP(**{**OURS4, "proto": 6, **fields})) + TCP8


def emb6(**fields):
    return raw(IPv6(**{**OURS6, "nh": 6, **fields})) + TCP8


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (four(TOO_BIG4, emb4(frag=3)), "foreign"),
        (four(TOO_BIG4, emb4(proto=17)), "foreign"),
        (four(TOO_BIG4, emb4(ihl=4)), "malformed"),
        (four(TOO_BIG4, emb4(ihl=15)), "malformed"),
        (four(TOO_BIG4, emb6()), "malformed"),
        (four(ICMP(type=3, code=4, chksum=1), emb4()), "bad csum"),
        (four(ICMP(type=4), emb4()), "foreign"),  # source quench
        (four(ICMP(type=5, code=1), emb4()), "foreign"),  # redirect
        (four(ICMP(type=8), emb4()), "foreign"),
        (four(TOO_BIG4, emb4(), frag=1), "foreign"),
        (four(TOO_BIG4, emb4(), chksum=1), "bad csum"),
        (stack(IP(**ROUTER4, proto=1)) / bytes(7), "malformed"),
        (six(ICMPv6PacketTooBig(), raw(IPv6(**OURS6) / IPv6ExtHdrDestOpt() / TCP())), "foreign"),
        (six(ICMPv6PacketTooBig(), raw(IPv6(**OURS6) / UDP())), "foreign"),
        (six(ICMPv6PacketTooBig(), emb4() + bytes(40)), "malformed"),
        (six(ICMPv6PacketTooBig(type=0), emb6()), "foreign"),
        (six(ICMPv6PacketTooBig(type=5), emb6()), "foreign"),
        (six(ICMPv6PacketTooBig(cksum=1), emb6()), "bad csum"),
    ],
    ids=lambda value: value.summary()[-60:] if hasattr(value, "summary") else None,
)
def test_what_else_there_is(packet, expected):
    assert read(raw(packet)) == expected


def test_icmpv6_without_its_pseudo_header_is_wrong():
    """As ICMP in IPv4 sums it."""
    message = raw(ICMPv6PacketTooBig(mtu=1280, cksum=0)) + emb6()
    plain = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
    assert read(raw(stack(IPv6(**ROUTER6, nh=58)) / plain)) == "bad csum"

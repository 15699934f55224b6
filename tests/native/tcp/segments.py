"""Segments as scapy sees them: what left is judged by it, what comes is built by it."""

import struct
from dataclasses import dataclass, field

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Padding, Raw

OUR_MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
ADDRESSES = {4: ("192.0.2.1", "192.0.2.2", "192.0.2.254"), 6: ("2001:db8::1", "2001:db8::2", "2001:db8::fe")}
"""ours, the peer's, a router's between them"""
FLAGS = "FSRPAUEC"
MOD = 1 << 32


@dataclass
class Segment:
    """What one frame of ours carried. ``seq`` and ``ack`` as they stand in it."""

    sport: int
    dport: int
    seq: int
    ack: int
    flags: str
    """letters, in scapy's order"""
    window: int
    """as it stands there, not scaled"""
    payload: bytes
    mss: int | None = None
    wscale: int | None = None
    sackok: bool = False
    ts: tuple | None = None
    sack: list = field(default_factory=list)
    ip_bytes: int = 0
    dont_fragment: bool = True
    time_ns: int = 0
    order: int = 0
    """among all that left"""
    descs: int = 1
    csum_requested: bool = False
    frame: bytes = b""

    @property
    def frame_seq(self):
        """As it stands in the frame, whatever `seq` has become."""
        ip_at = 18 if self.frame[12:14] == b"\x81\0" else 14
        tcp_at = ip_at + (20 if self.frame[ip_at] >> 4 == 4 else 40)
        return int.from_bytes(self.frame[tcp_at + 4 : tcp_at + 8], "big")

    @property
    def length(self):
        """In sequence space."""
        return len(self.payload) + ("S" in self.flags) + ("F" in self.flags)


def ip_of(packet, version):
    return packet[IP if version == 4 else IPv6]


def finish_checksum(frame, start, offset):
    """What a device does when it is asked to: RFC 1071 from `start` on, into where the pseudo header's sum
    is."""
    part = frame[start:] + b"\0" * (len(frame[start:]) % 2)
    total = sum(struct.unpack(f"!{len(part) // 2}H", part))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    at = start + offset
    return frame[:at] + struct.pack("!H", ~total & 0xFFFF) + frame[at + 2 :]


def same_sums(frame, rebuilt, places):
    """Equal but for checksums of 0, which 0xffff is too."""
    frame, rebuilt = bytearray(frame), bytearray(rebuilt)
    for at in places:
        for one in (frame, rebuilt):
            if one[at : at + 2] == b"\xff\xff":
                one[at : at + 2] = b"\0\0"
    return frame == rebuilt


def dissect(frame, version, vlan, peer_mac=PEER_MAC):
    """A frame of ours, judged: headers, lengths, options and checksums are what scapy makes of the same
    values."""
    packet = Ether(frame)
    assert (packet.src, packet.dst) == (OUR_MAC, peer_mac)
    assert len(frame) >= 60, "IEEE 802.3 clause 4: padded"
    if vlan is not None:
        assert packet[Dot1Q].vlan == vlan
    ip = ip_of(packet, version)
    assert (ip.src, ip.dst) == ADDRESSES[version][:2]
    if version == 4:
        assert (ip.ihl, ip.ttl, ip.frag, ip.proto) == (5, 64, 0, 6)
        length = ip.len
    else:
        assert (ip.hlim, ip.nh) == (64, 6)
        length = ip.plen + 40
    ip_at = 14 if vlan is None else 18
    padding = frame[ip_at + length :]
    assert not any(padding), "no old bytes leave"
    assert not padding or len(frame) == 60, "and no more than are needed"
    segment = packet[TCP]
    assert (segment.reserved, segment.urgptr) == (0, 0)
    assert (bytes(packet[Padding]) if Padding in packet else b"") == padding
    rebuilt = packet.copy()
    again = ip_of(rebuilt, version)
    del rebuilt[TCP].chksum, rebuilt[TCP].dataofs
    if version == 4:
        del again.chksum, again.len
    else:
        del again.plen
    tcp_at = ip_at + (20 if version == 4 else 40)
    places = [tcp_at + 16, *([ip_at + 10] if version == 4 else [])]
    assert same_sums(frame, bytes(rebuilt), places), packet.show2(dump=True)
    options = dict(segment.options)
    assert len(options) == len({name for name, _ in segment.options}), "each option once"
    assert set(options) <= {"MSS", "WScale", "SAckOK", "Timestamp", "SAck", "NOP", "EOL"}
    edges = options.get("SAck", ())
    return Segment(
        segment.sport,
        segment.dport,
        segment.seq,
        segment.ack,
        "".join(letter for letter in FLAGS if letter in str(segment.flags)),
        segment.window,
        bytes(segment[Raw].load) if type(segment.payload) is Raw else b"",
        options.get("MSS"),
        options.get("WScale"),
        "SAckOK" in options,
        options.get("Timestamp"),
        list(zip(edges[::2], edges[1::2], strict=True)),
        length,
        version == 6 or "DF" in str(ip.flags),
        frame=frame,
    )


def to_us(version, vlan, source=1):
    """Ethernet and IP in front of what comes to us; `source`: 1 the peer, 2 a router."""
    ether = Ether(src=PEER_MAC, dst=OUR_MAC)
    if vlan is not None:
        ether /= Dot1Q(vlan=vlan)
    ours, *others = ADDRESSES[version]
    ip = IP if version == 4 else IPv6
    return ether / ip(src=others[source - 1], dst=ours)


def unreachable(segment, version, vlan, *, code, mtu=None, quoted=None, seq=None):
    """An ICMP message about a segment of ours, from a router. mtu: it is too big (`code` is not asked).
    quoted: bytes of its IP packet. seq: another sequence number in there."""
    ip_at = 14 if vlan is None else 18
    original = bytearray(segment.frame[ip_at : ip_at + segment.ip_bytes])
    header = 20 if version == 4 else 40
    if seq is not None:
        original[header + 4 : header + 8] = struct.pack("!I", seq % MOD)
    original = bytes(original[: quoted or (header + 8 if version == 4 else 1232)])
    if version == 4:
        icmp = ICMP(type=3, code=4, nexthopmtu=mtu) if mtu is not None else ICMP(type=3, code=code)
    else:
        icmp = ICMPv6PacketTooBig(mtu=mtu) if mtu is not None else ICMPv6DestUnreach(code=code)
    return bytes(to_us(version, vlan, source=2) / icmp / original)

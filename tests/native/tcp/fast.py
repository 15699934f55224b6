"""The same as segments.py for tens of thousands of frames: by struct, and every so often judged by scapy."""

import struct
from ipaddress import ip_address

from segments import ADDRESSES, FLAGS, OUR_MAC, PEER_MAC, Segment

MACS_TO_US = bytes.fromhex((OUR_MAC + PEER_MAC).replace(":", ""))
PACKED = {v: tuple(ip_address(a).packed for a in ADDRESSES[v][:2]) for v in ADDRESSES}
BITS = {letter: 1 << i for i, letter in enumerate(FLAGS)}
LETTERS = ["".join(letter for letter in FLAGS if bits & BITS[letter]) for bits in range(256)]


def total(data):
    """RFC 1071, not folded to the end."""
    if len(data) % 2:
        data += b"\0"
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def fold(value):
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def pseudo(version, length):
    return sum(total(a) for a in PACKED[version]) + length + 6


def parse_options(options):
    found, at = {}, 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        found[options[at]] = options[at + 2 : at + options[at + 1]]
        at += options[at + 1]
    return found


def dissect(frame, version):
    """A frame of ours without tag; checksums are looked at."""
    if version == 4:
        length = struct.unpack_from("!H", frame, 16)[0]
        assert fold(total(frame[14:34])) == 0xFFFF
        at = 34
    else:
        length = struct.unpack_from("!H", frame, 18)[0] + 40
        at = 54
    end = 14 + length
    assert fold(total(frame[at:end]) + pseudo(version, end - at)) == 0xFFFF, "TCP checksum"
    sport, dport, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", frame, at)
    data_at = at + (offset >> 4) * 4
    options = parse_options(frame[at + 20 : data_at])
    edges = struct.unpack(f"!{len(options.get(5, b'')) // 4}I", options.get(5, b""))
    return Segment(
        sport,
        dport,
        seq,
        ack,
        LETTERS[flags],
        window,
        frame[data_at:end],
        struct.unpack("!H", options[2])[0] if 2 in options else None,
        options[3][0] if 3 in options else None,
        4 in options,
        struct.unpack("!II", options[8]) if 8 in options else None,
        list(zip(edges[::2], edges[1::2], strict=True)),
        length,
        frame=frame,
    )


def build(version, sport, dport, seq, ack, flags, window, payload=b"", options=b""):
    """A frame of the peer's, in front of us."""
    options += b"\1" * (-len(options) % 4)
    bits = sum(BITS[letter] for letter in flags)
    header = struct.pack(
        "!HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) // 4 << 4, bits, window, 0, 0
    )
    segment = header + options + payload
    value = ~fold(total(segment) + pseudo(version, len(segment))) & 0xFFFF
    segment = segment[:16] + struct.pack("!H", value) + segment[18:]
    ours, peers = PACKED[version]
    if version == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0) + peers + ours
        ip = ip[:10] + struct.pack("!H", ~fold(total(ip)) & 0xFFFF) + ip[12:]
        return MACS_TO_US + b"\x08\0" + ip + segment
    return (
        MACS_TO_US + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + peers + ours + segment
    )


def option_bytes(*, mss=None, wscale=None, sackok=False, ts=None, sack=()):
    made = struct.pack("!BBH", 2, 4, mss) if mss is not None else b""
    made += b"\4\2" if sackok else b""
    made += struct.pack("!BBB", 3, 3, wscale) if wscale is not None else b""
    made += struct.pack("!BBBBII", 1, 1, 8, 10, *ts) if ts is not None else b""
    if sack:
        made += struct.pack("!BB", 5, 2 + 8 * len(sack)) + b"".join(struct.pack("!II", *b) for b in sack)
    return made

"""native/tcp/segment.h as the tests call it, and the frames that scapy builds for them."""

import ctypes
import struct
from collections import namedtuple
from ctypes import POINTER, byref, c_bool, c_char_p, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

from fake import BUILD
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from xsk_engine._ffi.loader import declare, open_library
from xsk_engine._ffi.native import Header

MAX_PIECES, MAX_SACKS, NO_WSCALE = 18, 4, 255
KINDS = ("tcp", "too big", "unreachable", "bad csum", "malformed", "foreign")


ETH = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
V4, V6 = {"src": "10.1.2.3", "dst": "10.4.5.6"}, {"src": "fd00::1", "dst": "fd00::2"}
LOCAL = {4: bytes([10, 4, 5, 6]), 6: b"\xfd" + bytes(14) + b"\x02"}
REMOTE = {4: bytes([10, 1, 2, 3]), 6: b"\xfd" + bytes(14) + b"\x01"}
ROUTER_ALERT = bytes([0x94, 4, 0, 0])  # RFC 2113
TAGS = [(), (Dot1Q(vlan=7),), (Dot1AD(vlan=100), Dot1Q(vlan=7))]


class Tuple(ctypes.Structure):
    _fields_ = [
        ("local", c_uint8 * 16),
        ("remote", c_uint8 * 16),
        ("local_port", c_uint16),
        ("remote_port", c_uint16),
        ("version", c_uint32),
    ]


class Piece(ctypes.Structure):
    _fields_ = [("bytes", c_void_p), ("len", c_uint32)]


class Segment(ctypes.Structure):
    _fields_ = [
        ("tuple", Tuple),
        *((name, c_uint32) for name in ("seq", "ack", "payload_len")),
        ("window", c_uint16),
        ("flags", c_uint8),
        *((name, c_bool) for name in ("csum_partial", "has_timestamp", "sack_permitted")),
        ("wscale", c_uint8),
        ("mss", c_uint16),
        *((name, c_uint32) for name in ("ts_val", "ts_ecr", "sack_count")),
        ("sacks", c_uint32 * 2 * MAX_SACKS),
        ("mtu", c_uint32),
        ("icmp_type", c_uint8),
        ("icmp_code", c_uint8),
        ("payload", Piece * MAX_PIECES),
        ("payload_count", c_uint32),
    ]


class Out(ctypes.Structure):
    _fields_ = [
        ("header", POINTER(Header)),
        *((name, c_uint32) for name in ("seq", "ack")),
        *((name, c_uint16) for name in ("local_port", "remote_port", "window")),
        ("flags", c_uint8),
        *((name, c_bool) for name in ("has_timestamp", "sack_permitted")),
        ("wscale", c_uint8),
        ("mss", c_uint16),
        *((name, c_uint32) for name in ("ts_val", "ts_ecr", "sack_count")),
        ("sacks", c_uint32 * 2 * MAX_SACKS),
    ]


helper = declare(
    open_library(str(BUILD / "tests/native/libsegment_pieces.so"), "make test-native builds it"),
    "libsegment_pieces.so",
    {
        "segments_read": (
            [c_char_p, POINTER(c_uint32), c_uint32, c_uint32, POINTER(Segment), c_uint32, c_char_p],
            c_uint32,
            None,
        ),
        "segments_write": ([c_char_p, POINTER(Out), c_char_p, c_uint32, c_uint32], c_uint32, None),
        "segments_sizes": ([POINTER(c_uint32)], c_uint32, None),
    },
    prefix="segments_",
)

sums = declare(
    open_library(str(BUILD / "tests/native/libsegment_pieces.so"), "make test-native builds it"),
    "libsegment_pieces.so",
    {"sums_copy": ([c_void_p, c_void_p, c_uint32], c_uint64, None)},
    prefix="sums_",
)

Read = namedtuple(
    "Read",
    "kind version local remote local_port remote_port seq ack flags window payload csum_partial "
    "mss wscale sack_permitted timestamp sacks mtu icmp",
)
"""A segment as Python has it: what is not there is None, sacks a tuple of (start, end), icmp (type, code)."""


def cut(frame, at):
    """Lengths of the pieces between these places."""
    ends = [*sorted(min(place, len(frame)) for place in at), len(frame)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def read(frame, at=(), verify=True, step=1 << 30):
    """A Read of the frame in pieces; its payload is copied out by `step` bytes."""
    lengths, s = cut(frame, at), Segment()
    payload = ctypes.create_string_buffer(len(frame) + 1)
    sizes = (c_uint32 * len(lengths))(*lengths)
    kind = KINDS[helper.read(frame, sizes, len(lengths), verify, byref(s), step, payload)]
    if kind not in KINDS[:3]:
        return kind
    address = 4 if s.tuple.version == 4 else 16
    assert not any(s.tuple.local[address:])
    assert not any(s.tuple.remote[address:])
    laid = [piece.len for piece in s.payload[: s.payload_count]]
    assert sum(laid) == s.payload_len
    assert all(laid), "no piece is empty"
    return Read(
        kind,
        s.tuple.version,
        bytes(s.tuple.local[:address]),
        bytes(s.tuple.remote[:address]),
        s.tuple.local_port,
        s.tuple.remote_port,
        s.seq,
        s.ack,
        s.flags,
        s.window,
        payload.raw[: s.payload_len],
        s.csum_partial,
        s.mss or None,
        None if s.wscale == NO_WSCALE else s.wscale,
        s.sack_permitted,
        (s.ts_val, s.ts_ecr) if s.has_timestamp else None,
        tuple((start, end) for start, end in s.sacks[: s.sack_count]),
        s.mtu,
        (s.icmp_type, s.icmp_code) if kind != "tcp" else None,
    )


def header(packet, ip_offset):
    """An endpoint's header: Ethernet, tags and IP as scapy has built them."""
    found = Header()
    ctypes.memmove(found.words, packet, len(packet))
    found.len, found.ip_offset = len(packet), ip_offset
    return found


def write(template, payload=b"", partial=False, timestamp=None, sacks=(), **fields):
    """The frame. timestamp, sacks: as in Read; other fields are segment_out's."""
    out = Out(header=ctypes.pointer(template), wscale=fields.pop("wscale", NO_WSCALE), **fields)
    if timestamp:
        out.has_timestamp, (out.ts_val, out.ts_ecr) = True, timestamp
    out.sack_count = len(sacks)
    for i, (start, end) in enumerate(sacks):
        out.sacks[i][:] = start, end
    frame = ctypes.create_string_buffer(256)
    written = helper.write(frame, byref(out), payload, len(payload), partial)
    assert written, "both functions say the same"
    return frame.raw[:written] + payload


def c_sizes():
    """(bytes of struct segment, of struct segment_out) as C has them."""
    out_bytes = c_uint32()
    return helper.sizes(byref(out_bytes)), out_bytes.value


def stack(*layers):
    packet = ETH.copy()
    for layer in layers:
        packet = packet / layer.copy()
    return packet


def flipped(frame, bit):
    data = bytearray(frame)
    data[bit // 8] ^= 0x80 >> bit % 8
    return bytes(data)


def fold(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total

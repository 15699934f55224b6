"""What both ends of the soak know: bytes that are nowhere the same as their neighbours', and datagrams of
them that say whether they are whole."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib

BLOB = hashlib.shake_128(b"soak").digest(1 << 20)
_AT_TWICE = BLOB + BLOB
DATAGRAM_PORT, FLOW_PORT = 9000, 9001
FLOW_TEXT = "soak"
SHORTEST, LONGEST = 5, 1472
"""bytes of a datagram's payload"""


def datagram(rng: random.Random, size: int | None = None) -> bytes:
    """The checksum of what follows, and a piece of the blob."""
    size = rng.randint(SHORTEST, LONGEST) if size is None else size
    at = rng.randrange(len(BLOB) - size)
    body = BLOB[at : at + size - 4]
    return struct.pack("!I", zlib.crc32(body)) + body


def is_whole(payload: bytes) -> bool:
    return len(payload) >= SHORTEST and struct.unpack_from("!I", payload)[0] == zlib.crc32(payload[4:])


def stream(at: int, size: int) -> bytes:
    """Bytes of a stream from its at-th on; at most a blob's."""
    at %= len(BLOB)
    return _AT_TWICE[at : at + size]

"""What stands behind the headers: ``zeros``, ``text:hello``, ``hex:c0ffee``, ``pattern``, ``random``,
``file:PATH``.

And the signature at its end, by which a receiver tells flows, losses and latency.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

MAGIC = 0x78736B65  # "xske"
REFLECTED_MAGIC = 0x6B657873
"""of a packet that has been sent back: bytes two apart have changed places, which no checksum notices"""
SIGNATURE_BYTES = 24
"""magic u32, flow id u32, sequence u64, ns of CLOCK_TAI u64, all big-endian; the last bytes of the packet"""

_MAX_FILE_BYTES = 1 << 16


@dataclass(frozen=True)
class Payload:
    """``data`` once and then zeros, or again and again."""

    data: bytes = b""
    repeat: bool = False
    by_seed: bool = False
    """random bytes, the same for all packets of a flow"""

    @property
    def own_bytes(self) -> int:
        """How long a packet must be for all of it; 0 when it fits any."""
        return 0 if self.repeat or self.by_seed else len(self.data)

    def fill(self, length: int, seed: int) -> bytes:
        """Exactly so many bytes."""
        if self.by_seed:
            return random.Random(seed).randbytes(length)
        if self.repeat and self.data:
            return (self.data * (length // len(self.data) + 1))[:length]
        return self.data[:length].ljust(length, b"\0")


def parse_hex(text: str) -> bytes:
    """``c0ffee``, ``c0:ff:ee``, ``c0 ff ee``."""
    try:
        return bytes.fromhex(text.replace(":", "").removeprefix("0x"))
    except ValueError:
        raise ValueError(f"{text!r} is not a row of hex bytes") from None


def parse_payload(text: str) -> Payload:
    """What a user writes. ValueError says what is wrong."""
    kind, colon, rest = text.partition(":")
    if text == "zeros":
        return Payload()
    if text == "random":
        return Payload(by_seed=True)
    if text == "pattern":
        return Payload(bytes(range(256)), repeat=True)
    if colon and kind == "pattern" and rest:
        return Payload(parse_hex(rest), repeat=True)
    if colon and kind == "text":
        return Payload(rest.encode())
    if colon and kind == "hex":
        return Payload(parse_hex(rest))
    if colon and kind == "file":
        return Payload(_read(rest))
    raise ValueError(f"payload: {text!r}: use zeros, text:..., hex:..., pattern[:HEX], random or file:PATH")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise ValueError(f"payload: {path}: {error.strerror}") from None

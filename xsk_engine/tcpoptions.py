"""How a TCP connection is to behave. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import index

CONGESTION = ("cubic", "reno")
_MIB = 1 << 20
# Linux' TCP_TIMEWAIT_LEN (include/net/tcp.h). Lower: an old segment may meet a new connection; higher: the
# port rests longer.
_TIME_WAIT_S = 60.0
# RFC 9293, 3.8.3: R2 for a SYN is at least 3 minutes; nobody waits for that in practice. Ten seconds are four
# SYNs (1, 2, 4 s). Lower: a path that loses three of them fails; higher: a wrong address is noticed late.
_CONNECT_S = 10.0
# R2 for data is at least 100 s; Linux takes 924 s (net.ipv4.tcp_retries2). Lower: an outage breaks it.
_USER_S = 120.0
# As net.ipv4.tcp_keepalive_*: RFC 9293, 3.8.4 asks for two hours at least.
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_PROBES = 7200.0, 75.0, 9

_ETHERNET_BYTES = 14
_HEADERS_BYTES = 72  # IPv6, TCP and timestamps
_SLACK_BYTES = 24 + 64  # tx metadata, and alignment to cache lines
# Blocks that are not full: the one being written, and one at the end of each chunk of a slab of 16.
_SLACK_CHUNKS = 32


@dataclass(frozen=True)
class TcpOptions:
    """What Engine.tcp takes by keyword. ValueError for what cannot be.

    connection = engine.tcp("10.77.0.2", 9001, nodelay=True, congestion="reno")
    """

    congestion: str = "cubic"
    """congestion control: "cubic" (RFC 9438) or "reno" (RFC 5681)"""
    nodelay: bool = False
    """send small segments at once instead of waiting for an ACK (without Nagle's algorithm)"""
    keepalive: bool = False
    """ask a silent peer whether it is still there"""
    pacing: bool = False
    """spread segments over the round-trip time instead of sending bursts"""
    send_buffer_bytes: int = 4 * _MIB
    """bytes that may be written and not acknowledged; they lie in the umem, which must have room for them"""
    receive_buffer_bytes: int = 256 << 10
    """bytes that may be received and not read; power of two, 4 KiB to 1 GiB"""
    connect_timeout_s: float = _CONNECT_S
    """seconds until a peer that does not answer is given up"""
    user_timeout_s: float = _USER_S
    """seconds without an acknowledgement of what was written, then ETIMEDOUT"""
    keepalive_idle_s: float = _KEEPALIVE_IDLE_S
    """seconds of silence before the first probe"""
    keepalive_interval_s: float = _KEEPALIVE_INTERVAL_S
    """seconds between probes"""
    keepalive_probes: int = _KEEPALIVE_PROBES
    """probes without an answer, then ETIMEDOUT"""
    time_wait_s: float = _TIME_WAIT_S
    """seconds that a closed connection's ports rest (2 MSL)"""
    timeout_s: float = 10.0
    """seconds that a call may wait if it is not said there; 0: never"""

    def __post_init__(self) -> None:
        if self.congestion not in CONGESTION:
            raise ValueError(f"congestion: {self.congestion!r} is not one of {', '.join(CONGESTION)}")
        if not 4096 <= index(self.send_buffer_bytes) <= 1 << 30:
            raise ValueError(f"send_buffer_bytes: {self.send_buffer_bytes} is not in 4 KiB to 1 GiB")
        size = index(self.receive_buffer_bytes)
        if size & (size - 1) or not 4096 <= size <= 1 << 30:
            raise ValueError(f"receive_buffer_bytes: {size} is not a power of two from 4 KiB to 1 GiB")
        for name in ("connect_timeout_s", "user_timeout_s", "keepalive_idle_s", "keepalive_interval_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is not above 0 s")
        for name in ("time_wait_s", "timeout_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is not 0 s or more")
        if not 1 <= index(self.keepalive_probes) <= 1 << 16:
            raise ValueError(f"keepalive_probes: {self.keepalive_probes}; at least one")

    def quota_chunks(self, mtu: int, chunk_size: int, usable_bytes: int) -> int:
        """Chunks of umem that the send buffer takes at most: `mtu` of the path, `usable_bytes` of a chunk."""
        frame = mtu + _ETHERNET_BYTES
        # Where a segment fits into a chunk, each block is one, with its header's room (native/tcp/tcp.h).
        payload = (
            usable_bytes
            if frame > usable_bytes
            else (chunk_size // (frame + _SLACK_BYTES) or 1) * (mtu - _HEADERS_BYTES)
        )
        return -(-self.send_buffer_bytes // max(payload, 1)) + _SLACK_CHUNKS

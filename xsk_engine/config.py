"""What an engine is to open. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class EngineConfig:
    """What to open. Lengths in bytes, times in seconds; the i-th CPU is for the i-th queue."""

    interface: str
    queues: Sequence[int] = (0,)
    cpus: Sequence[int] = ()
    mode: str = "auto"
    umem_bytes: int = 4 * MIB
    """4 MiB stays within the cache: a larger working set moves fewer bytes (measured: 26 % at 16 MiB)"""
    chunk_size: int = 4096
    tx_metadata_len: int = 0
    tx_metadata: frozenset[str] = frozenset()
    """what of the driver is wanted through it: "checksum" and "timestamp"; copy mode has both"""
    ring_size: int = 2048
    """entries of the tx and completion ring; power of two"""
    max_frame_bytes: int | None = None
    """the longest frame that will be sent, None for what the MTU allows; longer than a chunk needs packets of
    several descs, which most drivers have in copy mode only"""
    capture_packets: int | None = None
    """copy the first so many packets of each queue for Engine.captures, 0: all; None: none"""
    fds: Sequence[int] = ()
    """AF_XDP sockets that somebody else has opened, not bound yet, one for each queue; they stay his"""
    debug: bool = False
    """find who writes to frags that are gone; costs speed"""
    link_timeout_s: float = 5.0
    progress_timeout_s: float = 1.0
    drain_timeout_s: float = 0.5

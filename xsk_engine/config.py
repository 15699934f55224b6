"""What an engine and its endpoints are to be. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from operator import index

MIB = 1 << 20
MODES = ("auto", "copy", "zerocopy")
MOST_OPENED = 64
"""queues that one call of xsk-engine-open opens: QUEUES in native/open/xsk-engine-open.c"""
MOST_CONNECTIONS = 65536
"""that the steering program has room for: STEER_TUPLES in native/bpf/steer.h"""


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
    opener: str | None = None
    """a program that opens the sockets where this process may not: xsk-engine-open, or its path"""
    tcp: bool = False
    """connections with Engine.tcp: sockets on all queues of the interface receive for them, and an XDP
    program steers their packets there"""
    tcp_connections: int = 4096
    """at most so many at a time, those in TIME-WAIT included"""
    drop_privileges: bool = False
    """its threads have no capability; who opens it drops by himself (privileges.py)"""
    sandbox: bool = False
    """and most system calls are refused to its workers"""
    debug: bool = False
    """find who writes to frags that are gone; costs speed"""
    link_timeout_s: float = 5.0
    progress_timeout_s: float = 1.0
    drain_timeout_s: float = 0.5


@dataclass(frozen=True)
class EndpointConfig:
    """How an endpoint is opened. ``quota_chunks``: most chunks of umem it may hold. ``entries`` of its submit
    ring, power of two. ``batch``: most packets per turn. ``timeout``: seconds that a call may wait for
    room; 0: never. ValueError."""

    quota_chunks: int = 64
    entries: int = 1024
    batch: int = 64
    timeout: float = 10.0
    timestamps: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        if not 1 <= index(self.quota_chunks) < 1 << 32:
            raise ValueError(f"quota_chunks: {self.quota_chunks}; at least one, less than 2^32")
        if self.entries < 2 or index(self.entries) & (self.entries - 1):
            raise ValueError(f"entries: {self.entries} is not a power of two of 2 or more")


def check(config: EngineConfig, cpus: Set[int]) -> None:
    """ValueError, TypeError for what no engine can be; `cpus` are those that this thread may use."""
    if not config.queues:
        raise ValueError("queues: at least one is needed")
    if min(map(index, config.queues)) < 0 or len(set(config.queues)) < len(config.queues):
        raise ValueError(f"queues: {list(config.queues)}; different numbers from 0 on are needed")
    if any(index(fd) < 0 for fd in config.fds):
        raise ValueError(f"fds: {list(config.fds)} are no file descriptors")
    if index(config.umem_bytes) < config.chunk_size:
        raise ValueError(f"umem: {config.umem_bytes} bytes; a chunk alone has {config.chunk_size}")
    for name in ("link_timeout_s", "progress_timeout_s", "drain_timeout_s"):
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(f"{name}: {getattr(config, name)} is not 0 s or more")
    if config.cpus and len(config.cpus) != len(config.queues):
        raise ValueError(f"cpus: {len(config.cpus)} for {len(config.queues)} queues; give one per queue")
    if config.fds and len(config.fds) != len(config.queues):
        raise ValueError(f"fds: {len(config.fds)} for {len(config.queues)} queues; give one per queue")
    if missing := set(config.cpus) - cpus:
        raise ValueError(f"cpus: {sorted(missing)} not among those allowed here, {sorted(cpus)}")
    if config.tcp and config.fds:
        raise ValueError("fds: with tcp the engine opens its sockets itself, on all queues")
    if config.opener is not None:
        if config.tcp or config.fds:
            raise ValueError(f"opener: {config.opener!r} opens sockets that only send; not with tcp, or fds")
        if len(config.queues) > MOST_OPENED:
            raise ValueError(f"opener: {len(config.queues)} queues; it opens up to {MOST_OPENED}")
    if not 1 <= index(config.tcp_connections) <= MOST_CONNECTIONS:
        raise ValueError(f"tcp_connections: {config.tcp_connections} is not in 1 to {MOST_CONNECTIONS}")
    if config.ring_size & (config.ring_size - 1) or not 64 <= config.ring_size <= 1 << 20:
        raise ValueError(f"ring_size: {config.ring_size} is not a power of two from 64 to 2^20")

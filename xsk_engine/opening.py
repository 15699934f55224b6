"""How applications get an engine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xsk_engine._ffi.native import TX_METADATA_BYTES
from xsk_engine.aio import AsyncEngine
from xsk_engine.config import MIB, EngineConfig
from xsk_engine.engine import Engine

_FOR_EVER_S = 10 * 365 * 86400.0


def _config(
    interface: str,
    queues: Sequence[int],
    *,
    mode: str,
    umem_mb: int,
    fd: int | Sequence[int] | None,
    opener: str | None,
    cpus: Sequence[int],
    timestamps: bool,
    tcp: bool,
    sandbox: bool,
    debug: bool,
    link_timeout: float | None,
) -> EngineConfig:
    fds = () if fd is None else (fd,) if isinstance(fd, int) else tuple(fd)
    return EngineConfig(
        interface,
        queues=tuple(queues),
        cpus=tuple(cpus),
        mode=mode,
        umem_bytes=umem_mb * MIB,
        tx_metadata_len=TX_METADATA_BYTES if timestamps else 0,
        tx_metadata=frozenset({"timestamp"} if timestamps else ()),
        fds=fds,
        opener=opener,
        tcp=tcp,
        sandbox=sandbox,
        debug=debug,
        link_timeout_s=_FOR_EVER_S if link_timeout in (None, math.inf) else link_timeout,
    )


def open(
    interface: str,
    *,
    queues: Sequence[int] = (0,),
    mode: str = "auto",
    umem_mb: int = 4,
    fd: int | Sequence[int] | None = None,
    opener: str | None = None,
    cpus: Sequence[int] = (),
    timestamps: bool = False,
    tcp: bool = False,
    sandbox: bool = False,
    debug: bool = False,
    link_timeout: float | None = 5.0,
) -> Engine:
    """Opens an engine on ``queues`` of ``interface``; a context manager closes it.

    ``mode``: auto, copy or zerocopy. ``umem_mb``: MiB of memory for all that is inflight; 4 stays within
    the cache. ``fd``: AF_XDP sockets that somebody with CAP_NET_RAW has opened, one per queue, not bound;
    they may be closed when it returns, and hold their queues until they are. ``opener``: a program that opens
    them instead, where the caller may not: "xsk-engine-open", or its path (docs/opener.md). ``cpus``: one for
    each queue's thread. ``timestamps``: let trackers say when packets left. ``tcp``: for Engine.tcp; it takes
    AF_XDP sockets on all queues of the interface and an XDP program (CAP_NET_RAW, CAP_BPF and CAP_NET_ADMIN),
    and 2 MiB of umem more for each of them.
    ``sandbox``: its workers' threads lose their capabilities, and with them the system calls that a packet
    never needs: files, sockets, programs (Linux's seccomp).
    ``debug``: find who writes to frags that are gone. ``link_timeout``: seconds without a link before that
    is an error; None: never.
    ValueError for bad arguments, UnavailableError for what the environment lacks (QueueTakenError: another
    socket has the queue). Open and close in one thread. Touches no signal handlers, and no
    privileges of other threads than its own.

        with xsk_engine.open("vtx") as engine:
            print(engine.mode)
    """
    return Engine(
        _config(
            interface,
            queues,
            mode=mode,
            umem_mb=umem_mb,
            fd=fd,
            opener=opener,
            cpus=cpus,
            timestamps=timestamps,
            tcp=tcp,
            sandbox=sandbox,
            debug=debug,
            link_timeout=link_timeout,
        )
    ).open()


def aopen(
    interface: str,
    *,
    queues: Sequence[int] = (0,),
    mode: str = "auto",
    umem_mb: int = 4,
    fd: int | Sequence[int] | None = None,
    opener: str | None = None,
    cpus: Sequence[int] = (),
    timestamps: bool = False,
    tcp: bool = False,
    sandbox: bool = False,
    debug: bool = False,
    link_timeout: float | None = 5.0,
) -> AsyncEngine:
    """As open(), for asyncio and uvloop: ``async with`` it, which is when it opens and what raises.

    In the event loop's thread; opening and closing do not hold the loop up.

        async with xsk_engine.aopen("vtx") as engine:
            print(engine.engine.mode)
    """
    return AsyncEngine(
        _config(
            interface,
            queues,
            mode=mode,
            umem_mb=umem_mb,
            fd=fd,
            opener=opener,
            cpus=cpus,
            timestamps=timestamps,
            tcp=tcp,
            sandbox=sandbox,
            debug=debug,
            link_timeout=link_timeout,
        )
    )

"""AF_XDP sockets: binding a set of queues to one umem."""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from xsk_engine._ffi import libc, sockopt, uapi
from xsk_engine._ffi.native import Ring
from xsk_engine.netdev import NetDev
from xsk_engine.umem import Umem

_MODE_FLAGS = {"copy": uapi.XDP_COPY, "zerocopy": uapi.XDP_ZEROCOPY}

Stock = Callable[[int, Ring], None]
"""Puts chunks on the fill ring of a queue."""

# After a process ends its queue stays bound, and its locked memory charged, for a moment (measured: tens of
# ms). Lower: a restart fails; higher: a queue that is really taken is reported late.
REBIND_DEADLINE_S = 2.5
_REBIND_PAUSE_S = 0.01

# 2048 packets of 4 KiB with the kernel's overhead. Lower: EAGAIN before the ring is empty; higher: nothing.
_SEND_BUFFER_BYTES = 16 << 20

S = TypeVar("S", "Xsk", "RxXsk")

PASSING = (errno.EBUSY, errno.ENOBUFS)
"""errnos of bind that the next try may not meet"""

_bound_here: set[tuple[int, int]] = set()
"""(ifindex, queue) of this process, to say whose a taken queue is."""


def is_bound_here(ifindex: int, queue: int) -> bool:
    """Does this process hold the queue?"""
    return (ifindex, queue) in _bound_here


@dataclass(frozen=True)
class KernelStats:
    """getsockopt(XDP_STATISTICS) of one or several xsks.
    Immutable: any thread.

        print(engine.kernel_stats().tx_invalid_descs)
    """

    tx_invalid_descs: int = 0
    """descs the kernel refused; any is an engine fault"""
    tx_ring_empty_descs: int = 0
    """times the kernel looked and found the tx ring empty"""

    def __add__(self, other: KernelStats) -> KernelStats:
        return KernelStats(
            self.tx_invalid_descs + other.tx_invalid_descs,
            self.tx_ring_empty_descs + other.tx_ring_empty_descs,
        )


def _options(fd: int) -> int:
    options = uapi.XdpOptions()
    libc.get_option(fd, uapi.XDP_OPTIONS, options)
    return int(options.flags)


class RxXsk:
    """One bound socket that receives: ``rx`` and ``fill`` are its rings. ``mode`` as Xsk. Open and close in
    one thread."""

    def __init__(self, bound: Any, netdev: NetDev, queue: int) -> None:
        self._bound = bound
        self._key = (netdev.ifindex, queue)
        self.queue = queue
        self.fd: int = bound.fd
        self.rx: Ring = bound.rx
        self.fill: Ring = bound.fill
        self.mode = "zerocopy" if _options(self.fd) & uapi.XDP_OPTIONS_ZEROCOPY else "copy"
        _bound_here.add(self._key)

    def lost_packets(self) -> int:
        """That the kernel had for it and could not give it, since it was bound: its ring was full, or it had
        no chunk for them (getsockopt XDP_STATISTICS)."""
        raw = uapi.XdpStatistics()
        libc.get_option(self.fd, uapi.XDP_STATISTICS, raw)
        return int(raw.rx_dropped + raw.rx_ring_full)  # without a chunk, and without room for its desc

    def prefer_busy_poll(self, timeout_us: int, budget_packets: int) -> None:
        """OSError with the refused option as its filename."""
        sockopt.prefer_busy_poll(self.fd, timeout_us, budget_packets)

    def busy_poll(self) -> tuple[bool, int, int]:
        """In effect: preferred, timeout in us, the NAPI instance's id or 0."""
        return sockopt.read_busy_poll(self.fd)

    def close(self) -> None:
        """Idempotent."""
        _bound_here.discard(self._key)
        self.fd = -1
        self._bound.close()


class Xsk:
    """One bound socket. ``mode`` is "copy" or "zerocopy". Open and close in one thread."""

    def __init__(self, bound: Any, netdev: NetDev, queue: int, tx_budget: int) -> None:
        self._bound = bound
        self._key = (netdev.ifindex, queue)
        self.queue = queue
        self.fd: int = bound.fd
        self.tx: Ring = bound.tx
        self.cq: Ring = bound.cq
        self.mode = "zerocopy" if _options(self.fd) & uapi.XDP_OPTIONS_ZEROCOPY else "copy"
        self._statistics_before = KernelStats()
        self._last_statistics: KernelStats | None = None
        _bound_here.add(self._key)
        # Without it one sendto() moves 32 packets. Kernels before 6.17 do not know it.
        with contextlib.suppress(OSError):
            libc.set_option(self.fd, uapi.XDP_MAX_TX_SKB_BUDGET, max(tx_budget, uapi.TX_BUDGET_MIN))

    def kernel_stats(self) -> KernelStats:
        """Since the last reset_statistics(); the last ones after close()."""
        if self._last_statistics is not None:
            return self._last_statistics
        raw = uapi.XdpStatistics()
        libc.get_option(self.fd, uapi.XDP_STATISTICS, raw)
        before = self._statistics_before
        return KernelStats(
            max(raw.tx_invalid_descs - before.tx_invalid_descs, 0),
            raw.tx_ring_empty_descs - before.tx_ring_empty_descs,
        )

    def reset_statistics(self, *, invalid_to_come: bool) -> None:
        """What the kernel counted so far was ours to provoke, and so is one invalid desc that it may still
        have to look at."""
        self._statistics_before = KernelStats()
        self._statistics_before = self.kernel_stats() + KernelStats(tx_invalid_descs=int(invalid_to_come))

    def try_wakeup(self) -> int:
        """0, or the errno of a kick with nothing to send: does the driver want to send for us?"""
        try:
            libc.libc.sendto(self.fd, None, 0, socket.MSG_DONTWAIT, None, 0)
        except OSError as error:
            return error.errno or 0
        return 0

    def close(self) -> None:
        """Idempotent."""
        if self._last_statistics is None:
            last = KernelStats()
            with contextlib.suppress(OSError):
                last = self.kernel_stats()
            self._last_statistics = last
        _bound_here.discard(self._key)
        self.fd = -1
        self._bound.close()


def raise_send_buffer(fd: int) -> None:
    """SO_SNDBUF bounds the packets in flight in copy mode; beyond the system's limit only with
    CAP_NET_ADMIN."""
    for option in (uapi.SO_SNDBUFFORCE, uapi.SO_SNDBUF):
        with contextlib.suppress(OSError):
            libc.set_option(fd, option, _SEND_BUFFER_BYTES, uapi.SOL_SOCKET)
            return


def _choose_backend(umem: Umem, fds: Sequence[int]) -> Callable[..., Any]:
    # What libxdp cannot express goes the kernel's own way.
    if fds:
        return functools.partial(sockopt.Registration, fds=fds)
    if umem.tx_metadata_len:
        return sockopt.Registration
    from xsk_engine._ffi import libxdp

    return libxdp.Registration


def _bind_all(
    umem: Umem,
    netdev: NetDev,
    queues: Sequence[int],
    flags: int,
    register: Callable[[], None],
    make: Callable[[Any, int], S],
    stock: Stock | None = None,
    rings: Callable[[int], sockopt.Rings] | None = None,
) -> tuple[S, ...]:
    """All queues or none; the OSError carries the queue in its filename."""
    queue = queues[0]
    xsks: list[S] = []
    try:
        register()
        for queue in queues:
            fill = functools.partial(stock, queue) if stock else None
            options = {"rings": rings(queue)} if rings else {}
            bound = umem.registration.open(netdev.name, netdev.ifindex, queue, flags, fill, **options)
            xsks.append(make(bound, queue))
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.ENOENT and not libc.may_open_more():
            error.errno = errno.EMFILE  # glibc's if_nametoindex, which libxdp asks, says another thing
        for xsk in xsks:
            xsk.close()
        umem.unregister()
        if isinstance(error, OSError):
            error.filename = error.filename or str(queue)
        raise
    return tuple(xsks)


def _with_patience(netdev: NetDev, bind: Callable[[], tuple[S, ...]]) -> tuple[S, ...]:
    """What passes is waited for."""
    deadline = time.monotonic() + REBIND_DEADLINE_S
    while True:
        try:
            return bind()
        except OSError as error:
            ours = is_bound_here(netdev.ifindex, int(error.filename or 0))
            if error.errno not in PASSING or ours or time.monotonic() > deadline:
                raise
        time.sleep(_REBIND_PAUSE_S)


def _bind_flags(mode: str, multi_buffer: bool) -> int:
    return _MODE_FLAGS[mode] | uapi.XDP_USE_NEED_WAKEUP | (uapi.XDP_USE_SG if multi_buffer else 0)


def bind_queues(
    umem: Umem,
    netdev: NetDev,
    queues: Sequence[int],
    mode: str,
    *,
    ring_size: int,
    multi_buffer: bool = False,
    stock: Stock | None = None,
    fds: Sequence[int] = (),
    opener: str | None = None,
) -> tuple[Xsk, ...]:
    """Registers the umem and binds every queue to it, all or none; what passes is waited for, unless the
    sockets are somebody else's `fds`: a umem is registered on a socket only once. `opener`: the program that
    does it, and waits, for a umem that is shared.

    ``mode``: "copy" or "zerocopy". `multi_buffer` asks for packets of several descs (XDP_USE_SG). `stock`
    is called with each queue and its fill ring. OSError with the queue as its filename.
    """

    def make(bound: Any, queue: int) -> Xsk:
        raise_send_buffer(bound.fd)
        return Xsk(bound, netdev, queue, ring_size)

    def bind() -> tuple[Xsk, ...]:
        flags = _bind_flags(mode, multi_buffer)
        backend = _choose_backend(umem, fds)
        if opener is not None:
            from xsk_engine.opener import Registration

            backend = functools.partial(
                Registration,
                program=opener,
                umem_fd=umem.area.fd,
                ifname=netdev.name,
                queues=queues,
                bind_flags=flags,
            )
        register = functools.partial(umem.register, backend, ring_size)
        return _bind_all(umem, netdev, queues, flags, register, make, stock)

    return bind() if fds or opener is not None else _with_patience(netdev, bind)


def bind_rx_queues(
    umem: Umem, netdev: NetDev, queues: Sequence[int], mode: str, *, ring_size: int, multi_buffer: bool
) -> tuple[RxXsk, ...]:
    """As bind_queues, for sockets that receive; their fill rings are empty."""

    def bind() -> tuple[RxXsk, ...]:
        register = functools.partial(umem.register, sockopt.Registration, ring_size, receives=True)
        flags = _bind_flags(mode, multi_buffer)
        return _bind_all(
            umem, netdev, queues, flags, register, lambda bound, queue: RxXsk(bound, netdev, queue)
        )

    return _with_patience(netdev, bind)


def bind_both(
    umem: Umem,
    netdev: NetDev,
    queues: Sequence[int],
    senders: Sequence[int],
    mode: str,
    *,
    ring_size: int,
    rx_entries: int,
    multi_buffer: bool,
    stock: Stock,
) -> tuple[tuple[Xsk, ...], tuple[RxXsk, ...]]:
    """As bind_queues, for sockets on all `queues` that receive, of which those on `senders` send, too: what
    sends, in the order of `senders`, and what receives; fill rings of `rx_entries`."""
    sending: dict[int, Xsk] = {}

    def make(bound: Any, queue: int) -> RxXsk:
        if queue in senders:
            raise_send_buffer(bound.fd)
            sending[queue] = Xsk(bound, netdev, queue, ring_size)
        return RxXsk(bound, netdev, queue)

    def rings(queue: int) -> sockopt.Rings:
        return sockopt.Rings(ring_size if queue in senders else 0, rx_entries)

    def bind() -> tuple[RxXsk, ...]:
        register = functools.partial(umem.register, sockopt.Registration, ring_size)
        flags = _bind_flags(mode, multi_buffer)
        return _bind_all(umem, netdev, queues, flags, register, make, stock, rings)

    receiving = _with_patience(netdev, bind)
    return tuple(sending[queue] for queue in senders), receiving

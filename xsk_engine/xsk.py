"""AF_XDP sockets: binding a set of queues to one umem, in the best mode the driver has."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from xsk_engine._ffi import libc, uapi
from xsk_engine._ffi.native import Ring
from xsk_engine.errors import QueueTakenError, UnavailableError, errno_name
from xsk_engine.netdev import NetDev
from xsk_engine.umem import Umem

MODES = ("auto", "copy", "zerocopy")

# After a process ends its queue stays bound, and its locked memory charged, for a moment (measured: tens of
# ms). Lower: a restart fails; higher: a queue that is really taken is reported late.
REBIND_DEADLINE_S = 2.5
_REBIND_PAUSE_S = 0.01

# 2048 packets of 4 KiB with the kernel's overhead. Lower: EAGAIN before the ring is empty; higher: nothing.
_SEND_BUFFER_BYTES = 16 << 20

_PASSING = (errno.EBUSY, errno.ENOBUFS)

_bound_here: set[tuple[int, int]] = set()
"""(ifindex, queue) of this process, to say whose a taken queue is."""


def is_bound_here(ifindex: int, queue: int) -> bool:
    """Does this process hold the queue?"""
    return (ifindex, queue) in _bound_here


@dataclass(frozen=True)
class KernelStats:
    """getsockopt(XDP_STATISTICS) of one or several xsks."""

    tx_invalid_descs: int = 0
    """descs the kernel refused; any is an engine fault"""
    tx_ring_empty_descs: int = 0
    """times the kernel looked and found the tx ring empty"""

    def __add__(self, other: KernelStats) -> KernelStats:
        return KernelStats(
            self.tx_invalid_descs + other.tx_invalid_descs,
            self.tx_ring_empty_descs + other.tx_ring_empty_descs,
        )


class Xsk:
    """One bound socket. ``mode`` is "copy" or "zerocopy". Open and close in one thread."""

    def __init__(self, bound: Any, netdev: NetDev, queue: int, tx_budget: int) -> None:
        self._bound = bound
        self._key = (netdev.ifindex, queue)
        self.queue = queue
        self.fd: int = bound.fd
        self.tx: Ring = bound.tx
        self.cq: Ring = bound.cq
        options = uapi.XdpOptions()
        libc.get_option(self.fd, uapi.XDP_OPTIONS, options)
        self.mode = "zerocopy" if options.flags & uapi.XDP_OPTIONS_ZEROCOPY else "copy"
        self._statistics_before = KernelStats()
        _bound_here.add(self._key)
        # Without it one sendto() moves 32 packets. Kernels before 6.17 do not know it.
        with contextlib.suppress(OSError):
            libc.set_option(self.fd, uapi.XDP_MAX_TX_SKB_BUDGET, max(tx_budget, uapi.TX_BUDGET_MIN))

    def kernel_stats(self) -> KernelStats:
        """Since the last reset_statistics()."""
        raw = uapi.XdpStatistics()
        libc.get_option(self.fd, uapi.XDP_STATISTICS, raw)
        before = self._statistics_before
        return KernelStats(
            raw.tx_invalid_descs - before.tx_invalid_descs,
            raw.tx_ring_empty_descs - before.tx_ring_empty_descs,
        )

    def reset_statistics(self) -> None:
        """What the kernel counted so far was ours to provoke."""
        self._statistics_before = KernelStats()
        self._statistics_before = self.kernel_stats()

    def close(self) -> None:
        """Idempotent."""
        _bound_here.discard(self._key)
        self._bound.close()


@dataclass(frozen=True)
class Binding:
    """What bind_queues got: the sockets, their common mode and why it is that one."""

    xsks: tuple[Xsk, ...]
    mode: str
    reason: str


def raise_send_buffer(fd: int) -> None:
    """SO_SNDBUF bounds the packets in flight in copy mode; beyond the system's limit only with
    CAP_NET_ADMIN."""
    for option in (uapi.SO_SNDBUFFORCE, uapi.SO_SNDBUF):
        with contextlib.suppress(OSError):
            libc.set_option(fd, option, _SEND_BUFFER_BYTES, uapi.SOL_SOCKET)
            return


def _choose_backend(umem: Umem) -> ModuleType:
    # What libxdp cannot express goes the kernel's own way.
    if umem.tx_metadata_len:
        from xsk_engine._ffi import sockopt

        return sockopt
    from xsk_engine._ffi import libxdp

    return libxdp


def _describe(error: OSError, netdev: NetDev, queue: int, mode: str, umem: Umem) -> UnavailableError:
    arguments = f"{netdev.name}, queue {queue}, {mode}"
    number = error.errno or 0
    if number == errno.EBUSY:
        owner = "this process" if (netdev.ifindex, queue) in _bound_here else "another process"
        return QueueTakenError(
            "bind",
            arguments,
            f"an AF_XDP socket of {owner} holds this queue; stop it or use another queue",
            errno=number,
        )
    hints = {
        errno.EINVAL: (
            f"{netdev.name} has {netdev.queues} queue(s), 0 to {netdev.queues - 1}; "
            f"see ethtool -l {netdev.name}, more with ethtool -L {netdev.name} combined N"
            if queue >= netdev.queues
            else "the kernel refuses this combination of flags; try --mode copy"
        ),
        errno.EOPNOTSUPP: f"driver {netdev.driver} has no zero-copy; use --mode copy",
        errno.EPERM: "needs CAP_NET_RAW: run as root, or setcap cap_net_raw+ep on the interpreter",
        errno.ENOBUFS: (
            f"the umem of {umem.area.length} bytes exceeds the locked-memory limit; "
            "raise it (ulimit -l), use a smaller --umem-mb, or run with CAP_IPC_LOCK"
        ),
        errno.ENODEV: "the interface is gone",
        errno.ENETDOWN: f"the interface is down; ip link set {netdev.name} up",
        errno.EAFNOSUPPORT: "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
    }
    message = hints.get(number, "the kernel refused; see xsk-engine doctor")
    return UnavailableError("bind", arguments, message, errno=number)


def _bind_all(
    umem: Umem, netdev: NetDev, queues: Sequence[int], flags: int, ring_size: int
) -> tuple[Xsk, ...]:
    """All queues or none; the OSError carries the queue in its filename."""
    queue = queues[0]
    xsks: list[Xsk] = []
    try:
        umem.register(_choose_backend(umem), ring_size)
        for queue in queues:
            bound = umem.registration.open(netdev.name, netdev.ifindex, queue, flags)
            xsks.append(Xsk(bound, netdev, queue, ring_size))
            raise_send_buffer(bound.fd)
    except BaseException as error:
        for xsk in xsks:
            xsk.close()
        umem.unregister()
        if isinstance(error, OSError):
            error.filename = str(queue)
        raise
    return tuple(xsks)


def _bind_patiently(
    umem: Umem, netdev: NetDev, queues: Sequence[int], flags: int, ring_size: int
) -> tuple[Xsk, ...]:
    deadline = time.monotonic() + REBIND_DEADLINE_S
    while True:
        try:
            return _bind_all(umem, netdev, queues, flags, ring_size)
        except OSError as error:
            ours = (netdev.ifindex, int(error.filename or 0)) in _bound_here
            if error.errno not in _PASSING or ours or time.monotonic() > deadline:
                raise
        time.sleep(_REBIND_PAUSE_S)


def bind_queues(
    umem: Umem,
    netdev: NetDev,
    queues: Sequence[int],
    *,
    mode: str = "auto",
    ring_size: int = 2048,
    multi_buffer: bool = False,
) -> Binding:
    """Binds every queue of `queues` to the umem. UnavailableError says what is missing.

    ``auto`` tries zero-copy and falls back to copy; what is bound first decides for all. `multi_buffer`
    asks for packets of several descs (XDP_USE_SG).
    """
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r} is not one of {', '.join(MODES)}")
    common = uapi.XDP_USE_NEED_WAKEUP | (uapi.XDP_USE_SG if multi_buffer else 0)
    attempts = [("zerocopy", uapi.XDP_ZEROCOPY), ("copy", uapi.XDP_COPY)]
    reason = "as asked"
    for name, flag in attempts:
        if mode not in ("auto", name):
            continue
        try:
            xsks = _bind_patiently(umem, netdev, queues, flag | common, ring_size)
        except OSError as error:
            queue = int(error.filename or queues[0])
            # Refused as a mode, not for another reason: then copy is worth a try.
            if mode == "auto" and name == "zerocopy" and error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                if queue < netdev.queues:
                    reason = f"driver {netdev.driver} refused zero-copy ({errno_name(error.errno)})"
                    continue
                name = "copy"
            named = mode if error.errno in _PASSING else name  # those have nothing to do with the mode
            raise _describe(error, netdev, queue, named, umem) from None
        if mode == "auto" and name == "zerocopy":
            reason = f"driver {netdev.driver} has zero-copy"
        return Binding(xsks, xsks[0].mode, reason)
    raise AssertionError("unreachable: one attempt always returns or raises")

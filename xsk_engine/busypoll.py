"""Busy polling of receive sockets: asked for, and what became of it.

Source: Documentation/networking/napi.rst and af_xdp.rst."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from xsk_engine import privileges
from xsk_engine.errors import UnavailableError
from xsk_engine.netdev import NetDev
from xsk_engine.xsk import RxXsk

# Any but 0 turns it on: a receiver never waits in the kernel, so how long is not asked.
TIMEOUT_US = 20
# Of one call and one queue: what the receiver takes off a ring at once. Lower: more calls; higher: the other
# queues wait longer.
BUDGET_PACKETS = 64

# Enough for any loop that polls every few microseconds (DPDK's af_xdp guide has the same).
_DEFER_HARD_IRQS, _GRO_FLUSH_TIMEOUT_NS = 2, 200_000


@dataclass(frozen=True)
class BusyPoll:
    """What is in effect, read back from the kernel. Immutable: any thread."""

    prefer: bool
    """SO_PREFER_BUSY_POLL of all sockets"""
    timeout_us: int
    """SO_BUSY_POLL, the smallest of them"""
    budget_packets: int
    """SO_BUSY_POLL_BUDGET, as it was set: the kernel does not tell"""
    napi_ids: tuple[int, ...]
    """of each queue, SO_INCOMING_NAPI_ID: the instance that the socket drives; 0: none"""
    interrupts_deferred: bool | None
    """napi_defer_hard_irqs and gro_flush_timeout were set at the start; None: the kernel does not say"""
    note: str
    """why it does less than it could, and what to do about it; "" if it does not"""

    def as_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return asdict(self) | {"napi_ids": list(self.napi_ids)}


def start(netdev: NetDev, xsks: Sequence[RxXsk]) -> BusyPoll:
    """Sets it up on bound sockets, in their interface's network namespace. UnavailableError with the option
    that the kernel refuses."""
    for xsk in xsks:
        try:
            xsk.prefer_busy_poll(TIMEOUT_US, BUDGET_PACKETS)
        except OSError as error:
            hints = {
                errno.EPERM: f"{privileges.needs('CAP_NET_ADMIN')}; or leave out --busy-poll",
                errno.ENOPROTOOPT: "this kernel has no such option (Linux 5.11, CONFIG_NET_RX_BUSY_POLL)",
                errno.EOPNOTSUPP: "this kernel cannot busy-poll (CONFIG_NET_RX_BUSY_POLL)",
            }
            raise UnavailableError(
                f"setsockopt {error.filename}",
                f"{netdev.name}, queue {xsk.queue}",
                hints.get(error.errno or 0, "the kernel refused"),
                errno=error.errno,
            ) from None
    return _read(
        netdev, xsks, _are_deferred([napi_id for _, _, napi_id in (xsk.busy_poll() for xsk in xsks)])
    )


def again(before: BusyPoll, netdev: NetDev, xsks: Sequence[RxXsk]) -> BusyPoll:
    """What is in effect now: older kernels know the NAPI instance only once a packet has come. By any thread,
    in whatever network namespace it is."""
    return _read(netdev, xsks, before.interrupts_deferred)


def _read(netdev: NetDev, xsks: Sequence[RxXsk], deferred: bool | None) -> BusyPoll:
    states = [xsk.busy_poll() for xsk in xsks]
    napi_ids = tuple(napi_id for _, _, napi_id in states)
    return BusyPoll(
        all(prefer for prefer, _, _ in states),
        min(timeout_us for _, timeout_us, _ in states),
        BUDGET_PACKETS,
        napi_ids,
        deferred,
        _note(netdev, napi_ids, deferred),
    )


def _are_deferred(napi_ids: Sequence[int]) -> bool | None:
    """Of all of them; None: the kernel does not say."""
    if not all(napi_ids):
        return None
    from xsk_engine import netdevgenl  # imports pyroute2, which takes longer than all the rest

    settings = [netdevgenl.napi_deferral(napi_id) for napi_id in napi_ids]
    return None if None in settings else all(one is not None and all(one) for one in settings)


def _note(netdev: NetDev, napi_ids: Sequence[int], deferred: bool | None) -> str:
    if not all(napi_ids):
        return (
            "the kernel knows no NAPI instance of the socket (the driver names none, or the kernel looks "
            "for it in zero-copy only), so the driver is not polled: the sink only stays awake"
        )
    if deferred is not False:
        return ""
    where = f"/sys/class/net/{netdev.name}"
    return (
        "interrupts come all the same, as the interface is set; "
        f"echo {_DEFER_HARD_IRQS} > {where}/napi_defer_hard_irqs; "
        f"echo {_GRO_FLUSH_TIMEOUT_NS} > {where}/gro_flush_timeout"
    )

"""What the kernel's netdev family says of an interface: XDP features, which queues have an xsk, and NAPI.

Source: Documentation/netlink/specs/netdev.yaml. pyroute2 has the transport, not this family.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from xsk_engine.outside import event_loop

_DEV_GET, _QUEUE_GET, _NAPI_GET = 1, 10, 11
_XSK_ZEROCOPY = 1 << 3
_TX_METADATA = {"timestamp": 1 << 0, "checksum": 1 << 1}


class _dev(genlmsg):
    prefix = "NETDEV_A_DEV_"
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
        ("NETDEV_A_DEV_XDP_ZC_MAX_SEGS", "uint32"),
        ("NETDEV_A_DEV_XDP_RX_METADATA_FEATURES", "uint64"),
        ("NETDEV_A_DEV_XSK_FEATURES", "uint64"),
    )


class _queue(genlmsg):
    prefix = "NETDEV_A_QUEUE_"
    nla_map = (
        ("NETDEV_A_QUEUE_UNSPEC", "none"),
        ("NETDEV_A_QUEUE_ID", "uint32"),
        ("NETDEV_A_QUEUE_IFINDEX", "uint32"),
        ("NETDEV_A_QUEUE_TYPE", "uint32"),
        ("NETDEV_A_QUEUE_NAPI_ID", "uint32"),
        ("NETDEV_A_QUEUE_DMABUF", "hex"),
        ("NETDEV_A_QUEUE_IO_URING", "hex"),
        ("NETDEV_A_QUEUE_XSK", "hex"),
    )


class _napi(genlmsg):
    prefix = "NETDEV_A_NAPI_"
    nla_map = (
        ("NETDEV_A_NAPI_UNSPEC", "none"),
        ("NETDEV_A_NAPI_IFINDEX", "uint32"),
        ("NETDEV_A_NAPI_ID", "uint32"),
        ("NETDEV_A_NAPI_IRQ", "uint32"),
        ("NETDEV_A_NAPI_PID", "uint32"),
        ("NETDEV_A_NAPI_DEFER_HARD_IRQS", "uint32"),
        ("NETDEV_A_NAPI_GRO_FLUSH_TIMEOUT", "cdata"),
        ("NETDEV_A_NAPI_IRQ_SUSPEND_TIMEOUT", "cdata"),
        ("NETDEV_A_NAPI_THREADED", "uint32"),
    )


@dataclass(frozen=True)
class XdpFacts:
    """None: this kernel does not say."""

    zerocopy: bool | None
    taken_queues: frozenset[int] | None


def _ask(kind: type[genlmsg], command: int, about: tuple[str, int], flags: int = 0) -> list[Any]:
    with event_loop() as loop, contextlib.closing(GenericNetlinkSocket(use_event_loop=loop)) as sock:
        sock.bind("netdev", kind)
        message = kind()
        message["cmd"], message["version"] = command, 1
        message["attrs"] = [about]
        return list(sock.nlm_request(message, msg_type=sock.prid, msg_flags=NLM_F_REQUEST | flags))


def _device(ifindex: int, attribute: str) -> int | None:
    answer = _ask(_dev, _DEV_GET, ("NETDEV_A_DEV_IFINDEX", ifindex))
    value = answer[0].get_attr(attribute) if answer else None
    return None if value is None else int(value)


def _zerocopy(ifindex: int) -> bool | None:
    features = _device(ifindex, "NETDEV_A_DEV_XDP_FEATURES")
    return None if features is None else bool(features & _XSK_ZEROCOPY)


def tx_metadata_features(ifindex: int) -> frozenset[str]:
    """What the driver can do with tx metadata in zero-copy: "timestamp", "checksum"."""
    with contextlib.suppress(NetlinkError, OSError, KeyError):
        features = _device(ifindex, "NETDEV_A_DEV_XSK_FEATURES") or 0
        return frozenset(name for name, bit in _TX_METADATA.items() if features & bit)
    return frozenset()


def _taken(ifindex: int) -> frozenset[int] | None:
    answer = _ask(_queue, _QUEUE_GET, ("NETDEV_A_QUEUE_IFINDEX", ifindex), NLM_F_DUMP)
    return frozenset(
        queue.get_attr("NETDEV_A_QUEUE_ID")
        for queue in answer
        if queue.get_attr("NETDEV_A_QUEUE_XSK") is not None
    )


def napi_deferral(napi_id: int) -> tuple[int, int] | None:
    """napi_defer_hard_irqs and gro_flush_timeout (ns) of a NAPI instance; None: this kernel does not say
    (Linux 6.13)."""
    with contextlib.suppress(NetlinkError, OSError, KeyError):
        for one in _ask(_napi, _NAPI_GET, ("NETDEV_A_NAPI_ID", napi_id)):
            interrupts = one.get_attr("NETDEV_A_NAPI_DEFER_HARD_IRQS")
            timeout = one.get_attr("NETDEV_A_NAPI_GRO_FLUSH_TIMEOUT")  # of 4 bytes, or of 8
            if interrupts is not None and timeout is not None:
                return int(interrupts), int.from_bytes(timeout, sys.byteorder)
    return None


def napi_threads(ifindex: int) -> list[int]:
    """Thread ids of the kernel's that poll an interface instead of softirqs; empty: none does, or this kernel
    does not say (Linux 6.7)."""
    with contextlib.suppress(NetlinkError, OSError, KeyError):
        instances = _ask(_napi, _NAPI_GET, ("NETDEV_A_NAPI_IFINDEX", ifindex), NLM_F_DUMP)
        return [int(pid) for one in instances if (pid := one.get_attr("NETDEV_A_NAPI_PID")) is not None]
    return []


def facts(ifindex: int) -> XdpFacts:
    """Asks the kernel; what it does not know is None."""
    zerocopy: bool | None = None
    taken: frozenset[int] | None = None
    with contextlib.suppress(NetlinkError, OSError, KeyError):
        zerocopy = _zerocopy(ifindex)
    with contextlib.suppress(NetlinkError, OSError, KeyError):
        taken = _taken(ifindex)
    return XdpFacts(zerocopy, taken)

"""The veth pair and its addresses, built through rtnetlink. Drawing: tests/README.md."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from pyroute2 import IPRoute

TX_INTERFACE, RX_INTERFACE = "vtx", "vrx"
TX_MAC, RX_MAC = "02:77:00:00:00:01", "02:77:00:00:00:02"
TX_IPV4, RX_IPV4, IPV4_PREFIX = "10.77.0.1", "10.77.0.2", 24
TX_IPV6, RX_IPV6, IPV6_PREFIX = "fd77::1", "fd77::2", 64

MTU_RANGE = (68, 65535)
_NUD_PERMANENT = 0x80
_IFA_F_NODAD = 0x02
_ADDR_GEN_MODE_NONE = 1


@dataclass(frozen=True)
class LabOptions:
    """``mtu`` in bytes, ``queues`` per end."""

    mtu: int = 1500
    queues: int = 1

    def __post_init__(self) -> None:
        low, high = MTU_RANGE
        if not low <= self.mtu <= high:
            raise ValueError(f"mtu: {self.mtu} is not in {low} to {high}")
        if not 1 <= self.queues <= 64:
            raise ValueError(f"queues: {self.queues} is not in 1 to 64")


Enter = Callable[[], contextlib.AbstractContextManager[None]]


def _quiet_ipv6(interface: str) -> None:
    """No router solicitations, no duplicate address detection. /proc/sys/net is the namespace's own."""
    for name in ("router_solicitations", "accept_ra", "accept_dad", "dad_transmits"):
        with (
            contextlib.suppress(OSError),
            open(f"/proc/sys/net/ipv6/conf/{interface}/{name}", "w") as node,
        ):
            node.write("0")


def set_up_end(
    ipr: IPRoute, interface: str, ipv4: str, ipv6: str, peer: tuple[str, str, str], mtu: int
) -> None:
    """Addresses, permanent neighbour, up. `peer`: its MAC, IPv4 and IPv6. In the interface's namespace."""
    index = ipr.link_lookup(ifname=interface)[0]
    # Through IFLA_AF_SPEC, so that no link-local address ever exists.
    ipr.link(
        "set",
        index=index,
        IFLA_AF_SPEC={
            "attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE)]})]
        },
    )
    _quiet_ipv6(interface)
    ipr.link("set", index=index, mtu=mtu)
    ipr.link("set", index=ipr.link_lookup(ifname="lo")[0], state="up")
    ipr.addr("add", index=index, address=ipv4, prefixlen=IPV4_PREFIX)
    ipv6_usable = mtu >= 1280  # RFC 8200, 5: below it the kernel takes IPv6 off the interface
    if ipv6_usable:
        ipr.addr("add", index=index, address=ipv6, prefixlen=IPV6_PREFIX, flags=_IFA_F_NODAD)
    ipr.link("set", index=index, state="up")
    mac, *addresses = peer
    for address in addresses if ipv6_usable else addresses[:1]:
        ipr.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=_NUD_PERMANENT)


def build(enter_tx: Enter, enter_rx: Enter, options: LabOptions, rx_namespace_fd: int) -> None:
    """Makes the pair in the current network namespaces of `enter_tx` and `enter_rx`; on return both ends
    are up. OSError or pyroute2's NetlinkError otherwise."""
    queues = options.queues
    with enter_tx(), IPRoute() as ipr:
        ipr.link(
            "add",
            ifname=TX_INTERFACE,
            kind="veth",
            address=TX_MAC,
            num_tx_queues=queues,
            num_rx_queues=queues,
            peer={
                "ifname": RX_INTERFACE,
                "address": RX_MAC,
                "num_tx_queues": queues,
                "num_rx_queues": queues,
                "net_ns_fd": rx_namespace_fd,
            },
        )
        peer = (RX_MAC, RX_IPV4, RX_IPV6)
        set_up_end(ipr, TX_INTERFACE, TX_IPV4, TX_IPV6, peer, options.mtu)
    with enter_rx(), IPRoute() as ipr:
        set_up_end(ipr, RX_INTERFACE, RX_IPV4, RX_IPV6, (TX_MAC, TX_IPV4, TX_IPV6), options.mtu)

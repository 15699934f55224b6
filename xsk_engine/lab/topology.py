"""The veth pair, or with a wire the two pairs, and their addresses, built through rtnetlink. Drawing:
tests/README.md."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyroute2.netlink.exceptions import NetlinkError

from xsk_engine import ethtool
from xsk_engine.errors import UnavailableError
from xsk_engine.outside import rtnetlink

if TYPE_CHECKING:
    from pyroute2 import IPRoute

    from xsk_engine.lab.wirespec import WireSpec

TX_INTERFACE, RX_INTERFACE = "vtx", "vrx"
TX_MAC, RX_MAC = "02:77:00:00:00:01", "02:77:00:00:00:02"
TX_IPV4, RX_IPV4, IPV4_PREFIX = "10.77.0.1", "10.77.0.2", 24
TX_IPV6, RX_IPV6, IPV6_PREFIX = "fd77::1", "fd77::2", 64

INNER_INTERFACES = ("w0", "w1")
"""of a wire: vtx's peer and vrx's"""
INNER_MACS = ("02:77:00:00:00:11", "02:77:00:00:00:12")
INNER_MTU_MORE = 8
"""so that they take whatever the outer ends may send: with two VLAN tags"""

MTU_RANGE = (68, 65535)
_NUD_PERMANENT = 0x80
_IFA_F_NODAD = 0x02
_ADDR_GEN_MODE_NONE = 1


@dataclass(frozen=True)
class LabOptions:
    """``mtu`` in bytes, ``queues`` per end; ``wire`` None: the ends are joined directly."""

    mtu: int = 1500
    queues: int = 1
    wire: WireSpec | None = None

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


def _add_pair(
    ipr: IPRoute, end: tuple[str, str], peer: tuple[str, str], queues: int, peer_namespace_fd: int
) -> None:
    """``end`` and ``peer``: name and MAC."""
    numbers = {"num_tx_queues": queues, "num_rx_queues": queues}
    ipr.link(
        "add",
        kind="veth",
        ifname=end[0],
        address=end[1],
        **numbers,
        peer={"ifname": peer[0], "address": peer[1], "net_ns_fd": peer_namespace_fd, **numbers},
    )


def _set_up_inner_end(ipr: IPRoute, interface: str, mtu: int) -> None:
    """It sends nothing of its own and takes whatever comes."""
    with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6", "w") as node:
        node.write("1")
    ethtool.without_offloads(interface)
    index = ipr.link_lookup(ifname=interface)[0]
    ipr.link("set", index=index, mtu=min(mtu + INNER_MTU_MORE, MTU_RANGE[1]), state="up")


def build(
    enter_tx: Enter,
    enter_rx: Enter,
    options: LabOptions,
    rx_namespace_fd: int,
    wire: tuple[Enter, int] | None = None,
) -> None:
    """Makes the ends in the current network namespaces of `enter_tx` and `enter_rx`, and with a wire (how to
    enter its namespace, and an fd of it) the two inner ends; on return all are up. What goes through a wire
    is its forwarder's. OSError; UnavailableError where rtnetlink refuses."""
    try:
        _build(enter_tx, enter_rx, options, rx_namespace_fd, wire)
    except NetlinkError as error:
        text = "the kernel refuses it; laboratories need CAP_NET_ADMIN, and veth in the kernel"
        raise UnavailableError("lab", "veth pair", text, errno=error.code) from None


def _build(
    enter_tx: Enter,
    enter_rx: Enter,
    options: LabOptions,
    rx_namespace_fd: int,
    wire: tuple[Enter, int] | None,
) -> None:
    tx, rx = (TX_INTERFACE, TX_MAC), (RX_INTERFACE, RX_MAC)
    with enter_tx(), rtnetlink() as ipr:
        if wire is None:
            _add_pair(ipr, tx, rx, options.queues, rx_namespace_fd)
        else:
            _add_pair(ipr, tx, (INNER_INTERFACES[0], INNER_MACS[0]), options.queues, wire[1])
            ethtool.without_offloads(TX_INTERFACE)
        set_up_end(ipr, TX_INTERFACE, TX_IPV4, TX_IPV6, (RX_MAC, RX_IPV4, RX_IPV6), options.mtu)
    with enter_rx(), rtnetlink() as ipr:
        if wire is not None:
            _add_pair(ipr, rx, (INNER_INTERFACES[1], INNER_MACS[1]), options.queues, wire[1])
            ethtool.without_offloads(RX_INTERFACE)
        set_up_end(ipr, RX_INTERFACE, RX_IPV4, RX_IPV6, (TX_MAC, TX_IPV4, TX_IPV6), options.mtu)
    if wire is not None:
        with wire[0](), rtnetlink() as ipr:
            for interface in INNER_INTERFACES:
                _set_up_inner_end(ipr, interface, options.mtu)

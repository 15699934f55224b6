"""Interfaces that were there before become the ends of a laboratory, and may become themselves again.

They get the names, MACs, addresses and permanent neighbours of the veth pair's ends (:mod:`.topology`), so
that what runs in a laboratory runs between two NICs as well. One thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from xsk_engine import route
from xsk_engine.errors import BrokenError, UnavailableError
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.outside import rtnetlink

# Auto-negotiation of copper takes some seconds; longer: there is no cable.
CARRIER_S = 20.0
_POLL_S = 0.02
_SCOPE_LINK = 253  # include/uapi/linux/rtnetlink.h
_IFA_F_PERMANENT = 0x80
_IFF_UP = 1
# include/uapi/linux/if_addr.h: what somebody asked for, and not how it stands: NODAD, HOMEADDRESS,
# MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN
_IFA_F_ASKED = 0x02 | 0x10 | 0x100 | 0x200 | 0x400


@dataclass(frozen=True)
class End:
    """What an interface becomes."""

    name: str
    mac: str
    ipv4: str
    ipv6: str


TX_END = End(topology.TX_INTERFACE, topology.TX_MAC, topology.TX_IPV4, topology.TX_IPV6)
RX_END = End(topology.RX_INTERFACE, topology.RX_MAC, topology.RX_IPV4, topology.RX_IPV6)


def dress(ipr: IPRoute, index: int, end: End) -> None:
    """Down, with the end's name and MAC and without addresses. NetlinkError."""
    ipr.link("set", index=index, state="down")
    ipr.flush_addr(index=index)
    link = ipr.get_links(index)[0]
    if link.get_attr("IFLA_ADDRESS") != end.mac:
        ipr.link("set", index=index, address=end.mac)
    if link.get_attr("IFLA_IFNAME") != end.name:
        ipr.link("set", index=index, ifname=end.name)


def set_up(ipr: IPRoute, end: End, peer: End, mtu: int) -> None:
    """Up, with the end's addresses and its neighbour. In the interface's namespace. NetlinkError."""
    topology.set_up_end(ipr, end.name, end.ipv4, end.ipv6, (peer.mac, peer.ipv4, peer.ipv6), mtu)


def await_carrier(interface: str, timeout_s: float = CARRIER_S) -> None:
    """In the interface's namespace, up. OSError with ENETDOWN when it has none in time."""
    deadline = time.monotonic() + timeout_s
    with rtnetlink() as ipr:  # /sys shows the namespace in which it was mounted
        index = ipr.link_lookup(ifname=interface)[0]
        while not ipr.get_links(index)[0].get_attr("IFLA_CARRIER"):
            if time.monotonic() > deadline:
                raise OSError(errno.ENETDOWN, f"{interface} has no carrier")
            time.sleep(_POLL_S)


def refuse(interfaces: tuple[str, str]) -> None:
    """UnavailableError: one that is not there, that carries the default route, or both the same. Touches
    nothing."""
    if interfaces[0] == interfaces[1]:
        raise UnavailableError("adopt", interfaces[0], "two interfaces are needed, joined by a cable")
    for name in interfaces:
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            raise UnavailableError(
                "adopt", name, "there is no such interface here; ip link lists them", errno=errno.ENODEV
            ) from None
        if route.has_default_route(index):
            raise UnavailableError("adopt", name, "it carries the default route, and would be taken away")


@dataclass(frozen=True)
class _Kept:
    """An interface as it was. ``addresses``: those that somebody gave it."""

    name: str
    index: int
    mac: str
    mtu: int
    up: bool
    addr_gen_mode: int | None
    addresses: tuple[dict[str, Any], ...]


def _addr_gen_mode(link: Any) -> int | None:
    for family in (link.get_attr("IFLA_AF_SPEC") or {"attrs": []})["attrs"]:
        if family[0] == "AF_INET6":
            mode = family[1].get_attr("IFLA_INET6_ADDR_GEN_MODE")
            return None if mode is None else int(mode)
    return None


def _address(message: Any) -> dict[str, Any]:
    attributes = dict(message["attrs"])
    kept = {
        "family": message["family"],
        "prefixlen": message["prefixlen"],
        "scope": message["scope"],
        # IFA_LOCAL is the own one, IFA_ADDRESS a peer's where there is one
        "local": attributes.get("IFA_LOCAL", attributes["IFA_ADDRESS"]),
        "address": attributes["IFA_ADDRESS"],
        "flags": attributes.get("IFA_FLAGS", message["flags"]) & _IFA_F_ASKED,
    }
    if message["family"] == socket.AF_INET:
        more = {"broadcast": "IFA_BROADCAST", "label": "IFA_LABEL"}
        kept |= {name: attributes[key] for name, key in more.items() if key in attributes}
    return kept


def _keep(ipr: IPRoute, name: str) -> _Kept:
    index = ipr.link_lookup(ifname=name)[0]
    link = ipr.get_links(index)[0]
    return _Kept(
        name,
        index,
        link.get_attr("IFLA_ADDRESS"),
        link.get_attr("IFLA_MTU"),
        bool(link["flags"] & _IFF_UP),
        _addr_gen_mode(link),
        # Those of a DHCP client or of router advertisements end by themselves, and are theirs to renew.
        tuple(_address(one) for one in ipr.get_addr(index=index) if one["flags"] & _IFA_F_PERMANENT),
    )


class Adopted:
    """Two interfaces in namespaces of their own, as the ends of ``lab``. Made by :func:`adopted`."""

    def __init__(self, lab: PrivateLab) -> None:
        self.lab = lab

    def set_up(self, mtu: int, carrier_s: float = CARRIER_S) -> None:
        """Both ends up and joined, with that MTU. UnavailableError when a driver refuses it, or there is no
        carrier."""
        for fd, end, peer in ((self.lab.tx_fd, TX_END, RX_END), (self.lab.rx_fd, RX_END, TX_END)):
            with namespaces.entered(fd), rtnetlink() as ipr:
                try:
                    dress(ipr, ipr.link_lookup(ifname=end.name)[0], end)
                    set_up(ipr, end, peer, mtu)
                except NetlinkError as error:
                    raise UnavailableError(
                        "set up", f"{end.name}, MTU {mtu}", "the driver refuses", errno=error.code
                    ) from None
        for fd, end in ((self.lab.tx_fd, TX_END), (self.lab.rx_fd, RX_END)):
            with namespaces.entered(fd):
                try:
                    await_carrier(end.name, carrier_s)
                except OSError as error:
                    raise UnavailableError(
                        "set up", end.name, "no carrier: is there a cable?", errno=error.errno
                    ) from None


def _give_back(kept: _Kept, end: End, away: int) -> None:
    """From the namespace `away` if it is there, and as it was. In the namespace it came from. Goes on after
    what fails; BrokenError tells all of it."""
    trouble: list[str] = []

    def attempt(what: str, step: Any, *arguments: Any, **options: Any) -> None:
        try:
            step(*arguments, **options)
        except (NetlinkError, OSError) as error:
            if getattr(error, "code", None) != errno.EEXIST:
                trouble.append(f"{what}: {error}")

    home = namespaces.current_network()
    try:
        with namespaces.entered(away), rtnetlink() as ipr:
            for index in (*ipr.link_lookup(ifname=end.name), *ipr.link_lookup(ifname=kept.name)):
                attempt("down", ipr.link, "set", index=index, state="down")
                attempt("addresses", ipr.flush_addr, index=index)
                attempt("MAC", ipr.link, "set", index=index, address=kept.mac)
                attempt("MTU", ipr.link, "set", index=index, mtu=kept.mtu)
                attempt("name", ipr.link, "set", index=index, ifname=kept.name)
                attempt("namespace", ipr.link, "set", index=index, net_ns_fd=home)
    finally:
        os.close(home)
    with rtnetlink() as ipr:
        found = ipr.link_lookup(ifname=kept.name)
        if not found:
            raise BrokenError(
                "give back",
                kept.name,
                f"it is gone: {'; '.join(trouble) or 'it was removed'}",
                errno=errno.ENODEV,
            )
        index = found[0]
        if kept.addr_gen_mode is not None:
            mode = ("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", kept.addr_gen_mode)]})
            attempt("IPv6 mode", ipr.link, "set", index=index, IFLA_AF_SPEC={"attrs": [mode]})
        attempt("up or down", ipr.link, "set", index=index, state="up" if kept.up else "down")
        for address in kept.addresses:
            # The kernel makes link-local ones itself, if it had made them before.
            made = address["family"] == socket.AF_INET6 and address["scope"] == _SCOPE_LINK
            if not (made and kept.addr_gen_mode == 0):
                attempt(f"address {address['local']}", ipr.addr, "add", index=index, **address)
    if trouble:
        raise BrokenError("give back", kept.name, f"it is not as it was: {'; '.join(trouble)}")


@contextlib.contextmanager
def adopted(tx: str, rx: str) -> Iterator[Adopted]:
    """Two interfaces of this namespace, joined by a cable, for the block; root. Afterwards they have their
    namespace, name, MAC, MTU, addresses, and are up or down as before. Not given back: routes, neighbours,
    DHCP's and router advertisements' addresses, qdiscs, membership in a bridge or bond, and settings under
    /proc/sys/net. Should this process be killed (SIGKILL), a NIC returns to the host's namespace by itself,
    with the laboratory's name and MAC. UnavailableError before anything is touched: see :func:`refuse`, and
    where the kernel forbids it; BrokenError when something could not be given back."""
    refuse((tx, rx))
    with contextlib.ExitStack() as stack:
        try:
            ends = [(name, end, namespaces.new_network()) for name, end in ((tx, TX_END), (rx, RX_END))]
        except OSError as error:
            raise UnavailableError(
                "adopt", f"{tx}, {rx}", "namespaces for them need root (sudo)", errno=error.errno
            ) from None
        for _, _, fd in ends:
            stack.callback(os.close, fd)
        with rtnetlink() as ipr:
            kept = {name: _keep(ipr, name) for name, _, _ in ends}
            for name, end, fd in ends:
                stack.callback(_give_back, kept[name], end, fd)
                _take(ipr, name, end, fd)
        yield Adopted(PrivateLab(ends[0][2], ends[1][2]))


def _take(ipr: IPRoute, name: str, end: End, fd: int) -> None:
    index = ipr.link_lookup(ifname=name)[0]
    try:
        ipr.link("set", index=index, state="down")
        ipr.link("set", index=index, net_ns_fd=fd)
        with namespaces.entered(fd), rtnetlink() as there:
            dress(there, there.link_lookup(ifname=name)[0], end)
    except NetlinkError as error:
        raise UnavailableError("adopt", name, "the driver or the kernel refuses", errno=error.code) from None

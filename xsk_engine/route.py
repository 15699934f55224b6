"""Route and neighbour lookup in this process's network namespace, through the kernel (rtnetlink)."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import time
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from xsk_engine.errors import UnavailableError
from xsk_engine.outside import rtnetlink
from xsk_engine.packet import IPAddress

# include/uapi/linux/neighbour.h: states with an address that can be used
_NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
_NUD_NOARP = 0x40
_NTF_PROXY = 0x08
_RTN_LOCAL = 2  # include/uapi/linux/rtnetlink.h
_DISCARD_PORT = 9
_POLL_S = 0.02
INSTEAD = "--dst-mac and --src-ip"
"""what a user may say himself, so that nobody has to be asked"""


@dataclass(frozen=True)
class NextHop:
    """Where a packet goes first: the source address the kernel would use, and the neighbour's MAC. ``mtu``:
    what the kernel knows of the way in bytes of layer 3, None: as the interface's."""

    src_ip: IPAddress
    dst_mac: str
    mtu: int | None = None


def _family(address: IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _attributes(message: Any) -> dict[str, Any]:
    return dict(message["attrs"])


def has_default_route(ifindex: int) -> bool:
    """Does any default route, IPv4 or IPv6, leave through the interface?"""
    with rtnetlink() as ipr:
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in ipr.get_routes(family=family, type=1):  # RTN_UNICAST
                attributes = _attributes(route)
                hops = [hop["oif"] for hop in attributes.get("RTA_MULTIPATH", ()) if "oif" in hop]
                if route["dst_len"] == 0 and ifindex in [attributes.get("RTA_OIF"), *hops]:
                    return True
    return False


def _neighbour(ipr: IPRoute, ifindex: int, address: IPAddress) -> str | None:
    for entry in ipr.get_neighbours(family=_family(address), ifindex=ifindex):
        attributes = _attributes(entry)
        if (
            entry["state"] & _NUD_USABLE
            and attributes.get("NDA_DST") == str(address)
            and "NDA_LLADDR" in attributes
        ):
            return str(attributes["NDA_LLADDR"])
    return None


def _start_resolution(ifname: str, address: IPAddress) -> None:
    """An empty datagram to the discard port makes the kernel ask for the MAC."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ifname.encode())
        sock.sendto(b"", (str(address), _DISCARD_PORT))


def only_neighbour(ifname: str, ifindex: int) -> str:
    """The MAC address of the one neighbour that the kernel knows on this interface. UnavailableError: none,
    or several."""
    found: dict[str, list[str]] = {}
    with rtnetlink() as ipr:
        for family in (socket.AF_INET, socket.AF_INET6):
            for entry in ipr.get_neighbours(family=family, ifindex=ifindex):
                attributes = _attributes(entry)
                mac, address = attributes.get("NDA_LLADDR"), str(attributes.get("NDA_DST"))
                is_one = not ipaddress.ip_address(address).is_multicast and not entry["flags"] & _NTF_PROXY
                if mac and entry["state"] & _NUD_USABLE and not entry["state"] & _NUD_NOARP and is_one:
                    found.setdefault(str(mac), []).append(address)
    if len(found) == 1:
        return next(iter(found))
    known = "; ".join(f"{mac} has {', '.join(addresses)}" for mac, addresses in sorted(found.items()))
    raise UnavailableError(
        "neighbour",
        ifname,
        f"which one? {known}; say --neighbour ADDRESS"
        if found
        else "the kernel knows none there; say --neighbour ADDRESS, or --edit eth.dst=MAC",
    )


def _multicast_mac(address: IPAddress) -> str:
    if address.version == 4:  # RFC 1112, 6.4
        low = int(address) & 0x7FFFFF
        return bytes([0x01, 0x00, 0x5E, low >> 16, low >> 8 & 0xFF, low & 0xFF]).hex(":")
    return (b"\x33\x33" + address.packed[-4:]).hex(":")  # RFC 2464, 7


def _lookup(ipr: IPRoute, ifname: str, ifindex: int, dst_ip: IPAddress, instead: str = INSTEAD) -> Any:
    arguments = f"{dst_ip}, {ifname}"
    remedy = f"add a route, or give {instead}"
    # A multicast or link-local destination is on every link: the interface decides.
    scoped = {"oif": ifindex} if dst_ip.is_multicast or dst_ip.is_link_local else {}
    try:
        route = ipr.route("get", dst=str(dst_ip), family=_family(dst_ip), **scoped)[0]
    except (NetlinkError, OSError) as error:
        number = getattr(error, "code", None) or errno.ENETUNREACH
        raise UnavailableError("route", arguments, f"no route to it; {remedy}", errno=number) from None
    if route["type"] == _RTN_LOCAL:
        raise UnavailableError(
            "route", arguments, "this is an address of this machine itself; send to another"
        )
    # Not by asking with oif: then the kernel takes anything for on-link.
    if route.get_attr("RTA_OIF") != ifindex:
        raise UnavailableError("route", arguments, f"its route leaves through another interface; {remedy}")
    return route


def interface_to(dst_ip: IPAddress) -> str:
    """As leaves_through(). UnavailableError, too, when it carries the default route, which must be named by
    who means it."""
    name = leaves_through(dst_ip)
    if has_default_route(socket.if_nametoindex(name)):
        text = f"its route leaves through {name}, which carries the default route; if that is what you want,"
        raise UnavailableError("route", str(dst_ip), f'{text} say interface="{name}"')
    return name


def _route_mtu(attributes: dict[str, Any]) -> int | None:
    """The route's own, or what an ICMP message has told of it (RTAX_MTU)."""
    metrics = attributes.get("RTA_METRICS")
    value = metrics.get_attr("RTAX_MTU") if metrics is not None else None
    return int(value) if value else None


def leaves_through(dst_ip: IPAddress) -> str:
    """The interface of the kernel's route to it, whichever that is. UnavailableError: there is none, or it
    leads to this machine itself."""
    with rtnetlink() as ipr:
        try:
            route = ipr.route("get", dst=str(dst_ip), family=_family(dst_ip))[0]
        except (NetlinkError, OSError) as error:
            number = getattr(error, "code", None) or errno.ENETUNREACH
            raise UnavailableError("route", str(dst_ip), "no route to it; add one", errno=number) from None
    if route["type"] == _RTN_LOCAL:
        text = "this is an address of this machine itself; send to another"
        raise UnavailableError("route", str(dst_ip), text)
    return socket.if_indextoname(route.get_attr("RTA_OIF"))


def is_unanswered(error: UnavailableError) -> bool:
    """Is it resolve()'s for a neighbour that has not answered yet?"""
    return error.errno == errno.EHOSTUNREACH


def current_mac(ifname: str, ifindex: int, dst_ip: IPAddress) -> str | None:
    """The neighbour's MAC on the route to `dst_ip` as the kernel has it now; None when it has none, or no
    route. Does not wait."""
    with contextlib.suppress(UnavailableError, NetlinkError, OSError), rtnetlink() as ipr:
        attributes = _attributes(_lookup(ipr, ifname, ifindex, dst_ip))
        return _neighbour(ipr, ifindex, ipaddress.ip_address(attributes.get("RTA_GATEWAY", str(dst_ip))))
    return None


def resolve(
    ifname: str,
    ifindex: int,
    dst_ip: IPAddress,
    *,
    need_mac: bool = True,
    src_ip: IPAddress | None = None,
    timeout_s: float = 3.0,
    instead: str = INSTEAD,
    ask: bool = True,
) -> NextHop:
    """The next hop to `dst_ip` over the interface. Waits at most `timeout_s` for the neighbour, which is
    asked for unless told otherwise.

    UnavailableError: no route over this interface, no source address, or nobody answers; its remedy names
    `instead`.
    """
    with rtnetlink() as ipr:
        route = _lookup(ipr, ifname, ifindex, dst_ip, instead)
        attributes = _attributes(route)
        source = src_ip or attributes.get("RTA_PREFSRC")
        if source is None:
            raise UnavailableError(
                "route",
                f"{dst_ip}, {ifname}",
                "the interface has no address to send from; give --src-ip",
            )
        source = ipaddress.ip_address(str(source))
        mtu = _route_mtu(attributes)
        if not need_mac:
            return NextHop(source, "", mtu)
        if dst_ip.is_multicast:
            return NextHop(source, _multicast_mac(dst_ip))
        if dst_ip.version == 4 and (str(dst_ip) == "255.255.255.255" or route["type"] == 3):  # RTN_BROADCAST
            return NextHop(source, "ff:ff:ff:ff:ff:ff")
        hop = ipaddress.ip_address(attributes.get("RTA_GATEWAY", str(dst_ip)))
        deadline = time.monotonic() + timeout_s
        mac = _neighbour(ipr, ifindex, hop)
        if mac is None and ask:
            _start_resolution(ifname, hop)
        while mac is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            mac = _neighbour(ipr, ifindex, hop)
    if mac is None:
        raise UnavailableError(
            "resolve",
            f"{hop}, {ifname}",
            f"nobody answered within {timeout_s:g} s; check the address, or give {instead}",
            errno=errno.EHOSTUNREACH,
        )
    return NextHop(source, mac, mtu)

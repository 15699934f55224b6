"""What a flow leaves open, from the kernel: MAC addresses and the source address of its outermost headers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from xsk_engine import netdev as netdevs
from xsk_engine import route
from xsk_engine.flow import Flow, Traffic, headers_of, in_headers
from xsk_engine.headers import Header, representative
from xsk_engine.netdev import NetDev
from xsk_engine.packet import IPAddress, parse_mac
from xsk_engine.values import Values


@dataclass(frozen=True)
class Resolved:
    """``followed``: by destination whose next hop was asked for, the flows that go there."""

    traffic: Traffic
    followed: Mapping[IPAddress, tuple[int, ...]] = field(default_factory=dict)


def _address(header: Header) -> IPAddress | None:
    if "dst" not in header.values:
        return None
    number = representative(header.values["dst"])
    return ipaddress.IPv4Address(number) if header.name == "ipv4" else ipaddress.IPv6Address(number)


def _with(header: Header, **values: Values) -> Header:
    return replace(header, values={**values, **header.values})


class _Resolver:
    """Asks once per destination."""

    def __init__(self, netdev: NetDev, instead: str) -> None:
        self.netdev = netdev
        self.instead = instead
        self.hops: dict[tuple[IPAddress, bool, IPAddress | None], route.NextHop] = {}
        self.followed: dict[IPAddress, list[int]] = {}

    def hop(self, address: IPAddress, need_mac: bool, source: IPAddress | None) -> route.NextHop:
        key = (address, need_mac, source)
        if key not in self.hops:
            self.hops[key] = route.resolve(
                self.netdev.name,
                self.netdev.ifindex,
                address,
                need_mac=need_mac,
                src_ip=source,
                instead=self.instead,
            )
        return self.hops[key]

    def flow(self, index: int, flow: Flow) -> Flow:
        flow = in_headers(flow)
        headers = headers_of(flow)
        if headers is None or headers[0].name == "hex":
            return flow
        stack = list(headers)
        at = next((i for i, header in enumerate(stack) if header.name in ("ipv4", "ipv6", "arp")), None)
        own = int.from_bytes(parse_mac(self.netdev.mac), "big")
        mac = None
        if at is not None and stack[at].name == "arp":
            stack[at] = _with(stack[at], sha=own)
            addresses = netdevs.addresses(self.netdev.name, socket.AF_INET)
            if addresses:
                stack[at] = _with(stack[at], spa=int(ipaddress.IPv4Address(addresses[0])))
            mac = 0xFFFFFFFFFFFF
        elif at is not None:
            address = _address(stack[at])
            if address is None:
                raise ValueError(f"{stack[at].name} dst: where to? give a destination address")
            need_mac, need_source = "dst" not in stack[0].values, "src" not in stack[at].values
            if need_mac or need_source:
                hop = self.hop(address, need_mac, _source(stack[at]))
                stack[at] = _with(stack[at], src=int(hop.src_ip))
                if need_mac:
                    mac = int.from_bytes(parse_mac(hop.dst_mac), "big")
                    self.followed.setdefault(address, []).append(index)
        if mac is None and "dst" not in stack[0].values:
            raise ValueError("eth dst: where to? without an IP destination, give a MAC address")
        stack[0] = _with(stack[0], src=own, **({} if mac is None else {"dst": mac}))
        return replace(flow, template=tuple(stack))


def _source(header: Header) -> IPAddress | None:
    if "src" not in header.values:
        return None
    number = representative(header.values["src"])
    return ipaddress.IPv4Address(number) if header.name == "ipv4" else ipaddress.IPv6Address(number)


def resolve(traffic: Traffic, netdev: NetDev, instead: str = route.INSTEAD) -> Resolved:
    """Fills in what the flows leave open; an address range is routed as its first address is. Waits a few
    seconds for a neighbour to answer. UnavailableError: no route, or nobody answers; its remedy names
    `instead`."""
    resolver = _Resolver(netdev, instead)
    flows = tuple(resolver.flow(i, flow) for i, flow in enumerate(traffic.all_flows))
    followed = {address: tuple(indexes) for address, indexes in resolver.followed.items()}
    return Resolved(replace(traffic, flows=flows), followed)


def placeholders(traffic: Traffic) -> Traffic:
    """As if it were resolved, without an interface: addresses nobody has (the tables' own)."""
    return replace(traffic, flows=tuple(map(_with_destination, traffic.all_flows)))


def _with_destination(flow: Flow) -> Flow:
    flow = in_headers(flow)
    headers = headers_of(flow)
    if headers is None or headers[0].name == "hex":
        return flow
    at = next((h for h in headers if h.name in ("ipv4", "ipv6")), None)
    if at is not None and "dst" not in at.values:
        raise ValueError(f"{at.name} dst: where to? give a destination address")
    return flow

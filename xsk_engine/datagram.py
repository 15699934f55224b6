"""What stands in front of a payload: Ethernet, VLAN tag, IP and UDP headers; or those below TCP. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xsk_engine.headers import Header, build
from xsk_engine.packet import IPAddress

MULTICAST_TTL = 1
"""as IP_MULTICAST_TTL and IPV6_MULTICAST_HOPS are by default"""
UNICAST_TTL = 64
"""as net.ipv4.ip_default_ttl is by default"""


@dataclass(frozen=True)
class Datagram:
    """A UDP datagram's way: MAC addresses of 6 bytes, IP addresses of one version, ports. ``vlan``: a tag's
    id, ``pcp`` its priority. ValueError, when its bytes are asked for, for what does not fit."""

    src_mac: bytes
    dst_mac: bytes
    src: IPAddress
    dst: IPAddress
    src_port: int
    dst_port: int
    vlan: int | None = None
    pcp: int = 0
    ttl: int | None = None
    dscp: int = 0

    @property
    def ip_offset(self) -> int:
        """Where IP begins."""
        return 14 if self.vlan is None else 18

    def header(self) -> bytes:
        """Without lengths and checksums, which depend on the payload."""
        udp = Header("udp", {"src": self.src_port, "dst": self.dst_port})
        return build([*self._below({}), udp]).data

    def network_header(self, protocol: int) -> bytes:
        """The same without UDP: what follows IP is of this protocol."""
        return build(self._below({"proto" if self.dst.version == 4 else "nh": protocol})).data

    def _below(self, values: Mapping[str, int]) -> list[Header]:
        tag = [] if self.vlan is None else [Header("vlan", {"id": self.vlan, "pcp": self.pcp})]
        ttl = self.ttl if self.ttl is not None else MULTICAST_TTL if self.dst.is_multicast else UNICAST_TTL
        addresses = {"src": int(self.src), "dst": int(self.dst), "dscp": self.dscp, **values}
        ip = (
            Header("ipv4", {**addresses, "ttl": ttl})
            if self.dst.version == 4
            else Header("ipv6", {**addresses, "hlim": ttl})
        )
        macs = {
            "dst": int.from_bytes(self.dst_mac, "big"),
            "src": int.from_bytes(self.src_mac, "big"),
        }
        return [Header("eth", macs), *tag, ip]

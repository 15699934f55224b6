"""Where an endpoint's datagrams go: what the caller says, and what the kernel's routes and neighbours add."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any

from xsk_engine.datagram import Datagram
from xsk_engine.packet import IPAddress, parse_mac

if TYPE_CHECKING:
    from xsk_engine.neighbours import Hop, Neighbours

Address = tuple[str, int]
"""IP address and port; a name is not looked up"""
_EPHEMERAL = (49152, 65535)  # RFC 6335, 6


def _pair(address: Any, what: str) -> tuple[Any, int]:
    if isinstance(address, str) or not isinstance(address, Sequence) or len(address) < 2:
        raise TypeError(f"{what}: {address!r}; (address, port) is needed")
    return address[0], index(address[1])


def _address(text: Any, what: str) -> IPAddress:
    if not isinstance(text, str):
        raise TypeError(f"{what}: {text!r} is not the text of an IP address")
    try:
        return ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        raise ValueError(f"{what}: {text!r} is not an IP address; names are not looked up") from None


def _port(number: int, what: str) -> int:
    if not 0 <= number < 1 << 16:
        raise ValueError(f"{what}: port {number} is not in 0 to 65535")
    return number


@dataclass(frozen=True)
class Remote:
    """ValueError for what no datagram can have."""

    dst: IPAddress
    dst_port: int
    src: IPAddress | None
    src_port: int
    dst_mac: bytes | None
    vlan: int | None = None
    pcp: int = 0
    ttl: int | None = None
    dscp: int = 0

    @classmethod
    def of(
        cls,
        remote: Address,
        source: tuple[str | None, int] | None = None,
        dst_mac: str | None = None,
        *,
        vlan: int | None = None,
        pcp: int = 0,
        ttl: int | None = None,
        dscp: int = 0,
    ) -> Remote:
        """Without a source port one of the ephemeral ports, at random."""
        dst_host, dst_port = _pair(remote, "remote")
        dst = _address(dst_host, "remote")
        host, port = _pair(source, "source") if source is not None else (None, 0)
        if pcp and vlan is None:
            raise ValueError("pcp: it is part of a tag; give a vlan")
        src = _address(host, "source") if host is not None else None
        if src is not None and src.version != dst.version:
            raise ValueError(f"source: {src} and {dst} are of different IP versions")
        made = cls(
            dst,
            _port(dst_port, "remote"),
            src,
            _port(port, "source") or random.randint(*_EPHEMERAL),
            parse_mac(dst_mac) if dst_mac is not None else None,
            vlan,
            pcp,
            ttl,
            dscp,
        )
        made._on_the_way(src or dst, b"\2" * 6, b"\2" * 6).header()  # ValueError now rather than later
        return made

    def _on_the_way(self, src: IPAddress, src_mac: bytes, dst_mac: bytes) -> Datagram:
        return Datagram(
            src_mac,
            dst_mac,
            src,
            self.dst,
            self.src_port,
            self.dst_port,
            self.vlan,
            self.pcp,
            self.ttl,
            self.dscp,
        )

    @property
    def tag_bytes(self) -> int:
        """That a frame may be longer by."""
        return 0 if self.vlan is None else 4

    @property
    def is_complete(self) -> bool:
        """Nobody has to be asked."""
        return self.src is not None and self.dst_mac is not None

    def ask(self, neighbours: Neighbours) -> Future[Hop]:
        """The rest of it."""
        return neighbours.ask(self.dst, self.src, need_mac=self.dst_mac is None)

    def datagram(self, own_mac: str, hop: Hop | None) -> Datagram:
        """With what `hop` says; None when it is complete."""
        src = self.src if hop is None else hop.src
        mac = self.dst_mac if self.dst_mac is not None else hop.mac if hop is not None else None
        assert src is not None
        assert mac is not None
        return self._on_the_way(src, parse_mac(own_mac), mac)

"""Whom a TCP command talks to: a host's name or address, and the interface on the way."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass, field
from typing import Any

from xsk_engine import route
from xsk_engine.config import EngineConfig
from xsk_engine.errors import UnavailableError
from xsk_engine.packet import IPAddress
from xsk_engine.tcpoptions import TcpOptions


@dataclass(frozen=True)
class TcpTarget:
    """What a command opens: an engine with TCP as `engine` has it, and connections to `remote`, `port`.
    ``options``: those of TcpOptions. A source of None, and port 0, are the kernel's choice."""

    engine: EngineConfig
    remote: str
    port: int
    source: str | None = None
    source_port: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        TcpOptions(**self.options)  # ValueError now rather than when the interface is open

    @property
    def ends(self) -> dict[str, Any]:
        """What engine.tcp() wants by keyword."""
        return {"source": self.source, "source_port": self.source_port, **self.options}


def address_of(host: str, source: str | None = None) -> IPAddress:
    """The first address that the system's resolver has for it, of the source's IP version if there is one.
    UnavailableError: it has none. Waits as long as the resolver does."""
    version = ipaddress.ip_address(source).version if source is not None else None
    family = {4: socket.AF_INET, 6: socket.AF_INET6, None: socket.AF_UNSPEC}[version]
    try:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
    except socket.gaierror as error:
        what = f"{error.strerror}; give an address, or a name that the resolver knows"
        raise UnavailableError("lookup", host, what, errno=errno.EHOSTUNREACH) from None
    except UnicodeError:
        raise ValueError(f"host: {host!r} is no name") from None
    return ipaddress.ip_address(str(found[0][4][0]).split("%")[0])


def interface_to(address: IPAddress, given: str | None) -> str:
    """The one that is given, or that of the kernel's route. UnavailableError."""
    return given if given is not None else route.leaves_through(address)

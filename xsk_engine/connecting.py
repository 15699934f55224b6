"""create_datagram_endpoint, and the engines that its transports share."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from xsk_engine.aio import AsyncEngine
from xsk_engine.config import EngineConfig
from xsk_engine.remote import Address, Remote
from xsk_engine.sharing import Lease, Owned, share
from xsk_engine.transport import XskDatagramTransport

# A neighbour that is there answers within milliseconds. Lower: the first datagrams wait in the transport;
# higher: an address that nobody has holds up who asks for it.
_CONNECT_S = 0.5

_OPTIONS = {"vlan", "pcp", "ttl", "dscp", "dst_mac"}

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def create_datagram_endpoint(
    protocol_factory: Callable[[], P],
    *,
    interface: str | None = None,
    remote_addr: Address | None = None,
    local_addr: Address | None = None,
    queue: int = 0,
    engine: AsyncEngine | None = None,
    **options: Any,
) -> tuple[XskDatagramTransport, P]:
    """As ``loop.create_datagram_endpoint``: (transport, protocol), which existing asyncio code can use
    unchanged. It sends through an engine on ``interface`` (transports of one event loop, interface and queue
    share one, which closes with the last) or through ``engine``, and receives through a kernel socket.

    ``local_addr``: address (None: the kernel's choice) and port. Without ``remote_addr`` every sendto needs
    an address. ``options``: vlan, pcp, ttl, dscp, dst_mac as Engine.udp. Nothing is fragmented. Raises what
    open() raises, OSError for an address that cannot be bound. In the event loop's thread.

        transport, _ = await xsk_engine.create_datagram_endpoint(
            asyncio.DatagramProtocol, interface="vtx", remote_addr=("10.77.0.2", 9000)
        )
        transport.sendto(b"hello")
        transport.close()
    """
    if (interface is None) == (engine is None):
        raise ValueError("create_datagram_endpoint: give an interface, or an engine that is open")
    if unknown := set(options) - _OPTIONS:
        known = ", ".join(sorted(_OPTIONS))
        raise TypeError(f"create_datagram_endpoint: there is no option {unknown.pop()!r}; there are {known}")
    if remote_addr is not None and local_addr is not None:
        _check_families(remote_addr, local_addr)
    Remote.of(remote_addr or ("192.0.2.1", 9), **options)  # wrong options are wrong at once
    peer = Remote.of(remote_addr, **options) if remote_addr is not None else None
    lease: Lease = Owned()
    if engine is None:
        assert interface is not None
        engine, lease = await share(EngineConfig(interface, queues=(queue,)))
    sock = None
    try:
        sock = _bound_socket(engine.engine.config.interface, local_addr, remote_addr)
        protocol = protocol_factory()
        transport = XskDatagramTransport(engine, lease, sock, protocol, peer, options)
    except BaseException:
        if sock is not None:
            sock.close()
        await lease.release()
        raise
    try:
        await asyncio.sleep(0)  # connection_made
        await transport.connected(_CONNECT_S)
    except BaseException:
        transport.abort()
        raise
    return transport, protocol


def _check_families(remote: Address, local: Address) -> None:
    if local[0] and (":" in remote[0]) != (":" in local[0]):
        raise ValueError(f"local_addr: {local[0]} and {remote[0]} are of different IP versions")


def _bound_socket(interface: str, local: Address | None, remote: Address | None) -> socket.socket:
    """On the interface, so that the port is ours there and nowhere else."""
    host = (local or remote or ("0.0.0.0", 0))[0]
    family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        if local is not None or remote is None:
            sock.bind((local[0] or "", local[1]) if local is not None else ("", 0))
        if remote is not None:
            sock.connect((remote[0], remote[1]))
    except BaseException:
        sock.close()
        raise
    return sock

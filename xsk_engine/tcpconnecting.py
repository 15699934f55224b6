"""open_connection, create_connection and connect: TCP connections for code that knows sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl as tls
import sys
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from xsk_engine import route
from xsk_engine.aio import AsyncEngine
from xsk_engine.asynctcp import AsyncTcpConnection
from xsk_engine.config import MIB, EngineConfig
from xsk_engine.errors import XskError
from xsk_engine.opening import open
from xsk_engine.outside import outside_event_loop
from xsk_engine.packet import IPAddress
from xsk_engine.sharing import Lease, Owned, share
from xsk_engine.socketlike import one_of, why_not_opened
from xsk_engine.tcp import TcpConnection
from xsk_engine.tcpoptions import TcpOptions
from xsk_engine.tcptransport import XskTcpTransport

# Room for a hundred connections with 64 KiB each, or for a few with full send buffers. Lower: they wait for
# each other's chunks. Higher: memory that nobody uses; the hottest chunks are taken first all the same.
_UMEM_MB = 16
_LIMIT_BYTES = 64 << 10  # as asyncio's own: a StreamReader's
_WAY = ("dst_mac", "ttl", "dscp")

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def open_connection(
    host: str,
    port: int,
    *,
    interface: str | None = None,
    limit: int = _LIMIT_BYTES,
    ssl: bool | tls.SSLContext | None = None,
    server_hostname: str | None = None,
    **options: Any,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As ``asyncio.open_connection``: (reader, writer), which existing code can use unchanged, through the
    engine's TCP. ``limit``: of the reader, in bytes. Everything else as create_connection().

    ``writer.get_extra_info("xsk_connection")`` is the AsyncTcpConnection below it, whose alloc() and submit()
    copy nothing: what the writer still holds goes first. Its recv() is the reader's.

        reader, writer = await xsk_engine.open_connection("10.77.0.2", 9001, interface="vtx")
        writer.write(b"hello")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await create_connection(
        lambda: protocol,
        host,
        port,
        interface=interface,
        ssl=ssl,
        server_hostname=server_hostname,
        **options,
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def create_connection(
    protocol_factory: Callable[[], P],
    host: str,
    port: int,
    *,
    interface: str | None = None,
    engine: AsyncEngine | None = None,
    local_addr: tuple[str | None, int] | None = None,
    family: int = 0,
    ssl: bool | tls.SSLContext | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    umem_mb: int = _UMEM_MB,
    **options: Any,
) -> tuple[asyncio.Transport, P]:
    """As ``loop.create_connection``: (transport, protocol). ``host`` may be a name; its addresses are tried
    in turn.

    It goes through an engine on ``interface`` (connections of one event loop and interface share one, which
    the first opens with ``umem_mb`` and the last closes), on the one that the route names if there is none,
    or through ``engine``, opened with ``tcp=True``. An interface with the default route must be named.
    ``local_addr``: address and port, None and 0: the kernel's choice. ``options``: dst_mac, ttl and dscp as
    Engine.tcp, and those of TcpOptions; ``nodelay`` is True unless told otherwise, as in asyncio. ``ssl`` and
    what belongs to it as asyncio; ``ssl_shutdown_timeout`` from Python 3.11 on.

    OSError for what asyncio would raise one: TcpError, TimeoutError, socket.gaierror. What open() raises:
    UnavailableError and others. ValueError, TypeError. In the event loop's thread.

        connecting = xsk_engine.create_connection(asyncio.Protocol, "10.77.0.2", 9001, interface="vtx")
        transport, protocol = await connecting
        transport.write(b"hello")
        transport.close()
    """
    if interface is not None and engine is not None:
        raise ValueError("create_connection: give an interface, or an engine that is open, not both")
    context = _context(ssl, server_hostname)
    chosen = _checked(options)
    source, source_port = local_addr if local_addr is not None else (None, 0)
    if source is not None:
        ipaddress.ip_address(source)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    errors: list[OSError] = []
    for address in _addresses(found, host, source):
        lease: Lease = Owned()
        try:
            used = engine
            if used is None:
                through = interface
                if through is None:
                    through = await asyncio.to_thread(route.interface_to, address)
                used, lease = await share(EngineConfig(through, tcp=True, umem_bytes=umem_mb * MIB))
            connection = await used.tcp(
                str(address), int(found[0][4][1]), source=source, source_port=source_port, **chosen
            )
            break
        except BaseException as error:
            await lease.release()
            errors.append(why_not_opened(error))
    else:
        raise one_of(errors)
    start = partial(XskTcpTransport, used, lease, connection)
    if context is None:
        return await _start(start, lease, connection, protocol_factory)
    seconds: dict[str, Any] = {"ssl_handshake_timeout": ssl_handshake_timeout}
    if sys.version_info >= (3, 11):
        seconds["ssl_shutdown_timeout"] = ssl_shutdown_timeout
    return await _start_tls(
        start, lease, connection, protocol_factory, context, server_hostname or host, seconds
    )


def connect(
    host: str,
    port: int,
    *,
    interface: str | None = None,
    local_addr: tuple[str | None, int] | None = None,
    family: int = 0,
    umem_mb: int = _UMEM_MB,
    **options: Any,
) -> TcpConnection:
    """A TCP connection with an engine of its own, which its close() closes, too; a context manager does it.
    For one at a time: an engine has the queues of its interface for itself. Arguments, options (Nagle's
    algorithm apart: that is on) and errors as create_connection(). In a thread.

        with xsk_engine.connect("10.77.0.2", 9001, interface="vtx") as connection:
            connection.sendall(b"hello")
    """
    chosen = _checked({"nodelay": False, **options})
    source, source_port = local_addr if local_addr is not None else (None, 0)
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    errors: list[OSError] = []
    for address in _addresses(found, host, source):
        try:
            name = interface or outside_event_loop(partial(route.interface_to, address))
            with contextlib.ExitStack() as stack:
                engine = stack.enter_context(open(name, tcp=True, umem_mb=umem_mb))
                connection = engine.tcp(
                    str(address), int(found[0][4][1]), source=source, source_port=source_port, **chosen
                )
                connection.at_close = stack.pop_all().close
            return connection
        except XskError as error:
            errors.append(why_not_opened(error))
    raise one_of(errors)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Wrong ones are wrong before anything is opened. TypeError, ValueError."""
    known = [*_WAY, *TcpOptions.__dataclass_fields__]
    if unknown := set(options) - set(known):
        raise TypeError(f"connect: there is no option {unknown.pop()!r}; there are {', '.join(known)}")
    chosen = {"nodelay": True, **options}
    TcpOptions(**{name: value for name, value in chosen.items() if name not in _WAY})
    return chosen


def _addresses(found: list[Any], host: str, source: str | None) -> list[IPAddress]:
    """In order, each once; those that `source` can reach. OSError: none."""
    addresses = {ipaddress.ip_address(one[4][0].split("%")[0]): None for one in found}
    if source is not None:
        version = ipaddress.ip_address(source).version
        addresses = {one: None for one in addresses if one.version == version}
    if not addresses:
        raise OSError(f"connect: {host} has no address of the IP version of local_addr, {source}")
    return list(addresses)


# -- what goes on top of a connection ----------------------------------------------------------------------

Start = Callable[[Any], XskTcpTransport]


async def _start(
    start: Start, lease: Lease, connection: AsyncTcpConnection, protocol_factory: Callable[[], P]
) -> tuple[asyncio.Transport, P]:
    """(transport, protocol), when connection_made() was called."""
    try:
        protocol = protocol_factory()
        transport = start(protocol)
    except BaseException:
        connection.abort()
        await lease.release()
        raise
    try:
        await asyncio.sleep(0)  # connection_made
    except BaseException:
        transport.abort()
        raise
    return transport, protocol


async def _start_tls(
    start: Start,
    lease: Lease,
    connection: AsyncTcpConnection,
    protocol_factory: Callable[[], P],
    context: tls.SSLContext,
    name: str,
    seconds: dict[str, Any],
) -> tuple[asyncio.Transport, P]:
    """The same over TLS, after the handshake. It is asyncio's own, also where the event loop is another."""
    loop = asyncio.get_running_loop()
    protocol: list[P] = []
    shaken = loop.create_future()

    def made() -> SSLProtocol:
        protocol.append(protocol_factory())
        return SSLProtocol(loop, protocol[0], context, shaken, False, name, **seconds)

    transport, over = await _start(start, lease, connection, made)
    try:
        await shaken
    except BaseException:
        transport.abort()
        raise
    return over._app_transport, protocol[0]


def _context(ssl: bool | tls.SSLContext | None, server_hostname: str | None) -> tls.SSLContext | None:
    """ValueError, TypeError."""
    if not ssl:
        if server_hostname is not None:
            raise ValueError("server_hostname is only meaningful with ssl")
        return None
    if ssl is True:
        return tls.create_default_context()
    if not isinstance(ssl, tls.SSLContext):
        raise TypeError(f"ssl: True or an ssl.SSLContext, not {type(ssl).__name__!r}")
    return ssl

"""A userspace transmit engine on Linux AF_XDP.

    import xsk_engine

    with xsk_engine.open("eth1") as engine:
        endpoint = engine.udp(("10.0.0.2", 9000))
        endpoint.send(b"hello")

A name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xsk_engine.aio import AsyncEngine
    from xsk_engine.async_endpoints import AsyncRawEndpoint, AsyncUdpEndpoint
    from xsk_engine.asynctcp import AsyncTcpConnection
    from xsk_engine.config import EngineConfig
    from xsk_engine.connecting import create_datagram_endpoint
    from xsk_engine.endpoints import RawEndpoint, UdpEndpoint
    from xsk_engine.engine import Engine
    from xsk_engine.errors import (
        BrokenError,
        BusyError,
        ClosedError,
        DeadlineError,
        QueueTakenError,
        TcpAbortedError,
        TcpError,
        TcpRefusedError,
        TcpResetError,
        TcpTimeoutError,
        UnavailableError,
        WouldBlockError,
        XskError,
    )
    from xsk_engine.flow import Flow, Pace, Traffic
    from xsk_engine.frag import Frag, Frags
    from xsk_engine.headers import Header
    from xsk_engine.history import history
    from xsk_engine.opening import aopen, open
    from xsk_engine.payload import Payload
    from xsk_engine.running import RunningTraffic
    from xsk_engine.sizes import Sizes
    from xsk_engine.spec import parse_flow
    from xsk_engine.stats import EndpointStats, Snapshot
    from xsk_engine.tcp import TcpConnection
    from xsk_engine.tcpconnecting import connect, create_connection, open_connection
    from xsk_engine.tcpinfo import KernelTcpInfo, TcpCounters, TcpInfo
    from xsk_engine.tcpoptions import TcpOptions
    from xsk_engine.tcptransport import XskTcpTransport
    from xsk_engine.tracker import Tracker
    from xsk_engine.transport import XskDatagramTransport
    from xsk_engine.units import Rate
    from xsk_engine.values import Choice, FlowId, Random, Range, Sequence

# What a command does not need it does not import: numpy and uvloop alone take 150 ms.
_PUBLIC = {
    "aio": ("AsyncEngine",),
    "async_endpoints": ("AsyncRawEndpoint", "AsyncUdpEndpoint"),
    "asynctcp": ("AsyncTcpConnection",),
    "config": ("EngineConfig",),
    "connecting": ("create_datagram_endpoint",),
    "endpoints": ("RawEndpoint", "UdpEndpoint"),
    "engine": ("Engine",),
    "errors": (
        "BrokenError",
        "BusyError",
        "ClosedError",
        "DeadlineError",
        "QueueTakenError",
        "TcpAbortedError",
        "TcpError",
        "TcpRefusedError",
        "TcpResetError",
        "TcpTimeoutError",
        "UnavailableError",
        "WouldBlockError",
        "XskError",
    ),
    "flow": ("Flow", "Pace", "Traffic"),
    "frag": ("Frag", "Frags"),
    "headers": ("Header",),
    "history": ("history",),
    "opening": ("aopen", "open"),
    "payload": ("Payload",),
    "running": ("RunningTraffic",),
    "sizes": ("Sizes",),
    "spec": ("parse_flow",),
    "stats": ("EndpointStats", "Snapshot"),
    "tcp": ("TcpConnection",),
    "tcpconnecting": ("connect", "create_connection", "open_connection"),
    "tcpinfo": ("KernelTcpInfo", "TcpCounters", "TcpInfo"),
    "tcpoptions": ("TcpOptions",),
    "tcptransport": ("XskTcpTransport",),
    "tracker": ("Tracker",),
    "transport": ("XskDatagramTransport",),
    "units": ("Rate",),
    "values": ("Choice", "FlowId", "Random", "Range", "Sequence"),
}
_MODULE = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = [
    "AsyncEngine",
    "AsyncRawEndpoint",
    "AsyncTcpConnection",
    "AsyncUdpEndpoint",
    "BrokenError",
    "BusyError",
    "Choice",
    "ClosedError",
    "DeadlineError",
    "EndpointStats",
    "Engine",
    "EngineConfig",
    "Flow",
    "FlowId",
    "Frag",
    "Frags",
    "Header",
    "KernelTcpInfo",
    "Pace",
    "Payload",
    "QueueTakenError",
    "Random",
    "Range",
    "Rate",
    "RawEndpoint",
    "RunningTraffic",
    "Sequence",
    "Sizes",
    "Snapshot",
    "TcpAbortedError",
    "TcpConnection",
    "TcpCounters",
    "TcpError",
    "TcpInfo",
    "TcpOptions",
    "TcpRefusedError",
    "TcpResetError",
    "TcpTimeoutError",
    "Tracker",
    "Traffic",
    "UdpEndpoint",
    "UnavailableError",
    "WouldBlockError",
    "XskDatagramTransport",
    "XskError",
    "XskTcpTransport",
    "aopen",
    "connect",
    "create_connection",
    "create_datagram_endpoint",
    "history",
    "open",
    "open_connection",
    "parse_flow",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("xsk-engine")
    if name not in _MODULE:
        raise AttributeError(f"module 'xsk_engine' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"xsk_engine.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

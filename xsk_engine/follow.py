"""Follows routes and neighbours while traffic runs: a gateway whose MAC changes gets it within a second."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping

from xsk_engine import route
from xsk_engine.engine import Engine
from xsk_engine.errors import BusyError
from xsk_engine.packet import IPAddress, parse_mac

# include/uapi/linux/rtnetlink.h
_RTMGRP_NEIGH, _RTMGRP_IPV4_ROUTE, _RTMGRP_IPV6_ROUTE = 0x4, 0x40, 0x400

_SETTLE_S = 0.05
"""events come in bunches; lower: asked more often than needed, higher: later"""


async def follow(engine: Engine, followed: Mapping[IPAddress, tuple[int, ...]]) -> None:
    """Until it is cancelled. `followed`: the flows whose Ethernet destination depends on the route to an
    address."""
    assert engine.netdev is not None
    name, ifindex = engine.netdev.name, engine.netdev.ifindex
    known: dict[IPAddress, str | None] = {}
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    ) as sock:
        sock.bind((0, _RTMGRP_NEIGH | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE))

        def on_event() -> None:
            with contextlib.suppress(OSError):  # ENOBUFS: some were lost, which is an event too
                while sock.recv(1 << 16):
                    pass
            changed.set()

        loop.add_reader(sock.fileno(), on_event)
        try:
            while True:
                for address, flows in followed.items():
                    # in a thread: pyroute2 has an event loop of its own
                    mac = await asyncio.to_thread(route.current_mac, name, ifindex, address)
                    if mac and known.setdefault(address, mac) != mac:
                        try:
                            await engine.update(flows, 0, parse_mac(mac))
                        except BusyError:  # the link is down, say: once more
                            changed.set()
                            continue
                        known[address] = mac
                await changed.wait()
                await asyncio.sleep(_SETTLE_S)
                changed.clear()
        finally:
            loop.remove_reader(sock.fileno())

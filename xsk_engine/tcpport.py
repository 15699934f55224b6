"""The local port of a TCP connection: held by a kernel socket, so that nobody else gets it."""

from __future__ import annotations

import errno
import socket

from xsk_engine.errors import UnavailableError
from xsk_engine.packet import IPAddress


def hold_port(address: IPAddress, port: int, ifindex: int) -> socket.socket:
    """A socket that is bound there and neither listens nor connects; port 0: the kernel's choice. In this
    thread's network namespace. UnavailableError: the port is taken, or the address is not the machine's."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        scope = (0, ifindex if address.is_link_local else 0) if address.version == 6 else ()
        sock.bind((str(address), port, *scope))
    except OSError as error:
        sock.close()
        hints = {
            errno.EADDRINUSE: "another socket has this port; use another source_port, or 0"
            if port
            else "all ephemeral ports are taken (net.ipv4.ip_local_port_range)",
            errno.EADDRNOTAVAIL: "this is no address of this machine; leave source out",
            errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE; use source_port=0",
        }
        hint = hints.get(error.errno or 0, "the kernel refuses")
        raise UnavailableError("bind", f"{address} port {port}", hint, errno=error.errno) from None
    return sock

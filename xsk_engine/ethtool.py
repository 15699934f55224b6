"""The ethtool ioctl, for an interface of this thread's network namespace."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

# include/uapi/linux/sockios.h, ethtool.h
_SIOCETHTOOL = 0x8946
_SET = {"tx-checksum": 0x17, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
OFFLOADS = tuple(_SET)


def command(name: str, request: array.array[int]) -> None:
    """Hands `request` to the driver, which writes its answer into it. OSError."""
    address, _ = request.buffer_info()
    ifreq = struct.pack("16sP16x", name.encode(), address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, ifreq)


def ask(name: str, request: array.array[int]) -> bool:
    """The same; False when the driver does not know it."""
    try:
        command(name, request)
    except OSError:
        return False
    return True


def without_offloads(name: str) -> None:
    """Its kernel sends packets as they are on a wire: complete checksums, no longer than the MTU; and what it
    receives stays what was sent. OSError without CAP_NET_ADMIN."""
    for number in _SET.values():
        command(name, array.array("I", [number, 0]))

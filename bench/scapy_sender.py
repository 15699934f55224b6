"""Scapy's own ways to send one frame for ever.

Usage: scapy_sender.py sendp|socket INTERFACE FRAME_FILE. `sendp`: a packet of layers, as its documentation
shows it; scapy builds it anew each time. `socket`: finished bytes through a layer-2 socket, its fastest way.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scapy.config import conf
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.sendrecv import sendp


def layers(frame: bytes) -> Packet:
    """As somebody would write it down: what scapy fills in by itself is left to it."""
    seen = Ether(frame)
    ip, udp = seen[IP], seen[UDP]
    return (
        Ether(src=seen.src, dst=seen.dst)
        / IP(src=ip.src, dst=ip.dst)
        / UDP(sport=udp.sport, dport=udp.dport)
        / Raw(bytes(udp.payload))
    )


def main() -> None:
    how, interface, file = sys.argv[1:]
    frame = Path(file).read_bytes()
    if how == "sendp":
        sendp(layers(frame), iface=interface, loop=1, verbose=False)
        return
    socket = conf.L2socket(iface=interface)
    while True:
        socket.send(frame)


if __name__ == "__main__":
    main()

"""A TCP connection whose sending side is taken over: the kernels of both ends shake hands, then the sender's
socket is put under repair, says where it stands, and falls silent. From then on frames by somebody else carry
the stream on, and the receiver's kernel cannot tell.

The socket stays: without it the sender's kernel would answer every ACK with RST (RFC 9293, 3.10.7.1). It
drops what acknowledges data that it has not sent (net/ipv4/tcp_input.c, tcp_ack). Needs CAP_NET_ADMIN, for
TCP_REPAIR.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.packet import ETH_P_IP, ETHERNET_BYTES, IPV4_BYTES, internet_checksum, parse_mac

# include/uapi/linux/tcp.h, asm-generic/socket.h
_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ, _TCP_TIMESTAMP = 19, 20, 21, 24
_RECEIVING, _SENDING = 1, 2
_SO_RCVBUFFORCE = 33

TCP_BYTES = 32  # with timestamps, as Linux sends them (RFC 7323)
HEADERS_BYTES = ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES
SEQ_FIELD = "tcp.seq"
_ACK, _WINDOW = 0x10, 0xFFFF


def listen(lab: PrivateLab, port: int, receive_buffer_bytes: int | None = None) -> socket.socket:
    """At the peer. The buffer holds for every connection that it accepts, and its window is as wide; None: as
    the kernel sees fit."""
    with namespaces.entered(lab.rx_fd):
        listener = socket.socket()
    if receive_buffer_bytes is not None:  # the kernel doubles it
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer_bytes // 2)
    listener.bind((topology.RX_IPV4, port))
    listener.listen(1)
    listener.settimeout(10)
    return listener


def _with_sum(header: bytes, at: int, checksum: int) -> bytes:
    return header[:at] + struct.pack("!H", checksum) + header[at + 2 :]


@dataclass(frozen=True)
class Place:
    """Where a connection stands, as its sender sees it: what the next segment says."""

    port: int
    peer_port: int
    seq: int
    ack: int
    timestamp: int

    def frame(self, payload: bytes) -> bytes:
        """A segment from vtx to vrx, with its checksums; without a payload it is an ACK of 66 bytes."""
        addresses = socket.inet_aton(topology.TX_IPV4) + socket.inet_aton(topology.RX_IPV4)
        tcp = struct.pack("!HHIIBB", self.port, self.peer_port, self.seq, self.ack, TCP_BYTES // 4 << 4, _ACK)
        tcp += struct.pack("!HHHBBBBII", _WINDOW, 0, 0, 1, 1, 8, 10, self.timestamp, 0)
        pseudo = addresses + struct.pack("!HH", socket.IPPROTO_TCP, TCP_BYTES + len(payload))
        tcp = _with_sum(tcp, 16, internet_checksum(pseudo + tcp + payload))
        total = IPV4_BYTES + TCP_BYTES + len(payload)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0x4000, 64, socket.IPPROTO_TCP, 0) + addresses
        ip = _with_sum(ip, 10, internet_checksum(ip))
        ethernet = parse_mac(topology.RX_MAC) + parse_mac(topology.TX_MAC) + struct.pack("!H", ETH_P_IP)
        return ethernet + ip + tcp + payload


def take_over(sender: socket.socket) -> Place:
    """From now on it sends nothing, not even when it is closed."""
    sender.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)

    def sequence(queue: int) -> int:
        sender.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, queue)
        return sender.getsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ) & 0xFFFFFFFF

    ack, seq = sequence(_RECEIVING), sequence(_SENDING)
    timestamp = sender.getsockopt(socket.IPPROTO_TCP, _TCP_TIMESTAMP) & 0xFFFFFFFF
    return Place(sender.getsockname()[1], sender.getpeername()[1], seq, ack, timestamp)

"""Header builders and reference checksums. Pure: bytes in, bytes out; ValueError for what does not fit."""

from __future__ import annotations

import ipaddress
import re
import struct

ETH_P_IP = 0x0800
ETH_P_IPV6 = 0x86DD
IPPROTO_UDP = 17
ETHERNET_BYTES = 14
IPV4_BYTES = 20
IPV6_BYTES = 40
UDP_BYTES = 8
MIN_FRAME_BYTES = 60
"""What IEEE 802.3 pads to, without FCS; "64-byte packets" in everybody's tables."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_mac(text: str) -> bytes:
    """Six bytes of ``02:77:00:00:00:01``."""
    if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        raise ValueError(f"MAC address: {text!r} is not six hex bytes like 02:77:00:00:00:01")
    return bytes.fromhex(re.sub("[:-]", "", text))


def format_mac(mac: bytes) -> str:
    """``02:77:00:00:00:01``."""
    return mac.hex(":")


def internet_checksum(data: bytes) -> int:
    """RFC 1071: the one's complement of the one's complement sum of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def _pseudo_header(src: IPAddress, dst: IPAddress, protocol: int, length: int) -> bytes:
    if src.version == 4:  # RFC 768
        return src.packed + dst.packed + struct.pack("!BBH", 0, protocol, length)
    return src.packed + dst.packed + struct.pack("!I3xB", length, protocol)  # RFC 8200, 8.1


def udp_header_bytes(version: int) -> int:
    """Ethernet, IP and UDP headers together."""
    return ETHERNET_BYTES + (IPV4_BYTES if version == 4 else IPV6_BYTES) + UDP_BYTES


def udp_frame(
    dst_mac: bytes,
    src_mac: bytes,
    src_ip: IPAddress,
    dst_ip: IPAddress,
    src_port: int,
    dst_port: int,
    payload: bytes,
    *,
    ttl: int = 64,
) -> bytes:
    """An Ethernet frame without FCS, all checksums in place (RFC 768, 791, 8200). It is not padded."""
    if src_ip.version != dst_ip.version:
        raise ValueError(f"addresses: {src_ip} and {dst_ip} are of different IP versions")
    for port in (src_port, dst_port):
        if not 0 <= port <= 0xFFFF:
            raise ValueError(f"port: {port} is not in 0 to 65535")
    length = UDP_BYTES + len(payload)
    if length > 0xFFFF - (IPV4_BYTES if src_ip.version == 4 else 0):
        raise ValueError(f"payload: {len(payload)} bytes do not fit into one datagram")
    udp = struct.pack("!HHHH", src_port, dst_port, length, 0) + payload
    check = internet_checksum(_pseudo_header(src_ip, dst_ip, IPPROTO_UDP, length) + udp)
    udp = udp[:6] + struct.pack("!H", check or 0xFFFF) + udp[8:]
    if src_ip.version == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, IPV4_BYTES + length, 0, 0x4000, ttl, IPPROTO_UDP, 0)
        ip += src_ip.packed + dst_ip.packed
        ip = ip[:10] + struct.pack("!H", internet_checksum(ip)) + ip[12:]
        ethertype = ETH_P_IP
    else:
        ip = struct.pack("!IHBB", 6 << 28, length, IPPROTO_UDP, ttl) + src_ip.packed + dst_ip.packed
        ethertype = ETH_P_IPV6
    return dst_mac + src_mac + struct.pack("!H", ethertype) + ip + udp

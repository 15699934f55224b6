"""Our header builder against scapy's."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from xsk_engine import packet

DST, SRC = packet.parse_mac("02:77:00:00:00:02"), packet.parse_mac("02-77-00-00-00-01")
ports = st.integers(0, 65535)


def scapy_frame(src, dst, sport, dport, payload, ip):
    built = Ether(dst=packet.format_mac(DST), src=packet.format_mac(SRC)) / ip / UDP(sport=sport, dport=dport)
    return bytes(built / payload)


@given(
    st.ip_addresses(v=4), st.ip_addresses(v=4), ports, ports, st.binary(max_size=1400), st.integers(1, 255)
)
def test_udp_over_ipv4_is_scapys(src, dst, sport, dport, payload, ttl):
    ours = packet.udp_frame(DST, SRC, src, dst, sport, dport, payload, ttl=ttl)
    ip = IP(src=str(src), dst=str(dst), ttl=ttl, id=0, flags="DF")
    assert ours == scapy_frame(src, dst, sport, dport, payload, ip)


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), ports, ports, st.binary(max_size=1400))
def test_udp_over_ipv6_is_scapys(src, dst, sport, dport, payload):
    ours = packet.udp_frame(DST, SRC, src, dst, sport, dport, payload)
    assert ours == scapy_frame(src, dst, sport, dport, payload, IPv6(src=str(src), dst=str(dst), hlim=64))


def test_what_does_not_fit():
    v4, v6 = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd77::1")
    with pytest.raises(ValueError, match="versions"):
        packet.udp_frame(DST, SRC, v4, v6, 1, 2, b"")
    with pytest.raises(ValueError, match="port"):
        packet.udp_frame(DST, SRC, v4, v4, 1, 65536, b"")
    with pytest.raises(ValueError, match="datagram"):
        packet.udp_frame(DST, SRC, v4, v4, 1, 2, bytes(65508))
    for bad in ("", "02:77", "02:77:00:00:00:0g", "02:77:00:00:00:01:02"):
        with pytest.raises(ValueError, match="MAC"):
            packet.parse_mac(bad)

"""TCP without a connection: options, headers, configuration."""

import ipaddress
import re
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from xsk_engine import tcpbinding
from xsk_engine.config import MOST_CONNECTIONS, EngineConfig, check
from xsk_engine.datagram import Datagram
from xsk_engine.errors import (
    TcpAbortedError,
    TcpError,
    TcpRefusedError,
    TcpResetError,
    TcpTimeoutError,
    UnavailableError,
    XskError,
)
from xsk_engine.netdev import NetDev
from xsk_engine.tcpoptions import TcpOptions

OURS, THEIRS = bytes.fromhex("027700000001"), bytes.fromhex("027700000002")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"congestion": "bbr"}, "bbr"),
        ({"send_buffer_bytes": 0}, "4 KiB to 1 GiB"),
        ({"send_buffer_bytes": (1 << 30) + 1}, "4 KiB to 1 GiB"),
        ({"receive_buffer_bytes": 2048}, "power of two"),
        ({"receive_buffer_bytes": 12288}, "power of two"),
        ({"user_timeout_s": 0}, "user_timeout_s: 0 is not above 0 s"),
        ({"connect_timeout_s": float("inf")}, "not above 0 s"),
        ({"keepalive_idle_s": float("nan")}, "not above 0 s"),
        ({"time_wait_s": -1}, "not 0 s or more"),
        ({"timeout_s": float("nan")}, "not 0 s or more"),
        ({"keepalive_probes": 0}, "at least one"),
    ],
)
def test_what_no_options_can_be(wrong, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        TcpOptions(**wrong)


@pytest.mark.parametrize("mtu", [576, 1280, 1500, 2000, 4000, 4058, 9000, 65535])
@pytest.mark.parametrize(("chunk_size", "metadata"), [(2048, 0), (2048, 24), (4096, 0), (4096, 24)])
@pytest.mark.parametrize("size", [4096, 1 << 20, 4 << 20])
def test_the_quota_has_room_for_the_send_buffer(mtu, chunk_size, metadata, size):
    """However blocks lie in chunks: full ones, one behind the other, each with its header and metadata."""
    usable = chunk_size - metadata
    chunks = TcpOptions(send_buffer_bytes=size).quota_chunks(mtu, chunk_size, usable)
    whole = mtu + 14 <= usable
    payload = mtu - 40 if whole else usable
    blocks = -(-size // payload)
    per_chunk = chunk_size // (-(-(mtu + 14 + metadata) // 64) * 64) if whole else 1
    assert chunks >= -(-blocks // max(per_chunk, 1))
    assert chunks * chunk_size <= 4 * size + 64 * chunk_size, "and not much more"


@pytest.mark.parametrize(
    ("kind", "addresses"), [(IP, ("10.0.0.1", "10.0.0.2")), (IPv6, ("fd00::1", "fd00::2"))]
)
def test_headers_below_tcp(kind, addresses):
    src, dst = map(ipaddress.ip_address, addresses)
    datagram = Datagram(OURS, THEIRS, src, dst, 1, 2, ttl=9, dscp=46)
    frame = Ether(datagram.network_header(6))
    packet = frame[kind]
    assert (frame.src, frame.dst) == (OURS.hex(":"), THEIRS.hex(":"))
    assert (packet.src, packet.dst) == addresses
    assert len(datagram.network_header(6)) == datagram.ip_offset + (20 if kind is IP else 40)
    if kind is IP:
        assert (packet.proto, packet.ttl, packet.tos >> 2, packet.flags.DF) == (6, 9, 46, True)
    else:
        assert (packet.nh, packet.hlim, packet.tc >> 2) == (6, 9, 46)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"fds": (3,)}, "opens its sockets itself"),
        ({"tcp_connections": 0}, "tcp_connections"),
        ({"tcp_connections": MOST_CONNECTIONS + 1}, "tcp_connections"),
    ],
)
def test_what_no_engine_with_tcp_can_be(wrong, says):
    with pytest.raises(ValueError, match=says):
        check(EngineConfig("lo", tcp=True, **wrong), {0})


def test_the_steering_program_has_room_for_all():
    header = (ROOT / "native/bpf/steer.h").read_text()
    assert f"#define STEER_TUPLES {MOST_CONNECTIONS}\n" in header


def netdev(rx_ring=0):
    return NetDev("eth9", 9, "02:00:00:00:00:01", 1500, True, True, "igb", 4, None, rx_ring, "")


@pytest.mark.parametrize(
    ("mode", "asked", "has", "attempts"),
    [
        ("copy", (), (), [("copy", {"checksum"}), ("copy", set())]),
        ("copy", ("timestamp",), (), [("copy", {"checksum", "timestamp"})]),
        ("zerocopy", (), (), [("zerocopy", set())]),
        ("zerocopy", (), ("checksum",), [("zerocopy", {"checksum"})]),
        ("auto", (), ("timestamp",), [("zerocopy", set()), ("copy", {"checksum"}), ("copy", set())]),
        ("auto", ("timestamp",), (), [("copy", {"checksum", "timestamp"})]),
    ],
)
def test_modes_are_tried_in_order(monkeypatch, mode, asked, has, attempts):
    monkeypatch.setattr("xsk_engine.netdevgenl.tx_metadata_features", lambda _: frozenset(has))
    config = EngineConfig("eth9", tcp=True, mode=mode, tx_metadata=frozenset(asked))
    assert tcpbinding._attempts(config, netdev()) == attempts


def test_zerocopy_that_lacks_what_was_asked(monkeypatch):
    monkeypatch.setattr("xsk_engine.netdevgenl.tx_metadata_features", lambda _: frozenset())
    config = EngineConfig("eth9", tcp=True, mode="zerocopy", tx_metadata=frozenset({"timestamp"}))
    with pytest.raises(UnavailableError, match="no tx timestamp in zero-copy"):
        tcpbinding._attempts(config, netdev())


@pytest.mark.parametrize(
    ("mode", "rx_ring", "entries"),
    [
        ("copy", 4096, 512),
        ("auto", 0, 512),
        ("zerocopy", 256, 512),
        ("zerocopy", 512, 1024),
        ("auto", 8192, 2048),
    ],
)
def test_chunks_to_receive_into(mode, rx_ring, entries):
    assert tcpbinding.rx_entries(netdev(rx_ring), mode, 2048) == entries


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (TcpRefusedError, ConnectionRefusedError),
        (TcpResetError, ConnectionResetError),
        (TcpAbortedError, ConnectionAbortedError),
        (TcpTimeoutError, TimeoutError),
        (TcpError, OSError),
    ],
)
def test_errors_are_pythons_too(kind, builtin):
    error = kind("connect", "10.0.0.1 port 80", "what to do", errno=111)
    assert isinstance(error, (XskError, TcpError, builtin))
    assert issubclass(kind, builtin)
    assert issubclass(kind, XskError)
    assert (error.errno, error.message) == (111, "what to do")
    assert str(error) == "connect(10.0.0.1 port 80): ECONNREFUSED: what to do"

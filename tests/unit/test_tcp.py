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
from xsk_engine.tcpinfo import STATES, KernelTcpInfo, TcpInfo
from xsk_engine.tcpoptions import TcpOptions
from xsk_engine.writebuffer import WriteBuffer

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


# ---- struct tcp_info ------------------------------------------------------------------------------------


def info(**values):
    """A connection that has done nothing, but for these."""
    nothing = dict.fromkeys(TcpInfo.__dataclass_fields__, 0)
    return TcpInfo(**{**nothing, "state": "ESTABLISHED", "recovery_state": "open", **values})


def header_names():
    """Of the kernel's header that is installed, in its order."""
    text = Path("/usr/include/linux/tcp.h").read_text()
    body = re.search(r"struct tcp_info \{(.*?)\n\};", text, re.S).group(1)
    return re.findall(r"^\s*__u\d+\s*(tcpi_\w+)", re.sub(r"(:\s*\d+)\s*,", r"\1;\n__u8 ", body), re.M)


def test_names_and_order_are_the_kernels():
    """Each is there, or said to be absent; newer kernels append."""
    ours, theirs = list(KernelTcpInfo.__dataclass_fields__), header_names()
    assert {"tcpi_state", "tcpi_rcv_wscale", "tcpi_snd_wnd"} < set(theirs)
    assert [name for name in ours if name in theirs] == [name for name in theirs if name in ours]
    assert set(ours) - set(theirs) <= {"tcpi_total_rto"}
    absent = re.search(r"tcpi_ (retransmits.*?)\.", KernelTcpInfo.__doc__, re.S).group(1)
    said = {f"tcpi_{name}" for name in re.split(r",\s+", absent)}
    assert set(theirs) - set(ours) <= said
    assert not said & set(ours)


def test_units_are_the_kernels():
    """us, and segments of snd_mss."""
    one = info(
        srtt_ns=1_234_999,
        rttvar_ns=500_000,
        min_rtt_ns=999_999,
        rto_ns=201_234_567,
        mss_bytes=1448,
        cwnd_bytes=14480,
        ssthresh_bytes=28960,
        path_mtu=1500,
        outstanding_segments=3,
        recovery_state="recovery",
        options=7,
    ).tcp_info()
    assert (one.tcpi_rtt, one.tcpi_rttvar, one.tcpi_min_rtt, one.tcpi_rto) == (1234, 500, 999, 201_234)
    assert (one.tcpi_snd_cwnd, one.tcpi_snd_ssthresh) == (10, 20)
    assert (one.tcpi_snd_mss, one.tcpi_pmtu, one.tcpi_unacked) == (1448, 1500, 3)
    assert (one.tcpi_ca_state, one.tcpi_options) == (3, 7)


def test_before_anything_is_known_it_says_what_the_kernel_does():
    one = info(state="SYN-SENT", ssthresh_bytes=(1 << 64) - 1).tcp_info()
    assert (one.tcpi_state, one.tcpi_rtt, one.tcpi_min_rtt) == (2, 0, 0xFFFFFFFF)
    assert (one.tcpi_snd_cwnd, one.tcpi_snd_ssthresh) == (0, 0x7FFFFFFF)


def test_states_have_the_kernels_numbers():
    """As Wireshark and ss have them: include/net/tcp_states.h, where TCP_LISTEN is 10."""
    numbers = {state: info(state=state).tcp_info().tcpi_state for state in STATES}
    assert [state for state, _ in sorted(numbers.items(), key=lambda one: one[1]) if state != "NEW"] == [
        *("ESTABLISHED", "SYN-SENT", "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSED"),
        *("CLOSE-WAIT", "LAST-ACK", "CLOSING"),
    ]
    assert numbers["CLOSING"] == 11


# ---- what a transport holds --------------------------------------------------------------------------------


def test_a_write_buffer_tells_at_its_marks():
    told = []
    buffer = WriteBuffer(told.append)
    assert (buffer.low, buffer.high) == (16384, 65536)
    buffer.set_limits(10, 4)
    buffer.add(memoryview(bytes(10)))
    assert told == []
    buffer.add(memoryview(b"x"))
    assert (told, buffer.size) == (["pause_writing"], 11)
    assert bytes(buffer.first()) == bytes(10) + b"x", "small ones go together"
    buffer.took(6)
    buffer.note()
    assert (told, buffer.size) == (["pause_writing"], 5)
    buffer.took(5)
    buffer.note()
    assert told == ["pause_writing", "resume_writing"]
    assert not buffer


@pytest.mark.parametrize(
    ("limits", "are"), [((None, 10), (10, 40)), ((100, None), (25, 100)), ((0, 0), (0, 0)), ((7, 7), (7, 7))]
)
def test_limits_of_a_write_buffer(limits, are):
    buffer = WriteBuffer(lambda _: None)
    buffer.set_limits(*limits)
    assert (buffer.low, buffer.high) == are
    with pytest.raises(ValueError, match="high"):
        buffer.set_limits(1, 2)


@pytest.mark.parametrize("sizes", [[1] * 200, [5000, 1, 1, 90_000, 3], [4095, 4096, 70_000], [60_000] * 3])
def test_a_write_buffer_keeps_every_byte_in_order(sizes):
    pieces = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
    buffer = WriteBuffer(lambda _: None)
    for piece in pieces:
        buffer.add(memoryview(piece))
    found, step = b"", 0
    while buffer:
        step += 1
        part = bytes(buffer.first())[: 1 + step * 37 % 5000]
        found += part
        buffer.took(len(part))
    assert found == b"".join(pieces)
    assert buffer.size == 0

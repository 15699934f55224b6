"""TCP on a NIC in zero-copy, where a packet is one desc; the peer is the kernel, behind the other NIC."""

import contextlib
import hashlib
import re
import shutil
import socket

import pytest

from tests.lab.tcpcapture import captured
from tests.lab.tcppeer import ADDRESS, digest_of, echo, peer, sent_resets
from tests.machine.guest.conftest import ethtool
from xsk_engine import netdev
from xsk_engine import open as open_engine
from xsk_engine._ffi import libbpf

MB = 1_000_000
SHARED = "/run/shared/tcp.pcapng"
# Under emulation a few MB/s.
PATIENCE_S = 120


@pytest.fixture
def engine(wire, igb):
    """When it has closed, which audits the umem, no XDP program is left, and the kernels of both sides have
    reset nothing."""

    def resets():
        with wire.in_rx():
            there = sent_resets()
        return sent_resets(), there

    before = resets()
    with open_engine("vtx", mode="zerocopy", tcp=True, link_timeout=20) as one:
        assert one.mode == "zerocopy"
        assert not one.binding.multi_buffer
        yield one
    assert libbpf.attached_program(igb.ifindex) == (0, "none")
    netdev.wait_for_link("vtx", 20)
    assert resets() == before


def payload(size):
    """Bytes that are nowhere the same as their neighbours'."""
    return hashlib.shake_128(b"machine").digest(size)


def send(engine, one, parts, **options):
    """All of them over one connection, to its end; what it and the engine have counted."""
    expected, length = hashlib.sha256(), 0
    with engine.tcp(ADDRESS[4], one.port, **options) as connection:
        for part in parts:
            connection.sendall(part, PATIENCE_S)
            expected.update(part)
            length += len(part)
        connection.flush(PATIENCE_S)
    assert one.result() == (length, expected.hexdigest())
    counters = engine.tcp_counters()
    assert counters.bad_csum_packets == counters.malformed_packets == counters.bad_descs == 0
    return connection.info(), counters


def transfer(wire, engine, megabytes):
    data = payload(MB)
    with peer(wire, digest_of) as one:
        info, counters = send(engine, one, [data] * megabytes)
    assert info.acked_bytes == info.sent_bytes - info.retransmitted_bytes == megabytes * MB
    return info, counters


def test_some_megabytes(wire, engine):
    transfer(wire, engine, 24)


@pytest.mark.slow
def test_a_hundred_megabytes(wire, engine, tmp_path):
    """With a capture that the machine's owner has Wireshark look at (tests/machine/test_machine.py)."""
    file = tmp_path / "tcp.pcapng"  # dumpcap has no capability to write into the folder of the host's user
    with captured(wire, file):
        info, _ = transfer(wire, engine, 100)
    shutil.copyfile(file, SHARED)
    assert info.mss_bytes == 1448


@pytest.mark.parametrize("version", [4, 6])
def test_requests_and_responses(wire, engine, version):
    with peer(wire, echo, version=version) as one:
        with engine.tcp(ADDRESS[version], one.port, nodelay=True) as connection:
            for size in (1, 2, 100, 1447, 1448, 1449, 5000, 30_000):
                request = payload(size)
                connection.sendall(request)
                answer = b""
                while len(answer) < size:
                    answer += connection.recv(size, PATIENCE_S)
                assert answer == request
        one.result()


def received_by_queue():
    said = ethtool("-S", "vtx").stdout
    return [int(re.search(rf"rx_queue_{queue}_packets: (\d+)", said)[1]) for queue in (0, 1)]


def test_answers_come_to_both_queues_and_others_get_theirs(wire, engine):
    """The NIC spreads connections over its queues, and a kernel's own connection goes on beside them."""
    before = received_by_queue()
    with peer(wire, echo) as one, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(engine.tcp(ADDRESS[4], one.port)) for _ in range(16)]
        kernels = stack.enter_context(socket.create_connection((ADDRESS[4], one.port), 10))
        for number, connection in enumerate((*connections, kernels)):
            connection.sendall(bytes([number]) * 100)
        for number, connection in enumerate((*connections, kernels)):
            answer = b""
            while len(answer) < 100:
                answer += connection.recv(100)
            assert answer == bytes([number]) * 100
    assert all(now - then >= 3 for now, then in zip(received_by_queue(), before, strict=True))


@pytest.fixture
def small_ring(wire, igb):
    """The receiver's NIC drops what comes faster than its kernel takes it."""

    def resize(entries):
        with wire.in_rx():
            ethtool("-G", "vrx", "rx", str(entries))
            netdev.wait_for_link("vrx", 20)
        netdev.wait_for_link("vtx", 20)

    resize(80)
    yield
    resize(4096)


def test_what_the_receiver_drops_is_sent_again(wire, small_ring, engine):
    for _ in range(5):
        info, counters = transfer(wire, engine, 4)
        assert info.retransmitted_segments > 0
        assert info.recoveries + info.timeouts > 0
        if counters.copied_segments:  # sent again while the NIC had it still, which is chance
            break
    assert counters.copied_segments > 0

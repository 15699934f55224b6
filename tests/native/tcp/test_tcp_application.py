"""What an application is told, and what it may change while a connection is in use."""

import os

import pytest
from abi import tcp
from scapy.layers.l2 import Ether
from segments import OUR_MAC
from tcp_bench import pattern

from xsk_engine._ffi.nativetcp import CHANGED, DRAINED, READABLE, WRITABLE


@pytest.fixture
def told(bench):
    """A bench whose loop writes an event, and what it has written since the last time."""
    made = []

    def make(**options):
        event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        made.append(event_fd)
        one = bench(event_fd=event_fd, **options)

        def events():
            one.settle()
            try:
                return os.eventfd_read(event_fd)
            except BlockingIOError:
                return 0

        return one, events

    yield make
    for event_fd in made:
        os.close(event_fd)


def await_(conn, what):
    getattr(tcp, "await")(conn.handle, what)


def test_readable(told):
    """The contract of xske_tcp_await: bytes, or the end; once."""
    one, events = told()
    conn, peer = one.connected()
    events()
    peer.send("A", b"unasked")
    assert not events()
    assert conn.read() == b"unasked"
    await_(conn, READABLE)
    assert not events()
    peer.send("A", b"asked")
    assert events()
    peer.send("A", b"once")
    assert not events()
    assert conn.read() == b"askedonce"
    await_(conn, READABLE)
    peer.send("FA")
    assert events()
    assert conn.read() == b""


def test_writable(told):
    """Room in the send buffer: when something is acknowledged."""
    one, events = told()
    conn, peer = one.connected(rtt_ms=10, send_buffer_bytes=2000)
    while conn.write(pattern(1448, len(conn.written))) != "EAGAIN":
        assert len(conn.written) <= 2000
    events()
    await_(conn, WRITABLE)
    peer.expect_all()
    assert not events()
    peer.send("A")
    assert events()
    assert conn.write(pattern(1, len(conn.written))) == 1


def test_writable_for_a_third_of_the_buffer(told):
    """Not for every ACK: what could be written then would be little."""
    one, events = told()
    conn, peer = one.connected(rtt_ms=10, send_buffer_bytes=9 * 1448)
    assert conn.write(pattern(9 * 1448)) == 9 * 1448
    assert conn.write(b"x") == "EAGAIN"
    events()
    await_(conn, WRITABLE)
    assert len(peer.expect_all()) == 9
    peer.send("A", ack=1 + 2 * 1448)
    assert not events()
    peer.send("A", ack=1 + 3 * 1448)
    assert events()


def test_writable_when_a_chunk_is_free(told):
    """And the quota's chunks, of which one comes back when its device has done with it."""
    one, events = told()
    conn, peer = one.connected(rtt_ms=10, quota=2)
    one.hold_completions()
    while conn.write(pattern(1448, len(conn.written))) != "EAGAIN":
        assert len(conn.written) < 10_000
    peer.expect_all()
    peer.send("A")
    assert conn.write(b"x" * 1448) == "EAGAIN"
    events()
    await_(conn, WRITABLE)
    assert not events()
    one.complete()
    assert events()
    assert isinstance(conn.write(pattern(1448, len(conn.written))), int)


def test_changed_and_drained(told):
    """Its state; and that everything is acknowledged."""
    one, events = told()
    conn = one.connect()
    conn.peer.expect("S")
    events()
    await_(conn, CHANGED)
    assert not events()
    conn.peer.send("SA")
    assert events()
    conn.peer.expect("A")
    conn.write(pattern(2896))
    await_(conn, DRAINED)
    conn.peer.expect_all()
    events()
    conn.peer.send("A", ack=1449)
    assert not events()
    conn.peer.send("A", ack=2897)
    assert events()
    await_(conn, READABLE | CHANGED)
    conn.peer.send("R")
    assert events()
    assert conn.error == "ECONNRESET"


def test_everybody_who_waits_is_told_of_the_end(told):
    """Whatever they wait for."""
    one, events = told()
    for what in (READABLE, WRITABLE, CHANGED, DRAINED):
        conn, peer = one.connected()
        await_(conn, what)
        events()
        peer.send("R")
        assert events()
        assert conn.state == "CLOSED"


def test_another_gateway(bench):
    """The contract of xske_tcp_set_mac: the next segment goes there, those that are sent again too."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    one.peer_mac = "02:00:00:00:00:77"
    tcp.set_mac(conn.handle, bytes.fromhex(one.peer_mac.replace(":", "")))
    conn.send(b"hello")
    assert Ether(peer.expect("A").frame).dst == one.peer_mac
    again = Ether(peer.expect("A", within_ms=1000).frame)
    assert (again.dst, again.src) == (one.peer_mac, OUR_MAC)


def test_nothing_is_written_by_writing_nothing(bench):
    """No segment, no error."""
    one = bench()
    conn, peer = one.connected()
    assert conn.write(b"") == 0
    peer.expect_nothing(ms=100)

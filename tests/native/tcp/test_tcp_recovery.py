"""What is lost, and how we know: without SACK (RFC 5681, 6582)."""

import pytest
from abi import CUBIC
from flight import FULL, NO_SACK, at, flight, sack, sent
from tcp_bench import pattern


def test_three_duplicate_acks(bench):
    """RFC 5681, 3.2: the third one sends the first segment again at once; ssthresh is half the flight."""
    one = bench()
    conn, peer = flight(one, peer=NO_SACK)
    one.advance(ms=100)
    for _ in range(2):
        peer.send("A", ack=1)
        assert sent(peer) == []
    peer.send("A", ack=1)
    assert sent(peer) == [at(0)]
    one.advance(us=1)
    info = conn.info
    assert (info.recoveries, info.timeouts, info.retransmitted_segments) == (1, 0, 1)
    assert 5 * FULL <= info.ssthresh_bytes <= 5 * 1460
    assert info.duplicate_acks == 3


def test_limited_transmit(bench):
    """RFC 3042: the first two duplicate ACKs may each send a new segment; never more than cwnd and two."""
    one = bench()
    conn, peer = flight(one, more=5 * FULL, peer=NO_SACK)
    one.advance(ms=100)
    for i in range(2):
        peer.send("A", ack=1)
        assert sent(peer) in ([], [at(10 + i)])


def test_what_is_no_duplicate_ack(bench):
    """RFC 5681, 2: with data, with another window, or with nothing outstanding, an ACK says nothing of a
    loss."""
    one = bench()
    conn, peer = flight(one, peer=NO_SACK)
    one.advance(ms=100)
    for i in range(4):
        peer.send("A", b"x", ack=1)
        peer.send("A", ack=1, win=2000 + i)
    assert [s for s in sent(peer) if s <= at(9)] == []
    peer.send("A", ack=at(10))
    for _ in range(5):
        peer.send("A", ack=at(10))
    one.advance(us=1)
    assert conn.info.recoveries == 0


def test_a_partial_ack_sends_the_next_hole_at_once(bench):
    """RFC 6582, 3.2: in recovery an ACK of less than all is as good as three duplicates; cwnd falls once."""
    one = bench()
    conn, peer = flight(one, peer=NO_SACK)
    one.advance(ms=100)
    for _ in range(7):
        peer.send("A", ack=1)
    assert sent(peer) == [at(0)]
    one.advance(ms=100)
    ssthresh = conn.info.ssthresh_bytes
    peer.send("A", ack=at(4))
    assert sent(peer) == [at(4)]
    one.advance(ms=100)
    peer.send("A", ack=at(7))
    assert sent(peer) == [at(7)]
    one.advance(ms=100)
    peer.send("A", ack=at(10))
    one.advance(us=1)
    info = conn.info
    assert (info.recoveries, info.timeouts, info.retransmitted_segments) == (1, 0, 3)
    assert info.ssthresh_bytes == ssthresh
    assert info.cwnd_bytes <= ssthresh + 1460


def test_new_data_in_recovery(bench):
    """RFC 5681, 3.2 (4), (5): each further duplicate ACK is a segment that has left the network; recovery
    keeps sending."""
    one = bench()
    conn, peer = flight(one, more=10 * FULL, peer=NO_SACK)
    one.advance(ms=100)
    for _ in range(9):
        peer.send("A", ack=1)
    found = sent(peer)
    assert found.count(at(0)) == 1
    assert set(found) <= {at(0), *(at(10 + i) for i in range(5))}
    one.advance(ms=100)
    peer.send("A", ack=at(10 + sum(s >= at(10) for s in found)))
    assert len(sent(peer)) >= 1


def test_duplicate_acks_after_a_timeout_start_no_recovery(bench):
    """RFC 6582, 4: what was sent before the timeout and comes after it makes duplicates; they are not a
    loss."""
    one = bench()
    conn, peer = flight(one, rtt_ms=10, peer=NO_SACK)
    one.advance(ms=250)
    assert sent(peer) == [at(0)]
    ssthresh = conn.info.ssthresh_bytes
    for _ in range(6):
        peer.send("A", ack=1)
    one.advance(us=1)
    assert conn.info.recoveries == 0
    assert conn.info.ssthresh_bytes == ssthresh


def test_congestion_avoidance(bench):
    """RFC 5681, 3.1: beyond ssthresh, about one segment in a round trip."""
    one = bench()
    conn, peer = flight(one, more=20 * FULL)
    one.advance(ms=100)
    sack(peer, (1, 10))
    assert at(0) in sent(peer)
    one.advance(ms=100)
    peer.ack = at(10)
    peer.send("A", ack=at(10))
    grown = []
    for _ in range(8):
        conn.write(pattern(20 * FULL, len(conn.written)))
        segments = peer.expect_all()
        before = conn.info.cwnd_bytes
        one.advance(ms=100)
        for segment in segments:
            peer.ack = segment.seq + FULL
            peer.send("A")
        one.advance(us=1)
        grown.append((conn.info.cwnd_bytes - before) / FULL)
    assert conn.info.timeouts == 0
    assert 0.7 * 7 <= sum(grown[1:]) <= 1.3 * 7
    assert max(grown[1:]) <= 1.5


def test_cubic_keeps_seven_tenths(bench):
    """RFC 9438, 4.6: ssthresh = FlightSize * 0.7."""
    one = bench()
    conn, peer = flight(one, congestion=CUBIC)
    one.advance(ms=100)
    sack(peer, (1, 10))
    assert at(0) in sent(peer)
    one.advance(us=1)
    assert conn.info.ssthresh_bytes == pytest.approx(7 * FULL, rel=0.02)


def test_a_partial_ack_does_not_wait_for_the_window(bench):
    """RFC 6582, 3.2: the hole it tells of is sent again at once, though more is in the network than cwnd now
    allows."""
    one = bench()
    conn, peer = flight(one, peer=NO_SACK)
    one.advance(ms=100)
    for _ in range(3):
        peer.send("A", ack=1)
    assert sent(peer) == [at(0)]
    one.advance(ms=100)
    peer.ack = at(1)
    peer.send("A")
    assert sent(peer)[:1] == [at(1)]

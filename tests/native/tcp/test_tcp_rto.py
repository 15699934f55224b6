"""Round-trip times and the retransmission timer (RFC 6298)."""

from itertools import pairwise

import pytest
from abi import NODELAY
from judge import assert_near, times_of
from segments import MOD
from tcp_bench import MS, SECOND, pattern

PLAIN = {"sack": False}
"""no tail loss probe comes before the timer"""
FULL = 1448


def test_the_first_measurement(bench):
    """RFC 6298, 2.2: SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 * RTTVAR."""
    one = bench()
    conn, peer = one.connected(rtt_ms=100)
    one.advance(ms=1)
    info = conn.info
    assert info.srtt_ns == pytest.approx(100 * MS, abs=1.1 * MS)
    assert info.rttvar_ns == pytest.approx(50 * MS, abs=1.1 * MS)
    assert info.rto_ns == pytest.approx(300 * MS, abs=5 * MS)
    assert info.min_rtt_ns == pytest.approx(100 * MS, abs=1.1 * MS)


def test_later_measurements(bench):
    """RFC 6298, 2.3: RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R|, then SRTT = 7/8 SRTT + 1/8 R."""
    one = bench()
    conn, peer = one.connected(rtt_ms=100, flags=NODELAY)
    srtt, rttvar = 100.0, 50.0
    for rtt_ms in (100, 140, 60, 200, 100, 100):
        conn.send(b"x")
        peer.expect("A", length=1)
        one.advance(ms=rtt_ms)
        peer.send("A")
        one.advance(us=1)
        rttvar = 0.75 * rttvar + 0.25 * abs(srtt - rtt_ms)
        srtt = 0.875 * srtt + 0.125 * rtt_ms
        assert conn.info.srtt_ns / MS == pytest.approx(srtt, abs=3)
        assert conn.info.rttvar_ns / MS == pytest.approx(rttvar, abs=3)


@pytest.mark.parametrize("ts", [True, False])
def test_the_least_rto(bench, ts):
    """RFC 6298, 2.4 says 1 s, every kernel 200 ms: so do we."""
    one = bench()
    conn, peer = one.connected(rtt_ms=1, peer={"ts": ts, **PLAIN})
    conn.send(b"x")
    first = peer.expect("A", length=1)
    again = peer.expect("A", within_ms=1000, seq=1, length=1)
    assert_near(times_of([first, again]), [0, 200])


def test_an_rto_without_any_measurement_is_a_second(bench):
    """RFC 6298, 2.1; here of the SYN, and 5.7: of data after a SYN that was sent again: 3 s at most."""
    one = bench()
    conn = one.connect(peer={"ts": False, **PLAIN})
    conn.peer.expect("S")
    conn.peer.expect("S", within_ms=1100)
    conn.peer.send("SA", seq=0, ack=1)
    conn.peer.expect("A")
    conn.send(b"x")
    first = conn.peer.expect("A", length=1)
    again = conn.peer.expect("A", within_ms=5000, length=1)
    assert 1000 <= (again.time_ns - first.time_ns) / MS <= 3020


def test_it_doubles_and_has_a_highest_value(bench):
    """RFC 6298, 5.5 and 2.5: twice as long each time, bounded by at least 60 s."""
    one = bench()
    conn, peer = one.connected(rtt_ms=1, user_timeout_ns=3600 * SECOND, peer=PLAIN)
    conn.send(b"x")
    one.advance(s=1000)
    segments = peer.expect_all()
    assert {(s.seq, s.payload) for s in segments} == {(1, b"x")}
    times = times_of(segments)
    waits = [b - a for a, b in pairwise(times)]
    due = 200
    for wait in waits:
        assert due - 1 <= wait <= due + due / 20 + 20
        due = min(2 * due, max(waits))
    assert 60_000 <= max(waits) <= 240_000
    assert conn.info.timeouts == len(waits) == conn.info.retransmitted_segments


def test_the_earliest_segment_is_sent_again_alone(bench):
    """RFC 6298, 5.4; RFC 5681, 3.1: the loss window is one segment."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer=PLAIN)
    conn.write(pattern(14_480))
    assert len(peer.expect_all()) == 10
    peer.expect("A", within_ms=300, seq=1, length=FULL)
    peer.expect_nothing(ms=100)
    assert conn.info.cwnd_bytes <= 1460
    assert conn.info.ssthresh_bytes in range(5 * 1448, 5 * 1460 + 1)


def test_after_a_timeout_everything_is_sent_again_in_slow_start(bench):
    """RFC 5681, 3.1: from one segment on; the rest of the flight counts as lost."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer=PLAIN)
    conn.write(pattern(14_480))
    peer.expect_all()
    peer.ack = 1
    peer.expect("A", within_ms=300, seq=1)
    one.advance(ms=10)
    peer.send("A")
    assert [s.seq for s in peer.expect_all()] == [1 + FULL, 1 + 2 * FULL]
    one.advance(ms=10)
    peer.send("A")
    assert 3 <= len(peer.expect_all()) <= 4


def test_a_second_timeout_does_not_halve_again(bench):
    """RFC 5681, 3.1: ssthresh is held when the segment had been sent again by the timer already."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer=PLAIN)
    conn.write(pattern(14_480))
    peer.expect_all()
    one.advance(ms=250)
    before = conn.info.ssthresh_bytes
    one.advance(ms=1000)
    assert conn.info.timeouts >= 2
    assert conn.info.ssthresh_bytes == before


def test_it_starts_again_when_something_is_acknowledged(bench):
    """RFC 6298, 5.3."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, flags=NODELAY, peer=PLAIN)
    conn.send(b"one")
    conn.send(b"two")
    peer.expect_all()
    one.advance(ms=150)
    peer.send("A", ack=4)
    restarted = one.now
    again = peer.expect("A", within_ms=1000, seq=4, payload=b"two")
    # its RTO has grown with the sample of 150 ms, and is what it says
    assert (again.time_ns - restarted) / MS == pytest.approx(conn.info.rto_ns / 2 / MS, rel=0.1)
    assert again.time_ns - restarted >= 199 * MS


def test_it_stops_when_nothing_is_outstanding(bench):
    """RFC 6298, 5.2."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.send(b"x")
    peer.expect("A")
    one.advance(ms=10)
    peer.send("A")
    peer.expect_nothing(s=100)


def test_karn(bench):
    """RFC 6298, 3: without timestamps what was sent again measures nothing. 5.5-5.7: the back-off is kept
    until something does."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer={"ts": False, **PLAIN})
    conn.send(b"x")
    peer.expect("A")
    peer.expect("A", within_ms=250)
    peer.expect("A", within_ms=450)
    one.advance(ms=1)
    srtt = conn.info.srtt_ns
    peer.send("A")
    one.advance(ms=1)
    assert conn.info.srtt_ns == srtt == pytest.approx(10 * MS, abs=1.1 * MS)
    conn.send(b"y")
    first = peer.expect("A", payload=b"y")
    again = peer.expect("A", within_ms=2000, payload=b"y")
    assert_near(times_of([first, again]), [0, 4 * 210])
    one.advance(ms=5)
    peer.send("A")
    conn.send(b"z")
    peer.expect("A")
    one.advance(ms=10)
    peer.send("A")
    conn.send(b"w")
    first = peer.expect("A", payload=b"w")
    again = peer.expect("A", within_ms=2000, payload=b"w")
    assert_near(times_of([first, again]), [0, 200], late_ms=30)


def test_timestamps_measure_what_was_sent_again(bench):
    """RFC 7323, 4.1: the echo says which copy has come."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer=PLAIN)
    conn.send(b"x")
    peer.expect("A")
    again = peer.expect("A", within_ms=250)
    one.advance(ms=90)
    peer.send("A", ts=(peer.now_ts(), again.ts[0]))
    one.advance(ms=1)
    assert conn.info.srtt_ns == pytest.approx((7 * 10 + 90) / 8 * MS, abs=2 * MS)
    assert conn.info.rto_ns < 400 * MS, "the back-off is over"


def test_an_echo_of_nothing_measures_nothing(bench):
    """RFC 7323, 4.1: an ACK that acknowledges nothing new is no sample; 3.2: an echo of what we never said
    neither."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer=PLAIN)
    one.advance(ms=500)
    before = conn.info.srtt_ns
    for _ in range(5):
        peer.send("A", b"x")
        one.advance(ms=50)
        conn.read()
    peer.expect_all()
    assert conn.info.srtt_ns == before
    conn.send(b"x")
    peer.expect("A")
    one.advance(ms=10)
    peer.send("A", ts=(peer.now_ts(), 0))
    one.advance(ms=1)
    assert conn.info.srtt_ns < 100 * MS
    assert conn.info.acked_bytes == 1


@pytest.mark.parametrize("sack", [False, True])
def test_what_waited_for_a_retransmission_measures_nothing(bench, sack):
    """RFC 6298, 3: the ACK answers the retransmission. The segments behind it that were sent once had come
    long before: their ACK says when the gap was filled, not how long the path is."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, flags=NODELAY, peer={"ts": False, "sack": sack})
    conn.write(pattern(4 * FULL))
    assert len(peer.expect_all()) == 4
    peer.expect_all()
    one.advance(ms=800)
    assert 1 in [s.seq for s in peer.expect_all()], "the first one was lost, and every ACK"
    peer.ack = 4 * FULL + 1
    peer.send("A", ack=4 * FULL + 1)
    one.advance(us=1)
    assert conn.info.srtt_ns == pytest.approx(10 * MS, abs=2 * MS)


def test_an_echo_of_another_age_measures_nothing(bench):
    """RFC 7323, 4.1: an echo of what we never said, days ago or in the future, is no round trip."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, flags=NODELAY, peer=PLAIN)
    for days in (2, 20, -2):
        conn.send(b"x")
        first = peer.expect("A")
        again = peer.expect("A", within_ms=2000)
        assert again.seq == first.seq
        peer.send("A", ts=(peer.now_ts(), (again.ts[0] - days * 86_400_000) % MOD))
        one.advance(us=1)
        assert conn.info.srtt_ns < 500 * MS


def test_a_sack_that_ends_the_back_off_brings_the_timer_forward(bench):
    """RFC 6298, 5.7 and the note below it: the back-off lasts until there is a measurement. One by SACK moves
    nothing that is acknowledged, but what was armed with the back-off must not wait for it any more."""
    one, full = bench(), 1460
    conn, peer = one.connected(rtt_ms=10, peer={"ts": False})
    conn.write(pattern(3 * full))
    peer.expect_all()
    one.advance(s=3)
    peer.expect_all()
    conn.write(pattern(3 * full, 3 * full))
    for acked in (1, 3):
        peer.ack = 1 + acked * full
        peer.send("A")
        found = [s.seq for s in peer.expect_all()]
    assert found[:2] == [1 + 3 * full, 1 + 4 * full]
    assert conn.info.rto_ns >= 1600 * MS, "what was sent again measures nothing (Karn)"
    one.advance(ms=10)
    peer.send("A", ack=1 + 3 * full, sack=[(1 + 4 * full, 1 + 5 * full)])
    told = one.now
    assert peer.expect("A", within_ms=50).seq == 1 + 3 * full
    again = peer.expect("A", within_ms=3000, seq=1 + 3 * full)
    assert (again.time_ns - told) / MS <= 300

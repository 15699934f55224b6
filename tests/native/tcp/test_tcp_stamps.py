"""Timestamps: what is too old, and what is echoed (RFC 7323)."""

import pytest
from abi import NODELAY
from flight import FULL, NO_SACK, at, flight
from segments import MOD
from tcp_bench import MS, pattern

DAY = 86400


def test_paws(bench):
    """RFC 7323, 5.3: an old timestamp: acknowledged and dropped; an equal one is good."""
    one = bench()
    conn, peer = one.connected()
    one.advance(ms=100)
    recent = peer.now_ts()
    peer.send("A", b"first", ts=(recent, peer.ts_recent))
    one.advance(ms=50)
    peer.expect_all()
    before = conn.info.refused_segments
    peer.send("A", b"wrong", seq=6, ts=(recent - 1, peer.ts_recent))
    peer.expect("A", ack=6, length=0)
    peer.seq = 6
    assert conn.read() == b"first"
    assert conn.info.refused_segments == before + 1
    peer.send("A", b"equal", ts=(recent, peer.ts_recent))
    peer.send("A", b"later", ts=(recent + 1, peer.ts_recent))
    assert conn.read() == b"equallater"


def test_paws_over_the_wrap(bench):
    """RFC 7323, 5.3: timestamps are compared modulo 2^32."""
    one = bench()
    conn = one.connect()
    peer = conn.peer
    peer.ts_base = MOD - 5 - one.now // MS
    peer.accept()
    one.advance(ms=20)
    peer.send("A", b"after the wrap")
    assert conn.read() == b"after the wrap"
    peer.send("A", b"before", ts=(MOD - 5, peer.ts_recent))
    peer.expect("A")
    assert conn.read() == "EAGAIN"


def test_paws_spares_resets(bench):
    """RFC 7323, 5.2: RST is not subject to it."""
    one = bench()
    conn, peer = one.connected()
    peer.send("RA", ts=(peer.now_ts() - 10_000, 0))
    assert (conn.state, conn.error) == ("CLOSED", "ECONNRESET")


def test_paws_forgets_after_24_days(bench):
    """RFC 7323, 5.5: a timestamp older than that says nothing: the peer's clock may have gone round."""
    one = bench()
    conn, peer = one.connected()
    one.advance(s=25 * DAY)
    early = 7_000_000 - 1_000_000
    peer.send("A", b"late", ts=(early, peer.ts_recent))
    assert conn.read() == b"late"
    assert peer.expect("A", within_ms=100, ack=5).ts[1] == early, "it is what is echoed from now on"
    peer.send("A", b"older", ts=(early - 1, peer.ts_recent), seq=5)
    assert conn.read() == "EAGAIN", "and what is compared with"


def test_a_segment_without_timestamps_once_they_are_in_use(bench):
    """RFC 7323, 3.2: SHOULD be dropped silently, MUST NOT end the connection."""
    one = bench()
    conn, peer = one.connected()
    peer.send("A", b"bare", seq=1, ts=None)
    assert conn.state == "ESTABLISHED"
    assert conn.read() == "EAGAIN"
    peer.seq = 1
    peer.send("A", b"stamped")
    assert conn.read() == b"stamped"


def test_a_delayed_ack_echoes_the_first_timestamp(bench):
    """RFC 7323, 4.3 (A): the earliest segment that it acknowledges: the peer's RTT includes our delay."""
    one = bench()
    conn, peer = one.connected()
    one.advance(ms=5)
    first = peer.now_ts()
    peer.send("A", pattern(FULL))
    one.advance(ms=10)
    peer.send("A", pattern(FULL, FULL))
    assert peer.expect("A", ack=2 * FULL + 1).ts[1] == first


def test_beyond_a_gap_the_last_one_in_order_is_echoed(bench):
    """RFC 7323, 4.3 (B), (C): not the one that was out of order; then the one that fills the gap."""
    one = bench()
    conn, peer = one.connected()
    one.advance(ms=5)
    first = peer.now_ts()
    peer.send("A", pattern(FULL))
    one.advance(ms=50)
    peer.expect_all()
    peer.send("A", pattern(FULL, 2 * FULL), seq=1 + 2 * FULL)
    assert peer.expect("A", ack=FULL + 1).ts[1] == first
    one.advance(ms=5)
    filler = peer.now_ts()
    peer.send("A", pattern(FULL, FULL), seq=1 + FULL)
    one.advance(ms=50)
    assert peer.expect_all()[-1].ts[1] == filler


def test_our_clock_wraps(bench):
    """RFC 7323, 4: a millisecond clock goes round in 50 days; round trips are measured, and what was sent
    again for nothing is found out (RFC 3522), before, at and after that."""
    one = bench()
    conn = one.connect(local_port=40000)
    stamp = conn.peer.expect("S").ts[0]
    conn.abort()
    one.advance(ms=(MOD - 100 - stamp) % MOD)
    conn, peer = one.connected(rtt_ms=20, local_port=40000, flags=NODELAY, peer=NO_SACK)
    for _ in range(10):
        conn.send(b"x")
        segment = peer.expect("A", length=1)
        one.advance(ms=20)
        peer.send("A")
        one.advance(us=1)
        assert conn.info.srtt_ns == pytest.approx(20 * MS, abs=2 * MS)
    assert segment.ts[0] < 1000, "it has gone round"


def test_a_needless_timeout_while_our_clock_wraps(bench):
    """RFC 3522, 3.2: echoes are compared modulo 2^32."""
    one = bench()
    conn = one.connect(local_port=40000)
    stamp = conn.peer.expect("S").ts[0]
    conn.abort()
    one.advance(ms=(MOD - 50 - stamp) % MOD)
    conn, peer = flight(one, n=3, rtt_ms=10, local_port=40000, peer=NO_SACK)
    arrived, echo = peer.now_ts(), peer.ts_recent
    again = peer.expect("A", within_ms=400, seq=at(0))
    assert again.ts[0] < echo
    peer.send("A", ack=at(1), ts=(arrived, echo))
    one.advance(us=1)
    assert conn.info.undone_recoveries == 1

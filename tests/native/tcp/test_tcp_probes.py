"""Tail loss probes (RFC 8985, 7), and episodes in which nothing had been lost (RFC 3522, 3708)."""

import pytest
from flight import FULL, NO_SACK, at, flight, sack, sent
from tcp_bench import MS, pattern


def test_a_tail_loss_probe(bench):
    """RFC 8985, 7.2: two round trips after the last transmission; 7.3: nothing new to send: the last segment
    again. One, then the RTO."""
    one = bench()
    conn, peer = flight(one, n=3)
    start = one.now
    peer.expect_nothing(ms=195)
    probe = peer.expect("A", within_ms=20, seq=at(2), length=FULL)
    assert 199 <= (probe.time_ns - start) / MS <= 220
    assert (conn.info.tail_probes, conn.info.timeouts) == (1, 0)
    timeout = peer.expect("A", within_ms=2000, seq=at(0), length=FULL)
    assert (timeout.time_ns - probe.time_ns) / MS >= 290
    assert (conn.info.tail_probes, conn.info.timeouts) == (1, 1)


def test_a_tail_loss_probe_of_one_segment(bench):
    """RFC 8985, 7.2: the peer may delay its ACK of a single segment: the probe waits for that as well."""
    one = bench()
    conn, peer = flight(one, n=1)
    start = one.now
    probe = peer.expect("A", within_ms=400, seq=at(0), length=FULL)
    assert 239 <= (probe.time_ns - start) / MS <= 320


def test_a_tail_loss_probe_with_new_data(bench):
    """RFC 8985, 7.3: new data, if there is any and the window allows it, whatever cwnd says."""
    one = bench()
    conn, peer = flight(one, more=2 * FULL)
    probe = peer.expect("A", within_ms=300, seq=at(10), length=FULL)
    assert len(probe.payload) == FULL
    assert conn.info.tail_probes == 1
    assert conn.info.retransmitted_segments == 0


def test_a_probe_that_would_be_later_than_the_timeout(bench):
    """RFC 8985, 7.2: then it goes when the RTO would have expired."""
    one = bench()
    conn, peer = one.connected(rtt_ms=250)
    for _ in range(50):
        conn.send(b"x")
        peer.expect("A")
        one.advance(ms=250)
        peer.send("A")
    one.advance(us=1)
    assert conn.info.rto_ns < 2 * conn.info.srtt_ns
    rto = conn.info.rto_ns
    conn.write(pattern(2 * FULL, len(conn.written)))
    segments = peer.expect_all()
    probe = peer.expect("A", within_ms=1000)
    assert conn.info.tail_probes == 1
    assert (probe.time_ns - segments[-1].time_ns) == pytest.approx(rto, abs=5 * MS)


def test_no_tail_loss_probe_without_sack(bench):
    """RFC 8985, 7.2: TLP needs it, to tell what it has found."""
    one = bench()
    conn, peer = flight(one, n=3, peer=NO_SACK)
    peer.expect("A", within_ms=400, seq=at(0), length=FULL)
    assert (conn.info.tail_probes, conn.info.timeouts) == (0, 1)


def test_a_probe_that_repaired_a_loss_halves_the_window(bench):
    """RFC 8985, 7.4: an ACK beyond the probe, and there was no DSACK: the original was lost, which is
    congestion."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    peer.ack = at(9)
    peer.send("A", ack=at(9))
    one.advance(us=1)
    before = conn.info.cwnd_bytes
    probe = peer.expect("A", within_ms=400, seq=at(9))
    one.advance(ms=100)
    peer.send("A", ack=at(10), ts=(peer.now_ts(), probe.ts[0]))
    conn.write(pattern(FULL, len(conn.written)))
    peer.expect("A", seq=at(10))
    one.advance(ms=100)
    peer.send("A")
    one.advance(us=1)
    assert conn.info.cwnd_bytes < before
    assert conn.info.timeouts == 0


def test_a_probe_of_what_was_not_lost_does_not(bench):
    """RFC 8985, 7.4: a DSACK for the probe: both copies have arrived."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    peer.ack = at(9)
    peer.send("A", ack=at(9))
    one.advance(us=1)
    before = conn.info.cwnd_bytes
    probe = peer.expect("A", within_ms=400, seq=at(9))
    one.advance(ms=10)
    peer.send("A", ack=at(10))
    peer.send("A", ack=at(10), sack=[(at(9), at(10))], ts=(peer.now_ts(), probe.ts[0]))
    one.advance(us=1)
    assert conn.info.cwnd_bytes >= before


def test_a_probe_finds_a_tail_that_was_lost(bench):
    """RFC 8985, 7: the probe is SACKed, so the rest is found lost without a timeout; in the smallest window
    there is, two segments at first."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    peer.ack = at(6)
    peer.send("A", ack=at(6))
    peer.expect("A", within_ms=400, seq=at(9))
    one.advance(ms=100)
    sack(peer, (9, 10), ack=6)
    one.advance(ms=40)
    assert sent(peer) == [at(6), at(7)]
    one.advance(ms=60)
    sack(peer, (9, 10), ack=8)
    assert sent(peer) == [at(8)]
    assert conn.info.timeouts == 0


def test_a_timeout_that_was_not_needed_is_undone(bench):
    """RFC 3522, 4015: the ACK echoes the original's timestamp: it was only late. cwnd is what it was."""
    one = bench()
    conn, peer = flight(one, rtt_ms=10, peer=NO_SACK)
    originals = peer.now_ts()
    before, ssthresh = conn.info.cwnd_bytes, conn.info.ssthresh_bytes
    echo = peer.ts_recent
    again = peer.expect("A", within_ms=400, seq=at(0))
    assert again.ts[0] != echo
    one.advance(ms=10)
    peer.ack = at(1)
    peer.send("A", ack=at(1), ts=(originals, echo))
    one.advance(us=1)
    assert conn.info.undone_recoveries == 1
    assert conn.info.cwnd_bytes >= before
    assert conn.info.ssthresh_bytes >= min(ssthresh, before)
    peer.arrived = []
    peer.send("A", ack=at(10), ts=(originals, echo))
    one.advance(us=1)
    assert conn.info.retransmitted_segments <= 2


def test_a_timeout_that_was_needed_is_not_undone(bench):
    """RFC 3522, 3.2: the ACK echoes the retransmission's timestamp."""
    one = bench()
    conn, peer = flight(one, rtt_ms=10, peer=NO_SACK)
    before = conn.info.cwnd_bytes
    again = peer.expect("A", within_ms=400, seq=at(0))
    one.advance(ms=10)
    peer.send("A", ack=at(10), ts=(peer.now_ts(), again.ts[0]))
    one.advance(us=1)
    assert conn.info.undone_recoveries == 0
    assert conn.info.cwnd_bytes < before


def test_a_fast_retransmission_that_was_not_needed_is_undone_by_dsack(bench):
    """RFC 3708; RFC 2883: every retransmission of the episode was a duplicate."""
    one = bench()
    conn, peer = flight(one)
    one.advance(us=1)
    before = conn.info.cwnd_bytes
    echo = peer.ts_recent
    one.advance(ms=100)
    sack(peer, (1, 4), ts=(peer.now_ts(), echo))
    assert sent(peer) == [at(0)]
    one.advance(ms=10)
    assert conn.info.cwnd_bytes <= before
    peer.ack = at(10)
    peer.send("A", ack=at(10))
    peer.send("A", ack=at(10), sack=[(at(0), at(1))])
    one.advance(us=1)
    assert conn.info.undone_recoveries == 1
    assert conn.info.cwnd_bytes >= before


def test_a_recovery_that_was_needed_is_not_undone(bench):
    """RFC 3708: no DSACK, no undo."""
    one = bench()
    conn, peer = flight(one)
    before = conn.info.cwnd_bytes
    one.advance(ms=100)
    sack(peer, (1, 10))
    again = peer.expect("A", seq=at(0))
    one.advance(ms=100)
    peer.send("A", ack=at(10), ts=(peer.now_ts(), again.ts[0]))
    one.advance(us=1)
    assert conn.info.undone_recoveries == 0
    assert conn.info.cwnd_bytes < before


def test_a_dsack_of_something_else_undoes_nothing(bench):
    """RFC 3708, 2: only DSACKs of what was sent again in this episode: a network that doubles is no
    reason."""
    one = bench()
    conn, peer = one.connected(rtt_ms=100)
    conn.write(pattern(3 * FULL))
    assert len(peer.expect_all()) == 3
    one.advance(ms=100)
    peer.send("A")
    conn.write(pattern(7 * FULL, 3 * FULL))
    one.settle()
    peer.absorb()
    peer.ack = at(3)
    one.advance(ms=100)
    sack(peer, (4, 7), ack=3)
    assert sent(peer) == [at(3)]
    one.advance(us=1)
    ssthresh = conn.info.ssthresh_bytes
    peer.send("A", ack=at(3), sack=[(at(1), at(2)), (at(4), at(7))])
    one.advance(us=1)
    assert conn.info.undone_recoveries == 0
    assert conn.info.ssthresh_bytes == ssthresh

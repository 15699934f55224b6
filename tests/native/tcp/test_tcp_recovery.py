"""What is lost, and how we know. A flight of ten segments; segment n is bytes 1 + n * FULL on."""

import pytest
from tcp_bench import MS, pattern

FULL = 1448
NO_SACK = {"sack": False}


def at(n):
    """Where segment n begins."""
    return 1 + n * FULL


def flight(one, n=10, more=0, rtt_ms=100, **values):
    """A connection that has n segments outstanding, sent now, and `more` bytes that wait."""
    conn, peer = one.connected(rtt_ms=rtt_ms, **values)
    assert n <= 10
    conn.write(pattern(n * FULL + more))
    found = peer.expect_all()
    assert [s.seq for s in found] == [at(i) for i in range(n)]
    peer.ack = 1
    return conn, peer


def sent(peer):
    """The sequence numbers of what has come, in order. It is echoed as RFC 7323, 4.3 says, if it fills the first gap."""
    peer.bench.settle()
    found, peer.arrived = peer.arrived, []
    for segment in found:
        if segment.seq <= peer.ack and segment.ts:
            peer.ts_recent = segment.ts[0]
    return [s.seq for s in found if s.payload]


def sack(peer, *segments, ack=0, **values):
    """An ACK of everything before segment `ack`, and SACK blocks (first, end) of segments."""
    peer.ack = at(ack)
    peer.send("A", ack=at(ack), sack=[(at(a), at(b)) for a, b in segments], **values)


# -- without SACK: RFC 5681, 6582 --------------------------------------------------------------------


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
    """RFC 5681, 2: with data, with another window, or with nothing outstanding, an ACK says nothing of a loss."""
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
    """RFC 5681, 3.2 (4), (5): each further duplicate ACK is a segment that has left the network; recovery keeps sending."""
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
    """RFC 6582, 4: what was sent before the timeout and comes after it makes duplicates; they are not a loss."""
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


# -- with SACK: RFC 2018, 6675, 8985 -----------------------------------------------------------------


def test_sack_tells_of_a_hole(bench):
    """RFC 8985, 6.2: three segments beyond it delivered and no reordering seen: it is lost, and sent again at once;
    what is SACKed is not."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    sack(peer, (1, 2))
    sack(peer, (1, 3))
    assert sent(peer) == []
    sack(peer, (1, 4))
    assert sent(peer) == [at(0)]
    one.advance(us=1)
    assert (conn.info.recoveries, conn.info.timeouts) == (1, 0)
    for end in range(5, 11):
        sack(peer, (1, end))
        assert at(0) not in sent(peer)
    one.advance(ms=100)
    peer.send("A", ack=at(10))
    one.advance(us=1)
    assert conn.info.retransmitted_segments == 1


def test_several_holes(bench):
    """RFC 8985, 6.2; RFC 6675, 4: all of them, the lowest first, each once."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    sack(peer, (1, 3))
    sack(peer, (4, 6), (1, 3))
    sack(peer, (7, 10), (4, 6), (1, 3))
    one.advance(ms=50)
    assert sent(peer) == [at(0), at(3), at(6)]
    one.advance(ms=50)
    peer.send("A", ack=at(10))
    peer.expect_nothing(s=2)
    assert conn.info.timeouts == 0


def test_sack_and_no_more_in_the_network_than_cwnd(bench):
    """RFC 6675, 4 and 5: pipe: what is neither SACKed nor lost, and what was sent again."""
    one = bench()
    conn, peer = flight(one, more=30 * FULL)
    one.advance(ms=100)
    holes, outstanding, resent = {0, 4}, 10, set()
    for i in [1, 2, 3, 5, 6, 7, 8, 9]:
        blocks = []
        for n in range(1, i + 1):
            if n in holes:
                continue
            if blocks and blocks[-1][1] == n:
                blocks[-1][1] = n + 1
            else:
                blocks.append([n, n + 1])
        sack(peer, *reversed(blocks))
        for seq in sent(peer):
            number = (seq - 1) // FULL
            outstanding = max(outstanding, number + 1)
            if number < 10:
                resent.add(number)
        one.advance(us=1)
        sacked = sum(1 for n in range(1, i + 1) if n not in holes)
        lost = sum(1 for n in holes if n + 3 <= i)
        pipe = outstanding - sacked - lost + len(resent)
        assert pipe <= 10, "never more than before"
    assert resent == holes
    assert pipe <= conn.info.ssthresh_bytes / FULL + 1, "at the end of the round trip it is down to ssthresh"


def test_rack_waits_a_little_for_one_that_was_overtaken(bench):
    """RFC 8985, 6.2: one segment beyond the hole is delivered: the hole is lost when a quarter of the smallest RTT more
    has passed than the delivered one took."""
    one = bench()
    conn, peer = flight(one, rtt_ms=100)
    one.advance(ms=100)
    sack(peer, (1, 2))
    start = one.now
    assert sent(peer) == []
    peer.expect_nothing(ms=20)
    again = peer.expect(within_ms=20, seq=at(0), length=FULL)
    assert 24 <= (again.time_ns - start) / MS <= 30
    one.advance(us=1)
    assert (conn.info.timeouts, conn.info.tail_probes) == (0, 0)


def test_rack_tolerates_reordering(bench):
    """RFC 8985, 6.2: the hole fills within the window: nothing was lost, nothing is sent again, cwnd is not halved."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    sack(peer, (1, 2))
    one.advance(ms=15)
    peer.send("A", ack=at(2))
    peer.ack = at(2)
    assert sent(peer) == []
    one.advance(ms=30)
    peer.ack = at(10)
    peer.send("A", ack=at(10))
    one.advance(us=1)
    assert (conn.info.retransmitted_segments, conn.info.recoveries) == (0, 0)


def test_rack_does_not_count_to_three_once_it_has_seen_reordering(bench):
    """RFC 8985, 6.2 (3): then the window in time is used from the start, whatever the number of segments."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    sack(peer, (1, 2))
    one.advance(ms=5)
    peer.send("A", ack=at(10))
    conn.write(pattern(10 * FULL, len(conn.written)))
    one.settle()
    peer.expect_all()
    one.advance(ms=100)
    peer.ack = at(10)
    sack(peer, (11, 15), ack=10)
    assert sent(peer) == []
    one.advance(ms=40)
    assert sent(peer) == [at(10)]


def test_dsack_widens_the_window(bench):
    """RFC 8985, 6.2 (4): where segments overtake each other, and a DSACK tells that one was sent again for nothing, the
    window is a quarter of the smallest RTT longer."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    sack(peer, (1, 2))
    one.advance(ms=5)
    peer.ack = at(3)
    peer.send("A", ack=at(3))
    assert sent(peer) == []
    sack(peer, (4, 8), ack=3)
    assert sent(peer) == [], "overtaking has been seen"
    one.advance(ms=35)
    assert sent(peer) == [at(3)]
    # Both copies arrive.
    one.advance(ms=5)
    peer.ack = at(10)
    peer.send("A", ack=at(10), sack=[(at(3), at(4))])
    conn.write(pattern(6 * FULL, len(conn.written)))
    assert len(sent(peer)) >= 5
    one.advance(ms=100)
    sack(peer, (11, 15), ack=10)
    start = one.now
    assert sent(peer) == []
    again = peer.expect(within_ms=100, seq=at(10))
    assert 45 <= (again.time_ns - start) / MS <= 65


def test_a_retransmission_that_is_lost(bench):
    """RFC 8985, 3.2 and 6.2: what was sent after it is delivered: it is sent once more, without a timeout."""
    one = bench()
    conn, peer = flight(one, more=20 * FULL)
    one.advance(ms=100)
    for end in range(4, 11):
        sack(peer, (1, end))
    found = sent(peer)
    assert found.count(at(0)) == 1
    newest = max(found)
    assert newest >= at(10), "new data goes out as the flight drains"
    one.advance(ms=100)
    sack(peer, (1, (newest - 1) // FULL + 1))
    one.advance(ms=30)
    assert at(0) in sent(peer)
    assert conn.info.timeouts == 0


def test_sacked_data_may_be_forgotten_by_the_peer(bench):
    """RFC 2018, 8: SACK is advice: nothing is let go that is not acknowledged; a peer that reneges gets it again."""
    one = bench()
    conn, peer = flight(one, rtt_ms=10)
    one.advance(ms=10)
    sack(peer, (1, 10))
    assert sent(peer) == [at(0)]
    one.advance(ms=10)
    peer.ack = at(1)
    peer.send("A")
    peer.arrived = []
    got = at(1)
    for _ in range(200):
        one.advance(ms=100)
        for segment in peer.expect_all():
            if segment.seq == got:
                got += len(segment.payload)
        peer.ack = got
        if got == at(10):
            break
        peer.send("A", ack=got)
    assert got == at(10)


@pytest.mark.parametrize("block", [(0, -5), (5, 2), (20, 30), (-30, -20), (-5, 3), (9, 200)])
def test_sack_blocks_that_cannot_be(bench, block):
    """RFC 2018; RFC 6675: nothing is believed that was never sent; nothing breaks."""
    one = bench()
    conn, peer = flight(one, rtt_ms=10)
    one.advance(ms=10)
    for _ in range(4):
        peer.send("A", ack=1, sack=[(at(block[0]), at(block[1]))])
    one.advance(ms=10)
    peer.arrived = []
    peer.ack = at(10)
    peer.send("A", ack=at(10))
    one.advance(ms=1)
    assert conn.info.acked_bytes == 10 * FULL
    conn.write(pattern(FULL, len(conn.written)))
    peer.expect("A", within_ms=100, seq=at(10), length=FULL)


# -- tail loss probes: RFC 8985, 7 -------------------------------------------------------------------


def test_a_tail_loss_probe(bench):
    """RFC 8985, 7.2: two round trips after the last transmission; 7.3: nothing new to send: the last segment again. One,
    then the RTO."""
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
    conn, peer = one.connected(rtt_ms=1)
    srtt = 1.0
    for _ in range(30):
        conn.send(b"x")
        peer.expect("A")
        one.advance(ms=150)
        peer.send("A")
        srtt = 0.875 * srtt + 0.125 * 150
    for _ in range(20):
        conn.send(b"x")
        peer.expect("A")
        one.advance(ms=150)
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
    """RFC 8985, 7.4: an ACK beyond the probe, and there was no DSACK: the original was lost, which is congestion."""
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
    """RFC 8985, 7: the probe is SACKed, so the rest is found lost without a timeout; in the smallest window there is,
    two segments at first."""
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


# -- undo --------------------------------------------------------------------------------------------


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

"""What is lost, and how we know: with SACK (RFC 2018, 6675, 8985)."""

import pytest
from flight import FULL, at, flight, sack, sent
from tcp_bench import MS, pattern


def test_sack_tells_of_a_hole(bench):
    """RFC 8985, 6.2: three segments beyond it delivered and no reordering seen: it is lost, and sent again at
    once; what is SACKed is not."""
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
    """RFC 8985, 6.2: one segment beyond the hole is delivered: the hole is lost when a quarter of the
    smallest RTT more has passed than the delivered one took."""
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
    """RFC 8985, 6.2: the hole fills within the window: nothing was lost, nothing is sent again, cwnd is not
    halved."""
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
    """RFC 8985, 6.2 (4): where segments overtake each other, and a DSACK tells that one was sent again for
    nothing, the window is a quarter of the smallest RTT longer."""
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
    """RFC 2018, 8: SACK is advice: nothing is let go that is not acknowledged; a peer that reneges gets it
    again."""
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


@pytest.mark.parametrize("block", [(0, -5), (5, 2), (20, 30), (-30, -20), (3, 200), (9, 200)])
def test_sack_blocks_that_cannot_be(bench, block):
    """RFC 2018; RFC 6675: nothing is believed that was never sent; nothing breaks."""
    one = bench()
    conn, peer = flight(one, rtt_ms=10)
    one.advance(ms=10)
    for _ in range(4):
        peer.send("A", ack=1, sack=[(at(block[0]), at(block[1]))])
        assert sent(peer) == []
    one.advance(ms=10)
    peer.arrived = []
    peer.ack = at(10)
    peer.send("A", ack=at(10))
    one.advance(ms=1)
    assert conn.info.acked_bytes == 10 * FULL
    conn.write(pattern(FULL, len(conn.written)))
    peer.expect("A", within_ms=100, seq=at(10), length=FULL)


def test_rack_does_not_take_an_original_for_its_copy(bench):
    """RFC 8985, 6.2 (2): what is delivered sooner after it was sent again than a round trip takes is the
    first copy: it says nothing of what was sent with the second."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    sack(peer, (6, 10), (1, 5))
    assert sent(peer) == [at(0), at(5)]
    one.advance(ms=5)
    sack(peer, (1, 10))
    one.advance(ms=20)
    assert sent(peer) == []


def test_the_widest_reordering_window(bench):
    """RFC 8985, 6.2 (4): however often a DSACK has come, not more than SRTT."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    sack(peer, (1, 2))
    one.advance(ms=5)
    peer.ack = at(10)
    peer.send("A", ack=at(10))
    for _ in range(8):
        conn.write(pattern(FULL, len(conn.written)))
        one.settle()
        peer.absorb()
        one.advance(ms=100)
        peer.send("A", sack=[(peer.ack - FULL, peer.ack)])
    first = (peer.ack - 1) // FULL
    conn.write(pattern(5 * FULL, len(conn.written)))
    assert len(sent(peer)) == 5
    one.advance(ms=100)
    sack(peer, (first + 1, first + 5), ack=first)
    start = one.now
    again = peer.expect(within_ms=250, seq=at(first))
    assert 80 <= (again.time_ns - start) / MS <= 125
    assert conn.info.timeouts == 0


@pytest.mark.parametrize(("ack", "blocks"), [(0, [(6, 10), (2, 5)]), (2, [(6, 10)]), (2, [(8, 10), (3, 7)])])
def test_what_one_ack_tells_of_is_in_no_order(bench, ack, blocks):
    """RFC 8985, 6.2 (3): overtaken is what is delivered below what had been before this ACK: it may be the
    first one that arrives, and RFC 2018, 4 has the latest block first."""
    one = bench()
    conn, peer = flight(one)
    one.advance(ms=100)
    sack(peer, *blocks, ack=ack)
    assert sent(peer)[:1] == [at(ack)], "nothing has been overtaken, and three are delivered: it is lost"


def test_what_comes_before_it_is_sent_again_was_not_lost(bench):
    """Two ACKs in one turn of the loop: one makes us think it lost, and the other says that it was late.
    Nothing was sent again, so no timestamp and no DSACK will tell (tcp_packet_delayed() of Linux)."""
    one = bench()
    conn, peer = flight(one, more=20 * FULL)
    before = conn.info
    one.advance(ms=100)
    peer.send("A", ack=at(0), sack=[(at(1), at(5))], settle=False)
    peer.send("A", ack=at(5))
    one.advance(us=1)
    assert at(0) not in sent(peer)
    info = conn.info
    assert (info.recoveries, info.undone_recoveries, info.retransmitted_segments) == (1, 1, 0)
    assert info.cwnd_bytes >= before.cwnd_bytes
    assert info.ssthresh_bytes == before.ssthresh_bytes


def test_another_one_is_lost_all_the_same(bench):
    """Of two that were thought lost one was late: it ends the episode, and the other begins its own."""
    one = bench()
    conn, peer = flight(one, more=20 * FULL)
    one.advance(ms=100)
    peer.send("A", ack=at(0), sack=[(at(2), at(6))], settle=False)
    peer.send("A", ack=at(1), sack=[(at(2), at(6))])
    one.advance(ms=50)
    assert at(1) in sent(peer)
    assert (conn.info.recoveries, conn.info.undone_recoveries) == (2, 1)


def test_the_flight_is_what_was_outstanding_before_the_acks_of_this_turn(bench):
    """RFC 5681, 3.1 (4): FlightSize. ACKs that come together are looked at before anything is sent for them:
    what they have covered was outstanding all the same."""
    one = bench()
    conn, peer = flight(one, more=40 * FULL)
    one.advance(ms=100)
    peer.ack = at(10)
    peer.send("A")
    assert len(sent(peer)) == 20
    one.advance(ms=100)
    peer.send("A", ack=at(22), settle=False)
    peer.send("A", ack=at(22), sack=[(at(23), at(27))])
    assert at(22) in sent(peer)
    one.advance(us=1)
    assert conn.info.ssthresh_bytes == pytest.approx(10 * FULL, rel=0.02)


def test_a_loss_never_makes_the_window_larger(bench):
    """What is SACKed and not acknowledged yet is outstanding, too (RFC 5681, 2), and may be more than cwnd
    when a retransmission was lost. That is no reason to keep more than half of cwnd."""
    one = bench()
    conn, peer = flight(one, more=40 * FULL, rtt_ms=20)
    one.advance(ms=20)
    sack(peer, (1, 10))
    end = 10
    for _ in range(4):  # segment 0 is lost, again and again
        end = (max(sent(peer)) - 1) // FULL + 1
        one.advance(ms=20)
        sack(peer, (1, end))
    start, end = end, (max(sent(peer)) - 1) // FULL + 1
    one.advance(ms=20)
    cwnd = conn.info.cwnd_bytes
    assert conn.info.inflight_bytes > 3 * cwnd
    peer.send("A", ack=at(start), settle=False)
    peer.send("A", ack=at(start), sack=[(at(start + 1), at(end))])
    one.advance(us=1)
    assert conn.info.recoveries == 2
    assert conn.info.cwnd_bytes <= cwnd

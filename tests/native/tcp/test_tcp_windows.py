"""How much may be sent: the congestion window, the peer's window, the send buffer, room on the ring."""

from itertools import pairwise

import pytest
from flight import FULL
from judge import lengths
from tcp_bench import LAYOUTS, MS, SECOND, pattern


def test_the_initial_window(bench):
    """RFC 6928, 2: ten segments of 1460 bytes or less, and not more until something is acknowledged."""
    one = bench()
    conn, peer = one.connected(rtt_ms=50)
    conn.write(pattern(100_000))
    assert lengths(peer.expect_all()) == [1448] * 10
    peer.expect_nothing(ms=50)


def test_the_initial_window_of_long_segments(bench):
    """RFC 6928, 2: min(10 * MSS, max(2 * MSS, 14600)): two."""
    one = bench(**LAYOUTS["descs"])
    conn, peer = one.connected(rtt_ms=50, peer={"mss": 8960})
    conn.write(pattern(100_000))
    assert lengths(peer.expect_all()) == [8948] * 2


def test_slow_start(bench):
    """RFC 5681, 3.1 (2): cwnd grows by at most one segment for each ACK of new data."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(20 * 1448))
    one.settle()
    conn.write(pattern(100_000, len(conn.written)))
    first = peer.expect_all()
    assert len(first) == 10
    for i in range(10):
        peer.send("A", ack=1 + 1448 * (i + 1))
        conn.write(pattern(10 * 1448, len(conn.written)))
        assert lengths(peer.expect_all()) == [1448, 1448], i


def test_an_ack_of_many_segments_at_most_doubles(bench):
    """RFC 5681, 3.1 (2) says one SMSS for an ACK; native/tcp/cc.h says why it is all that is acknowledged, as
    in Linux."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(29_000))
    one.settle()
    peer.expect_all()
    peer.send("A", ack=1 + 10 * 1448)
    one.settle()
    conn.write(pattern(100_000, len(conn.written)))
    assert 11 <= len(peer.expect_all()) <= 20


def test_many_acks_for_one_segment_open_no_more_than_one(bench):
    """RFC 5681, 3.1: cwnd += min(N, SMSS), N what is newly acknowledged: ACK division gains nothing."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(29_000))
    one.settle()
    peer.expect_all()
    before = conn.info.cwnd_bytes
    for i in range(1, 1449, 181):
        peer.send("A", ack=1 + i)
    peer.send("A", ack=1449)
    assert conn.info.cwnd_bytes - before <= 1460
    assert len(peer.expect_all()) <= 2


def test_a_window_that_is_not_used_does_not_grow(bench):
    """RFC 9293 leaves it to RFC 7661 and 5681, 3.1: what was never in the network says nothing about it."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    before = conn.info.cwnd_bytes
    for _ in range(50):
        conn.send(b"small")
        peer.expect("A", length=5)
        one.advance(ms=10)
        peer.send("A")
    assert conn.info.cwnd_bytes <= before + 1460


def test_the_peers_window_is_the_limit(bench):
    """RFC 9293, 3.8.6.2.1: not beyond it, and (3.8.6.2.1, silly windows) no small rest of it while more is on
    the way."""
    one = bench()
    conn, peer = one.connected(rtt_ms=300, peer={"wscale": None, "window": 4000})
    conn.write(pattern(20_000))
    assert lengths(peer.expect_all()) == [1448, 1448]
    peer.expect_nothing(ms=90)
    peer.send("A")
    assert lengths(peer.expect_all()) == [1448, 1448]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_window_smaller_than_a_segment_is_used(bench, layout):
    """RFC 9293, 3.8.6.2.1 (3): with nothing outstanding, at least half of the largest window is sent."""
    one = bench(**LAYOUTS[layout])
    conn, peer = one.connected(peer={"wscale": None, "window": 1000})
    conn.write(pattern(2000))
    peer.expect("A", seq=1, length=1000)
    peer.send("A")
    peer.expect("A", seq=1001, length=1000)
    assert peer.expect("A", within_ms=1000, seq=1001).length == 1000, "sent again, as it was cut"
    peer.send("A")
    peer.expect_nothing(s=2)


def test_windows_of_more_than_64_kib(bench):
    """RFC 7323, 2.3: the window field is shifted."""
    one = bench(ring=512)
    conn, peer = one.connected(rtt_ms=1, peer={"wscale": 7, "window": 1 << 20})
    most = 0
    for _ in range(60):
        conn.write(pattern(100_000, len(conn.written)))
        peer.expect_all()
        most = max(most, conn.info.inflight_bytes)
        one.advance(ms=1)
        peer.send("A")
    assert most > 100_000


def test_an_old_ack_does_not_change_the_window(bench):
    """RFC 9293, 3.10.7.4 (SND.WL1, SND.WL2): what was sent earlier says nothing new."""
    one = bench()
    conn, peer = one.connected(rtt_ms=1)
    conn.write(pattern(29_000))
    peer.expect_all()
    peer.send("A", ack=1 + 5 * 1448)
    before = conn.info.peer_window_bytes
    peer.send("A", ack=1 + 2 * 1448, win=0)
    one.advance(ms=1)
    assert conn.info.peer_window_bytes == before
    assert conn.state == "ESTABLISHED"


def test_a_closed_window_is_probed(bench):
    """RFC 9293, 3.8.6.1: first after the RTO, then less and less often, as long as the peer answers; and when
    it opens, what waits goes at once."""
    one = bench()
    conn, peer = one.connected(rtt_ms=100, peer={"wscale": None, "window": 2 * 1448})
    conn.write(pattern(20_000))
    assert len(peer.expect_all()) == 2
    one.advance(ms=100)
    peer.window = 0
    peer.send("A")
    start, probes = one.now, []
    for _ in range(6):
        probe = peer.expect(within_ms=100_000)
        assert len(probe.payload) <= 1
        probes.append(probe)
        peer.ack = 2 * 1448 + 1
        peer.send("A", ack=2 * 1448 + 1)
    waits = [b.time_ns - a.time_ns for a, b in pairwise(probes)]
    assert 199 <= (probes[0].time_ns - start) / MS <= 1000
    for shorter, longer in pairwise(waits):
        assert 1.8 <= longer / shorter <= 2.2
    assert conn.info.window_probes == 6
    peer.window = 5 * 1448
    peer.send("A", ack=2 * 1448 + 1)
    assert sum(lengths(peer.expect_all())) >= 5 * 1448 - 1


def test_a_closed_window_that_opens_in_answer_to_a_probe(bench):
    """RFC 9293, 3.8.6.1: the update that opened it was lost; the probe finds out."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer={"wscale": None, "window": 1448})
    conn.write(pattern(1448 * 3))
    peer.expect("A", length=1448)
    peer.window = 0
    peer.send("A")
    peer.expect(within_ms=2000)
    peer.window = 20_000
    peer.send("A", ack=peer.ack)
    peer.read(len(conn.written) - peer.ack + 1)


def test_a_closed_window_may_stay_closed_as_long_as_the_peer_answers(bench):
    """RFC 9293, 3.8.6.1 (MUST-37): the connection stays open."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, user_timeout_ns=30 * SECOND, peer={"wscale": None, "window": 1448})
    conn.write(pattern(1448 * 3))
    peer.expect("A", length=1448)
    peer.window = 0
    peer.send("A")
    until = one.now + 200 * SECOND
    while one.now < until:
        peer.expect(within_ms=130_000)
        peer.ack = 1449
        peer.send("A")
    assert conn.state == "ESTABLISHED"


def test_a_window_that_shrinks(bench):
    """RFC 9293, 3.8.6 (MUST-34): the sender must cope: nothing new goes, and it goes on when the window is
    back."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(29_000))
    assert len(peer.expect_all()) == 10
    peer.send("A", ack=1449, win=0)
    peer.expect_nothing(ms=5)
    one.advance(ms=1000)
    for segment in peer.expect_all():
        assert segment.seq + len(segment.payload) <= 14481, "nothing new"
    peer.ack = 14481
    peer.send("A", ack=14481)
    assert peer.expect_all()[-1].seq >= 14481


@pytest.mark.parametrize(("win", "seq"), [(0, 1449), (1000, 2449), (2896, 4345), (13_032, 14_481)])
def test_acks_lie_within_a_window_that_has_shrunk(bench, win, seq):
    """RFC 9293, 3.10.7.4: what lies beyond its window the peer drops, and the ACK with it; two sides that
    send would wait for each other for ever."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer={"wscale": None})
    conn.write(pattern(14_480))
    assert len(peer.expect_all()) == 10
    peer.send("A", ack=1449, win=win)
    peer.expect_nothing(ms=1)
    for _ in range(2):  # the second one is acknowledged at once
        peer.send("PA", b"x" * 1448, ack=1449, win=win)
    answer = peer.expect("A")
    assert (answer.seq, answer.ack, len(answer.payload)) == (seq, peer.seq, 0)


def test_a_window_that_a_scale_has_rounded_has_not_shrunk(bench):
    """RFC 7323, 2.4: by less than its unit."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer={"wscale": 7})
    conn.write(pattern(1000))
    peer.expect("A")
    peer.window = 896
    for _ in range(2):
        peer.send("PA", b"x" * 1448, ack=1)
    assert peer.expect("A").seq == 1001


def test_what_lies_beyond_a_window_that_has_shrunk_is_not_sent_again(bench):
    """The peer would drop it, and an ACK that goes with it. What fits goes; all that it has dropped comes
    when there is room again."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer={"wscale": None})
    conn.write(pattern(14_480))
    assert len(peer.expect_all()) == 10
    peer.ack = 1449
    peer.window = 2000
    peer.send("A")
    one.advance(s=5)
    again = {(segment.seq, len(segment.payload)) for segment in peer.expect_all()}
    assert again
    assert again <= {(1449, 1448), (2897, 552)}
    peer.ack = 1449
    peer.window = 1000
    peer.send("A")
    one.advance(s=20)
    again = peer.expect_all()
    assert {(segment.seq, len(segment.payload)) for segment in again} == {(1449, 1000)}
    peer.window = 60_000
    peer.send("A", ack=2449)
    assert peer.read(12_032) == pattern(14_480)[2448:]
    assert conn.info.inflight_bytes == 0


def test_a_window_that_has_closed_is_asked_with_a_whole_segment(bench):
    """Nobody can send nothing again; the peer answers with its window (tcp_retransmit_skb() of Linux)."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer={"wscale": None})
    conn.write(pattern(14_480))
    assert len(peer.expect_all()) == 10
    peer.ack = 1449
    peer.send("A", win=0)
    one.advance(s=5)
    again = peer.expect_all()
    assert {(segment.seq, len(segment.payload)) for segment in again} == {(1449, 1448)}
    peer.send("A", ack=2897, win=0)
    one.advance(s=5)
    assert {segment.seq for segment in peer.expect_all()} == {2897}


def test_an_idle_connection_starts_anew(bench):
    """RFC 5681, 4.1: after an RTO without sending, cwnd is at most the initial window."""
    one = bench(ring=512)
    conn, peer = one.connected(rtt_ms=10)
    for _ in range(6):
        conn.write(pattern(60_000, len(conn.written)))
        peer.expect_all()
        one.advance(ms=10)
        peer.send("A")
    peer.expect_all()
    one.advance(ms=10)
    peer.send("A")
    peer.expect_all()
    peer.send("A")
    assert conn.info.cwnd_bytes > 30_000
    one.advance(s=3)
    conn.write(pattern(60_000, len(conn.written)))
    assert len(peer.expect_all()) <= 10


def fill_buffer(conn):
    while conn.write(pattern(7000, len(conn.written))) != "EAGAIN":
        assert len(conn.written) < 100_000_000


def test_the_send_buffer_is_bounded_and_grows(bench):
    """The contract (6): twice cwnd, and never more than configured."""
    one = bench(ring=512, quick=10)
    conn, peer = one.connected(rtt_ms=10, send_buffer_bytes=300_000, peer={"window": 1 << 20})
    fill_buffer(conn)
    assert 14_480 <= len(conn.written) <= 70_000, "before anything is known of the path"
    for _ in range(12):
        one.settle()
        peer.expect_all()
        one.advance(ms=10)
        peer.send("A")
        fill_buffer(conn)
        one.settle()
        unacked = len(conn.written) + 1 - peer.ack
        assert unacked <= conn.info.send_buffer_bytes + FULL
        assert conn.info.send_buffer_bytes <= 300_000
    assert unacked > 250_000


def test_a_small_send_buffer(bench):
    """The contract: send_buffer_bytes is the most, whatever cwnd."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, send_buffer_bytes=1000)
    for i in range(5):
        assert conn.write(pattern(3000, 1000 * i)) == 1000
        assert conn.write(b"x") == "EAGAIN"
        peer.expect("A", length=1000)
        peer.send("A")


def test_room_on_the_ring_is_waited_for(bench):
    """Nothing is lost when the tx ring is full or nothing completes: it goes when there is room."""
    one = bench(ring=8)
    conn, peer = one.connected(rtt_ms=10)
    one.hold_completions()
    conn.write(pattern(14_480))
    assert len(peer.expect_all()) == 8
    peer.expect_nothing(ms=5)
    one.complete()
    assert len(peer.expect_all()) == 2
    assert peer.ack == 14_481


def test_an_ack_that_is_owed_waits_for_room_as_well(bench):
    """RFC 9293, 3.8.6.3: the ring was full, then it goes."""
    one = bench(ring=4)
    conn, peer = one.connected(rtt_ms=10)
    one.hold_completions()
    conn.write(pattern(14_480))
    assert len(peer.expect_all()) == 4
    peer.send("A", b"x" * 1448)
    peer.send("A", b"y" * 1448)
    peer.expect_nothing()
    one.complete()
    assert peer.expect_all()[-1].ack == 2897


def test_a_quota_bounds_what_is_taken(bench):
    """The contract (6): at the arena's quota, -EAGAIN; and it goes on when chunks are free again."""
    one = bench()
    conn, peer = one.connected(quota=6, rtt_ms=10)
    taken = conn.write(pattern(20_000))
    assert isinstance(taken, int)
    assert taken <= 6 * 2048
    assert conn.write(b"x" * 1448) == "EAGAIN"
    for _ in range(20):
        one.settle()
        peer.expect_all()
        peer.send("A")
        conn.write(pattern(1448, len(conn.written)))
    assert len(conn.written) > 20_000


def test_a_small_rest_of_a_window_is_used_in_the_end(bench):
    """RFC 9293, 3.8.6.2.1 (4): after the override timeout, 0.1 to 1 s, what fits goes: the peer may wait for
    it."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer={"wscale": None, "window": 2000})
    conn.write(pattern(10_000))
    peer.expect("A", length=FULL)
    peer.window = 600
    peer.send("A")
    start = one.now
    peer.expect_nothing(ms=90)
    small = peer.expect("A", within_ms=1000, seq=1 + FULL)
    assert 1 <= len(small.payload) <= 600
    assert 100 <= (small.time_ns - start) / MS <= 1000
    peer.window = 500
    peer.send("A")
    peer.expect_nothing(ms=90)


def test_what_is_outstanding_is_sent_again_into_a_closed_window(bench):
    """RFC 9293, 3.8.6.1, 3.8.6 (MUST-35): it was sent when the window was open; the peer's ACK is missed, not
    room."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, peer={"sack": False})
    conn.write(pattern(2 * FULL))
    assert len(peer.expect_all()) == 2
    peer.ack = 1
    peer.send("A", ack=1, win=0)
    again = peer.expect("A", within_ms=1000, seq=1)
    assert len(again.payload) >= 1
    peer.ack = 2 * FULL + 1
    peer.send("A")
    one.advance(ms=1)
    assert conn.info.acked_bytes == 2 * FULL


def test_a_peer_that_takes_its_window_back_and_answers_is_not_given_up(bench):
    """RFC 9293, 3.8.6 and 3.8.6.1: it should not, but what is sent again asks its window then, and as long as
    it answers the connection stays open, whatever the user timeout."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, user_timeout_ns=3 * SECOND)
    conn.send(pattern(2 * FULL))
    for _ in range(100):
        peer.expect_all()
        peer.ack = 1
        peer.send("A", win=0)
        one.advance_until(lambda: peer.arrived, ms=5000)
    assert one.now > 20 * SECOND
    assert conn.state == "ESTABLISHED"
    peer.ack = 1 + 2 * FULL
    peer.send("A")
    one.advance(us=1)
    assert conn.info.acked_bytes == 2 * FULL


def test_a_peer_that_takes_its_window_back_and_is_silent_is_given_up(bench):
    one = bench()
    conn, peer = one.connected(rtt_ms=10, user_timeout_ns=3 * SECOND)
    conn.send(pattern(2 * FULL))
    peer.expect_all()
    peer.ack = 1
    peer.send("A", win=0)
    one.advance(s=2.9)
    assert conn.state == "ESTABLISHED"
    one.advance(s=0.2)
    assert (conn.state, conn.error) == ("CLOSED", "ETIMEDOUT")

"""How a connection ends."""

import threading
import time

import pytest
from abi import KEEPALIVE, NODELAY
from judge import assert_near, times_of
from tcp_bench import MS, SECOND, pattern

from xsk_engine._ffi.native import LOOP_STOPPED, native


def half_closed(one, **values):
    """FIN-WAIT-2."""
    conn, peer = one.connected(**values)
    assert conn.shutdown() == 0
    peer.expect("FA", seq=1, ack=1)
    assert conn.state == "FIN_WAIT_1"
    peer.send("A")
    assert conn.state == "FIN_WAIT_2"
    return conn, peer


def test_an_active_close(bench):
    """RFC 9293, 3.6, figure 12: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT for 2 MSL, CLOSED."""
    one = bench()
    conn, peer = half_closed(one)
    one.advance(s=5)
    peer.send("FA")
    peer.expect("A", seq=2, ack=2, length=0)
    assert conn.state == "TIME_WAIT"
    assert conn.read() == b""
    one.advance(ms=59_900)
    assert conn.state == "TIME_WAIT"
    one.advance(ms=200)
    assert (conn.state, conn.error) == ("CLOSED", 0)
    assert one.tcp_counters.closed_connections == 1
    assert one.tcp_counters.connections == 0
    peer.expect_nothing(s=10)


def test_a_passive_close(bench):
    """RFC 9293, 3.6, figure 12, the other end: CLOSE-WAIT while the application still writes, LAST-ACK,
    CLOSED."""
    one = bench()
    conn, peer = one.connected(flags=NODELAY)
    peer.send("FA", b"the last words")
    assert conn.state == "CLOSE_WAIT"
    peer.expect("A", within_ms=100, ack=16, length=0)
    assert conn.read() == b"the last words"
    assert conn.read() == b""
    assert conn.read() == b""
    conn.send(b"and mine")
    peer.expect("A", seq=1, payload=b"and mine")
    peer.send("A")
    assert conn.shutdown() == 0
    peer.expect("FA", seq=9, ack=16)
    assert conn.state == "LAST_ACK"
    peer.send("A")
    assert (conn.state, conn.error) == ("CLOSED", 0)


def test_both_close_at_the_same_time(bench):
    """RFC 9293, 3.6, figure 13: CLOSING, then TIME-WAIT."""
    one = bench()
    conn, peer = one.connected()
    conn.shutdown()
    peer.expect("FA", seq=1)
    peer.send("FA", ack=1)
    peer.expect("A", seq=2, ack=2, length=0)
    assert conn.state == "CLOSING"
    peer.send("A", ack=2)
    assert conn.state == "TIME_WAIT"
    one.advance(s=61)
    assert (conn.state, conn.error) == ("CLOSED", 0)


def test_fin_and_the_ack_of_ours_in_one(bench):
    """RFC 9293, 3.10.7.4: from FIN-WAIT-1 straight to TIME-WAIT."""
    one = bench()
    conn, peer = one.connected()
    conn.shutdown()
    peer.expect("FA", seq=1)
    peer.send("FA", ack=2)
    peer.expect("A", seq=2, ack=2)
    assert conn.state == "TIME_WAIT"


def test_data_goes_before_the_fin(bench):
    """RFC 9293, 3.10.4: CLOSE queues FIN behind everything that was written."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(20_000))
    conn.shutdown()
    got, fin = b"", None
    for _ in range(100):
        segment = peer.expect(within_ms=1000)
        got += segment.payload
        if "F" in segment.flags:
            fin = segment
            break
        peer.send("A")
    assert got == pattern(20_000)
    assert fin.seq + len(fin.payload) == 20_001
    peer.send("A")
    assert conn.state == "FIN_WAIT_2"


def test_fin_does_not_wait_for_nagle(bench):
    """RFC 9293, 3.7.4, 3.10.4: the rest and FIN go at once: nothing that could be waited for will come."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.send(b"first")
    conn.send(b"second")
    conn.shutdown()
    segments = peer.expect_all()
    assert b"".join(s.payload for s in segments) == b"firstsecond"
    assert "F" in segments[-1].flags


def test_fin_is_sent_again(bench):
    """RFC 9293, 3.8.1: FIN counts as data: retransmitted until it is acknowledged."""
    one = bench()
    conn, peer = one.connected(rtt_ms=1, peer={"sack": False})
    conn.shutdown()
    fins = [peer.expect("FA", seq=1)]
    fins += [peer.expect("FA", seq=1, within_ms=1000) for _ in range(2)]
    assert_near(times_of(fins), [0, 200, 600])
    peer.send("A")
    assert conn.state == "FIN_WAIT_2"


def test_a_lost_fin_with_data_in_front(bench):
    """RFC 8985, 7.3; RFC 6298: the tail, FIN with it, is found and sent again."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(3000))
    conn.shutdown()
    peer.expect_all()
    peer.ack = 1449
    peer.send("A", ack=1449)
    one.advance(ms=3000)
    peer.ack = 1449
    got = {}
    for segment in peer.expect_all():
        got[segment.seq] = segment
    end = max(s.seq + s.length for s in got.values())
    assert end == 3002
    peer.send("A", ack=3002)
    assert conn.state == "FIN_WAIT_2"


def test_fin_beyond_a_gap(bench):
    """RFC 9293, 3.10.7.4: FIN is taken in its turn; out of order, the gap is acknowledged."""
    one = bench()
    conn, peer = one.connected()
    peer.send("FA", b"tail", seq=101)
    peer.expect("A", ack=1, length=0)
    assert conn.state == "ESTABLISHED"
    peer.seq = 1
    peer.send("A", pattern(100))
    peer.send("FA", b"tail")
    assert conn.state == "CLOSE_WAIT"
    assert conn.read() == pattern(100) + b"tail"
    assert conn.read() == b""


def test_fin_again_in_time_wait(bench):
    """RFC 9293, 3.10.7.4: it is acknowledged, and the 2 MSL begin anew."""
    one = bench()
    conn, peer = half_closed(one)
    peer.send("FA")
    peer.expect("A", ack=2)
    one.advance(s=50)
    peer.send("FA", seq=1)
    peer.expect("A", seq=2, ack=2, length=0)
    one.advance(s=50)
    assert conn.state == "TIME_WAIT"
    one.advance(s=11)
    assert conn.state == "CLOSED"


def test_a_half_closed_connection_still_receives(bench):
    """RFC 9293, 3.6: who has sent FIN still receives until the other has."""
    one = bench()
    conn, peer = half_closed(one)
    for i in range(4):
        peer.send("A", pattern(1448, 1448 * i))
        one.advance(ms=50)
    assert peer.expect_all()[-1].ack == 4 * 1448 + 1
    assert conn.read() == pattern(4 * 1448)


def test_fin_wait_2_does_not_last_when_nobody_reads(bench):
    """The contract: time_wait_ns, once the application has closed."""
    one = bench()
    conn, peer = one.connected()
    assert conn.close() == 0
    peer.expect("FA", seq=1)
    peer.send("A")
    assert conn.state == "FIN_WAIT_2"
    one.advance(s=61)
    assert conn.state == "CLOSED"


def test_close_with_unread_data(bench):
    """RFC 9293, 3.6.1 (SHLD-3); RFC 2525, 2.17: a reset tells the peer that data was lost."""
    one = bench()
    conn, peer = one.connected()
    peer.send("A", b"nobody reads this")
    assert conn.close() == 0
    reset = peer.expect_reset(seq=1)
    assert reset.length == 0
    assert conn.state == "CLOSED"
    peer.expect_nothing(s=100)


def test_data_after_close(bench):
    """RFC 9293, 3.6.1 (SHLD-3): what comes after CLOSE is answered with a reset."""
    one = bench()
    conn, peer = one.connected()
    conn.close()
    peer.expect("FA", seq=1)
    peer.send("A")
    peer.send("A", b"too late")
    peer.expect_reset(seq=2)
    assert conn.state == "CLOSED"


@pytest.mark.parametrize("outstanding", [0, 5000])
def test_abort(bench, outstanding):
    """RFC 9293, 3.10.5: <SEQ=SND.NXT><CTL=RST>; everything that waits is thrown away."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, flags=NODELAY)
    conn.write(pattern(outstanding))
    peer.expect_all()
    conn.write(pattern(100_000, len(conn.written)))
    one.settle()
    nxt = max((s.seq + s.length for s in peer.expect_all()), default=peer.ack)
    assert conn.abort() == 0
    peer.expect_reset(seq=nxt)
    assert conn.state == "CLOSED"
    assert conn.write(b"x") in ("EPIPE", "ECONNABORTED", "ECONNRESET")
    peer.expect_nothing(s=10)


def test_abort_while_connecting(bench):
    """RFC 9293, 3.10.5: in SYN-SENT there is nobody to be told."""
    one = bench()
    conn = one.connect()
    conn.peer.expect("S")
    assert conn.abort() == 0
    one.settle()
    assert conn.state == "CLOSED"
    conn.peer.expect_nothing(s=10)


def test_shutdown_while_connecting(bench):
    """The contract; RFC 9293, 3.10.4: as soon as it is connected, FIN."""
    one = bench()
    conn = one.connect()
    assert conn.shutdown() == 0
    assert conn.shutdown() == 0, "idempotent"
    conn.peer.expect("S")
    conn.peer.expect_nothing(ms=10)
    conn.peer.send("SA")
    segments = conn.peer.expect_all()
    assert segments[-1].flags == "FA"
    assert (segments[-1].seq, segments[-1].ack) == (1, 1)
    assert conn.state == "FIN_WAIT_1"


@pytest.mark.parametrize(
    "state", ["FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "LAST_ACK", "CLOSING", "TIME_WAIT"]
)
def test_a_reset_in_every_state(bench, state):
    """RFC 9293, 3.10.7.4: the second check, RST bit; in all of them it ends the connection."""
    one = bench()
    conn, peer = one.connected()
    if state in ("CLOSE_WAIT", "LAST_ACK"):
        peer.send("FA")
        peer.expect("A", within_ms=100)
    if state != "CLOSE_WAIT":
        conn.shutdown()
        peer.expect("FA")
    if state in ("FIN_WAIT_2", "TIME_WAIT"):
        peer.send("A")
    if state in ("CLOSING", "TIME_WAIT"):
        peer.send("FA", ack=1 if state == "CLOSING" else 2)
        peer.expect("A")
    assert conn.state == state
    peer.send("R")
    assert conn.state in ("CLOSED", "TIME_WAIT" if state == "TIME_WAIT" else "CLOSED")
    if state in ("FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT"):
        assert conn.error == "ECONNRESET"


def test_keepalive(bench):
    """RFC 9293, 3.8.4: a segment of SEG.SEQ = SND.NXT - 1 after the idle time, again in its intervals, then
    it is given up; an answer puts it off."""
    one = bench()
    conn, peer = one.connected(
        flags=KEEPALIVE,
        keepalive_idle_ns=10 * SECOND,
        keepalive_interval_ns=2 * SECOND,
        keepalive_probes=3,
    )
    start = one.now
    first = peer.expect(within_ms=10_100, seq=0)
    assert_near([(first.time_ns - start) / MS], [10_000])
    assert len(first.payload) <= 1
    assert "A" in first.flags
    peer.send("A")
    answered = one.now
    peer.expect_nothing(ms=9_900)
    probes = [peer.expect(within_ms=2_100, seq=0) for _ in range(3)]
    assert_near([(p.time_ns - answered) / MS for p in probes], [10_000, 12_000, 14_000])
    assert conn.state == "ESTABLISHED"
    one.advance(ms=2_050)
    assert (conn.state, conn.error) == ("CLOSED", "ETIMEDOUT")


def test_data_puts_keepalive_off(bench):
    """RFC 9293, 3.8.4: only when nothing has come for the interval."""
    one = bench()
    conn, peer = one.connected(flags=KEEPALIVE, keepalive_idle_ns=10 * SECOND)
    for _ in range(4):
        one.advance(s=9)
        peer.send("A", b"x")
        one.advance(ms=50)
        assert all(s.seq == 1 for s in peer.expect_all())


def test_no_keepalive_by_default(bench):
    """RFC 9293, 3.8.4 (MUST-25)."""
    one = bench()
    conn, peer = one.connected()
    peer.expect_nothing(s=3 * 3600)
    assert conn.state == "ESTABLISHED"


def test_user_timeout(bench):
    """RFC 9293, 3.8.3, R2, and 3.9.1.8: written, and nothing acknowledged for so long."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, user_timeout_ns=5 * SECOND)
    one.advance(s=100)
    conn.send(b"x")
    one.advance(ms=4_900)
    assert conn.state == "ESTABLISHED"
    one.advance(ms=2_000)
    assert (conn.state, conn.error) == ("CLOSED", "ETIMEDOUT")


def test_progress_puts_the_user_timeout_off(bench):
    """RFC 9293, 3.8.3: as long as something is acknowledged."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, user_timeout_ns=5 * SECOND)
    for _ in range(5):
        conn.write(pattern(1448, len(conn.written)))
        peer.expect_all()
        one.advance(s=4)
        peer.expect_all()
        peer.send("A", ack=len(conn.written) + 1)
        peer.ack = len(conn.written) + 1
        assert conn.state == "ESTABLISHED"


def test_fin_is_given_up(bench):
    """RFC 9293, 3.8.3: FIN-WAIT-1 does not last for ever either."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, user_timeout_ns=5 * SECOND)
    conn.close()
    peer.expect("FA")
    one.advance(s=8)
    assert conn.state == "CLOSED"


def test_the_loop_ends_with_open_connections(bench):
    """The contract: they are closed with it, and their peers hear of it; nothing stays inflight."""
    one = bench()
    (settled, first), (unsettled, second) = one.connected(rtt_ms=10), one.connected(rtt_ms=10)
    unsettled.send(pattern(3000))
    second.expect_all()
    one.drain()
    one.run()
    one.collect()
    for conn, peer in ((settled, first), (unsettled, second)):
        assert conn.state == "CLOSED"
        assert conn.connect() == "EPIPE" or conn.write(b"x") != 1
        assert any("R" in segment.flags for segment in peer.arrived)
    assert one.umem.audit().inflight_descs == one.receive_chunks


def test_who_asks_while_the_loop_ends_hears_why(bench):
    """Never only that it has ended: each connection has its error before."""
    one = bench(max_connections=500, ring=2048, quick=100)
    conns = [one.connect(quota=2) for _ in range(500)]
    answers = set()

    def ask():
        while "ENOTCONN" in (now := {conns[0].read(1), conns[-1].read(1)}):  # whichever it closes last
            answers.update(now)
        answers.update(now)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.01)
    native.loop_abort(one.loop)
    one.run()
    thread.join(10)
    assert answers - {"ENOTCONN"} == {"ECONNABORTED"}


@pytest.mark.parametrize("payload", [b"", b"?"])
def test_the_peers_keepalive_is_answered(bench, payload):
    """RFC 9293, 3.8.4: SEG.SEQ = SND.NXT - 1, with a byte of garbage or without; also with nothing to read
    it."""
    one = bench()
    conn, peer = one.connected()
    peer.send("A", b"data")
    peer.expect("A", within_ms=100)
    for _ in range(3):
        one.advance(s=75)
        peer.send("A", payload, seq=4)
        peer.expect("A", seq=1, ack=5, length=0)
    assert conn.read() == b"data"


def test_an_abort_that_finds_no_room(bench):
    """RFC 9293, 3.10.5: the reset goes when there is room; until then nothing else does."""
    one = bench(ring=4)
    conn, peer = one.connected(rtt_ms=10)
    one.hold_completions()
    conn.write(pattern(10 * 1448))
    assert len(peer.expect_all()) == 4
    conn.abort()
    peer.expect_nothing(ms=1)
    one.complete()
    peer.expect_reset(seq=4 * 1448 + 1)
    assert conn.state == "CLOSED"


def test_nothing_comes_behind_a_fin(bench):
    """RFC 9293, 3.10.7.4, seventh: text in CLOSE-WAIT and later should not occur, and is not taken."""
    one = bench()
    conn, peer = one.connected()
    peer.send("FA", b"end")
    peer.expect("A", ack=5)
    peer.send("A", b"more")
    peer.send("FA", b"", seq=5)
    one.advance(ms=100)
    assert {s.ack for s in peer.expect_all()} <= {5}
    assert conn.read() == b"end"
    assert conn.read() == b""
    assert conn.state == "CLOSE_WAIT"


def test_fin_needs_room_in_the_window(bench):
    """RFC 9293, 3.4: FIN has a place in sequence space, and the window is counted in that."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, flags=NODELAY, peer={"wscale": None, "window": 1448})
    conn.write(pattern(1448))
    conn.shutdown()
    assert "F" not in peer.expect("A", length=1448).flags
    peer.expect_nothing(ms=5)
    peer.send("A")
    peer.expect("FA", seq=1449, length=0)


def test_no_keepalive_while_data_is_outstanding(bench):
    """RFC 9293, 3.8.4 (MUST-26): it is sent again anyway, which asks the same."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, flags=KEEPALIVE, keepalive_idle_ns=10 * SECOND)
    conn.send(b"x")
    one.advance(s=60)
    assert {(s.seq, s.payload) for s in peer.expect_all()} == {(1, b"x")}
    assert conn.state == "ESTABLISHED"


def test_a_loop_that_drains_waits_for_acknowledgements(bench):
    """The contract: what was written still goes, is sent again if need be, and only then the loop ends."""
    one = bench(drain_timeout_ns=10 * SECOND)
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(30_000))
    conn.shutdown()
    one.drain()
    for _ in range(100):
        one.advance(ms=10)
        if peer.ack == 1 and len(peer.arrived) > 3:
            del peer.arrived[3]
        peer.absorb()
        peer.send("A", sack=peer.kept[-3:])
        if peer.ack == 30_002:
            break
    assert peer.ack == 30_002
    one.advance(s=1)
    assert one.counters.state == LOOP_STOPPED
    assert conn.state == "CLOSED"


def test_a_loop_that_drains_does_not_wait_for_ever(bench):
    """The contract: nobody answers: a reset, and it ends with its deadline."""
    one = bench(drain_timeout_ns=SECOND)
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(30_000))
    one.drain()
    one.advance(s=2)
    assert one.counters.state == LOOP_STOPPED
    assert (conn.state, conn.error) == ("CLOSED", "ECONNABORTED")
    assert "R" in peer.expect_all()[-1].flags

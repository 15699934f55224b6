"""What somebody sends who does not see the connection (RFC 5961)."""

import pytest
from segments import MOD
from tcp_bench import pattern


@pytest.mark.parametrize("seq", [1, 0, 2000, 1 << 31])
def test_a_syn_in_a_connection_is_challenged(bench, seq):
    """RFC 5961, 4.2: whatever its number, an ACK; the peer that has lost its state answers with RST."""
    one = bench()
    conn, peer = one.connected()
    peer.send("S", seq=seq)
    peer.expect("A", seq=1, ack=1, length=0)
    assert conn.state == "ESTABLISHED"
    assert conn.info.challenge_acks == 1
    peer.send("SA", seq=0, ack=1)
    peer.expect("A", seq=1, ack=1)
    peer.seq = 1
    peer.send("R", seq=1)
    assert (conn.state, conn.error) == ("CLOSED", "ECONNRESET")


@pytest.mark.parametrize(("seq", "challenged"), [(2, True), (30_000, True), (0, False), (1 << 20, False)])
def test_a_reset_that_is_not_exact(bench, seq, challenged):
    """RFC 5961, 3.2: in the window it is challenged, outside ignored."""
    one = bench()
    conn, peer = one.connected()
    peer.send("R", seq=seq)
    if challenged:
        peer.expect("A", seq=1, ack=1, length=0)
    peer.expect_nothing(ms=100)
    assert conn.state == "ESTABLISHED"
    assert conn.info.challenge_acks == int(challenged)


def test_a_reset_that_is_exact(bench):
    """RFC 5961, 3.2 (2)."""
    one = bench()
    conn, peer = one.connected()
    peer.send("A", b"abc")
    peer.send("R", seq=4)
    assert (conn.state, conn.error) == ("CLOSED", "ECONNRESET")
    peer.expect_all()
    peer.expect_nothing(s=100)


@pytest.mark.parametrize("ack", [30_000, 1 + (1 << 31), -(2 << 20)])
def test_an_ack_out_of_range(bench, ack):
    """RFC 5961, 5.2: beyond what was sent, or further back than the largest window: challenged, nothing of it
    taken."""
    one = bench()
    conn, peer = one.connected()
    conn.send(pattern(2000))
    peer.expect_all()
    peer.send("A", b"blind", seq=1, ack=ack % MOD)
    peer.expect("A", ack=1, length=0)
    one.advance(ms=1)
    assert conn.read() == "EAGAIN"
    assert conn.info.acked_bytes == 0


def test_an_old_ack_is_not_challenged(bench):
    """RFC 5961, 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK: it is only late, and its data is good."""
    one = bench()
    conn, peer = one.connected()
    conn.send(pattern(2000))
    peer.expect_all()
    peer.send("A")
    peer.send("A", b"late", ack=1)
    assert conn.read() == b"late"
    assert conn.info.challenge_acks == 0


def test_challenges_are_limited(bench):
    """RFC 5961, 7: so many in a second, or an attacker has an amplifier."""
    one = bench()
    conn, peer = one.connected()
    for _ in range(3):
        for i in range(30):
            peer.send("S", seq=1000 + i)
        assert 1 <= len(peer.expect_all()) <= 10
        peer.seq = 1
        one.advance(ms=1001)
    peer.send("A", b"alive", seq=1)
    assert conn.read() == b"alive"


def test_strangers_are_counted_and_not_answered(bench):
    """The contract: what belongs to no connection of ours is left alone."""
    one = bench()
    conn, peer = one.connected()
    conn.local_port, port = 1234, conn.local_port
    frame = peer.frame("S", seq=5)
    conn.local_port = port
    one.give_now(frame)
    peer.expect_nothing(ms=10)
    assert not one.strays
    assert one.tcp_counters.stray_packets == 1

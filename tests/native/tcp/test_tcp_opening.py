"""How a connection comes to be."""

from itertools import pairwise

import pytest
from abi import KEEPALIVE
from judge import assert_near, times_of
from peer import NEAR_WRAP
from segments import MOD
from tcp_bench import LAYOUTS, SECOND, pattern

VERSIONS = [(4, None), (6, None), (4, 7), (6, 7)]


@pytest.mark.parametrize(("version", "vlan"), VERSIONS)
def test_three_way_handshake(bench, version, vlan):
    """RFC 9293, 3.5: SYN, SYN-ACK, ACK. 3.7.1: MSS is what a packet of the MTU holds, options not deducted.
    RFC 7323, 2.2, 3.2; RFC 2018, 2: window scaling, timestamps and SACK are offered, nothing is echoed
    yet."""
    one = bench(version=version, vlan=vlan)
    conn = one.connect()
    assert conn.state == "SYN_SENT"
    assert conn.write(b"early") == "ENOTCONN"
    syn = conn.peer.expect("S", seq=0, length=0, mss=1500 - (40 if version == 4 else 60), sackok=True)
    assert syn.ts[1] == 0
    assert 0 <= syn.wscale <= 14
    assert 0 < syn.window <= 65535
    conn.peer.expect_nothing(ms=100)
    conn.peer.send("SA")
    ack = conn.peer.expect("A", seq=1, ack=1, length=0, sack=[], mss=None, sackok=False, wscale=None)
    assert ack.ts[1] == conn.peer.now_ts()
    assert ack.ts[0] == (syn.ts[0] + 100) % MOD
    assert 32768 <= conn.peer.window_of(ack) <= 65536
    assert conn.state == "ESTABLISHED"
    conn.peer.expect_nothing(ms=5000)
    counters = one.tcp_counters
    assert (counters.opened_connections, counters.established_connections, counters.connections) == (1, 1, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dont_fragment(bench, layout):
    """RFC 1191, 3: path MTU discovery needs DF in every packet."""
    one = bench(**LAYOUTS[layout])
    conn, peer = one.connected(peer={"mss": one.mtu - 40})
    conn.send(pattern(20000))
    assert all(segment.dont_fragment for segment in peer.expect_all())


@pytest.mark.parametrize(("version", "least"), [(4, 536), (6, 1220)])
def test_without_mss_the_peer_takes_the_least(bench, version, least):
    """RFC 9293, 3.7.1: without the option, 536 (IPv4) or 1220 (IPv6) is assumed; options in use are
    deducted."""
    one = bench(version=version)
    conn, peer = one.connected(peer={"mss": None})
    conn.send(pattern(4000))
    assert [len(s.payload) for s in peer.expect_all()][:3] == [least - 12] * 3


def test_without_window_scaling_neither_end_scales(bench):
    """RFC 7323, 2.2: scaling is used only when both ends have offered it."""
    one = bench()
    conn, peer = one.connected(receive_buffer_bytes=1 << 20, peer={"wscale": None, "window": 3000})
    ack = one.conns[conn.local_port]
    conn.send(pattern(10000))
    assert [len(s.payload) for s in peer.expect_all()] == [1448, 1448]
    assert conn.info.peer_window_bytes == 3000
    peer.send("A", pattern(100))
    assert peer.expect("A", within_ms=100).window == 65535, "and says as much as fits"
    assert ack.state == "ESTABLISHED"


def test_windows_of_syns_are_never_scaled(bench):
    """RFC 7323, 2.2: the window of a SYN-ACK stands as it is."""
    one = bench()
    conn = one.connect(peer={"wscale": 7})
    conn.peer.expect("S")
    conn.peer.send("SA", win=1448)
    conn.peer.expect("A")
    conn.send(pattern(10000))
    conn.peer.expect("A", seq=1, length=1448)
    conn.peer.expect_nothing()
    conn.peer.send("A", win=4 * 1448 // 128 + 1)
    assert len(conn.peer.expect_all()) == 4


def test_a_window_scale_above_14_is_14(bench):
    """RFC 7323, 2.3."""
    one = bench()
    conn = one.connect(peer={"wscale": 15})
    conn.peer.expect("S")
    conn.peer.send("SA")
    conn.peer.expect("A")
    conn.peer.send("A", win=3)
    one.advance(ms=1)
    assert conn.info.peer_window_bytes == 3 << 14


def test_without_timestamps_no_segment_has_them(bench):
    """RFC 7323, 3.2: used only when both SYNs had the option; then a full segment is 12 bytes longer."""
    one = bench()
    conn, peer = one.connected(peer={"ts": False})
    conn.send(pattern(3000))
    segments = peer.expect_all()
    assert [s.ts for s in segments] == [None] * len(segments)
    assert len(segments[0].payload) == 1460


def test_with_timestamps_every_segment_has_them(bench):
    """RFC 7323, 3.2: once negotiated, in every segment that is no RST."""
    one = bench()
    conn, peer = one.connected()
    conn.send(pattern(3000))
    segments = peer.expect_all()
    peer.send("A", b"x" * 10)
    segments.append(peer.expect("A", within_ms=100))
    conn.shutdown()
    segments.append(peer.expect("FA", within_ms=100))
    assert all(s.ts and s.ts[1] for s in segments)


def test_the_syn_is_sent_again_and_given_up(bench):
    """RFC 6298, 2.1 and 5.5: after 1 s, then after twice as long each time. RFC 9293, 3.8.3: gives up in the
    end."""
    one = bench()
    conn = one.connect(connect_timeout_ns=20 * SECOND)
    one.advance(ms=19_990)
    assert conn.state == "SYN_SENT"
    syns = conn.peer.expect_all()
    assert_near(times_of(syns), [0, 1000, 3000, 7000, 15000])
    assert {(s.flags, s.seq, s.mss, s.wscale, s.sackok) for s in syns} == {
        ("S", 0, syns[0].mss, syns[0].wscale, True)
    }
    one.advance(ms=40)
    assert (conn.state, conn.error) == ("CLOSED", "ETIMEDOUT")
    assert conn.write(b"x") == "ETIMEDOUT"
    assert conn.read() == "ETIMEDOUT"
    conn.peer.expect_nothing(s=100)


def test_a_late_syn_ack_is_as_good(bench):
    """RFC 9293, 3.10.7.3: whatever SYN it answers. RFC 6928, 2: one retransmission does not take the initial
    window away."""
    one = bench()
    conn = one.connect()
    one.advance(ms=1500)
    assert len(conn.peer.expect_all()) == 2
    conn.peer.send("SA", seq=0, ack=1)
    conn.peer.expect("A", seq=1, ack=1)
    conn.send(pattern(20000))
    assert len(conn.peer.expect_all()) == 10


def test_a_syn_lost_twice_takes_the_initial_window_away(bench):
    """RFC 5681, 3.1 (and RFC 6928, 2): after that, one segment."""
    one = bench()
    conn = one.connect()
    one.advance(ms=3500)
    assert len(conn.peer.expect_all()) == 3
    conn.peer.send("SA", seq=0, ack=1)
    conn.peer.expect("A", seq=1, ack=1)
    conn.send(pattern(20000))
    assert len(conn.peer.expect_all()) == 1


def test_refused(bench):
    """RFC 9293, 3.10.7.3: RST with an ACK of our SYN: the connection is refused."""
    one = bench()
    conn = one.connect()
    conn.peer.expect("S")
    conn.peer.send("RA", seq=0, ack=1)
    assert (conn.state, conn.error) == ("CLOSED", "ECONNREFUSED")
    conn.peer.expect_nothing(s=10)


@pytest.mark.parametrize(("flags", "ack"), [("RA", 0), ("RA", 2), ("R", None), ("A", 1), ("FA", 1)])
def test_what_does_not_refuse(bench, flags, ack):
    """RFC 9293, 3.10.7.3: RST without an acceptable ACK, and what is neither SYN nor RST, are dropped."""
    one = bench()
    conn = one.connect()
    conn.peer.expect("S")
    conn.peer.send(flags, seq=0, ack=ack)
    assert conn.state == "SYN_SENT"
    conn.peer.seq = 0
    conn.peer.expect_nothing()
    conn.peer.send("SA")
    conn.peer.expect("A", seq=1, ack=1)


@pytest.mark.parametrize("ack", [0, 2, 5000, -1])
def test_a_syn_ack_of_another_connection_is_reset(bench, ack):
    """RFC 9293, 3.10.7.3: an unacceptable ACK is answered with <SEQ=SEG.ACK><CTL=RST>; we go on."""
    one = bench()
    conn = one.connect()
    conn.peer.expect("S")
    conn.peer.send("SA", ack=ack % MOD)
    conn.peer.expect("R", seq=ack % MOD, length=0)
    assert conn.state == "SYN_SENT"
    conn.peer.seq = 0
    conn.peer.send("SA")
    conn.peer.expect("A", seq=1, ack=1)


def test_both_open_at_the_same_time(bench):
    """RFC 9293, 3.5, figure 8."""
    one = bench()
    conn = one.connect()
    conn.peer.expect("S")
    conn.peer.send("S")
    both = conn.peer.expect("SA", seq=0, ack=1, mss=1460, sackok=True)
    assert both.ts[1] == conn.peer.now_ts()
    assert both.wscale is not None
    assert conn.state == "SYN_RECEIVED"
    conn.peer.send("SA", seq=0, ack=1)
    assert conn.state == "ESTABLISHED"
    conn.peer.expect_all()
    conn.send(b"hello")
    conn.peer.expect("A", seq=1, ack=1, payload=b"hello")


def test_both_open_and_an_ack_ends_it(bench):
    """RFC 9293, 3.10.7.4: in SYN-RECEIVED an acceptable ACK establishes; the SYN-ACK is sent again until it
    comes."""
    one = bench()
    conn = one.connect()
    conn.peer.expect("S")
    conn.peer.send("S")
    first = conn.peer.expect("SA", seq=0, ack=1)
    again = conn.peer.expect("SA", within_ms=1100, seq=0, ack=1)
    assert_near(times_of([first, again]), [0, 1000])
    conn.peer.send("A")
    assert conn.state == "ESTABLISHED"
    conn.peer.expect_nothing(s=5)


def test_a_reset_while_both_open(bench):
    """RFC 9293, 3.10.7.4: after an active open, RST in SYN-RECEIVED refuses the connection."""
    one = bench()
    conn = one.connect()
    conn.peer.expect("S")
    conn.peer.send("S")
    conn.peer.expect("SA")
    conn.peer.send("R", seq=1)
    assert (conn.state, conn.error) == ("CLOSED", "ECONNREFUSED")


def test_initial_sequence_numbers_of_one_tuple_follow_the_clock(bench):
    """RFC 6528, 3: ISN = M + F(tuple, secret), M ticks every 4 us. So a new incarnation starts behind the old
    one's."""
    one = bench(max_connections=1)
    found = []
    for _ in range(3):
        conn = one.connect(local_port=40000)
        conn.peer.expect("S")
        found.append((one.now, conn.peer.their_isn))
        conn.peer.send("RA", seq=0, ack=1)
        assert conn.state == "CLOSED"
        one.advance(ms=700)
    for (t0, isn0), (t1, isn1) in pairwise(found):
        assert abs((isn1 - isn0) % MOD - (t1 - t0) // 4000) <= 1


def test_initial_sequence_numbers_of_tuples_tell_nothing_of_each_other(bench):
    """RFC 6528, 3: another tuple, or another host's secret, another offset."""
    one, other = bench(max_connections=64), bench()
    isns = []
    for i in range(64):
        conn = one.connect(local_port=50000 + i)
        conn.peer.expect("S")
        isns.append(conn.peer.their_isn)
    assert len(set(isns)) == 64
    # Uniform: no two of 64 random numbers are nearer than 2^12 but once in 500 times; never all of them.
    gaps = sorted((b - a) % MOD for a, b in pairwise(isns))
    assert gaps[32] > 1 << 24
    twin = other.connect(local_port=50000)
    twin.peer.expect("S")
    assert abs(twin.peer.their_isn - isns[0]) > 1000


def test_more_connections_than_there_may_be(bench):
    """The contract: ENOBUFS; and there is room again when one is closed."""
    one = bench(max_connections=2)
    first, second = one.connect(), one.connect()
    third = one.open()
    assert third.connect() == "ENOBUFS"
    assert third.state == "NEW"
    third.peer.expect_nothing()
    first.abort()
    one.settle()
    assert first.state == "CLOSED"
    one.connect().peer.expect("S")
    assert second.state == "SYN_SENT"


def test_a_tuple_that_is_in_use(bench):
    """RFC 9293, 3.10.1: OPEN of a connection that exists is an error."""
    one = bench()
    first = one.connect(local_port=5000)
    first.peer.expect("S")
    second = one.connect(local_port=5000)
    assert (second.state, second.error) == ("CLOSED", "EADDRINUSE")
    assert first.state == "SYN_SENT"


def test_a_second_connect_changes_nothing(bench):
    """The contract: -EISCONN; and one that is closed gives one place back."""
    one = bench(max_connections=2)
    conn = one.open()
    assert (conn.connect(), conn.connect()) == (0, "EISCONN")
    assert conn.state == "SYN_SENT"
    one.settle()
    assert conn.connect() == "EISCONN"
    conn.peer.expect("S")
    conn.abort()
    one.settle()
    assert (conn.state, conn.connect()) == ("CLOSED", "EISCONN")
    assert [one.open().connect() for _ in range(3)] == [0, 0, "ENOBUFS"]


@pytest.mark.parametrize("give_up", ["close", "abort"])
def test_given_up_before_the_loop_has_seen_it(bench, give_up):
    """RFC 9293, 3.10.4, 3.10.5: no SYN, or one that nobody answers any more; its place is free again."""
    one = bench(max_connections=1)
    conn = one.open()
    assert getattr(conn, give_up)() == 0
    assert (conn.shutdown(), conn.state) == ("ENOTCONN", "NEW")
    conn.destroy()
    conn = one.open()
    assert conn.connect() == 0
    assert getattr(conn, give_up)() == 0
    one.settle()
    assert (conn.state, conn.error) == ("CLOSED", "ECONNABORTED")
    assert len(conn.peer.expect_all()) <= 1
    conn.destroy()
    assert one.open().connect() == 0


@pytest.mark.parametrize(
    "values",
    [
        {"flags": 8},
        {"send_buffer_bytes": (1 << 30) + 1},
        {"send_buffer_bytes": 0},
        {"receive_buffer_bytes": 5000},
        {"mtu": 500},
        {"mtu": 65536},
        {"entries": 3},
        {"congestion": 3},
        {"connect_timeout_ns": 0},
        {"flags": KEEPALIVE, "keepalive_interval_ns": 0},
        {"remote_port": 0},
    ],
    ids=str,
)
def test_what_cannot_be_opened(bench, values):
    """The contract: -EINVAL, and nothing is kept."""
    one = bench()
    with pytest.raises(AssertionError, match="EINVAL"):
        one.open(**values)


def test_numbers_wrap_in_the_middle(bench):
    """RFC 9293, 3.4: everything modulo 2^32: what comes passes it here, whatever our own number is."""
    one = bench()
    conn, peer = one.connected(peer={"isn": NEAR_WRAP})
    sent = b""
    for i in range(20):
        data = pattern(500, 500 * i)
        peer.send("A", data)
        sent += data
    one.advance(ms=50)
    assert conn.read() == sent
    assert peer.expect_all()[-1].ack == 10001


def test_the_peers_syn_again_while_both_open(bench):
    """RFC 9293, 3.10.7.4: our SYN-ACK was lost: it goes again at once."""
    one = bench()
    conn = one.connect()
    conn.peer.expect("S")
    conn.peer.send("S", seq=0)
    conn.peer.expect("SA")
    one.advance(ms=300)
    conn.peer.send("S", seq=0)
    conn.peer.expect("SA", seq=0, ack=1)
    conn.peer.seq = 1
    conn.peer.send("A")
    assert conn.state == "ESTABLISHED"


@pytest.mark.parametrize("flags", ["SA", "SAF"])
def test_a_syn_ack_with_data(bench, flags):
    """RFC 9293, 3.4, 3.10.7.3: it may bring data, and even FIN; taken or not, the stream is whole in the
    end."""
    one = bench()
    conn = one.connect()
    conn.peer.expect("S")
    conn.peer.send(flags, b"early")
    ack = conn.peer.expect("A", within_ms=100, seq=1)
    assert ack.ack in (1, 6, 7)
    if ack.ack == 1:
        conn.peer.seq = 1
        conn.peer.send(flags.replace("S", ""), b"early")
    assert conn.read() == b"early"
    assert conn.state == ("CLOSE_WAIT" if "F" in flags else "ESTABLISHED")


def test_the_largest_receive_buffer(bench):
    """RFC 7323, 2.3: a shift of 14 and no more."""
    one = bench()
    conn = one.connect(receive_buffer_bytes=1 << 30)
    syn = conn.peer.expect("S")
    assert (syn.wscale, syn.window) == (14, 65535)
    conn.peer.send("SA")
    assert conn.peer.expect("A").window == 65535

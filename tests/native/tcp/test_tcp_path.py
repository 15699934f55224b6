"""What routers say: RFC 1191, 8201 (path MTU), 5927 (who may say it), 1122, 4.2.3.9 (what else)."""

import pytest
from segments import MOD
from tcp_bench import LAYOUTS, pattern


def headers(version):
    return 40 if version == 4 else 60


def reassemble(segments):
    """Bytes from 1 on, as far as they go without a gap."""
    got = {}
    for segment in segments:
        for i, byte in enumerate(segment.payload):
            got[segment.seq + i] = byte
    at = 1
    while at in got:
        at += 1
    return bytes(got[i] for i in range(1, at))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("inflight", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_smaller_path(bench, layout, version, inflight):
    """RFC 1191, 6.3-6.5; RFC 8201, 5.4: the MSS falls; what was too long is sent again in shorter segments,
    soon, though its chunks may still be inflight."""
    one = bench(version=version, **LAYOUTS[layout])
    conn, peer = one.connected(rtt_ms=10, peer={"mss": one.mtu - headers(version)})
    if inflight:
        one.hold_completions()
    mtu = 1300
    data = pattern(8 * 1300)
    conn.write(data)
    first = peer.expect_all()
    assert first[0].ip_bytes == one.mtu
    conn.mtu = mtu
    peer.icmp(first[0], code=4, mtu=mtu)
    one.advance(ms=1500)
    assert conn.info.path_mtu == mtu
    assert conn.info.mss_bytes == mtu - headers(version) - 12
    assert conn.info.icmp_messages == 1
    # The first ones were lost. What comes now is short enough (Conn.left looks).
    peer.ack, segments = 1, []
    for _ in range(100):
        segments += peer.absorb()
        if peer.ack == len(data) + 1:
            break
        peer.send("A")
        one.advance(ms=20)
    assert reassemble(segments) == data
    if inflight:
        one.complete()
    peer.send("A")
    conn.write(pattern(5000, len(data)))
    assert max(s.ip_bytes for s in peer.expect_all()) == mtu


def test_a_smaller_path_is_no_congestion(bench):
    """RFC 1191, 6.5; RFC 8201, 5.4: the retransmission is soon, and the window not halved for it."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(10_000))
    first = peer.expect_all()
    one.advance(ms=1)
    conn.mtu = 1000
    peer.icmp(first[0], code=4, mtu=1000)
    one.advance(ms=10)
    assert peer.arrived, "not only after the timeout"
    assert peer.arrived[0].seq == 1
    assert conn.info.timeouts == 0


@pytest.mark.parametrize(
    ("version", "said", "least"), [(4, 68, 552), (4, 551, 552), (6, 1000, 1280), (6, 0, 1280)]
)
def test_no_path_is_that_narrow(bench, version, said, least):
    """RFC 1191, 3; RFC 8200, 5; RFC 5927, 7.2: a forged message does not make us send bytes one by one."""
    one = bench(version=version)
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(4000))
    peer.icmp(peer.expect_all()[0], code=4, mtu=said)
    one.advance(ms=10)
    assert conn.info.path_mtu >= least
    assert conn.info.mss_bytes >= least - headers(version) - 12


def test_a_router_that_does_not_say_how_narrow(bench):
    """RFC 1191, 5: an old one says 0: some lower value is tried; not none."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(4000))
    peer.icmp(peer.expect_all()[0], code=4, mtu=0)
    one.advance(ms=1000)
    assert 552 <= conn.info.path_mtu <= 1500
    assert conn.state == "ESTABLISHED"


@pytest.mark.parametrize("seq", [5000, -1, 1 << 31])
def test_a_message_about_what_is_not_outstanding(bench, seq):
    """RFC 5927, 4.1: SND.UNA <= SEQ < SND.NXT, or it is ignored."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(2000))
    first = peer.expect_all()[0]
    peer.icmp(first, code=4, mtu=1000, seq=(peer.their_isn + 1 + seq) % MOD)
    peer.icmp(first, code=3, seq=(peer.their_isn + 1 + seq) % MOD)
    one.advance(ms=1)
    assert conn.info.path_mtu == 1500
    assert conn.info.mss_bytes == 1448


def test_a_path_does_not_become_wider_by_that(bench):
    """RFC 8201, 4: never increased because of a message."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(4000))
    peer.icmp(peer.expect_all()[0], code=4, mtu=9000)
    one.advance(ms=1)
    assert conn.info.path_mtu == 1500


def test_the_least_that_a_router_quotes_is_enough(bench):
    """RFC 792: IP header and 8 bytes."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(4000))
    first = peer.expect_all()[0]
    for quoted in (1, 19, 20, 24, 27):
        peer.icmp(first, code=4, mtu=1000, quoted=quoted)
    one.advance(ms=1)
    assert conn.info.path_mtu == 1500
    conn.mtu = 1500
    peer.icmp(first, code=4, mtu=1000, quoted=28)
    one.advance(ms=1)
    assert conn.info.path_mtu == 1000
    assert one.tcp_counters.icmp_packets == 1


@pytest.mark.parametrize(("version", "code"), [(4, 2), (4, 3), (6, 1), (6, 4)])
def test_hard_errors_while_connecting(bench, version, code):
    """RFC 1122, 4.2.3.9 (RFC 4443, 3.1): protocol or port unreachable, prohibited: it is given up at once."""
    one = bench(version=version)
    conn = one.connect()
    syn = conn.peer.expect("S")
    conn.peer.icmp(syn, code=code)
    assert conn.state == "CLOSED"
    assert conn.error in ("ECONNREFUSED", "EHOSTUNREACH", "ENOPROTOOPT", "EACCES", "EPROTO")


@pytest.mark.parametrize(
    ("version", "code", "error"), [(4, 0, "ENETUNREACH"), (4, 1, "EHOSTUNREACH"), (6, 3, "EHOSTUNREACH")]
)
def test_soft_errors_while_connecting(bench, version, code, error):
    """RFC 1122, 4.2.3.9: a network or host that is unreachable now may be back: if we give up, then with this
    error."""
    one = bench(version=version)
    conn = one.connect(connect_timeout_ns=10_000_000_000)
    syn = conn.peer.expect("S")
    conn.peer.icmp(syn, code=code)
    one.advance(s=11)
    assert (conn.state, conn.error) == ("CLOSED", error)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 5, 13])
def test_no_error_ends_an_established_connection(bench, code):
    """RFC 5927, 5.2; RFC 1122, 4.2.3.9: soft; it is told when the connection is given up for another
    reason."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10, user_timeout_ns=5_000_000_000)
    conn.send(b"x")
    peer.icmp(peer.expect("A"), code=code)
    one.advance(s=1)
    assert conn.state == "ESTABLISHED"
    one.advance(s=10)
    assert conn.state == "CLOSED"
    assert conn.error != "ETIMEDOUT" or code not in (0, 1)


def test_a_message_about_another_connection(bench):
    """RFC 1122, 4.2.3.9: it is for the connection that the quoted header names."""
    one = bench()
    first, peer = one.connected(rtt_ms=10)
    second, other = one.connected(rtt_ms=10)
    first.write(pattern(3000))
    other.icmp(peer.expect_all()[0], code=4, mtu=1000)
    one.advance(ms=1)
    assert (first.info.path_mtu, second.info.path_mtu) == (1000, 1500)

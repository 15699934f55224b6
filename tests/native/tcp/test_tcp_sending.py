"""What is sent, in what pieces, and when."""

from itertools import pairwise

import pytest
from abi import NODELAY, PACING
from judge import assert_near, lengths, times_of
from tcp_bench import LAYOUTS, pattern

from xsk_engine._ffi import native as ffi


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nagle(bench, layout):
    """RFC 9293, 3.7.4: while something small is not acknowledged, what is not a full segment waits."""
    one = bench(**LAYOUTS[layout])
    conn, peer = one.connected(rtt_ms=300)
    conn.send(b"first")
    peer.expect("A", payload=b"first")
    for part in (b"second", b"third", b"fourth"):
        conn.send(part)
    peer.expect_nothing(ms=100)
    for _ in range(3):
        peer.send("A")
        if bytes(conn.written[peer.ack - 1 :]) == b"":
            break
        peer.expect("A", seq=peer.ack)
        peer.expect_nothing(ms=10)
    assert peer.ack == len(conn.written) + 1


def test_nagle_lets_full_segments_go(bench):
    """RFC 9293, 3.7.4: a full segment never waits."""
    one = bench()
    conn, peer = one.connected(rtt_ms=300)
    conn.send(b"first")
    peer.expect("A", payload=b"first")
    conn.send(pattern(3 * 1448))
    assert sum(lengths(peer.expect_all())) >= 2 * 1448


def test_nodelay(bench):
    """RFC 9293, 3.7.4 (MUST-17): an application can switch it off."""
    one = bench()
    conn, peer = one.connected(rtt_ms=300, flags=NODELAY)
    for part in (b"first", b"second", b"third"):
        conn.send(part)
        peer.expect("A", payload=part)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_push(bench, layout):
    """RFC 9293, 3.9.1.2 (MUST-61): the last segment of what there is to send has PSH; RFC 9293, 3.7.4: not
    each one."""
    one = bench(**LAYOUTS[layout])
    conn, peer = one.connected(rtt_ms=50, flags=NODELAY, peer={"mss": one.mtu - 40})
    full = one.mtu - 52
    conn.send(pattern(full + 100))
    peer.expect("A", length=full, psh=False)
    peer.expect("A", length=100, psh=True)


@pytest.mark.parametrize("ts", [True, False])
@pytest.mark.parametrize("mss", [536, 1000, 1460, 1461, 8960, 65000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_segments_are_what_the_peer_and_the_path_take(bench, layout, mss, ts):
    """RFC 9293, 3.7.1: the peer's MSS, the path's MTU, options deducted; in every layout, over several
    descs."""
    one = bench(**LAYOUTS[layout])
    conn, peer = one.connected(flags=NODELAY, peer={"mss": mss, "ts": ts})
    full = min(mss, one.mtu - 40) - (12 if ts else 0)
    assert conn.info.mss_bytes == full
    data = pattern(2 * full + 1)
    assert conn.write(data) == len(data)
    segments = peer.expect_all()
    peer.send("A")
    segments += peer.expect_all()
    assert lengths(segments) == [full, full, 1]
    assert b"".join(s.payload for s in segments) == data
    if layout != "descs":
        assert {s.descs for s in segments} == {1}, "the header stands in front of the payload"


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("chunk_size", [2048, 4096])
def test_the_longest_segments(bench, chunk_size, offload):
    """An IP packet has at most 65535 bytes (RFC 791, 3.1), and a packet 18 descs: whichever is less."""
    one = bench(mtu=65535, multi_buffer=True, chunk_size=chunk_size, offload=offload, ring=512)
    conn, peer = one.connected(peer={"mss": 65495})
    conn.write(pattern(150_000))
    got = peer.read(20 * (chunk_size - 24))
    assert got == pattern(len(got))
    assert conn.info.mss_bytes >= 16 * (chunk_size - 24) - 100


def test_long_segments_without_multi_buffer(bench):
    """A packet is one desc there: a segment is what a chunk holds, whatever the path takes."""
    one = bench(mtu=9000)
    conn, peer = one.connected(peer={"mss": 8960})
    conn.write(pattern(20_000))
    segments = peer.expect_all()
    assert 1800 <= len(segments[0].payload) <= 2048 - 66
    assert len({len(s.payload) for s in segments[:-1]}) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("version", [4, 6])
def test_small_and_odd_writes(bench, layout, offload, version):
    """The bytes are a stream (RFC 9293, 3.4): however they were written, in order and with right
    checksums."""
    one = bench(version=version, offload=offload, **LAYOUTS[layout])
    conn, peer = one.connected(flags=NODELAY, peer={"mss": one.mtu - (40 if version == 4 else 60)})
    at = 0
    for length in (1, 2, 3, 1447, 1448, 1449, 7, 2047, 4095, 9001, 1):
        conn.send(pattern(length, at))
        assert peer.read(length) == pattern(length, at)
        at += length


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frags_filled_in_place(bench, layout):
    """The contract: what was allocated is sent where it lies, in any length up to its room."""
    one = bench(**LAYOUTS[layout])
    conn, peer = one.connected(flags=NODELAY, peer={"mss": one.mtu - 40})
    at, copied = 0, one.tcp_counters.copied_segments
    for share in (1.0, 0.0, 0.3, 1.0):
        addr, room = conn.alloc()
        assert room >= 1000
        length = max(1, int(room * share))
        assert conn.submit(addr, pattern(length, at)) == 0
        assert peer.read(length) == pattern(length, at)
        at += length
    addr, _ = conn.alloc()
    assert conn.submit(addr, b"") == "EINVAL"
    ffi_release(one, addr)
    assert one.tcp_counters.copied_segments == copied


def test_pacing(bench):
    """The contract: 2 * cwnd / srtt in slow start: ten segments over half an RTT, not at once."""
    one = bench()
    conn, peer = one.connected(rtt_ms=100, flags=PACING | NODELAY)
    conn.write(pattern(14_480))
    one.advance(ms=25)
    early = len(peer.arrived)
    one.advance(ms=50)
    segments = peer.expect_all()
    assert len(segments) == 10
    assert early <= 6
    gaps = [b - a for a, b in pairwise(times_of(segments))]
    assert max(gaps) <= 12
    assert times_of(segments)[-1] >= 30
    assert times_of(segments)[4] >= 8


def test_without_pacing_there_is_none(bench):
    """Its window at once."""
    one = bench()
    conn, peer = one.connected(rtt_ms=100)
    conn.write(pattern(14_480))
    assert_near(times_of(peer.expect_all()), [0] * 10, late_ms=1)


def test_writes_after_the_end(bench):
    """RFC 9293, 3.10.2: SEND in every state."""
    one = bench()
    conn = one.open()
    assert conn.write(b"x") == "ENOTCONN"
    assert conn.alloc() == "ENOTCONN"
    assert conn.read() in ("ENOTCONN", "EAGAIN")
    conn.connect()
    one.settle()
    conn.peer.accept()
    addr, room = conn.alloc()
    assert conn.shutdown() == 0
    assert conn.write(b"x") == "EPIPE"
    assert conn.alloc() == "EPIPE"
    assert conn.submit(addr, b"x" * room) == "EPIPE"
    one.umem.audit()
    ffi_release(one, addr)
    conn.peer.expect("FA", seq=1)
    conn.peer.send("RA")
    assert conn.state == "CLOSED"
    assert conn.error == "ECONNRESET"
    assert conn.write(b"x") in ("EPIPE", "ECONNRESET")
    assert conn.read() == "ECONNRESET"


def ffi_release(one, addr):
    """The caller's reference: it is still his after an error."""
    ffi.native.frag_unref(one.umem.handle, None, addr)


@pytest.mark.parametrize("sack", [True, False])
@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_small_blocks(bench, layout, offload, sack):
    """A packet has 18 descs at most, whatever lies in blocks of a few bytes; also when it is sent again."""
    one = bench(offload=offload, **LAYOUTS[layout])
    conn, peer = one.connected(rtt_ms=10, peer={"mss": one.mtu - 40, "sack": sack})
    at = 0
    for i in range(150):
        addr, _ = conn.alloc()
        assert conn.submit(addr, pattern(1 + i % 50, at)) == 0
        at += 1 + i % 50
    conn.shutdown()
    for turn in range(300):
        one.settle()
        if turn % 3 == 0 and len(peer.arrived) > 1:
            del peer.arrived[len(peer.arrived) // 2]
        peer.absorb()
        if peer.ack == at + 2:
            break
        one.advance(ms=10)
        peer.send("A", sack=peer.kept[-3:] if sack else [])
    assert peer.ack == at + 2

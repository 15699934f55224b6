"""Where payload is while it is written, inflight, acknowledged or not: the contract of native/tcp/tcp.h."""

import errno
import hashlib
from collections import Counter
from itertools import groupby

import pytest
from abi import NODELAY
from fake import fake
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from segments import ADDRESSES, OUR_MAC, PEER_MAC
from tcp_bench import LAYOUTS, SECOND, pattern

from xsk_engine._ffi import native as ffi

FULL = 1448
QUIET_MS = 40
"""10 ms until a connection parks its arena, then 10 ms until the loop does"""


def held(one, quiet_ms=0):
    """Chunks that somebody holds, without those of the fill rings; when nothing has happened for so long."""
    one.advance(ms=quiet_ms)
    audit = one.umem.audit()
    return audit.referenced - one.receive_chunks


@pytest.mark.parametrize("layout", LAYOUTS)
def test_acknowledged_chunks_are_free(bench, layout):
    """Contract 1: a block lives until its last byte is acknowledged; then it is free at once."""
    one = bench(**LAYOUTS[layout])
    conn, peer = one.connected(rtt_ms=10, flags=NODELAY, peer={"mss": one.mtu - 40})
    full = one.mtu - 52
    conn.write(pattern(2 * full))
    peer.expect_all()
    one.advance(ms=1)
    before = held(one)
    peer.send("A", ack=1 + full)
    assert held(one) < before
    peer.send("A", ack=1 + 2 * full)
    assert held(one, QUIET_MS) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_block_that_is_acknowledged_in_part(bench, layout):
    """Contract 1: the rest of it is still there to be sent again, from the first byte that is missing (RFC
    6298, 5.4)."""
    one = bench(**LAYOUTS[layout])
    conn, peer = one.connected(rtt_ms=10, flags=NODELAY, peer={"mss": one.mtu - 40, "sack": False})
    data = pattern(one.mtu - 52)
    conn.write(data)
    peer.expect("A", length=len(data))
    peer.send("A", ack=501)
    again = peer.expect("A", within_ms=500)
    assert again.seq <= 501
    assert again.payload == data[again.seq - 1 :]
    assert held(one) > 0
    one.advance(ms=5)
    peer.send("A", ack=len(data) + 1)
    assert held(one, QUIET_MS) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("version", [4, 6])
def test_sent_again_while_the_first_copy_is_inflight(bench, layout, offload, version):
    """Contract 4: a header of its own in front of the same payload, or a copy where a packet is one desc; the
    bytes that are inflight never change (the fake device compares them when they complete)."""
    one = bench(version=version, offload=offload, **LAYOUTS[layout])
    size = one.mtu - (40 if version == 4 else 60)
    conn, peer = one.connected(rtt_ms=10, flags=NODELAY, peer={"mss": size, "sack": False})
    data = pattern(2 * (size - 12) - 33)
    one.hold_completions()
    conn.write(data)
    first = peer.expect_all()
    again = [peer.expect("A", within_ms=1000, seq=1) for _ in range(3)]
    for segment in again:
        assert segment.payload == first[0].payload
        assert segment.ts != first[0].ts
        assert segment.descs == (1 if layout == "one desc" else first[0].descs + (layout == "in chunk"))
    assert one.tcp_counters.copied_segments == (3 if layout == "one desc" else 0)
    one.complete()
    assert fake.device_changed(one.device) == 0
    peer.send("A", ack=1 + len(data))
    assert held(one, QUIET_MS) == 0


def test_sent_again_when_the_first_copy_has_completed(bench):
    """Contract 4: then the header is written in place: one desc, nothing copied."""
    one = bench(multi_buffer=True)
    conn, peer = one.connected(rtt_ms=10, peer={"sack": False})
    conn.write(pattern(FULL))
    peer.expect("A", length=FULL)
    assert peer.expect("A", within_ms=500, seq=1).descs == 1
    assert one.tcp_counters.copied_segments == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_acknowledged_before_it_completes(bench, layout):
    """Contract 2: the txq holds it while it is inflight."""
    one = bench(**LAYOUTS[layout])
    conn, peer = one.connected(rtt_ms=10, peer={"mss": one.mtu - 40})
    one.hold_completions()
    conn.write(pattern(2 * (one.mtu - 52)))
    assert len(peer.expect_all()) == 2
    peer.send("A")
    one.advance(ms=20)
    assert one.umem.audit().inflight_descs > 0
    assert held(one) > 0
    one.complete()
    assert held(one, QUIET_MS) == 0


def test_completed_in_any_order(bench):
    """A device completes as it likes; nothing is freed early and nothing stays."""
    one = bench(multi_buffer=True)
    conn, peer = one.connected(rtt_ms=10)
    one.hold_completions()
    conn.write(pattern(10 * FULL))
    assert len(peer.expect_all()) == 10
    one.advance(ms=900)  # probes and retransmissions among them
    peer.expect_all()
    peer.send("A", ack=5 * FULL + 1)
    order = [7, 0, 3, 3, 1]
    for i in order:
        if i < fake.held(one.kernel):
            assert fake.complete(one.kernel, i) == 0
            one.settle()
            one.umem.audit()
    one.complete()
    peer.send("A", ack=10 * FULL + 1)
    assert held(one, QUIET_MS) == 0


def test_an_idle_connection_owns_nothing(bench):
    """Contract 6: with nothing to send it parks its arena."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(10 * FULL))
    peer.expect_all()
    one.advance(ms=1)
    assert conn.stats.owned_chunks > 0
    peer.send("A")
    one.advance(ms=25)
    assert conn.stats.owned_chunks == 0
    conn.send(b"again")
    peer.expect("A", payload=b"again")
    peer.send("A")
    one.advance(ms=25)
    assert conn.stats.owned_chunks == 0


def test_a_connection_that_only_receives_owns_nothing(bench):
    """Contract 6; received bytes are copied: their chunks go back to the fill ring."""
    one = bench(rx_ring=16)
    conn, peer = one.connected(rtt_ms=10)
    for i in range(40):
        peer.send("A", pattern(FULL, i * FULL))
        assert conn.read() == pattern(FULL, i * FULL)
    one.advance(ms=25)
    assert conn.stats.owned_chunks == 0
    assert held(one) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_aborted_with_everything_on_the_way(bench, layout):
    """Whatever was written, outstanding, inflight: it all goes back."""
    one = bench(ring=8, **LAYOUTS[layout])
    conn, peer = one.connected(rtt_ms=10, peer={"mss": one.mtu - 40})
    one.hold_completions()
    conn.write(pattern(28_000))
    one.settle()
    peer.expect_all()
    conn.abort()
    one.advance(ms=1)
    one.complete()
    assert conn.state == "CLOSED"
    assert held(one, QUIET_MS) == 0


def test_frags_given_out_outlive_the_connection(bench):
    """The contract of xske_tcp_conn_destroy."""
    one = bench()
    conn, peer = one.connected(rtt_ms=10)
    addr, room = conn.alloc()
    peer.send("R")
    assert conn.state == "CLOSED"
    conn.destroy()
    one.umem.area.view(addr, room)[:] = b"x" * room
    assert held(one, QUIET_MS) == 1
    from xsk_engine._ffi.native import native

    native.frag_unref(one.umem.handle, None, addr)
    assert held(one, QUIET_MS) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_payload_is_no_timestamp(bench, layout):
    """Beside a flow that asks for tx timestamps: what stands in front of a piece of payload is payload,
    whatever it looks like (here: a stamp that is there, and a time of the post)."""
    one = bench(offload=True, **LAYOUTS[layout])
    ours, peers, _ = ADDRESSES[4]
    other = Ether(src=OUR_MAC, dst=PEER_MAC) / IP(src=ours, dst=peers, flags="DF") / TCP(sport=1, dport=2)
    one.start(bytes(other).ljust(60, b"\0"), flow={"flags": ffi.FLOW_TIMESTAMP}, count=3)
    conn, peer = one.connected(rtt_ms=1, flags=NODELAY, peer={"mss": 1000})
    before = one.gaps.latency.count, one.gaps.negative_latency_packets, one.gaps.wire.count
    one.hold_completions()
    conn.write(b"\xff" * 7777)
    one.settle()
    one.complete()
    assert sum(len(segment.payload) for segment in peer.expect_all()) == 7777
    assert (one.gaps.latency.count, one.gaps.negative_latency_packets, one.gaps.wire.count) == before


def test_a_long_stream(bench):
    """A megabyte through a window that grows, every byte compared, every chunk back."""
    one = bench(ring=512, quick=16)
    conn, peer = one.connected(rtt_ms=2, peer={"window": 1 << 20})
    size, got, sent, digest = 1 << 20, 0, 0, hashlib.sha256()
    data = pattern(size)
    for _ in range(10_000):
        while sent < size and isinstance(taken := conn.write(data[sent : sent + 20_000]), int):
            sent += taken
        for segment in peer.expect_all():
            digest.update(segment.payload)
            got += len(segment.payload)
        if got == size:
            break
        one.advance(ms=1)
        peer.send("A")
    assert digest.digest() == hashlib.sha256(data).digest()
    one.advance(us=1)
    assert conn.info.retransmitted_segments == 0
    peer.send("A")
    assert held(one, QUIET_MS) == 0


def test_rings_that_were_filled_before(bench):
    """As for a driver that looks only when it starts: those chunks are received into, again and again."""
    one = bench(queues=2, rx_ring=16, filled=True)
    assert one.umem.audit().inflight_descs == 32
    conn, peer = one.connected(flags=NODELAY)
    for number in range(40):
        conn.write(pattern(100))
        peer.expect("A", length=100)
        peer.send("A", ack=1 + 100 * (number + 1))
    assert conn.info.acked_bytes == 4000
    assert one.tcp_counters.bad_descs == 0
    assert one.umem.audit().inflight_descs == 32


def test_a_thousand_connections_share_a_queue(bench):
    """The contract: each has its turn before anybody has two more."""
    count = 1000
    one = bench(ring=64, max_connections=count, chunks=16384, quick=200, rx_ring=256)
    conns = []
    for i in range(count):
        conn = one.connect(
            local_port=20000 + i, quota=16, entries=16, receive_buffer_bytes=4096, flags=NODELAY
        )
        conns.append(conn)
    one.advance(ms=200)
    for conn in conns:
        conn.peer.expect("S")
        conn.peer.send("SA")
        conn.peer.expect("A")
    one.hold_completions()
    for conn in conns:
        assert conn.write(pattern(5 * FULL)) == 5 * FULL
    order = []
    for _ in range(5 * count // 64 + 100):
        one.settle()
        for conn in conns:
            order += [(s.time_ns, conn.local_port) for s in conn.peer.expect_all()]
        if len(order) == 5 * count:
            break
        one.complete(again=False)
        one.advance(us=50)
    assert len(order) == 5 * count
    share = Counter(port for _, port in sorted(order)[: 5 * count // 2])
    assert max(Counter(port for _, port in order).values()) == 5
    assert len(share) >= count // 2 - 64


def test_connections_share_a_small_pool(bench):
    """Quotas: whoever finds no chunk waits; what is acknowledged is enough for everybody in the end."""
    count, size = 8, 40_000
    one = bench(rx_ring=32, chunks=32 + 16 + 3 * count, max_connections=count, quick=50, multi_buffer=True)
    conns = [one.connected(rtt_ms=1, flags=NODELAY)[0] for _ in range(count)]
    data = pattern(size)
    for _ in range(3000):
        for conn in conns:
            conn.write(data[len(conn.written) :])
        one.settle()
        for conn in conns:
            if conn.peer.absorb():
                conn.peer.send("A", settle=False)
        one.advance(us=200)
        if all(conn.peer.ack == size + 1 for conn in conns):
            break
    assert [conn.peer.ack for conn in conns] == [size + 1] * count


@pytest.mark.parametrize("sack", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_our_sequence_numbers_wrap(bench, layout, sack):
    """RFC 9293, 3.4: modulo 2^32, also while segments are lost at that place."""
    one = bench(**LAYOUTS[layout])
    one.await_wrap(before=20_000, local_port=40000)
    conn, peer = one.connected(rtt_ms=10, local_port=40000, peer={"mss": one.mtu - 40, "sack": sack})
    assert peer.their_isn >= (1 << 32) - 20_000
    data = pattern(100_000)
    for round_trip in range(2000):
        conn.write(data[len(conn.written) :])
        one.advance(ms=10)
        if round_trip % 3 == 1:
            peer.arrived = peer.arrived[:1] + peer.arrived[2:]
        before = peer.ack
        peer.absorb()
        if peer.ack == len(data) + 1:
            break
        blocks = [(a, b) for a, b in peer.kept][-3:] if sack else []
        peer.send("A", sack=blocks)
        if not sack and peer.ack == before:
            peer.send("A")
    assert peer.ack == len(data) + 1
    assert conn.info.retransmitted_segments > 0
    assert conn.info.acked_bytes >= 80_000


def test_nobody_keeps_the_loop_for_himself(bench):
    """The contract: 64 segments in a turn, then the next one has his."""
    one = bench(ring=1024, quick=50)
    windows = {"window": 1 << 20}
    conns = [one.connected(rtt_ms=1, peer=windows)[0] for _ in range(2)]
    for conn in conns:
        for _ in range(6):
            conn.write(pattern(500_000, len(conn.written)))
            one.advance(ms=1)
            conn.peer.absorb()
            conn.peer.send("A")
        one.advance(ms=1)
        conn.peer.absorb()
        conn.peer.send("A")
    for conn in conns:
        conn.peer.absorb()
    for conn in conns:
        conn.peer.send("A", settle=False)
        conn.write(pattern(290_000, len(conn.written)))
    one.settle()
    segments = sorted((s for conn in conns for s in conn.peer.arrived), key=lambda s: s.order)
    assert min(len(conn.peer.arrived) for conn in conns) > 130, "both have more than a turn of them"
    turns = [len(list(group)) for _, group in groupby(segments, key=lambda s: s.sport)]
    assert max(turns) <= 64


@pytest.mark.parametrize("code", [errno.ENETDOWN, errno.EBUSY, errno.EAGAIN, errno.ENOBUFS])
def test_a_kernel_that_refuses(bench, code):
    """A link that is down for a while, a kernel without memory, packets that it drops: TCP goes on
    afterwards."""
    one = bench(link_timeout_ns=60 * SECOND)
    conn, peer = one.connected(rtt_ms=10)
    conn.write(pattern(3 * FULL))
    one.settle()
    peer.absorb()
    one.advance(ms=10)
    peer.send("A")
    fake.script(one.kernel, code, 5)
    conn.write(pattern(3 * FULL, 3 * FULL))
    for _ in range(100):
        one.advance(ms=100)
        if peer.absorb():
            peer.send("A")
        if peer.ack == 6 * FULL + 1:
            break
    assert peer.ack == 6 * FULL + 1
    peer.send("A", b"answer")
    assert conn.read() == b"answer"

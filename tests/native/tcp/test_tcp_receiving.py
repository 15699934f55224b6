"""What comes: taken in order, acknowledged, or refused."""

import struct

import pytest
from abi import NODELAY
from flight import FULL
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from tcp_bench import MS, pattern


def test_a_delayed_ack(bench):
    """RFC 9293, 3.8.6.3; RFC 5681, 4.2: an ACK may wait, but less than 500 ms; ours 40 ms."""
    one = bench()
    conn, peer = one.connected()
    peer.send("A", pattern(FULL))
    sent = one.now
    peer.expect_nothing(ms=35)
    ack = peer.expect("A", within_ms=20, ack=FULL + 1, length=0)
    assert 39 <= (ack.time_ns - sent) / MS <= 60
    peer.expect_nothing(s=1)


def test_every_second_full_segment_is_acknowledged_at_once(bench):
    """RFC 9293, 3.8.6.3 (MUST-59 says SHOULD-18); RFC 5681, 4.2."""
    one = bench()
    conn, peer = one.connected()
    for i in range(5):
        peer.send("A", pattern(FULL, 2 * i * FULL))
        peer.expect_nothing()
        peer.send("A", pattern(FULL, (2 * i + 1) * FULL))
        peer.expect("A", ack=1 + (2 * i + 2) * FULL, length=0)
        conn.read()


def test_data_carries_the_ack(bench):
    """RFC 9293, 3.8.6.3: the answer acknowledges the request, and nothing else has to."""
    one = bench()
    conn, peer = one.connected(flags=NODELAY)
    peer.send("A", b"request")
    one.advance(ms=10)
    assert conn.read() == b"request"
    conn.send(b"answer")
    peer.expect("A", payload=b"answer", ack=8)
    peer.send("A")
    peer.expect_nothing(ms=500)


@pytest.mark.parametrize("vlan", [None, 9])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("piece", [1 << 20, 300, 127])
def test_bytes_come_in_order(bench, version, vlan, piece):
    """RFC 9293, 3.10.7.4: what is in order is taken; frames may lie in several pieces."""
    one = bench(version=version, vlan=vlan, piece_bytes=piece)
    conn, peer = one.connected()
    sent = b""
    for length in (1, 2, 3, 100, 1001, 1400, 1428):
        peer.send("A", pattern(length, len(sent)))
        sent += pattern(length, len(sent))
    assert conn.read() == sent
    assert conn.read() == "EAGAIN"
    one.advance(ms=50)
    assert peer.expect_all()[-1].ack == len(sent) + 1
    assert conn.info.received_bytes == len(sent)


def test_two_queues(bench):
    """The contract: all that the connections' packets may come to are looked at."""
    one = bench(queues=2)
    conn, peer = one.connected()
    one.give(peer.frame("A", b"one"), queue=1)
    one.settle()
    one.give(peer.frame("A", b"two", seq=4), queue=0)
    one.settle()
    assert conn.read() == b"onetwo"


def test_out_of_order_is_dropped_with_a_duplicate_ack(bench):
    """RFC 5681, 4.2: a segment beyond a gap is answered at once. RFC 2018: what is not kept is not SACKed."""
    one = bench()
    conn, peer = one.connected()
    for i in (1, 2, 3):
        peer.send("A", pattern(FULL, i * FULL), seq=1 + i * FULL)
        peer.expect("A", ack=1, length=0, sack=[])
    assert conn.read() == "EAGAIN"
    assert conn.info.dropped_segments == 3
    peer.send("A", pattern(FULL), seq=1)
    one.advance(ms=50)
    assert peer.expect_all()[-1].ack == FULL + 1
    peer.seq = 1 + FULL
    peer.send("A", pattern(FULL, FULL))
    peer.send("A", pattern(FULL, 2 * FULL))
    assert conn.read() == pattern(3 * FULL)


def test_each_segment_out_of_order_has_its_duplicate_ack(bench):
    """RFC 5681, 4.2, 3.2: also when they come together: the peer counts three."""
    one = bench()
    conn, peer = one.connected()
    one.give_now(*(peer.frame("A", pattern(FULL, i * FULL), seq=1 + i * FULL) for i in (1, 2, 3, 4)))
    assert [s.ack for s in peer.expect_all()] == [1] * 4


@pytest.mark.parametrize("start", [1, 50, 100])
def test_what_overlaps_is_trimmed(bench, start):
    """RFC 9293, 3.10.7.4: only the part in the window is taken."""
    one = bench()
    conn, peer = one.connected()
    peer.send("A", pattern(100), seq=1)
    peer.send("A", pattern(200, start - 1), seq=start)
    assert conn.read() == pattern(199 + start)
    one.advance(ms=50)
    assert peer.expect_all()[-1].ack == 200 + start


def test_what_is_old_is_acknowledged_again_at_once(bench):
    """RFC 9293, 3.10.7.4: an unacceptable segment is answered with an ACK and dropped."""
    one = bench()
    conn, peer = one.connected()
    peer.send("A", pattern(FULL), seq=1)
    peer.expect("A", within_ms=100, ack=FULL + 1)
    conn.read()
    peer.send("A", pattern(FULL), seq=1)
    peer.expect("A", ack=FULL + 1, length=0)
    assert conn.read() == "EAGAIN"


def fill(one, conn, peer, most=100):
    """Sends full segments until the window that was told is full; bytes sent."""
    sent = 0
    for _ in range(most):
        one.advance(ms=50)
        for ack in peer.expect_all():
            edge = ack.ack + peer.window_of(ack) - 1
        if "edge" not in locals():
            edge = conn.right_edge - 1
        length = min(FULL, edge - sent)
        if length <= 0:
            return sent
        peer.send("A", pattern(length, sent))
        sent += length
    raise AssertionError("the window never closes")


def test_the_window_closes_and_opens(bench):
    """RFC 9293, 3.8.6: the window is what the application has room for; when it reads, the peer is told."""
    one = bench()
    conn, peer = one.connected(receive_buffer_bytes=8192)
    sent = fill(one, conn, peer)
    assert 8192 - FULL <= sent <= 8192
    peer.expect_nothing(ms=1000)
    assert conn.read() == pattern(sent)
    update = peer.expect("A", ack=sent + 1, length=0)
    assert peer.window_of(update) >= 8192 - FULL
    peer.send("A", pattern(FULL, sent))
    assert conn.read() == pattern(FULL, sent)


def test_the_window_opens_in_large_steps(bench):
    """RFC 9293, 3.8.6.2.2: it does not move until min(half the buffer, a segment) is free."""
    one = bench()
    conn, peer = one.connected(receive_buffer_bytes=8192)
    sent = fill(one, conn, peer)
    assert conn.read(200) == pattern(200)
    peer.expect_nothing(ms=500)
    assert conn.read(200) == pattern(200, 200)
    peer.expect_nothing(ms=500)
    read = 400
    while not peer.arrived:
        read += len(conn.read(200))
        one.settle()
        assert read <= 4096 + 200
    update = peer.expect("A", ack=sent + 1)
    assert peer.window_of(update) >= 1448


@pytest.mark.parametrize("first", [0, 7191, 7500, 8191, 8192])
def test_the_window_opens_however_it_is_read(bench, first):
    """RFC 9293, 3.8.6.2.2: by half the buffer or a segment, at the latest when all has been read; in two
    steps, of which the first frees half of the buffer, less than the window must move by."""
    one = bench(mtu=9000, multi_buffer=True)
    conn, peer = one.connected(rtt_ms=2, receive_buffer_bytes=16384, peer={"mss": 8960})
    for part in (pattern(8948), pattern(6436, 8948)):
        peer.send("A", part)
        one.advance(ms=50)
    assert peer.window_of(peer.expect_all()[-1]) == 1000
    got = conn.read(first) if first else b""
    one.settle()
    assert got + conn.read() == pattern(8948 + 6436)
    assert peer.window_of(peer.expect("A", within_ms=1)) >= 8192


def test_a_probe_of_a_closed_window_is_answered(bench):
    """RFC 9293, 3.8.6.1 (MUST-35, 3.10.7.4): a byte beyond a window of 0 is answered with our ACK and
    window."""
    one = bench()
    conn, peer = one.connected(receive_buffer_bytes=4096)
    sent = fill(one, conn, peer)
    for _ in range(3):
        peer.send("A", b"?", seq=sent + 1)
        peer.seq = sent + 1
        ack = peer.expect("A", length=0)
        assert ack.ack in (sent + 1, sent + 2)
        assert peer.window_of(ack) < FULL


def test_what_is_beyond_the_window_is_not_taken(bench):
    """RFC 9293, 3.10.7.4: acceptability; an ACK says where the window is."""
    one = bench()
    conn, peer = one.connected(receive_buffer_bytes=4096)
    peer.send("A", b"far", seq=1 + 8192)
    peer.expect("A", ack=1, length=0)
    assert conn.read() == "EAGAIN"
    peer.seq = 1
    peer.send("A", pattern(3000))
    peer.send("A", pattern(3000, 3000))
    one.advance(ms=50)
    last = peer.expect_all()[-1]
    assert last.ack - 1 <= 4096
    assert conn.read() == pattern(last.ack - 1)


def test_bad_checksums_are_dropped(bench):
    """RFC 9293, 3.1: the checksum is mandatory."""
    one = bench()
    conn, peer = one.connected()
    good = peer.frame("A", b"good bytes")
    for at in (len(good) - 1, 36, 50):
        bad = bytearray(good)
        bad[at] ^= 0x10
        one.give_now(bytes(bad))
    peer.expect_nothing(ms=100)
    assert one.tcp_counters.bad_csum_packets + one.tcp_counters.stray_packets == 3
    one.give_now(good)
    assert conn.read() == b"good bytes"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("length", [0, 1, 700])
def test_unfinished_checksums_of_the_same_host(bench, version, length):
    """A kernel that sends over veth leaves the pseudo header's sum in the field (CHECKSUM_PARTIAL): taken and
    counted."""
    one = bench(version=version)
    conn, peer = one.connected(flags=NODELAY)
    conn.send(b"something to acknowledge")
    frame = bytearray(peer.frame("A", pattern(length), ack=25))
    ip = IP(bytes(frame[14:])) if version == 4 else IPv6(bytes(frame[14:]))
    segment_bytes = 20 + 12 + length
    fields = bytes(frame[26:34] if version == 4 else frame[22:54]) + struct.pack("!HH", 6, segment_bytes)
    total = sum(struct.unpack(f"!{len(fields) // 2}H", fields))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    at = (34 if version == 4 else 54) + 16
    assert ip[TCP].chksum == int.from_bytes(frame[at : at + 2], "big")
    frame[at : at + 2] = struct.pack("!H", total)
    one.give_now(bytes(frame))
    one.advance(ms=1)
    assert conn.info.acked_bytes == 24
    assert conn.read() == (pattern(length) or "EAGAIN")
    assert one.tcp_counters.csum_partial_packets == conn.info.csum_partial_segments == 1
    assert one.tcp_counters.bad_csum_packets == 0


def test_urgent_data_is_data(bench):
    """RFC 9293, 3.8.5 (SHLD-13, MUST-30): the pointer is read over, nothing is taken out of the stream."""
    one = bench()
    conn, peer = one.connected()
    peer.send("AU", b"urgent", urgptr=6)
    peer.send("A", b"not")
    assert conn.read() == b"urgentnot"
    assert conn.state == "ESTABLISHED"


def test_unknown_options_and_reserved_bits_are_ignored(bench):
    """RFC 9293, 3.1 (MUST-6, MUST-7): options nobody knows, reserved bits, ECN's flags."""
    one = bench()
    conn, peer = one.connected(peer={"ts": False})
    for options in ([(254, b"1234")], [("NOP", None)] * 7, [("EOL", None)], [(28, b"ab")]):
        frame = peer.frame("AEC", b"x", reserved=5)
        packet = IP(frame[14:])
        packet[TCP].options = options
        del packet.chksum, packet.len, packet[TCP].chksum, packet[TCP].dataofs
        one.give_now(frame[:14] + bytes(packet))
        peer.seq += 1
        assert conn.read() == b"x"


@pytest.mark.parametrize("options", [b"\xfe\x00", b"\xfe\x01", b"\x08\x0a\x00\x00", b"\x02\xff\x01\x01"])
def test_broken_options_do_no_harm(bench, options):
    """RFC 9293, 3.1 (MUST-7): a length that cannot be ends the options, whatever becomes of the segment."""
    one = bench()
    conn, peer = one.connected(peer={"ts": False})
    frame = peer.frame("A", b"x")
    packet = IP(frame[14:])
    segment = bytearray(bytes(packet[TCP])[:20] + options.ljust(4, b"\1") + b"x")
    segment[12] = 6 << 4
    segment[16:18] = b"\0\0"
    packet.remove_payload()
    packet.len = 20 + len(segment)
    raw = bytearray(bytes(packet) + segment)
    whole = IP(bytes(raw))
    whole[TCP].chksum = None
    del whole.chksum
    one.give_now(frame[:14] + bytes(whole))
    assert conn.state == "ESTABLISHED"
    one.advance(ms=50)
    peer.expect_all()
    peer.send("A", b"x" if conn.read() == "EAGAIN" else b"", seq=1)
    peer.send("A", b"more", seq=2)
    assert conn.read().endswith(b"more")

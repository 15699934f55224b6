"""Packets that applications send, byte for byte against scapy; and what is refused."""

import ctypes
import errno
import struct

import pytest
from fake import Bench, fake, held_packets
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sender import Sender, complete_all, datagram, finish, native_header, scapy_frame

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import long, native, short

JUMBO = 9014
WAYS = st.builds(
    datagram,
    version=st.sampled_from([4, 6]),
    vlan=st.sampled_from([None, 0, 7, 4095]),
    pcp=st.integers(0, 7),
    src_port=st.integers(1, 65535),
    dst_port=st.integers(1, 65535),
    ttl=st.sampled_from([None, 1, 255]),
    dscp=st.integers(0, 63),
)
SHORT = st.binary(max_size=1472)
LONG = st.builds(
    lambda unit, length: (unit * length)[:length], st.binary(min_size=1, max_size=97), st.integers(0, 8900)
)


def dirty(**options):
    """A bench whose umem held other bytes before."""
    one = Bench(ring=64, **options)
    one.umem.array()[:] = 0xEE
    return one


def with_sum_zero(way, payload):
    """The payload, changed so that its UDP checksum is 0."""
    at = len(way.header()) - 2
    rest = b"\0\0" + payload
    return scapy_frame(way, rest)[at : at + 2] + payload


def lies_in(one, frame):
    """A frame as the kernel would read it: packets of several descs were put together."""
    assert held_packets(one, 0) == [frame]


@given(way=WAYS, payload=SHORT | LONG, metadata_len=st.sampled_from([0, 24]))
@settings(max_examples=250, deadline=None)
@example(way=datagram(), payload=b"", metadata_len=0)
@example(way=datagram(6, vlan=1), payload=b"\xff" * 1471, metadata_len=24)
def test_a_sent_datagram_is_scapys(way, payload, metadata_len):
    one = dirty(metadata_len=metadata_len)
    app = Sender(one, max_frame_bytes=JUMBO)
    frame = scapy_frame(way, payload)
    assert app.send(payload, native_header(way)) == 0
    one.step(2)
    lies_in(one, frame)
    counters = app.counters()
    assert (counters.submitted_packets, counters.submitted_bytes) == (1, len(frame))
    assert counters.submitted_descs == counters.posted_descs == -(-len(frame) // (2048 - metadata_len))
    finish(one, app)


@pytest.mark.parametrize("length", [*range(19), 1471, 1472, 2005, 2006, 2007, 4054, 4055, 8972])
@pytest.mark.parametrize("version", [4, 6])
def test_lengths_at_the_edges(version, length):
    one = dirty()
    app = Sender(one, max_frame_bytes=JUMBO + 20)
    way = datagram(version)
    payload = bytes(i * 7 & 0xFF for i in range(length))
    assert app.send(payload, native_header(way)) == 0
    one.step(2)
    lies_in(one, scapy_frame(way, payload))
    finish(one, app)


@given(way=WAYS, payload=st.binary(max_size=300), how=st.sampled_from(["send", "many", "post"]))
@settings(max_examples=60, deadline=None)
def test_a_checksum_of_zero_is_sent_as_ones(way, payload, how):
    one = dirty()
    app = Sender(one)
    header, payload = native_header(way), with_sum_zero(way, payload)
    if how == "send":
        assert app.send(payload, header) == 0
    elif how == "many":
        assert app.send_many([payload], header) == 1
    else:
        addr, _ = app.alloc(1, len(payload), header)
        app.write(addr + header.len, payload)
        assert app.post([(addr, header.len + len(payload))], header) == 1
    one.step(2)
    frame = scapy_frame(way, payload)
    assert frame[header.len - 2 : header.len] == b"\xff\xff"
    lies_in(one, frame)
    finish(one, app)


@given(
    way=WAYS | st.none(),
    payloads=st.lists(st.binary(min_size=14, max_size=400) | LONG.filter(lambda p: len(p) > 13), max_size=90),
    extra=st.integers(0, 9) | st.none(),
)
@settings(max_examples=60, deadline=None)
def test_send_many_takes_payloads_side_by_side_or_at_a_stride(way, payloads, extra):
    one = dirty(chunks=512)
    app = Sender(one, max_frame_bytes=JUMBO, entries=256)
    stride = 0 if extra is None else max([1, *map(len, payloads)]) + extra
    header = native_header(way) if way else None
    frames = [scapy_frame(way, p) if way else p for p in payloads]
    fit, left = 0, 256
    while fit < len(frames) and left >= -(-len(frames[fit]) // 2048):
        left -= -(-len(frames[fit]) // 2048)
        fit += 1
    assert app.send_many(payloads, header, stride) == fit
    found, before = [], 0
    for _ in range(20):
        one.step()
        found += held_packets(one, before)
        before = fake.taken(one.kernel)
        complete_all(one)
    assert found == frames[:fit]
    assert app.counters().submitted_bytes == sum(map(len, found))
    finish(one, app)


@given(
    way=WAYS,
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=40),
    room=st.sampled_from([1, 200, 201]),
)
@settings(max_examples=100, deadline=None)
def test_posted_frags_are_scapys_whatever_they_were_allocated_for(way, lengths, room):
    one = dirty()
    app = Sender(one)
    header, lengths = native_header(way), [min(length, room) for length in lengths]
    payloads = [bytes((i + k) & 0xFF for k in range(n)) for i, n in enumerate(lengths)]
    addr, pitch = app.alloc(len(lengths), room, header)
    for i, payload in enumerate(payloads):
        app.write(addr + i * pitch + header.len, payload)
    frames = [(addr + i * pitch, header.len + len(p)) for i, p in enumerate(payloads)]
    assert app.post(frames, header) == len(frames)
    one.step(2)
    assert held_packets(one, 0) == [scapy_frame(way, p) for p in payloads]
    finish(one, app)


@given(frame=st.binary(min_size=14, max_size=3000))
@settings(max_examples=60, deadline=None)
def test_raw_frames_are_sent_as_they_are(frame):
    one = dirty()
    app = Sender(one, max_frame_bytes=3000)
    assert app.send(frame) == 0
    assert app.send_many([frame, frame]) == 2
    sent = 3
    if len(frame) <= 2048:
        addr, _ = app.alloc(1, len(frame))
        app.write(addr, frame)
        assert app.post([(addr, len(frame))]) == 1
        sent = 4
    one.step(2)
    assert held_packets(one, 0) == [frame] * sent
    finish(one, app)


def test_another_destination_from_the_next_packet_on():
    one = dirty()
    app, way = Sender(one), datagram()
    header = native_header(way)
    app.send(b"before", header)
    native.header_set_mac(ctypes.byref(header), b"\x02\xaa\xbb\xcc\xdd\xee")
    app.send(b"after", header)
    one.step(2)
    first, second = held_packets(one, 0)
    assert first == scapy_frame(way, b"before")
    assert second == b"\x02\xaa\xbb\xcc\xdd\xee" + scapy_frame(way, b"after")[6:]
    finish(one, app)


# -- refusals ---------------------------------------------------------------------------------------------


def test_lengths_that_no_frame_has():
    one = dirty()
    app, header = Sender(one, max_frame_bytes=1514), native_header(datagram())
    before = one.umem.audit()
    assert app.send(bytes(1473), header) == app.send(bytes(1515)) == "EMSGSIZE"
    assert app.send(bytes(13)) == app.send(b"") == "EMSGSIZE"
    assert app.send_many([bytes(1473)], header) == "EMSGSIZE"
    assert short.endpoint_send(app.endpoint, ctypes.byref(header), b"", 2**32 - 1) == -errno.EMSGSIZE
    assert app.alloc(1, 1473, header) == app.alloc(1, 1515) == app.alloc(1, 2**32 - 1, header) == "EMSGSIZE"
    assert one.umem.audit() == before
    assert app.send_many([bytes(20), bytes(1473), bytes(20)], header) == 1, "the first was taken"
    assert app.send(bytes(1472), header) == 0
    finish(one, app)


def test_a_frag_is_never_longer_than_a_chunk():
    one = dirty(metadata_len=24)
    app, header = Sender(one, max_frame_bytes=JUMBO), native_header(datagram())
    assert app.alloc(1, 2048 - 24 - 42 + 1, header) == app.alloc(1, 2048 - 24 + 1) == "EMSGSIZE"
    addr, _ = app.alloc(1, 2048 - 24 - 42, header)
    app.release(addr)
    finish(one, app)


def test_headers_that_are_none():
    one = dirty()
    app = Sender(one)
    for change in (
        {"len": 43},
        {"len": 82},
        {"len": 44},
        {"len": 40},
        {"len": 0},
        {"len": 2**32 - 1},
        {"ip_offset": 13},
        {"ip_offset": 16},
        {"ip_offset": 42},
        {"ip_offset": 2**32 - 1},
        {"words": (ctypes.c_uint64 * 10)(0, 0x60 << 48)},  # IPv6, too long for it
    ):
        header = native_header(datagram())
        for name, value in change.items():
            setattr(header, name, value)
        assert app.send(bytes(100), header) == "EINVAL", change
        assert app.send_many([bytes(100)], header) == app.alloc(1, 100, header) == "EINVAL", change
    assert app.counters().submitted_packets == 0
    finish(one, app)


def test_frags_that_the_kernel_would_call_invalid():
    one = dirty(metadata_len=24)
    app, other, header = Sender(one, max_frame_bytes=1514), Sender(one), native_header(datagram())
    addr, pitch = app.alloc(4, 100, header)
    (theirs, _) = other.alloc(1, 100)
    for bad in (
        (addr - 1, 142),
        (addr, 41),
        (addr, 1515),
        (theirs, 142),
        (1 << 40, 142),
        (60 * 2048 + 24, 142),
    ):
        assert app.post([bad], header) == "EINVAL", bad
    assert app.post([(addr, 13)]) == app.post([(addr, 0)]) == "EINVAL"
    assert app.post([(addr, 142)], header, options=ffi.DESC_CONTD) == "EINVAL"
    assert app.post([(addr + 2048 - 24 - 100, 142)], header) == "EINVAL", "across the end"
    frames = [(addr + i * pitch, 142) for i in range(4)]
    assert app.post([*frames[:2], (addr, 41), *frames[2:]], header) == 2, "those in front of it"
    assert app.post(frames[2:], header) == 2
    other.release(theirs)
    finish(one, app, other)


def test_nobody_to_send_to():
    header = native_header(datagram())
    reference, out = ctypes.byref(header), ctypes.byref(ffi.Span())
    lens = (ctypes.c_uint32 * 1)(4)
    assert short.endpoint_send(None, reference, b"text", 4) == -errno.EPIPE
    assert long.endpoint_send_many(None, reference, b"text", 0, lens, 1) == -errno.EPIPE
    assert long.endpoint_alloc(None, reference, 1, 4, out) == -errno.EPIPE
    assert long.endpoint_post(None, reference, (ffi.Desc * 1)(), 1, None) == -errno.EPIPE


@pytest.mark.parametrize("end", ["loop", "endpoint"])
def test_an_end_is_told(end):
    one = dirty()
    app, header = Sender(one), native_header(datagram())
    one.step()
    addr, _ = app.alloc(1, 4, header)
    if end == "loop":
        one.drain()
        one.run()
    else:
        native.loop_command(one.loop, ffi.REMOVE_ENDPOINT, app.endpoint)
        one.step()
    assert app.send(b"text", header) == app.send_many([b"text"], header) == "EPIPE"
    assert app.alloc(1, 4, header) == app.post([(addr, 46)], header) == "EPIPE"
    app.release(addr)
    finish(one, app)


def test_a_second_thread_is_refused():
    one = dirty()
    app, header = Sender(one), native_header(datagram())
    native.arena_enter(app.arena)
    assert app.send(b"text", header) == app.send_many([b"text"], header) == app.alloc(1, 4, header) == "EBUSY"
    native.arena_leave(app.arena)
    assert app.send(b"text", header) == 0
    finish(one, app)


def test_a_full_ring_consumes_nothing():
    one = dirty(chunks=256)
    app, header = Sender(one, entries=8, max_frame_bytes=JUMBO), native_header(datagram())
    assert app.send_many([b"%d" % i for i in range(12)], header) == 8
    held = one.umem.audit().referenced
    assert app.send(b"text", header) == app.send_many([b"text"], header) == "EAGAIN"
    addr, _ = app.alloc(1, 4, header)
    assert app.post([(addr, 46)], header) == "EAGAIN"
    app.release(addr)
    assert one.umem.audit().referenced == held
    assert app.counters().submitted_packets == 8
    one.step()
    assert app.send(bytes(6000), header) == app.send(bytes(6000), header) == 0
    assert app.send(bytes(6000), header) == "EAGAIN", "two descs are left, it takes three"
    assert app.send_many([bytes(2000), bytes(2000), bytes(2100)], header) == 2
    finish(one, app)


def test_at_the_quota_nothing_is_consumed():
    one = dirty(chunks=64)
    app, header = Sender(one, quota=4, max_frame_bytes=JUMBO), native_header(datagram())
    assert app.send(bytes(5000), header) == 0
    allocated = app.counters().submitted_descs
    assert app.send(bytes(5000), header) == "EAGAIN", "three frags, and one chunk is left"
    assert app.counters().submitted_descs == allocated == 3
    assert app.send_many([bytes(1900)] * 3, header) == 1
    assert app.stats().owned_chunks == 4
    one.step(2)
    complete_all(one)
    one.step()
    assert app.send(bytes(5000), header) == 0, "all of them came back"
    finish(one, app)


def test_a_span_beyond_the_quota_can_never_be_had():
    one = dirty(chunks=64)
    app, unlimited = Sender(one, quota=4), Sender(one)
    assert app.alloc(5, 1500) == app.alloc(129, 32) == "E2BIG"
    assert unlimited.alloc(65, 1500) == "E2BIG"
    assert app.alloc(0, 100) == app.alloc(1, 0) == "EINVAL"
    addr, pitch = app.alloc(128, 32)
    assert pitch == 64
    for i in range(128):
        app.release(addr + i * pitch)
    finish(one, app, unlimited)


def test_a_count_near_the_words_end_is_too_big():
    one = dirty(chunks=64)
    app = Sender(one)
    assert app.alloc(2**32 - 1, 100) == app.alloc(2**32 - 2, 1000) == "E2BIG"
    finish(one, app)


# -- metadata ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["send", "many", "post"])
@pytest.mark.parametrize("flags", [0, ffi.ENDPOINT_TIMESTAMPS])
def test_metadata_is_requested_or_cleared_in_front_of_every_desc(how, flags):
    one = dirty(metadata_len=24)
    app, header = Sender(one, endpoint_flags=flags, max_frame_bytes=JUMBO), native_header(datagram())
    if how == "post":
        addr, pitch = app.alloc(3, 100, header)
        assert app.post([(addr + i * pitch, 142) for i in range(3)], header) == 3
        firsts = [True] * 3
    else:
        payload = bytes(5000)
        assert (app.send(payload, header) if how == "send" else app.send_many([payload], header) - 1) == 0
        firsts = [True, False, False]
    one.step(2)
    for i, first in enumerate(firsts):
        desc = fake.held_desc(one.kernel, i)
        asked = first and flags
        assert struct.unpack("QQ", one.umem.area.view(desc.addr - 24, 16)) == (1 if asked else 0, 0)
        assert bool(desc.options & 2) == bool(asked)
        assert bool(desc.options & ffi.DESC_CONTD) == (how != "post" and i < 2)
    finish(one, app)


def test_timestamps_need_room_for_metadata():
    one = dirty()
    with pytest.raises(OSError, match="endpoint_create") as refused:
        Sender(one, endpoint_flags=ffi.ENDPOINT_TIMESTAMPS)
    assert refused.value.errno == errno.EINVAL
    one.close()

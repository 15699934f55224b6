"""Mixes of flows against the fake kernel: order, bytes in recycled slots, updates, captures, gaps."""

import ctypes
import errno
import random
import struct

import pytest
from fake import Bench, fake, held_packets, patch
from hypothesis import given, settings
from hypothesis import strategies as st
from sender import Sender, complete_all, finish

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native

MS, SECOND = 10**6, 10**9
TAILS = [patch(-8, 8, base=0xABCD << 48)]


def template(number, length):
    return bytes([number]) + bytes((number * 31 + i) & 0xFF for i in range(1, length))


class Model:
    """What one flow sends, by the contract in xske.h."""

    def __init__(self, number, length, sizes, kind):
        self.frame, self.sizes, self.kind = template(number, length), sizes or [length], kind
        self.sent = 0

    def native(self, one, weight=1):
        patches = {"still": [], "head": [patch(8, 4), patch(13, 1, step=3)], "tail": [patch(8, 2), *TAILS]}[
            self.kind
        ]
        return one.flow(self.frame, patches, sizes=self.sizes if len(self.sizes) > 1 else (), weight=weight)

    def next(self):
        data = bytearray(self.frame[: self.sizes[self.sent % len(self.sizes)]])
        if self.kind == "head":
            data[8:12], data[13] = self.sent.to_bytes(4, "big"), self.sent * 3 & 0xFF
        if self.kind == "tail":
            data[8:10], data[-8:] = (
                (self.sent & 0xFFFF).to_bytes(2, "big"),
                ((0xABCD << 48) + self.sent).to_bytes(8, "big"),
            )
        self.sent += 1
        return bytes(data)


@given(
    flows=st.lists(
        st.tuples(
            st.sampled_from(["still", "head", "tail"]),
            st.sampled_from([64, 200, 700, 1500, 5000]),
            st.integers(1, 3),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 10**6),
    chunks=st.sampled_from([64, 200]),
    metadata_len=st.sampled_from([0, 24]),
)
@settings(max_examples=150, deadline=None)
def test_every_packet_has_its_own_bytes_however_slots_are_recycled(flows, seed, chunks, metadata_len):
    one, rng = Bench(ring=64, chunks=chunks, metadata_len=metadata_len), random.Random(seed)
    models = [
        Model(i + 1, length, [length - 17 * j for j in range(different)], kind)
        for i, (kind, length, different, _) in enumerate(flows)
    ]
    natives = [model.native(one, weight) for model, (*_, weight) in zip(models, flows, strict=True)]
    order = [i for i, (*_, weight) in enumerate(flows) for _ in range(weight)]
    rng.shuffle(order)
    one.start_mix(natives, order, batch=rng.choice([1, 7, 64]))
    sent = 0
    for _ in range(60):
        taken = fake.taken(one.kernel)
        one.step()
        for packet in held_packets(one, taken):
            assert packet == models[order[sent % len(order)]].next(), sent
            sent += 1
        for _ in range(rng.randrange(40)):
            if held := fake.held(one.kernel):
                # mostly in order, as kernels do
                fake.complete(one.kernel, 0 if rng.random() < 0.8 else rng.randrange(held))
    assert sent > 20
    assert one.counters.error == ffi.ERROR_NONE
    one.close()


def test_a_chunk_that_comes_back_is_not_copied_into_again(bench):
    """The template's bytes are changed in a slot behind the engine's back, and stay so."""
    one = bench(ring=64, chunks=64)
    one.start(frame=b"y" * 1000, patches=[patch(0, 8)], batch=8)
    for _ in range(20):
        one.step()
        while fake.held(one.kernel):
            fake.complete(one.kernel, 0)
    one.step()
    addr = fake.held_desc(one.kernel, 0).addr
    one.umem.area.view(addr + 500, 1)[:] = b"!"
    seen = False
    for _ in range(20):
        while fake.held(one.kernel):
            fake.complete(one.kernel, 0)
        one.step()
        for i in range(fake.held(one.kernel)):
            if fake.held_desc(one.kernel, i).addr == addr:
                seen |= one.packet(i)[500:501] == b"!"
    assert seen


def test_a_template_between_prefilled_slots(bench):
    one = bench(ring=64)
    one.start(frame=b"a" * 64, patches=[patch(0, 8)], batch=4)

    def turn():
        while fake.held(one.kernel):
            fake.complete(one.kernel, 0)
        one.step()
        return [one.packet(i) for i in range(fake.held(one.kernel))]

    for _ in range(30):
        turn()
    one.start(frame=b"b" * 64, count=1)
    for _ in range(60):
        assert {packet[8:] for packet in turn()} <= {b"a" * 56, b"b" * 56}
    assert one.counters.finished_flows == 1
    for _ in range(60):
        assert {packet[8:] for packet in turn()} == {b"a" * 56}


def test_a_chunk_that_was_somebody_elses_holds_no_template(bench):
    one = bench(ring=64, chunks=16)

    def hold(packets):
        while fake.held(one.kernel) < packets:
            one.step()

    one.start(frame=b"a" * 1000, patches=[patch(0, 8)], rate_packets=1, rate_period_ns=MS)
    for _ in range(4):
        hold(30)
        while fake.held(one.kernel):
            fake.complete(one.kernel, 0)
    native.loop_command(one.loop, ffi.PARK, None)
    one.step()
    assert one.counters.owned_chunks == 0
    other = one.open_arena()
    native.arena_enter(other)
    taken = [ctypes.c_uint64() for _ in range(16)]
    for addr in taken:
        native.frag_alloc(other, 2048, ctypes.byref(addr))
        one.umem.area.view(addr.value, 2048)[:] = b"?" * 2048
    for addr in taken:
        native.frag_unref(one.umem.handle, other, addr)
    native.arena_leave(other)
    native.arena_close(other)
    hold(30)
    assert {one.packet(i)[8:] for i in range(30)} == {b"a" * 992}


def update(flows, offset, data):
    handles = (ctypes.c_void_p * len(flows))(*flows)
    return ffi.Update(handles, len(flows), offset, len(data), (ctypes.c_uint8 * 8)(*data))


def command(one, change):
    native.loop_command(one.loop, ffi.UPDATE, ctypes.cast(ctypes.pointer(change), ctypes.c_void_p))


@pytest.mark.parametrize(
    ("patches", "length"), [([], 60), ([], 5000), ([patch(20, 8)], 5000)], ids=["template", "pieces", "both"]
)
def test_an_update_waits_until_no_template_is_inflight(bench, patches, length):
    one = bench(ring=64)
    flow = one.flow(bytes(length), patches)
    one.start_mix([flow], [0])
    one.step(2)
    for _ in range(20):  # until its slots are prefilled
        complete_all(one)
        one.step()
    taken = fake.taken(one.kernel)
    assert fake.held(one.kernel)
    change = update([flow], 0, b"\1\2\3\4\5\6")
    command(one, change)
    one.step(5)
    assert fake.taken(one.kernel) == taken, "nothing is posted meanwhile"
    assert not change.done
    assert one.packet(0)[:6] == bytes(6)
    complete_all(one)
    one.step(2)
    assert change.done
    assert one.packet(0)[:6] == b"\1\2\3\4\5\6"
    for _ in range(40):  # no slot that held the old bytes comes back with them
        complete_all(one)
        one.step()
        assert one.packet(0)[:6] == b"\1\2\3\4\5\6"


def test_an_update_of_copies_waits_for_nothing(bench):
    """What is inflight stays what it was."""
    one = bench(ring=64)
    flow = one.flow(bytes(60), [patch(20, 8)])
    one.start_mix([flow], [0], batch=8)
    one.step(2)
    before = one.counters.submitted_packets
    assert 0 < before < 64
    change = update([flow], 0, b"\1\2\3\4\5\6")
    command(one, change)
    one.step(8)
    assert change.done
    assert fake.held(one.kernel) == 64
    after = (64 - before) * [b"\1\2\3\4\5\6"]
    assert [one.packet(i)[:6] for i in range(64)] == before * [bytes(6)] + after


def test_an_update_waits_for_its_own_flows_only():
    """An application that always has something inflight stops no flow."""
    one = Bench(ring=64, chunks=64)
    app = Sender(one, entries=128)
    flow = one.flow(bytes(60))
    one.start_mix([flow], [0], {"rate_units": 1, "period_ns": MS, "packet_units": 1})
    change = update([flow], 0, b"\1\2\3\4\5\6")
    seen = set()
    for i in range(2000):
        if i == 1000:
            command(one, change)
        app.send(b"e" * 60)
        app.send(b"e" * 60)
        one.step()
        while fake.held(one.kernel) > 1:
            seen.add(one.packet(0)[:6])
            fake.complete(one.kernel, 0)
        fake.advance(one.kernel, MS)
        assert fake.held(one.kernel), "never none"
    assert change.done
    assert seen == {b"e" * 6, bytes(6), b"\1\2\3\4\5\6"}
    finish(one, app)


def test_updates_are_applied_in_their_order(bench):
    one = bench(ring=64)
    flows = [one.flow(), one.flow()]
    one.start_mix(flows, [0, 1])
    one.step(2)
    changes = [update(flows[:1], 0, b"\1"), update(flows[1:], 0, b"\7"), update(flows[:1], 0, b"\3")]
    for change in changes:
        command(one, change)
    one.step(3)
    assert not any(change.done for change in changes)
    complete_all(one)
    one.step(2)
    assert all(change.done for change in changes)
    assert {one.packet(i)[0] for i in range(fake.held(one.kernel))} == {3, 7}


def test_an_update_that_comes_too_late_is_done_with(bench):
    one = bench(ring=64)
    flow = one.flow()
    one.start_mix([flow], [0], count=3)
    one.step(2)
    change = update([flow], 0, b"\1")
    command(one, change)
    one.step()
    one.drain()
    one.step()
    assert change.done


def test_templates_that_do_not_fit_leave_nothing_behind(bench):
    one = bench(ring=64, chunks=3, chunk_size=2048)
    mix = one.start_mix([one.flow(b"z" * 2000) for _ in range(5)], [0, 1, 2, 3, 4])
    one.step()
    assert native.mix_has_ended(mix)
    assert native.mix_error(mix) == errno.ENOMEM
    assert one.counters.state == ffi.LOOP_RUNNING, "others may go on"
    assert one.umem.audit().referenced == 0


def test_mixes_that_start_together(bench):
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    first = one.start_mix([one.flow(b"\1" * 60)], [0], {"rate_units": 1, "period_ns": MS, "packet_units": 1},
                          count=20, command=False)  # fmt: skip
    one.start_mix([one.flow(b"\2" * 60)], [0], {"rate_units": 1, "period_ns": 2 * MS, "packet_units": 1},
                  count=10, beside=first)  # fmt: skip
    while one.counters.finished_flows < 2:
        one.step()
    assert one.counters.submitted_packets == 30
    assert one.counters.active_flows == 0
    assert one.gaps.post.count == 28
    assert one.gaps.post.max_ns < 2.1 * MS
    assert sum(one.gaps.post.bucket) == 28
    assert one.gaps.asked_ns == 19 * MS + 9 * 2 * MS
    assert abs(one.gaps.paced_ns - one.gaps.asked_ns) < MS // 10


# ---- capture ---------------------------------------------------------------------------------------------


@pytest.fixture
def capture():
    handle = ffi.create(native.capture_create, 4096, 0, 0)
    yield handle
    native.capture_destroy(handle)


def read(handle, most=1 << 16):
    buffer = ctypes.create_string_buffer(most)
    return ctypes.string_at(buffer, native.capture_read(handle, buffer, most))


def test_a_full_capture_holds_the_flow_and_loses_nothing(capture):
    one = Bench(ring=64, capture=capture, progress_timeout_ns=SECOND)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(frame=b"c" * 300, patches=[patch(0, 8)], count=100)
    one.step(30_000)  # nobody reads, for longer than the progress timeout
    assert fake.slept_ns(one.kernel) > SECOND
    assert one.counters.state == ffi.LOOP_RUNNING
    assert 0 < one.counters.submitted_packets <= 4096 // 316
    data = b""
    while not one.counters.finished_flows:
        data += read(capture, 100)
        one.step()
    while more := read(capture):
        data += more
    assert len(data) == 100 * 316
    for i in range(100):
        record = data[i * 316 : (i + 1) * 316]
        assert struct.unpack_from("=8xII", record) == (300, 300)
        assert record[16:] == i.to_bytes(8, "big") + b"c" * 292
    one.close()


def test_a_reader_that_has_gone_holds_nothing(capture):
    one = Bench(ring=64, capture=capture)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(frame=b"c" * 300, count=100)
    one.step(50)
    native.capture_close(capture)
    one.step(200)
    assert one.counters.submitted_packets == 100
    one.close()

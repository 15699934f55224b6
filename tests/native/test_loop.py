"""txq and loop against the fake kernel. Rings start 100 entries before UINT32_MAX unless said otherwise."""

import ctypes
import errno
import random

import pytest
from fake import Bench, fake, patch
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from sender import Sender, finish

from xsk_engine import packet
from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native

MS = 10**6
SECOND = 10**9


def test_a_counted_flow_over_the_wrap(bench):
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(count=1000, frame=bytes(range(60)))
    while not one.counters.finished_flows:
        one.step()
    one.drain()
    assert one.run() == ffi.LOOP_STOPPED
    page = one.counters
    assert (page.submitted_packets, page.completed_packets, page.inflight_descs) == (1000, 1000, 0)
    assert page.submitted_bytes == page.completed_bytes == 60_000
    assert page.completed_wire_bytes == 84_000
    assert fake.taken(one.kernel) == 1000


def test_inflight_never_exceeds_the_completion_ring(bench):
    one = bench(ring=256, cq=64)
    one.start(batch=100)
    one.step(50)
    assert one.counters.inflight_descs == 64
    assert fake.held(one.kernel) == 64
    assert one.counters.backpressure > 0


def test_a_flows_quota(bench):
    one = bench(ring=64)
    one.start(quota_frags=10)
    one.step(20)
    assert one.counters.inflight_descs == 10


def test_template_packets_and_jumbo_frames(bench):
    one = bench(ring=64, chunk_size=2048)
    frame = bytes(i & 0xFF for i in range(5000))
    one.start(frame=frame, count=3)
    one.step(2)
    assert fake.held(one.kernel) == 9
    descs = [fake.held_desc(one.kernel, i) for i in range(9)]
    assert [d.len for d in descs[:3]] == [2048, 2048, 904]
    assert [d.options for d in descs] == [1, 1, 0] * 3
    assert b"".join(one.packet(i) for i in range(3)) == frame
    assert {d.addr for d in descs[:3]} == {d.addr for d in descs[6:]}, "one template, posted again"
    for _ in range(4):
        fake.complete(one.kernel, 0)
    one.step()
    assert one.counters.completed_packets == 1
    assert one.counters.completed_descs == 4


@given(
    payload=st.binary(min_size=16, max_size=200),
    base=st.integers(0, 65535),
    modulo=st.integers(1, 7),
    hold=st.integers(1, 4),
    queues=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_patched_packets_have_right_checksums(payload, base, modulo, hold, queues):
    from fake import Bench

    one = Bench(ring=64)
    mac = bytes(6)
    address = packet.ipaddress.ip_address("10.77.0.1")
    frame = packet.udp_frame(mac, mac, address, address, 1000, 9, payload)
    fields = [
        patch(42, 8, csums=1),
        patch(51, 4, csums=1, base=base, step=77),  # odd
        patch(57, 1, csums=1, base=base & 0xFF, step=3),
        patch(34, 2, csums=1, base=base, modulo=modulo, hold=hold),
        ffi.Patch(kind=ffi.PATCH_LENGTH, base=34, csums=1),
    ]
    udp = ffi.Csum(offset=40, start=34, pseudo_offset=26, pseudo_len=8, constant=17, flags=ffi.CSUM_UDP)
    place = {"queue": queues - 1, "queues": queues}
    one.start(frame=frame, patches=fields, count=20, flow={"csums": [udp], **place})
    one.step(3)
    assert fake.held(one.kernel) == 20
    for i in range(20):
        raw, sequence = one.packet(i), queues - 1 + i * queues
        assert int.from_bytes(raw[42:50], "big") == sequence
        assert int.from_bytes(raw[34:36], "big") == (base + sequence // hold % modulo) % 65536
        parsed = Ether(raw)
        right = parsed.copy()
        del right[UDP].chksum, right[IP].chksum
        # 0 and 0xffff are the same sum; scapy may compute either form of it
        assert bytes(right) == raw or (raw[40:42] == b"\xff\xff" and bytes(right)[40:42] == b"\0\0")
    one.close()


def test_completions_out_of_order_and_late(bench):
    one = bench(ring=64, chunk_size=2048)
    rng = random.Random(5)
    one.start(frame=b"x" * 600, patches=[patch(0, 8)], count=2000)
    turns = 0
    while one.counters.completed_packets < 2000:
        turns += 1
        assert turns < 50_000
        one.step()
        for _ in range(rng.randrange(20)):
            if held := fake.held(one.kernel):
                fake.complete(one.kernel, rng.randrange(held))
    assert one.counters.bad_completions == 0
    assert one.counters.allocated_frags == 2000


@pytest.mark.parametrize("kind", ["unknown", "duplicate", "never posted"])
def test_a_completion_that_cannot_be_is_an_error_with_its_addr(bench, kind):
    one = bench(ring=64)
    one.start(count=4, patches=[patch(0, 8)], frame=b"y" * 1500)
    one.step(3)
    first = fake.held_desc(one.kernel, 0).addr
    addr = {"unknown": one.umem.area.length + 64, "duplicate": first, "never posted": 40 * 2048}[kind]
    if kind == "duplicate":
        fake.complete(one.kernel, 0)
    fake.complete_addr(one.kernel, addr)
    one.step(2)
    page = one.counters
    assert page.state == ffi.LOOP_FAILED
    assert (page.error, page.error_arg, page.bad_completions) == (ffi.ERROR_COMPLETION, addr, 1)
    # The reference was not dropped: what is inflight is still pinned.
    assert one.umem.audit().inflight == page.inflight_descs == (3 if kind == "duplicate" else 4)


def test_more_completions_than_posts_on_one_chunk(bench):
    one = bench(ring=64)
    one.start(count=3)
    one.step(3)
    addr = fake.held_desc(one.kernel, 0).addr
    for _ in range(5):
        fake.complete_addr(one.kernel, addr)
    one.step(2)
    assert one.counters.completed_descs == 3
    assert one.counters.bad_completions == 2


def test_missing_completions_end_in_an_error_not_in_a_hang(bench):
    one = bench(ring=64, progress_timeout_ns=SECOND)
    one.start(count=5)
    assert one.run() == ffi.LOOP_FAILED
    assert (one.counters.error, one.counters.error_arg) == (ffi.ERROR_NO_PROGRESS, 5)
    assert 0.99 * SECOND <= fake.slept_ns(one.kernel) < 1.2 * SECOND


def test_the_drain_has_a_deadline(bench):
    one = bench(ring=64, progress_timeout_ns=10 * SECOND, drain_timeout_ns=300 * MS)
    one.start(count=5)
    one.step(3)
    one.drain()
    assert one.run() == ffi.LOOP_STOPPED
    assert one.counters.inflight_descs == 5
    assert fake.slept_ns(one.kernel) < SECOND


def test_a_stopped_machine_is_not_a_stopped_kernel(bench):
    one = bench(ring=64, progress_timeout_ns=SECOND)
    one.start(count=1)
    one.step(3)
    fake.advance(one.kernel, 60 * SECOND)  # suspended
    one.step(2)
    assert one.counters.state == ffi.LOOP_RUNNING
    fake.complete(one.kernel, 0)
    one.step(2)
    assert one.counters.completed_packets == 1


@pytest.mark.parametrize(
    ("number", "counter"),
    [(errno.EAGAIN, "kick_eagain"), (errno.ENOBUFS, "kick_enobufs"), (errno.EBUSY, "kick_ebusy")],
)
def test_kicks_that_pass(bench, number, counter):
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    fake.script(one.kernel, number, 50)
    one.start(count=200)
    one.step(400)
    assert one.counters.completed_packets == 200, "nothing is lost to the engine"
    assert getattr(one.counters, counter) == 50
    assert one.counters.state == ffi.LOOP_RUNNING


@pytest.mark.parametrize("number", [errno.ENXIO, errno.EINVAL, errno.EPERM])
def test_kicks_that_are_fatal(bench, number):
    one = bench(ring=64)
    fake.script(one.kernel, number, 1)
    one.start(count=10)
    assert one.run() == ffi.LOOP_FAILED
    assert (one.counters.error, one.counters.error_errno) == (ffi.ERROR_KICK, number)


def test_link_down_and_up_again_is_not_counted_in_the_duration(bench):
    one = bench(ring=64, link_timeout_ns=5 * SECOND)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(duration_ns=SECOND, rate_packets=1, rate_period_ns=10 * MS)
    while one.counters.completed_packets < 50:
        one.step()
    fake.script(one.kernel, errno.ENETDOWN, 200)  # 10 ms apart: two seconds
    while not one.counters.finished_flows:
        one.step()
    one.drain()
    assert one.run() == ffi.LOOP_STOPPED
    assert one.counters.kick_enetdown == 200
    assert 1.9 * SECOND < one.counters.link_down_ns < 2.1 * SECOND
    assert one.counters.completed_packets == 100


def test_what_starts_while_the_link_is_down_begins_with_it(bench):
    """At once, at its own pace and for its own duration."""
    one = bench(ring=64, link_timeout_ns=60 * SECOND)
    fake.policy(one.kernel, 1 << 30, 1)
    fake.script(one.kernel, errno.ENETDOWN, 1 << 30)
    one.start(count=1)
    while one.counters.link_down_ns < 20 * SECOND:
        one.step()
    one.start(rate_packets=1, rate_period_ns=MS, duration_ns=SECOND)
    one.step(10)
    fake.script(one.kernel, 0, 0)
    while not one.counters.completed_packets:
        one.step()
    up = fake.clock(one.kernel)
    while one.counters.finished_flows < 2:
        one.step()
        assert fake.clock(one.kernel) < up + 2 * SECOND
    assert 990 <= one.counters.completed_packets <= 1005


def test_packets_that_asked_for_the_link_leave_the_gaps_alone(bench):
    """They are posted while it is down, and the time that it was down does not count."""
    one = bench(ring=64, link_timeout_ns=10 * SECOND)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(count=5000, rate_packets=1, rate_period_ns=MS)
    one.step(100)
    fake.script(one.kernel, errno.EBUSY, 1100)
    while not one.counters.finished_flows:
        one.step()
    assert one.counters.link_down_ns > SECOND // 10
    assert one.gaps.post.max_ns < 2 * SECOND
    assert one.gaps.error.max_ns < 2 * SECOND


def test_link_down_for_too_long(bench):
    one = bench(ring=64, link_timeout_ns=2 * SECOND)
    fake.script(one.kernel, errno.ENETDOWN, 1 << 30)
    one.start(count=10)
    assert one.run() == ffi.LOOP_FAILED
    assert (one.counters.error, one.counters.error_errno) == (ffi.ERROR_LINK_DOWN, errno.ENETDOWN)
    assert one.counters.error_arg >= 2 * SECOND


def test_a_run_of_ebusy_is_a_link_that_is_down(bench):
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    fake.script(one.kernel, errno.EBUSY, 1 << 30)
    one.start()
    one.step(1100)
    lost = one.counters.kick_ebusy
    assert 1000 <= lost < 1100, "then it only probes"
    assert one.counters.link_down_ns > 0
    fake.script(one.kernel, 0, 0)
    before = one.counters.completed_packets
    one.step(300)
    assert one.counters.completed_packets > before + 100


def test_a_slow_flow_notices_a_peer_that_is_down(bench):
    """One packet per kick, and an empty ring in between."""
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    fake.script(one.kernel, errno.EBUSY, 1 << 30)
    one.start(rate_packets=1, rate_period_ns=MS)
    assert one.run(1_000_000) == ffi.LOOP_FAILED
    assert one.counters.error == ffi.ERROR_LINK_DOWN
    assert 1000 <= one.counters.kick_ebusy < 1600


def test_a_lossy_receiver_is_no_lost_link(bench):
    """Every kick ends in EBUSY, but 49 of 50 packets pass."""
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    fake.lossy(one.kernel, 49)
    fake.script(one.kernel, errno.EBUSY, 1 << 30)
    one.start(batch=64)
    one.step(20_000)
    assert one.counters.state == ffi.LOOP_RUNNING
    assert one.counters.kick_ebusy > 10_000
    assert one.counters.link_down_ns == 0


@pytest.mark.parametrize("by", ["a flow", "an endpoint"])
def test_a_full_ring_whose_last_packet_is_dropped(by):
    """All of it has come back, and the kernel does not say yet that there is room."""
    one = Bench(ring=64, chunks=256)
    fake.policy(one.kernel, 1 << 30, 1)
    fake.lossy(one.kernel, 63)
    fake.script(one.kernel, errno.EBUSY, 1)
    apps = []
    if by == "a flow":
        one.start(count=100, batch=64)
    else:
        apps.append(Sender(one, entries=128, batch=64))
        for _ in range(100):
            apps[0].send(b"e" * 60)
    one.step(200)
    assert (one.counters.completed_packets, one.counters.kick_ebusy) == (100, 1)
    finish(one, *apps)


@pytest.mark.parametrize("number", [errno.ENETDOWN, 0])
def test_what_cannot_be_sent_yet_keeps_nobody_awake(number):
    """An application goes on sending while the link is down, or while a flow has filled the ring."""
    one = Bench(ring=64, chunks=256)
    app = Sender(one, entries=128)
    fake.script(one.kernel, number, 1 << 30)
    one.start(batch=64)
    one.step(5)
    app.send(b"e" * 60)
    before = fake.slept_ns(one.kernel)
    one.step(100)
    assert fake.slept_ns(one.kernel) - before > 1_000_000
    fake.script(one.kernel, 0, 0)
    finish(one, app)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS])
def test_a_link_that_is_down_and_then_stuck_has_a_deadline(bench, number):
    one = bench(ring=64, link_timeout_ns=2 * SECOND)
    fake.script(one.kernel, errno.ENETDOWN, 5)
    one.start(count=10)
    one.step(4)
    fake.script(one.kernel, number, 1 << 30)
    assert one.run(5000) == ffi.LOOP_FAILED
    assert one.counters.error == ffi.ERROR_LINK_DOWN
    assert fake.kicks(one.kernel) < 300


def test_parking_on_command(bench):
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(count=10, patches=[patch(0, 8)])
    one.step(2)
    assert one.counters.owned_chunks == 16, "a slab"
    native.loop_command(one.loop, ffi.PARK, None)
    one.step()
    assert one.counters.owned_chunks == 0
    assert one.umem.audit().pooled == 64


def test_an_ended_loop_takes_nothing(bench):
    one = bench(ring=64)
    one.step()
    one.drain()
    assert one.run() == ffi.LOOP_STOPPED
    with pytest.raises(OSError, match="loop_command"):
        one.start(count=1)


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize(("packets", "period"), [(1, SECOND), (3, 10 * MS), (1, 1000), (9973, SECOND)])
def test_a_rate_holds_at_every_batch_size(bench, batch, packets, period):
    one = bench(ring=2048, chunks=64)
    fake.policy(one.kernel, 1 << 30, 1)
    count = min(3000, max(20, packets * SECOND // period // 20))
    one.start(count=count, batch=batch, rate_packets=packets, rate_period_ns=period)
    for _ in range(2_000_000):
        if one.counters.finished_flows:
            break
        one.step()
    one.step(2)  # the last completion
    took = one.counters.last_completion_ns - one.counters.first_post_ns
    due = (count - 1) * period / packets
    assert due * 0.999 - 1 <= took <= due * 1.001 + 5000


def test_a_paced_loop_sleeps_and_an_idle_one_gives_its_memory_back(bench):
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(count=10, rate_packets=1, rate_period_ns=SECOND, patches=[patch(0, 8)])
    one.step(4000)
    assert one.counters.completed_packets >= 1
    while not one.counters.finished_flows:
        one.step()
    assert fake.slept_ns(one.kernel) > 8.9 * SECOND, "9 s of gaps, 60 us of spinning each"
    one.step(5)
    assert one.counters.owned_chunks == 0
    assert one.umem.audit().pooled == 64
    kicks = fake.kicks(one.kernel)
    one.step(50)
    assert fake.kicks(one.kernel) == kicks


def test_endpoint_frags_come_back_over_the_return_list(bench):
    one = bench(ring=64, chunks=64)
    fake.policy(one.kernel, 1 << 30, 1)
    arena = one.open_arena(quota=4)
    endpoint = one.endpoint(arena)
    native.loop_command(one.loop, ffi.ADD_ENDPOINT, endpoint)
    native.arena_enter(arena)
    sent = 0
    for i in range(500):
        addr = ctypes.c_uint64()
        try:
            native.frag_alloc(arena, 1000, ctypes.byref(addr))
        except OSError as error:
            assert error.errno == errno.EAGAIN
            one.step(2)
            continue
        one.umem.area.view(addr.value, 8)[:] = i.to_bytes(8, "big")
        native.endpoint_submit(endpoint, ctypes.byref(ffi.Desc(addr, 1000, 0)), 1)
        sent += 1
    one.step(5)
    stats = ffi.ArenaStats()
    native.arena_read_stats(arena, ctypes.byref(stats))
    assert one.counters.completed_packets == sent
    assert sent > 250
    assert stats.cross_thread_returns > 50
    assert stats.owned_chunks <= 4
    native.arena_leave(arena)
    one.step(10)  # idle: the loop parks the endpoint's arena
    native.arena_read_stats(arena, ctypes.byref(stats))
    assert stats.owned_chunks == 0
    native.loop_command(one.loop, ffi.REMOVE_ENDPOINT, endpoint)
    one.step(2)
    assert native.endpoint_state(endpoint) == ffi.ENDPOINT_REMOVED
    native.endpoint_destroy(endpoint)
    native.arena_close(arena)


def test_submits_that_the_kernel_would_refuse_never_reach_it(bench):
    one = bench(ring=64, metadata_len=16)
    arena, other = one.open_arena(), one.open_arena(txq_id=9)
    endpoint = one.endpoint(arena)
    with pytest.raises(OSError, match="Invalid"):
        one.endpoint(other)
    native.arena_enter(arena)
    native.arena_enter(other)
    addr, foreign = ctypes.c_uint64(), ctypes.c_uint64()
    native.frag_alloc(arena, 100, ctypes.byref(addr))
    native.frag_alloc(other, 100, ctypes.byref(foreign))
    assert addr.value % 2048 == 16, "room for the metadata in front"
    good = addr.value
    for bad in (
        ffi.Desc(good, 0, 0),
        ffi.Desc(good, 2048, 0),
        ffi.Desc(good - 16, 60, 0),
        ffi.Desc(one.umem.area.length, 60, 0),
        ffi.Desc(good, 60, 2),
        ffi.Desc(good, 60, ffi.DESC_CONTD),
        ffi.Desc(foreign.value, 60, 0),
        ffi.Desc(good + 20 * 2048, 60, 0),
    ):
        with pytest.raises(OSError, match="Invalid"):
            native.endpoint_submit(endpoint, ctypes.byref(bad), 1)
    many = (ffi.Desc * 19)(*[ffi.Desc(good, 60, ffi.DESC_CONTD)] * 18, ffi.Desc(good, 60, 0))
    with pytest.raises(OSError, match="Invalid"):
        native.endpoint_submit(endpoint, many, 19)
    native.frag_unref(one.umem.handle, other, foreign)
    # A submit that crosses the loop's end goes back with the endpoint.
    native.endpoint_submit(endpoint, ctypes.byref(ffi.Desc(good, 60, 0)), 1)
    native.endpoint_destroy(endpoint)
    for each in (arena, other):
        native.arena_leave(each)
        native.arena_close(each)


def test_no_chunk_for_a_template(bench):
    one = bench(ring=64, chunks=1, chunk_size=2048)
    mix = one.start(frame=b"z" * 4000, count=1)
    one.step()
    assert native.mix_has_ended(mix)
    assert native.mix_error(mix) == errno.ENOMEM
    assert one.counters.state == ffi.LOOP_RUNNING, "others may go on"


def test_a_starved_flow_waits_and_then_fails(bench):
    """Its template fits, its packets do not: chunks are elsewhere."""
    one = bench(ring=64, chunks=1, progress_timeout_ns=SECOND)
    one.start(frame=b"z" * 2000, patches=[patch(0, 8)])
    assert one.run() == ffi.LOOP_FAILED
    assert one.counters.error == ffi.ERROR_NO_PROGRESS
    assert one.counters.quota_waits > 0


def test_bad_flows_are_refused(bench):
    one = bench()
    whole = {"offset": 40, "start": 34}
    for values in (
        {"frame": b"x" * (19 * 2048)},
        {"patches": [patch(59, 2)]},
        {"patches": [patch(-1, 2)]},
        {"patches": [patch(0, 3)]},
        {"patches": [patch(0, 2, csums=1)]},
        {"patches": [patch(0, 2, kind=ffi.PATCH_LIST)]},
        {"patches": [patch(0, 2)], "flow": {"flags": ffi.FLOW_TEMPLATES}},
        {"flow": {"csums": [ffi.Csum(offset=59)]}},
        {"flow": {"csums": [ffi.Csum(offset=40, start=35)]}},
        {"flow": {"csums": [ffi.Csum(**whole, end=61)]}},
        {"flow": {"csums": [ffi.Csum(**whole, csums=1)]}},
        {"flow": {"csums": [ffi.Csum(**whole, csums=2)]}},
        {"flow": {"sizes": [61]}},
        {"flow": {"sizes": [0]}},
        {"flow": {"queue": 1}},
        {"flow": {"weight": 0}},
        {"flow": {"offload_start": 34, "offload_offset": 6}},  # without room for tx metadata
        {"batch": 0},
        {"rate_packets": 1},
    ):
        with pytest.raises(OSError, match="_create"):
            one.start(**values)

"""From the post to the tx timestamp: what the loop makes of stamps that a fake kernel gives."""

import ctypes
import struct
import time

import pytest
from fake import Bench, fake, patch
from hypothesis import given, settings
from hypothesis import strategies as st

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native, short
from xsk_engine.stats import merge_gaps

METADATA = ffi.TX_METADATA_BYTES
TIMESTAMP, CHECKSUM = 1, 2  # include/uapi/linux/if_xdp.h, XDP_TXMD_FLAGS_*
STAMPED = {"patches": [patch(20, 2, kind=ffi.PATCH_RANGE, step=1)], "flow": {"flags": ffi.FLOW_TIMESTAMP}}


def metadata(one, i):
    """Flags, request and time of the post in front of the i-th held desc."""
    desc = fake.held_desc(one.kernel, i)
    return struct.unpack("=3Q", one.umem.area.view(desc.addr - METADATA, METADATA))


def stamp(one, i, ns):
    """What the kernel does before it completes: struct xsk_tx_metadata's completion.tx_timestamp."""
    desc = fake.held_desc(one.kernel, i)
    one.umem.area.view(desc.addr - METADATA + 8, 8)[:] = struct.pack("=Q", ns)


def posted(**values):
    """A bench whose kernel holds so many packets of a flow."""
    one = Bench(metadata_len=METADATA, **values.pop("bench", {}))
    fake.policy(one.kernel, 1 << 30, 0)
    one.start(**(STAMPED | values))
    while fake.held(one.kernel) < values["count"]:
        one.step()
    return one


def finish(one, order=None):
    for i in order or [0] * fake.held(one.kernel):
        assert fake.complete(one.kernel, i) == 0
    one.drain()
    assert one.run() == ffi.LOOP_STOPPED
    return merge_gaps([one.gaps])


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_every_packets_latency_is_counted_once(latencies_ns, random):
    n = len(latencies_ns)
    one = posted(count=n, batch=7)
    for i, ns in enumerate(latencies_ns):
        flags, request, post_ns = metadata(one, i)
        assert (flags, request) == (TIMESTAMP, 0)
        stamp(one, i, post_ns + ns)
    got = finish(one, [random.randrange(left) for left in range(n, 0, -1)])
    latency = got.latency
    assert (latency.count, latency.sum_ns) == (n, sum(latencies_ns))
    assert (latency.min_ns, latency.max_ns) == (min(latencies_ns), max(latencies_ns))
    assert sum(latency.buckets) == n
    for percent, true in ((50, sorted(latencies_ns)[(n - 1) // 2]), (100, max(latencies_ns))):
        assert true <= latency.percentile_ns(percent) <= true + true // 8
    assert not got.negative_latency_packets
    one.close()


def test_the_post_is_the_time_that_the_packet_itself_carries():
    """What the sink computes with: CLOCK_TAI of the turn."""
    timed = {"patches": [patch(20, 8, kind=ffi.PATCH_TIME)], "flow": {"flags": ffi.FLOW_TIMESTAMP}}
    before = time.clock_gettime_ns(time.CLOCK_TAI)
    one = posted(count=5, **timed)
    for i in range(5):
        assert metadata(one, i)[2] == struct.unpack_from("!Q", one.packet(i), 20)[0] >= before
    finish(one)
    one.close()


def test_a_stamp_before_the_post_is_another_clocks():
    one = posted(count=3)
    for i, ns in enumerate((-1, 0, 500)):
        stamp(one, i, metadata(one, i)[2] + ns)
    got = finish(one)
    assert (got.latency.count, got.latency.sum_ns, got.negative_latency_packets) == (2, 500, 1)
    one.close()


@pytest.mark.parametrize("checksum", [{}, {"offload_start": 34, "offload_offset": 6}])
def test_packets_that_come_back_without_a_stamp_have_no_latency(checksum):
    """Their request still stands there, and it is none."""
    flow = {"flags": ffi.FLOW_TIMESTAMP} | checksum
    one = posted(count=4, flow=flow)
    assert metadata(one, 0)[:2] == ((TIMESTAMP | CHECKSUM, 34 | 6 << 16) if checksum else (TIMESTAMP, 0))
    stamp(one, 2, metadata(one, 2)[2] + 77)
    got = finish(one)
    assert (got.latency.count, got.latency.sum_ns) == (1, 77)
    assert got.wire.count == got.negative_latency_packets == 0
    one.close()


def test_a_packet_of_several_descs_has_one():
    frame = b"\x02" * 5000
    one = Bench(metadata_len=METADATA)
    fake.policy(one.kernel, 1 << 30, 0)
    one.start(frame, count=2, **STAMPED)
    while fake.held(one.kernel) < 8:
        one.step()
    heads = [i for i in range(8) if metadata(one, i)[0] == TIMESTAMP]
    assert len(heads) == 2
    for i in heads:
        stamp(one, i, metadata(one, i)[2] + 1000)
    got = finish(one)
    assert (got.latency.count, got.latency.sum_ns, got.wire.count) == (2, 2000, 1)
    one.close()


def test_flows_that_ask_for_no_stamps_have_none():
    one = Bench(metadata_len=METADATA)
    one.start(count=20, patches=STAMPED["patches"])
    fake.policy(one.kernel, 1 << 30, 1)
    one.drain()
    assert one.run() == ffi.LOOP_STOPPED
    got = merge_gaps([one.gaps])
    assert got.latency.count == got.wire.count == 0
    one.close()


def test_an_endpoints_stamp_is_a_gap_but_no_latency():
    """Beside a flow's, in chunks that a flow has had: no post's time of before is left there."""
    one = posted(count=8, bench={"chunks": 2})
    for i in range(8):
        stamp(one, i, metadata(one, i)[2] + 10)
    while fake.held(one.kernel):
        assert fake.complete(one.kernel, 0) == 0
    one.step(3)
    native.loop_command(one.loop, ffi.PARK, None)
    one.step(3)
    arena = one.open_arena()
    one.arenas.append(arena)
    endpoint = one.endpoint(arena, flags=ffi.ENDPOINT_TIMESTAMPS)
    native.loop_command(one.loop, ffi.ADD_ENDPOINT, endpoint)
    frame = ctypes.create_string_buffer(b"\x03" * 60, 60)
    for _ in range(8):
        assert short.endpoint_send(endpoint, None, frame.raw, 60) >= 0
    while fake.held(one.kernel) < 8:
        one.step()
    for i in range(8):
        assert metadata(one, i) == (TIMESTAMP, 0, 0)
        stamp(one, i, time.clock_gettime_ns(time.CLOCK_TAI))
    got = finish(one)
    assert (got.latency.count, got.latency.sum_ns) == (8, 80)
    assert got.wire.count == 15
    native.endpoint_destroy(endpoint)
    one.close()

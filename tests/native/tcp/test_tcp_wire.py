"""Streams over a wire in memory that loses, doubles, delays and reorders: the same bytes arrive, in bounded
time, and every chunk comes back."""

import hashlib

import pytest
from abi import CUBIC, NODELAY, PACING, RENO
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import Habits, Reference
from tcp_bench import LAYOUTS, pattern
from wire import End, Faults, Wire

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SLOW = settings(max_examples=8000, deadline=None, suppress_health_check=list(HealthCheck))
"""make test-tcp"""

faults = st.builds(
    Faults,
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0, 0, 0.01, 0.05, 0.15]),
    duplicate=st.sampled_from([0, 0, 0.02, 0.1]),
    reorder=st.sampled_from([0, 0, 0.05, 0.3]),
    delay_us=st.sampled_from([100, 1000, 10_000, 60_000]),
    jitter_us=st.sampled_from([0, 0, 500, 5_000]),
    burst=st.sampled_from([1, 1, 3, 6]),
    mtu=st.sampled_from([65535, 65535, 1400, 1280]),
)
conns = st.fixed_dictionaries(
    {
        "flags": st.sampled_from([0, NODELAY, PACING, NODELAY | PACING]),
        "congestion": st.sampled_from([RENO, CUBIC]),
        "receive_buffer_bytes": st.sampled_from([4096, 16384, 65536, 1 << 20]),
        "send_buffer_bytes": st.sampled_from([5000, 60_000, 1 << 20]),
        "quota": st.sampled_from([16, 1024]),
        # Nobody loses patience, however bad the wire is.
        **{name: st.just(1 << 60) for name in ("connect_timeout_ns", "user_timeout_ns", "time_wait_ns")},
    }
)
benches = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(sorted(LAYOUTS)),
        "offload": st.booleans(),
        "ring": st.sampled_from([16, 256]),
        "chunks": st.sampled_from([128, 4096]),
    }
)
habits = st.builds(
    Habits,
    mss=st.sampled_from([536, 1460, 8960]),
    wscale=st.sampled_from([None, 0, 3]),
    sack=st.booleans(),
    dsack=st.booleans(),
    ts=st.booleans(),
    delayed_acks=st.booleans(),
    buffer_bytes=st.sampled_from([3000, 20_000, 200_000]),
    renege=st.sampled_from([0, 0, 0, 7]),
)
sizes = st.sampled_from([0, 1, 1448, 30_000, 80_000])


def make_end(stream, layout, conn, version, **bench):
    # A quota must hold a packet, and a send buffer is what the application writes into.
    return End(stream, conn=dict(conn), version=version, **bench, **LAYOUTS[layout])


def same(received, stream):
    assert len(received) == len(stream)
    assert hashlib.sha256(received).digest() == hashlib.sha256(stream).digest()


def two_engines(bench, conn_a, conn_b, fault, size_a, size_b, version, near_wrap):
    """RFC 9293, 3.5: both open at the same time, each sends a stream."""
    streams = pattern(size_a), pattern(size_b, 1 << 20)
    ends = []
    try:
        for stream, conn, ports in zip(streams, (conn_a, conn_b), ((5000, 6000), (6000, 5000)), strict=True):
            conn = dict(conn, local_port=ports[0], remote_port=ports[1])
            # The first one's numbers wrap on the way; the second one lives at the same time.
            when = {"start_ns": ends[0].bench.now} if ends else {"near_wrap": near_wrap}
            ends.append(make_end(stream, version=version, conn=conn, **when, **bench))
        Wire(ends, fault).run()
        same(ends[0].received, streams[1])
        same(ends[1].received, streams[0])
    finally:
        for end in ends:
            end.close()


def engine_and_reference(bench, conn, habit, fault, size, back, version, isn, near_wrap):
    """The other end is small, slow and knows SACK."""
    stream, answer = pattern(size), pattern(back, 1 << 20)
    end = make_end(stream, version=version, conn=conn, near_wrap=near_wrap, **bench)
    try:
        reference = Reference(version, 5001, end.conn.local_port, isn, habit, answer)
        Wire([end, reference], fault).run()
        same(reference.received, stream)
        same(end.received, answer)
    finally:
        end.close()


engines = given(
    bench=benches,
    conn_a=conns,
    conn_b=conns,
    fault=faults,
    size_a=sizes,
    size_b=sizes,
    version=st.sampled_from([4, 6]),
    near_wrap=st.booleans(),
)
references = given(
    bench=benches,
    conn=conns,
    habit=habits,
    fault=faults,
    size=sizes,
    back=st.sampled_from([0, 1, 5000, 30_000]),
    version=st.sampled_from([4, 6]),
    isn=st.sampled_from([0, 1, 2**31 - 1000, 2**32 - 1000]),
    near_wrap=st.booleans(),
)

test_two_engines = QUICK(engines(two_engines))
test_an_engine_and_a_reference = QUICK(references(engine_and_reference))
test_two_engines_for_long = pytest.mark.slow(SLOW(engines(two_engines)))
test_an_engine_and_a_reference_for_long = pytest.mark.slow(SLOW(references(engine_and_reference)))


@pytest.mark.parametrize("congestion", [RENO, CUBIC])
@pytest.mark.parametrize("sack", [True, False])
def test_a_clean_wire_wastes_nothing(sack, congestion):
    """Nothing is lost or late: nothing is sent twice."""
    end = End(pattern(300_000), conn={"congestion": congestion})
    try:
        reference = Reference(4, 5001, end.conn.local_port, 0, Habits(sack=sack, buffer_bytes=500_000), b"")
        Wire([end, reference], Faults(delay_us=10_000)).run()
        same(reference.received, end.stream)
        info = end.conn.info
        assert (info.retransmitted_segments, info.timeouts, info.tail_probes) == (0, 0, 0)
    finally:
        end.close()


def test_a_few_losses_cost_no_timeout():
    """RFC 8985: single losses in a long stream are found by what comes behind them."""
    end = End(pattern(600_000), conn={})
    try:
        reference = Reference(4, 5001, end.conn.local_port, 0, Habits(buffer_bytes=500_000), b"")
        wire = Wire([end, reference], Faults(seed=4, loss=0.01, delay_us=10_000))
        seconds = wire.run()
        same(reference.received, end.stream)
        info = end.conn.info
        assert wire.lost > 3
        assert info.retransmitted_segments <= 2 * wire.lost
        assert info.timeouts <= 1
        assert seconds < 5
    finally:
        end.close()

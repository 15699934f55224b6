"""Flows of the checker against an oracle that keeps every arrival."""

import random
import struct
import threading
from pathlib import Path

import pytest
from checker import MODULUS, RESTART_NS, WINDOW, Flow, feed, found, plain_frame
from hypothesis import given, settings
from hypothesis import strategies as st

from xsk_engine._ffi import native as ffi
from xsk_engine.arrivals import BUCKETS
from xsk_engine.checking import Checker
from xsk_engine.errors import ClosedError

T0 = 1_700_000_000_000_000_000
US, MS = 10**3, 10**6


@pytest.fixture
def checker():
    made = []

    def make(max_flows=8):
        made.append(Checker(max_flows))
        return made[-1]

    yield make
    for one in made:
        one.close()


def run(arrivals):
    """(flow, sequence, stamp, arrival) of each; what was counted must be what the oracle says."""
    checker, oracle = Checker(4), {}
    try:
        for i, (flow, sequence, stamp_ns, arrived_ns) in enumerate(arrivals):
            length = 66 + i % 3
            frame = plain_frame(flow, sequence, stamp_ns % MODULUS, length)
            checker.frame(frame, arrived_ns % MODULUS)
            oracle.setdefault(flow, Flow(flow)).add(
                sequence % MODULUS, stamp_ns % MODULUS, arrived_ns % MODULUS, length
            )
        result = checker.read()
    finally:
        checker.close()
    assert [found(flow) for flow in result.flows] == [oracle[key].expected() for key in sorted(oracle)]
    assert result.flow_count == len(oracle)
    assert result.unverified_packets == result.packets == len(arrivals)
    for name in ("received", "lost", "duplicate", "reordered", "late", "untimed", "negative_latency"):
        total = sum(getattr(flow, f"{name}_packets") for flow in result.flows)
        assert getattr(result, f"{name}_packets") == total
    assert result.restarts == sum(flow.restarts for flow in result.flows)
    assert result.latency.count == sum(flow.latency.count for flow in result.flows)
    timed = [flow.latency for flow in result.flows if flow.latency.count]
    if timed:
        assert result.latency.min_ns == min(one.min_ns for one in timed)
        assert result.latency.max_ns == max(one.max_ns for one in timed)
    return result


def shuffled(rng, sent, loss, copies, spread):
    """Lost, copied, and each delayed by up to `spread` places."""
    arrived = []
    for i, one in enumerate(sent):
        if rng.random() >= loss:
            for _ in range(1 + (rng.random() < copies)):
                late = rng.random() * spread if rng.random() < 0.3 else 0
                arrived.append((i + late, rng.random(), one))
    return [one for *_, one in sorted(arrived)]


@given(
    n=st.integers(1, 400),
    start=st.sampled_from([0, 1, 5, WINDOW - 1, WINDOW, 10**6, MODULUS - 200, MODULUS - 1, MODULUS // 2]),
    loss=st.sampled_from([0.0, 0.01, 0.1, 0.5]),
    copies=st.sampled_from([0.0, 0.05, 0.5]),
    spread=st.sampled_from([0, 1, 3, 30, 200]),
    skew_ns=st.sampled_from([0, -(10**9), 10**15]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=200, deadline=None)
def test_any_pattern_of_loss_copies_and_reordering(n, start, loss, copies, spread, skew_ns, seed):
    rng = random.Random(seed)
    sent = [(i % 2, start + i // 2, T0 + i * 10 * US) for i in range(n)]
    arrivals = []
    for i, (flow, sequence, stamp_ns) in enumerate(shuffled(rng, sent, loss, copies, spread)):
        arrived_ns = (
            T0 + skew_ns + i * 10 * US + rng.choice([0, 1, 40, 10**3, 10**6, 10**10]) + rng.randrange(99)
        )
        arrivals.append((flow, sequence, 0 if rng.random() < 0.05 else stamp_ns, arrived_ns))
    if arrivals:
        run(arrivals)


@given(loss=st.sampled_from([0.0, 0.01, 0.3]), spread=st.integers(1, 9000), seed=st.integers(0, 10**6))
@settings(max_examples=6, deadline=None)
def test_reordering_about_as_far_as_the_window(loss, spread, seed):
    rng = random.Random(seed)
    sent = [(0, i, T0 + i) for i in range(6000)]
    arrived = [one for i, one in enumerate(sent) if i % 40 and rng.random() >= loss]
    late = [(sent[i], i + rng.randrange(spread)) for i in range(0, 6000, 40)]
    for one, place in sorted(late, key=lambda x: -x[1]):
        arrived.insert(min(place, len(arrived)), one)
    run([(*one, T0 + 10**6 + i) for i, one in enumerate(arrived)])


EDGES = [0, WINDOW, 1 << 31, 1 << 32, 1 << 40, 1 << 63, MODULUS]


@given(
    st.lists(
        st.tuples(
            st.just(0),
            st.builds(lambda edge, by: edge + by, st.sampled_from(EDGES), st.integers(-3, 3)),
            st.builds(
                lambda edge, by: max(edge + by, 0) and T0 * (edge < 4 * RESTART_NS) + edge + by,
                st.sampled_from(
                    [0, RESTART_NS // 2, RESTART_NS, 2 * RESTART_NS, 3 * RESTART_NS, MODULUS - 9]
                ),
                st.integers(-2, 2),
            ),
            st.sampled_from([0, T0, T0 + RESTART_NS, T0 + 3 * RESTART_NS, MODULUS - 1, 1 << 63]),
        ),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=400, deadline=None)
def test_hostile_sequences_and_times(arrivals):
    run(arrivals)


def sequence_of(sequences, *, gap_ns=10 * US):
    return [(0, s, T0 + i * gap_ns, T0 + i * gap_ns + 500) for i, s in enumerate(sequences)]


def test_what_is_said_of_a_simple_case():
    """RFC 4737, section 4.2.2, with figures made by hand: 4 came two places before 3, 3 before 2."""
    result = run(sequence_of([0, 1, 4, 5, 3, 2, 7, 7]))
    flow = result.flows[0]
    assert (flow.received_packets, flow.duplicate_packets, flow.lost_packets) == (7, 1, 1)
    assert (flow.reordered_packets, flow.extent_max_packets, flow.extent_sum_packets) == (2, 3, 5)
    assert (flow.jitter_ns, flow.latency.percentile_ns(50)) == (0, 500)


def test_joined_in_the_middle_and_across_the_wrap():
    flow = run(sequence_of([10**6 + 3, 10**6, 10**6 + 5])).flows[0]
    assert (flow.first_sequence, flow.lost_packets, flow.reordered_packets) == (10**6 + 3, 1, 1)
    flow = run(sequence_of([MODULUS - 2, MODULUS - 1, 1, 0, 2])).flows[0]
    assert (flow.lost_packets, flow.reordered_packets, flow.highest_sequence) == (0, 1, 2)


def test_the_first_window_is_expected_whole():
    assert run(sequence_of([WINDOW - 1])).flows[0].lost_packets == WINDOW - 1
    assert run(sequence_of([WINDOW])).flows[0].lost_packets == 0


@pytest.mark.parametrize("length", [100, 10_000])
def test_a_sender_that_begins_again(length):
    """Also with losses at either end, and a packet of the first run that comes after all."""
    first = [(0, i, T0 + i * US, T0 + i * US + 300) for i in range(length) if i != 50]
    later = T0 + length * US + RESTART_NS
    second = [(0, i, later + i * US, later + i * US + 300) for i in range(3, 200)]
    straggler = [(0, length - 1, T0 + length * US, later)]
    flow = run(first + second[:20] + straggler + second[20:]).flows[0]
    assert (flow.restarts, flow.duplicate_packets, flow.late_packets) == (1, 0, 1)
    assert (flow.received_packets, flow.lost_packets) == (length - 1 + 197, 1 + 3)


@pytest.mark.parametrize("sequence", [1, 2, 30])
def test_the_border_between_two_runs(sequence):
    """The next one, and one with a gap, of either side of the moment."""
    again = T0 + RESTART_NS
    before, behind = again - RESTART_NS // 2 - 1, again - RESTART_NS // 2
    began = [(0, 0, T0, T0), (0, 0, again, again)]
    flow = run([*began, (0, sequence, before, again)]).flows[0]
    assert (flow.restarts, flow.received_packets, flow.late_packets) == (1, 2, 1)
    flow = run([*began, (0, sequence, behind, again)]).flows[0]
    assert (flow.restarts, flow.received_packets, flow.late_packets) == (1, 3, 0)
    flow = run([*began, (0, sequence, 0, again)]).flows[0]
    assert (flow.received_packets, flow.untimed_packets) == (3, 1)
    assert run([began[0], (0, 0, again - 1, again)]).flows[0].duplicate_packets == 1


def test_two_queues_of_a_sender_far_apart_are_no_restart():
    """One stands still for a second and goes on: what it sends then is missing, not known."""
    fast = [(0, i, T0 + i * US, T0 + i * US) for i in range(1, 3000, 2)]
    slow = [(0, i, T0 + 2 * RESTART_NS + i, T0 + 2 * RESTART_NS + i) for i in range(0, 3000, 2)]
    flow = run(fast + slow).flows[0]
    assert (flow.restarts, flow.lost_packets, flow.received_packets) == (0, 0, 3000)


def test_extents_reach_at_least_as_far_as_is_remembered():
    odd = list(range(1, 200, 2))
    flow = run(sequence_of([*odd, 0, 198, 100])).flows[0]
    assert (flow.least_extents, flow.extent_max_packets, flow.extent_sum_packets) == (2, 34, 32 + 2 + 34)


def test_flow_ids_and_bad_arguments(checker):
    one = checker(3)
    for flow in (2, 3, 0, 2**32 - 1):
        one.frame(plain_frame(flow, 0), 0)
    result = one.read()
    assert [flow.flow_id for flow in result.flows] == [0, 2]
    assert result.unknown_flow_packets == 2
    assert one.read(flows=False).flows == ()
    bare = one.read(histograms=False).flows[0]
    assert (bare.received_packets, bare.latency.buckets) == (1, ())
    for bad in (0, -1, 2**32):
        with pytest.raises(ValueError, match="max_flows"):
            Checker(bad)
    one.close()
    one.close()
    with pytest.raises(ClosedError):
        one.read()


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_ten_thousand_flows_take_a_page_each_and_a_million_others_none(checker):
    before = resident_bytes()
    one = checker(1_010_000)
    ids = random.Random(1).sample(range(1_010_000), 10_000)
    for flow in ids:
        one.frame(plain_frame(flow, 7, T0), T0 + flow)
    flows = ffi.CheckFlow * 256
    assert ffi.native.check_flows(one.handle, 9_999, 256, flows(), None) == 1
    grown = resident_bytes() - before
    assert 10_000 * 4096 <= grown < 10_000 * 4096 + (24 << 20)
    result = one.read(histograms=False)
    assert [flow.flow_id for flow in result.flows] == sorted(ids)
    assert all(flow.latency.max_ns == flow.flow_id for flow in result.flows)


def test_a_reader_beside_the_checking_thread(checker):
    one, stop = checker(2), threading.Event()

    def check():
        sequence = 0
        while not stop.is_set() and sequence < 10**6:
            one.frame(plain_frame(sequence % 2, sequence // 2, T0), T0 + 5)
            sequence += 1

    thread = threading.Thread(target=check)
    thread.start()
    try:
        before = 0
        for _ in range(200):
            result = one.read()
            received = sum(flow.received_packets for flow in result.flows)
            assert received >= before
            assert result.lost_packets == 0
            before = received
    finally:
        stop.set()
        thread.join()
    result = one.read()
    assert result.received_packets == result.packets == sum(flow.latency.count for flow in result.flows)


def test_the_mirror_of_the_constants():
    assert BUCKETS == ffi.LATENCY_BUCKETS
    header = (Path(__file__).parents[2] / "native/xske.h").read_text()
    assert f"#define XSKE_LATENCY_BUCKETS {BUCKETS}u" in header
    check = (Path(__file__).parents[2] / "native/check.h").read_text()
    assert f"CHECK_WINDOW {WINDOW}u" in check


def test_a_trailer_over_every_border(checker):
    frame = plain_frame(1, 5, T0)
    for at in range(len(frame) + 1):
        one = checker()
        feed(one, frame, T0 + 7, at=(at, at, at + 3))
        flow = one.read().flows[0]
        assert (flow.flow_id, flow.highest_sequence, flow.latency.max_ns) == (1, 5, 7)
        assert struct.unpack(">I", frame[-24:-20])[0] == 0x78736B65

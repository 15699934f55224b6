"""Figures of what arrived: percentiles, merging, JSON."""

import bisect
import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsk_engine.arrivals import (
    BUCKETS,
    Arrivals,
    FlowArrivals,
    Latency,
    bucket_top,
    buckets_of,
    merge,
    merge_flow,
)

TOPS = [bucket_top(i) for i in range(BUCKETS)]


def latency(values):
    counts = [0] * BUCKETS
    for ns in values:
        counts[min(bisect.bisect_left(TOPS, ns), BUCKETS - 1)] += 1
    return Latency(len(values), sum(values), min(values), max(values), buckets_of(counts))


def test_buckets_have_no_gaps_and_are_a_sixteenth_wide():
    assert TOPS[:34] == [*range(32), 33, 35]
    assert all(above > below for below, above in itertools.pairwise(TOPS))
    assert all(TOPS[i] - TOPS[i - 1] <= (TOPS[i - 1] + 1) / 16 for i in range(32, BUCKETS))
    assert TOPS[-1] == (1 << 44) - 1


@given(st.lists(st.integers(0, 1 << 50), min_size=1, max_size=80), st.floats(0, 100))
def test_percentiles_are_not_below_the_true_one_and_hardly_above(values, percent):
    one, ordered = latency(values), sorted(values)
    rank = next(i for i in range(len(values)) if (i + 1) >= len(values) * percent / 100)
    true, told = ordered[rank], one.percentile_ns(percent)
    assert true <= told <= one.max_ns
    if true < 1 << 44:
        assert told <= true + true / 16
    assert one.percentile_ns(100) == max(values)


def test_without_any_packet_everything_is_0():
    assert (Latency().percentile_ns(50), Latency().mean_ns, Latency().max_ns) == (0, 0.0, 0)
    assert (Arrivals().lost_ratio, Arrivals().duration_s) == (0.0, 0.0)
    assert FlowArrivals(1).extent_mean_packets == 0.0
    assert FlowArrivals(1, lost_packets=3).lost_ratio == 1.0
    for bad in (-1, 100.5):
        with pytest.raises(ValueError, match="between 0 and 100"):
            Latency().percentile_ns(bad)


def flow(flow_id, received, **values):
    return FlowArrivals(flow_id, received, received * 66, latency=latency([5] * received), **values)


def arrivals(*flows, **values):
    names = ("received_packets", "received_bytes", "lost_packets", "duplicate_packets", "restarts")
    sums = {name: sum(getattr(one, name) for one in flows) for name in names}
    return Arrivals(flow_count=len(flows), flows=flows, **(sums | values))


def test_flows_of_different_queues_stay_as_they_are():
    one = flow(4, 10, lost_packets=2, highest_sequence=11, jitter_ns=7)
    other = flow(2, 5, duplicate_packets=1, highest_sequence=4)
    both = merge(
        [
            arrivals(one, packets=12, first_ns=90, last_ns=100),
            arrivals(other, packets=9, first_ns=50, last_ns=60),
        ]
    )
    assert both.flows == (other, one)
    assert (both.packets, both.received_packets, both.lost_packets, both.flow_count) == (21, 15, 2, 2)
    assert (both.first_ns, both.last_ns) == (50, 100)
    assert merge([arrivals(one)]) == arrivals(one)
    assert merge([]) == Arrivals()
    assert merge([arrivals(one, first_ns=9), Arrivals()]).first_ns == 9


def test_a_flow_of_two_queues_has_lost_what_neither_has_seen():
    even = flow(3, 5, lost_packets=4, highest_sequence=8)
    odd = flow(3, 4, lost_packets=6, highest_sequence=9)  # 1, 3, 5 and 9: 7 is lost
    both = merge([arrivals(even), arrivals(odd)])
    assert len(both.flows) == 1
    merged = both.flows[0]
    assert (merged.received_packets, merged.lost_packets, merged.highest_sequence, merged.queues) == (
        9,
        1,
        9,
        2,
    )
    assert (both.lost_packets, both.flow_count) == (1, 1)
    assert merged.latency == latency([5] * 9)


def test_it_counts_on_across_the_wrap():
    most = (1 << 64) - 1
    before = flow(1, 3, first_sequence=most - 4, highest_sequence=most)
    after = flow(1, 4, first_sequence=most - 3, highest_sequence=1)
    merged = merge_flow([after, before])
    assert (merged.first_sequence, merged.highest_sequence, merged.lost_packets) == (most - 4, 1, 0)


def test_a_split_flow_is_what_it_would_have_been_whole():
    """As the definition says, from lists: no copies, no restart, from the beginning."""
    rng = random.Random(5)
    came = [s for s in range(1000) if rng.random() < 0.9]
    queues = [[s for s in came if rng.random() < 0.5] for _ in range(1)]
    queues.append([s for s in came if s not in set(queues[0])])
    parts = [
        flow(1, len(q), lost_packets=q[-1] + 1 - len(q), highest_sequence=q[-1], jitter_ns=i)
        for i, q in enumerate(queues)
    ]
    merged = merge_flow(parts)
    assert merged.received_packets == len(came)
    assert merged.lost_packets == came[-1] + 1 - len(came)
    assert merged.jitter_ns == 1


def test_json():
    one = arrivals(
        flow(3, 5, lost_packets=5, reordered_packets=2, extent_sum_packets=7), first_ns=1, last_ns=5
    )
    told = json.loads(json.dumps(one.as_dict()))
    assert told["received_packets"] == 5
    assert told["duration_s"] == 4e-9
    assert told["flows"][0]["lost_ratio"] == 0.5
    assert told["flows"][0]["extent_mean_packets"] == 3.5
    assert told["flows"][0]["latency"]["p99_9_ns"] == 5
    assert told["flows"][0]["latency"]["buckets"] == [[5, 5]]
    assert told["latency"]["count"] == 0

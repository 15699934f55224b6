"""Figures of what arrived: percentiles, JSON."""

import bisect
import itertools
import json

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
)
from xsk_engine.sinkreport import SinkFigures, faults, histogram, since

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


def test_what_came_in_between():
    """Of an interval: the difference of two histograms."""
    before, values = latency([10, 10, 400]), [10, 10, 400, 7, 900, 900]
    part = since(latency(values), before)
    assert part.count == 3
    assert part.sum_ns == 7 + 900 + 900
    assert part.min_ns == 7
    assert 900 <= part.max_ns <= 900 * 17 / 16
    assert since(before, before) == Latency()


def figures(**values):
    one = Arrivals(**({"received_packets": 5} | values))
    return SinkFigures("vrx", "xdp", "copy", "", "the signature", one, 0, 0)


def test_what_is_not_lossless():
    assert faults(figures()) == []
    assert faults(figures(received_packets=0)) == ["nothing received"]
    assert faults(figures(lost_packets=1000, corrupt_packets=2)) == ["1,000 lost", "2 corrupt"]
    assert faults(figures(reordered_packets=3, foreign_packets=7)) == []


def test_a_histogram_in_characters():
    text = histogram(latency([5, 5, 5, 100, 5000]).as_dict())
    lines = text.splitlines()
    assert [line.split()[2] for line in (lines[0], lines[4], lines[-1])] == ["60.00%", "20.00%", "20.00%"]
    assert len(lines) == 11  # powers of two from 7 to 8191 ns, the empty ones too
    assert histogram(Latency().as_dict()) == ""

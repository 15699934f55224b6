"""When packets are due, on a clock that moves only when the loop sleeps."""

import itertools
import math
from fractions import Fraction

import pytest

from xsk_engine import dryrun, sizes
from xsk_engine.flow import Flow, Pace, Traffic
from xsk_engine.headers import Header
from xsk_engine.units import parse_rate

UDP = [Header("ipv4"), Header("udp")]


def times(pace, most, size="60", **values):
    flow = Flow(UDP, sizes=sizes.parse_sizes(size))
    return [ns for ns, _ in dryrun.packets(Traffic(flow, rate=pace), most, **values)]


def gaps(pace, most, size="60"):
    found = times(pace, most, size)
    return [b - a for a, b in itertools.pairwise(found)]


@pytest.mark.parametrize(
    ("rate", "size", "gap"),
    [
        ("1kpps", "60", 10**6),
        ("1pps", "60", 10**9),
        ("3pps", "60", Fraction(10**9, 3)),
        ("1Mbps", "125", 10**6),
        ("1Mbps_l1", "101", 10**6),
        ("1Mbps_l1", "50", Fraction(84 * 8 * 1000)),
    ],
)
def test_constant_rates_are_exact(rate, size, gap):
    found = times(Pace(parse_rate(rate)), 1000, size)
    assert [ns - found[0] for ns in found] == [math.ceil(gap * i) for i in range(1000)]


def test_bits_per_second_over_changing_lengths():
    lengths = [60, 590, 1514]
    found = times(Pace(parse_rate("8Mbps")), 30, "60,590,1514")
    expected = [0]
    for i in range(29):
        expected.append(expected[-1] + lengths[i % 3] * 1000)
    assert [ns - found[0] for ns in found] == expected


def test_bursts_with_a_gap():
    pace = Pace(None, burst=3, burst_gap_s=Fraction(1, 1000))
    assert gaps(pace, 10) == [0, 0, 10**6] * 3
    pace = Pace(parse_rate("10kpps"), burst=3, burst_gap_s=Fraction(1, 1000))
    assert gaps(pace, 10) == [10**5, 10**5, 10**6] * 3


def test_bursts_that_keep_the_rate():
    assert gaps(Pace(parse_rate("1kpps"), burst=4), 9) == [0, 0, 0, 4 * 10**6] * 2


def test_poisson_gaps_are_exponential():
    found = sorted(gaps(Pace(parse_rate("10kpps"), poisson=True), 20_000))
    mean = sum(found) / len(found)
    assert mean == pytest.approx(100_000, rel=0.03)
    for part in (0.1, 0.5, 0.9, 0.99):
        assert found[int(part * len(found))] == pytest.approx(-math.log(1 - part) * 100_000, rel=0.08)
    again = sorted(gaps(Pace(parse_rate("10kpps"), poisson=True), 20_000))
    assert again == found


@pytest.mark.parametrize(
    ("pace", "size", "expected"),
    [
        (Pace(parse_rate("1kpps")), "60", [i * 10**6 for i in range(30)]),
        (Pace(parse_rate("1Mbps")), "125", [i * 10**6 for i in range(30)]),
        (Pace(parse_rate("1kpps"), burst=2), "60", [i // 2 * 2 * 10**6 for i in range(30)]),
        (Pace(None, burst=2, burst_gap_s=Fraction(1, 1000)), "60", [i // 2 * 10**6 for i in range(30)]),
    ],
    ids=["pps", "bps", "bursts", "gaps"],
)
def test_queues_take_turns(pace, size, expected):
    together = sorted(ns for queue in range(3) for ns in times(pace, 10, size, queue=queue, queues=3))
    assert [ns - together[0] for ns in together] == expected


@pytest.mark.parametrize(
    ("rate", "burst", "gap", "expected"),
    [
        ("1pps", 2, Fraction(1, 10), [10**9, 10**8] * 3),
        ("10pps", 3, Fraction(5, 4), [10**8, 10**8, 1_250_000_000] * 2),
        ("1pps", 3, Fraction(3, 2), [10**9, 10**9, 1_500_000_000] * 2),
    ],
)
def test_a_gap_that_is_no_whole_number_of_packets(rate, burst, gap, expected):
    found = gaps(Pace(parse_rate(rate), burst=burst, burst_gap_s=gap), 7)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_duration_below_a_nanosecond_is_not_for_ever():
    flow = Flow(UDP)
    assert len(list(dryrun.packets(Traffic(flow, rate=1000, duration_s=1e-10), 50))) == 1


def test_flows_with_rates_of_their_own():
    slow = Flow(UDP, {"udp.src": 1}, pace=Pace(parse_rate("1kpps")), count=5)
    fast = Flow(UDP, {"udp.src": 2}, pace=Pace(parse_rate("10kpps")), count=50)
    found = list(dryrun.packets(Traffic([slow, fast]), 100))
    assert [ns // 10**6 for ns, frame in found if frame[35] == 1] == list(range(5))
    assert len([1 for _, frame in found if frame[35] == 2]) == 50
    assert [ns for ns, _ in found] == sorted(ns for ns, _ in found)


def test_ten_thousand_rates():
    flows = [Flow(UDP, {"@42/2": i}, pace=Pace(parse_rate("1pps")), count=2) for i in range(1000)]
    found = list(dryrun.packets(Traffic(flows), 10_000))
    assert len(found) == 2000
    assert len({frame[42:44] for ns, frame in found}) == 1000

from fractions import Fraction

import pytest

from xsk_engine import units


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("1pps", "pps", 1),
        ("1.5kpps", "pps", 1500),
        ("2Mpps", "pps", 2_000_000),
        ("1Gpps", "pps", 10**9),
        ("0.5pps", "pps", Fraction(1, 2)),
        ("1bps", "bps_l2", 1),
        ("1Gbps", "bps_l2", 10**9),
        ("1Gbps_l2", "bps_l2", 10**9),
        ("2.5Gbps_l1", "bps_l1", 2_500_000_000),
        ("50%", "percent", 50),
        ("12.5 %", "percent", Fraction(25, 2)),
    ],
)
def test_rate(text, unit, value):
    rate = units.parse_rate(text)
    assert (rate.unit, rate.value, str(rate)) == (unit, value, text)
    assert units.parse_rate("max") is None


def test_percent_of_a_link():
    half = units.parse_rate("50%").of_link(10**10)
    assert (half.unit, half.value) == ("bps_l1", 5 * 10**9)
    with pytest.raises(ValueError, match="no link speed"):
        units.parse_rate("50%").of_link(None)


@pytest.mark.parametrize(
    "text",
    ["0", "0pps", "1", "-1pps", "bps", "pps", "2Gpps", "1MMpps", "0%", "101%", "1k%", "1Bps", "nan pps", ""],
)
def test_rate_refuses(text):
    with pytest.raises(ValueError, match="rate"):
        units.parse_rate(text)


@pytest.mark.parametrize("parse", [units.parse_rate, units.parse_count, units.parse_seconds])
def test_a_number_without_end_is_refused_at_once(parse):
    with pytest.raises(ValueError, match="is not a positive number"):
        parse("2" * 10**6 + "!")


def test_counts_and_times():
    assert units.parse_count("1M") == 10**6
    assert units.parse_seconds("20ms") == pytest.approx(0.02)
    assert units.parse_seconds("100us") == pytest.approx(1e-4)
    for bad in ("0", "1.5", "-3"):
        with pytest.raises(ValueError, match="count"):
            units.parse_count(bad)
    for bad in ("0", "1h", "99999999999"):
        with pytest.raises(ValueError, match="time"):
            units.parse_seconds(bad)


def test_int_lists():
    assert units.parse_int_list("0,2-4", "queue") == [0, 2, 3, 4]
    for bad in ("", "1,", "3-1", "1,1", "0-2,1", "a", "0-99999999"):
        with pytest.raises(ValueError, match="queue"):
            units.parse_int_list(bad, "queue")


def test_si():
    assert units.format_si(1_264_000, "pps") == "1.26 Mpps"
    assert units.format_si(12) == "12"
    assert units.format_si(999_700, "pps") == "1 Mpps"
    assert units.format_si(999_400, "pps") == "999 kpps"


def test_ns():
    told = [units.format_ns(ns) for ns in (0, 12, 999.7, 1_500, 999_940, 2_000_000_000)]
    assert told == ["0 ns", "12 ns", "1 us", "1.5 us", "1 ms", "2 s"]


def test_addresses_of_metrics():
    assert units.parse_address("9100") == ("127.0.0.1", 9100)
    assert units.parse_address("[::1]:9100") == ("::1", 9100)
    assert units.parse_address("0.0.0.0:1") == ("0.0.0.0", 1)
    for bad in ("", "0", "70000", "host:1", "::1:9100", "10.0.0.1"):
        with pytest.raises(ValueError, match="metrics"):
            units.parse_address(bad)

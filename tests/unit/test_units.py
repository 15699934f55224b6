from fractions import Fraction

import pytest

from xsk_engine import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max", None),
        ("1pps", 1),
        ("1.5kpps", 1500),
        ("2Mpps", 2_000_000),
        ("1Gpps", 10**9),
        ("0.5pps", Fraction(1, 2)),
    ],
)
def test_rate(text, expected):
    assert units.parse_rate(text) == expected


@pytest.mark.parametrize("text", ["0", "0pps", "1", "-1pps", "1bps", "pps", "2Gpps", "1MMpps", "nan pps", ""])
def test_rate_refuses(text):
    with pytest.raises(ValueError, match="rate"):
        units.parse_rate(text)


def test_bytes_know_both_powers():
    assert units.parse_bytes("4MB") == 4_000_000
    assert units.parse_bytes("4MiB") == 4 << 20
    assert units.parse_bytes("60") == 60
    with pytest.raises(ValueError, match="unit"):
        units.parse_bytes("4Mb")


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

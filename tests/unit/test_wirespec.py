"""What --wire says."""

from fractions import Fraction

import pytest

from xsk_engine.lab.wirespec import BACK, FORWARD, WireSpec, parse_wire


def test_everything():
    spec = parse_wire("drop=0.01,dup=0.001, reorder=.02,corrupt=0.50,delay=1ms,seed=7")
    assert spec == WireSpec(
        Fraction(1, 100), Fraction(1, 1000), Fraction(1, 50), Fraction(1, 2), delay_ns=10**6, seed=7
    )
    assert str(spec) == "drop=0.01,dup=0.001,reorder=0.02,corrupt=0.5,delay=1ms,seed=7"


@pytest.mark.parametrize(
    "text",
    [
        "clean",
        "drop=1",
        "drop=0.000000000001",
        "delay=500us",
        "delay=10s",
        "delay=1.5us",
        "seed=18446744073709551615",
        "dup=0.25,direction=both,reorder_by=10",
        "corrupt=0.123456789012,direction=back",
    ],
)
def test_it_says_what_makes_it_again(text):
    assert str(parse_wire(text)) == text
    assert parse_wire(str(parse_wire(text))) == parse_wire(text)


def test_shares_are_of_the_direction():
    spec = parse_wire("drop=0.25,corrupt=0.75")
    assert spec.shares(FORWARD) == (1 << 30, 0, 0, 3 << 30)
    assert spec.shares(BACK) == (0, 0, 0, 0)
    assert parse_wire("dup=1,direction=both").shares(BACK) == (0, 1 << 32, 0, 0)
    assert parse_wire("dup=1,direction=back").shares(FORWARD) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not NAME=VALUE"),
        ("drop", "not NAME=VALUE"),
        ("drop=", "not NAME=VALUE"),
        ("drop=0.1,", "not NAME=VALUE"),
        ("drop=1\n2", "not NAME=VALUE"),
        ("drop=2", "drop=2 is not a chance from 0 to 1"),
        ("drop=-0.1", "drop=-0.1 is not a chance"),
        ("drop=1/2", "not a chance"),
        ("drop=nan", "not a chance"),
        ("drop=1e-999999999", "not a chance"),
        ("drop=0.6,dup=0.6", "more than 1"),
        ("drop=0.1,drop=0.1", "drop is there twice"),
        ("delay=1ms,delay=1ms", "delay is there twice"),
        ("nonsense=1", "there is no 'nonsense'; there are drop, dup"),
        ("delay_ns=5", "there is no 'delay_ns'"),
        ("delay=1h", "delay=1h: unknown unit 'h'; use s, ms or us"),
        ("delay=11s", "more than 10s"),
        ("delay=-1ms", "delay=-1ms"),
        ("seed=-1", "not a whole number"),
        ("seed=18446744073709551616", "64 bits"),
        ("direction=up", "none of forward, back, both"),
        ("reorder_by=0", "1 to 1000"),
    ],
)
def test_refuses(text, says):
    with pytest.raises(ValueError, match=r"^wire: ") as refusal:
        parse_wire(text)
    assert says in str(refusal.value)

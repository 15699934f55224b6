"""What is steered, in words and in the program's terms."""

import ipaddress

import pytest

from xsk_engine import steering
from xsk_engine.steering import Match, Tuple

V4 = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.0.0.2")
V6 = ipaddress.ip_address("fd00::1"), ipaddress.ip_address("fd00::2")


def test_a_match_of_tuples():
    only = Match(signature=False, tuples=True)
    assert only.rules == steering.BY_TUPLE
    assert str(only) == "TCP connections by tuple"
    both = Match(ports=(9,), tuples=True)
    assert both.rules == steering.BY_SIGNATURE | steering.BY_PORT | steering.BY_TUPLE
    for match in (only, both):  # an empty filter would take everything
        with pytest.raises(ValueError, match="packet filter"):
            _ = match.expression
    with pytest.raises(ValueError, match="nothing is to be received"):
        Match(signature=False)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ((V4[0], 1, V6[0], 2), "different IP versions"),
        ((V4[0], 0, V4[1], 2), "port: 0"),
        ((V6[0], 1, V6[1], 1 << 16), "port: 65536"),
        ((V6[0], -1, V6[1], 2), "port: -1"),
    ],
)
def test_what_is_no_tuple(wrong, named):
    with pytest.raises(ValueError, match=named):
        Tuple(*wrong)


def test_a_tuple_in_words():
    assert str(Tuple(V4[0], 5, V4[1], 80)) == "10.0.0.1:5 to 10.0.0.2:80"
    assert str(Tuple(V6[0], 5, V6[1], 80)) == "[fd00::1]:5 to [fd00::2]:80"

"""RTT and RTO against RFC 6298, in fractions."""

from fractions import Fraction

import pytest
from ccpieces import MS, SECOND, UNLIMITED, Piece, pieces
from hypothesis import given, settings
from hypothesis import strategies as st

MINIMUM, MAXIMUM = 200 * MS, 120 * SECOND
WINDOW = 300 * SECOND
ALPHA, BETA, K = Fraction(1, 8), Fraction(1, 4), 4
ROUNDING_NS = 16
"""Each division loses less than 1 ns, and 1/ALPHA of them are remembered; RTTVAR counts K times."""


@pytest.fixture
def rtt():
    with Piece(pieces.rtt()) as one:
        yield one.handle


class Rfc6298:
    """Section 2, with the bound of the variance term that rtt.h states."""

    def __init__(self):
        self.srtt = None
        self.rto = SECOND

    def sample(self, r):
        if self.srtt is None:
            self.srtt, self.rttvar = Fraction(r), Fraction(r, 2)
        else:
            self.rttvar = (1 - BETA) * self.rttvar + BETA * abs(self.srtt - r)
            self.srtt = (1 - ALPHA) * self.srtt + ALPHA * r
        self.rto = min(self.srtt + max(MINIMUM, K * self.rttvar), MAXIMUM)

    def back_off(self):
        self.rto = min(2 * self.rto, MAXIMUM)


def test_before_any_sample(rtt):
    assert pieces.rto_ns(rtt) == SECOND
    assert pieces.min_ns(rtt) == UNLIMITED


@given(
    script=st.lists(
        st.one_of(
            st.integers(1, 10**9),
            st.integers(10_000, 200_000),
            st.integers(0, 36).map(lambda bits: 1 << bits),
            st.just("back off"),
        ),
        max_size=80,
    )
)
@settings(max_examples=300, deadline=None)
def test_as_the_rfc(script):
    with Piece(pieces.rtt()) as one:
        model = Rfc6298()
        doubled = 1
        for step in script:
            if step == "back off":
                pieces.back_off(one.handle)
                model.back_off()
                doubled = min(2 * doubled, 1 << 10)
            else:
                pieces.sample(one.handle, step, 0)
                model.sample(step)
                doubled = 1
                assert abs(pieces.srtt_ns(one.handle) - model.srtt) <= ROUNDING_NS
                assert abs(pieces.rttvar_ns(one.handle) - model.rttvar) <= ROUNDING_NS
            assert abs(pieces.rto_ns(one.handle) - model.rto) <= (K + 1) * ROUNDING_NS * doubled


def test_a_delayed_ack_is_no_timeout(rtt):
    """A receiver that holds every second ACK for 200 ms, at the end of a path of 100 ms."""
    for _ in range(200):
        pieces.sample(rtt, 100 * MS, 0)
    assert pieces.rto_ns(rtt) >= 300 * MS - ROUNDING_NS


def test_backed_off_up_to_the_maximum(rtt):
    pieces.sample(rtt, 10 * MS, 0)
    once = pieces.rto_ns(rtt)
    seen = []
    for _ in range(100):
        pieces.back_off(rtt)
        seen.append(pieces.rto_ns(rtt))
    assert seen[:3] == [2 * once, 4 * once, 8 * once]
    assert set(seen[12:]) == {MAXIMUM}
    pieces.sample(rtt, 10 * MS, 0)
    assert pieces.rto_ns(rtt) <= once, "a measurement ends it"


def test_after_a_syn_that_timed_out(rtt):
    """RFC 6298, 5.7: 3 s, but not when the handshake was measured after all."""
    pieces.back_off(rtt)
    pieces.syn_timed_out(rtt)
    assert pieces.rto_ns(rtt) == 3 * SECOND
    pieces.sample(rtt, MS, 0)
    pieces.syn_timed_out(rtt)
    assert pieces.rto_ns(rtt) < SECOND


def test_no_time_at_all_is_a_sample(rtt):
    pieces.sample(rtt, 0, 0)
    pieces.sample(rtt, 100 * MS, 0)
    assert pieces.srtt_ns(rtt) < 20 * MS, "the second sample is not taken for the first"


def test_minimum_of_a_window(rtt):
    pieces.sample(rtt, 10 * MS, SECOND)
    pieces.sample(rtt, 30 * MS, 2 * SECOND)
    assert pieces.min_ns(rtt) == 10 * MS
    pieces.sample(rtt, 30 * MS, SECOND + WINDOW)
    assert pieces.min_ns(rtt) == 10 * MS
    pieces.sample(rtt, 30 * MS, SECOND + WINDOW + 1)
    assert pieces.min_ns(rtt) == 30 * MS, "the path is longer now"
    pieces.sample(rtt, 20 * MS, SECOND + WINDOW + 2)
    assert pieces.min_ns(rtt) == 20 * MS
    pieces.sample(rtt, 20 * MS, SECOND + 2 * WINDOW)
    pieces.sample(rtt, 25 * MS, SECOND + 2 * WINDOW + 3)
    assert pieces.min_ns(rtt) == 20 * MS, "seen again meanwhile"

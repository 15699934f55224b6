from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsk_engine.flow import Flow, Patch, compile_flow
from xsk_engine.stats import Snapshot, merge


@given(st.integers(1, 10**12), st.integers(1, 64))
def test_a_count_is_divided_and_nothing_is_lost(count, txqs):
    programs = compile_flow(Flow(b"x" * 60, count=count), txqs)
    assert len(programs) == txqs
    shares = [p.count if p else 0 for p in programs]
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1
    starts = [p.first_sequence for p in programs if p]
    assert starts == [sum(shares[:i]) for i in range(len(starts))]


@given(st.fractions(Fraction(1, 1000), 10**9, max_denominator=1000), st.integers(1, 64))
def test_a_rate_is_divided_exactly(rate, txqs):
    programs = compile_flow(Flow(b"x" * 60, rate=rate), txqs)
    assert sum(Fraction(p.rate_packets, p.rate_period_ns) for p in programs) * 10**9 == rate


def test_refusals():
    with pytest.raises(ValueError, match="empty"):
        compile_flow(Flow(b""), 1)
    for batch in (0, 4097):
        with pytest.raises(ValueError, match="batch"):
            compile_flow(Flow(b"x", batch=batch), 1)


def test_patches_and_duration_are_handed_through():
    patch = Patch(42, 8)
    (program,) = compile_flow(Flow(b"x" * 60, patches=[patch], duration_s=0.25), 1)
    assert program.patches == (patch,)
    assert program.duration_ns == 250_000_000
    assert program.rate_packets == 0


def test_snapshots_add_up_and_times_do_not():
    def page(**values):
        return Snapshot(**values)

    total = merge(
        [
            page(completed_packets=3, completed_bytes=300, first_post_ns=50, last_completion_ns=100),
            page(completed_packets=4, completed_bytes=400, first_post_ns=0, last_completion_ns=0),
            page(completed_packets=5, completed_bytes=500, first_post_ns=20, last_completion_ns=10**9 + 20),
        ]
    )
    assert (total.completed_packets, total.first_post_ns, total.duration_s) == (12, 20, 1.0)
    assert (total.pps, total.bps_l2) == (12.0, 9600.0)
    assert merge([]).duration_s == 0.0

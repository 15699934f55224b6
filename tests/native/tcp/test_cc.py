"""Reno against RFC 5681 and RFC 3465, CUBIC against RFC 9438's formulas, in floating point."""

import pytest
from ccmodel import ALPHA, CUBIC, MODELS, MSS, RENO, C, Cc
from ccpieces import MS, SECOND, UNLIMITED, pieces
from hypothesis import example, given, settings
from hypothesis import strategies as st

part = st.floats(0, 1)
times = st.one_of(st.integers(0, 20 * MS), st.integers(0, SECOND), st.integers(0, 100 * SECOND))
events = st.one_of(
    st.tuples(st.just("ack"), part, times),
    st.tuples(st.just("unlimited"), part, times),
    st.tuples(st.just("rounds"), st.sampled_from([1, 5, 20, 60]), st.integers(1, SECOND)),
    st.tuples(st.just("loss"), st.floats(0.5, 1), st.just(0)),
    st.tuples(st.just("timeout"), part, st.just(0)),
    st.tuples(st.just("again"), part, st.just(0)),
)
BEYOND_K = [("loss", 1, 0), ("rounds", 60, 100 * MS), ("rounds", 60, 100 * MS)]
AT_ONCE = [("ack", 1, 1)] * 40


@pytest.mark.parametrize("which", [RENO, CUBIC])
@given(
    mss=st.sampled_from([536, 1448, 8948]),
    segments=st.sampled_from([10, 40, 300, 1000, 20_000]),
    rtt=st.one_of(st.integers(10_000, 10**9), st.just(100 * MS)),
    script=st.lists(events, max_size=20),
)
@settings(max_examples=200, deadline=None)
@example(mss=1448, segments=1000, rtt=100 * MS, script=BEYOND_K)
@example(mss=1448, segments=1000, rtt=100 * MS, script=BEYOND_K[:2] + BEYOND_K)
@example(mss=1448, segments=1000, rtt=100 * MS, script=[*BEYOND_K, ("ack", 0.5, 100 * SECOND)])
@example(mss=1448, segments=40, rtt=SECOND, script=[("loss", 1, 0), ("rounds", 5, SECOND), *AT_ONCE])
@example(mss=1448, segments=100, rtt=100 * MS, script=[*BEYOND_K[:2], ("timeout", 1, 0), *BEYOND_K[1:]])
@example(mss=1448, segments=100, rtt=100 * MS, script=[("timeout", 1, 0), ("again", 1, 0), *BEYOND_K[1:]])
def test_as_the_rfc(which, mss, segments, rtt, script):
    with Cc(which, mss) as cc:
        model = MODELS[which](mss)

        def ack(part, ns, limited=True):
            cc.now += ns
            limited = limited and cc.cwnd < 2**36  # no receiver's window is so large
            acked = int(part * cc.cwnd)
            model.ack(acked, cc.now, rtt, limited)
            cc.ack(acked, rtt, limited)
            compare()

        def compare():
            assert cc.cwnd == pytest.approx(model.cwnd, rel=1e-9, abs=1.01)
            if cc.ssthresh != UNLIMITED:
                assert cc.ssthresh == pytest.approx(model.ssthresh, rel=1e-9, abs=1.01)
                model.ssthresh = cc.ssthresh
            else:
                assert model.ssthresh == float("inf")
            model.cwnd = cc.cwnd

        model.cwnd = cc.cwnd
        for _ in range(12):
            if cc.cwnd < segments * mss:
                ack(min(segments * mss / cc.cwnd - 1, 1), rtt)
        for what, how, ns in script:
            if what == "ack":
                ack(how, ns)
            elif what == "unlimited":
                ack(how, ns, limited=False)
            elif what == "rounds":
                for _ in range(how * 4):
                    ack(0.25, ns // 4)
            elif what == "loss":
                inflight = int(how * cc.cwnd)
                model.loss(inflight)
                cc.loss(inflight)
            elif what in ("timeout", "again"):
                inflight = int(how * cc.cwnd)
                model.timeout(inflight, what == "timeout")
                cc.timeout(inflight, what == "timeout")
            compare()


@pytest.mark.parametrize(
    ("mss", "window"),
    [(536, 5360), (1448, 14480), (1460, 14600), (2000, 14600), (7300, 14600), (8948, 17896)],
)
def test_initial_window(mss, window):
    """RFC 6928, 2."""
    for which in (RENO, CUBIC):
        with Cc(which, mss) as cc:
            assert (cc.cwnd, cc.ssthresh) == (window, UNLIMITED)


def test_names():
    for which, name in ((RENO, b"reno"), (CUBIC, b"cubic")):
        with Cc(which) as cc:
            assert pieces.name(cc.handle) == name


@pytest.mark.parametrize("which", [RENO, CUBIC])
@pytest.mark.parametrize("acks", [1, 10])
def test_slow_start_doubles(which, acks):
    """Also with an ACK of 44 segments, which a receiver with GRO sends."""
    with Cc(which) as cc:
        for _ in range(6):
            before = cc.cwnd
            cc.round(acks=acks)
            assert cc.cwnd == 2 * before


@pytest.mark.parametrize("which", [RENO, CUBIC])
def test_slow_start_after_a_timeout(which):
    """RFC 3465, 2.3: L is one segment; and from ssthresh on it is over."""
    with Cc(which) as cc:
        cc.ack(90 * MSS)
        cc.timeout()
        assert cc.cwnd == MSS
        ssthresh = cc.ssthresh
        for _ in range(10):
            before = cc.cwnd
            cc.ack(44 * MSS)
            assert cc.cwnd == before + MSS
        cc.timeout(cc.cwnd, first=False)
        assert (cc.cwnd, cc.ssthresh) == (MSS, ssthresh), "only the first sets ssthresh"


def test_reno_grows_a_segment_in_a_round_trip():
    """RFC 5681, equation (3)."""
    with Cc(RENO).grown_to(200 * MSS) as cc:
        assert cc.cwnd == cc.ssthresh == 100 * MSS
        for segments in range(101, 120):
            cc.round(acks=9)
            assert cc.cwnd == pytest.approx(segments * MSS, abs=MSS)


def test_cubic_is_back_at_w_max_after_k():
    """RFC 9438, equations (1) and (2): 300 segments are missing, so K = cbrt(300 / 0.4)."""
    with Cc(CUBIC).grown_to(1000 * MSS) as cc:
        assert cc.cwnd == pytest.approx(700 * MSS, abs=1)
        k = (300 / C) ** (1 / 3)
        for _ in range(int(k / 0.1) // 2):
            cc.round()
        half = cc.cwnd / MSS
        assert 1000 - 300 / 8 * 1.2 < half < 1000, "concave: most of it early"
        for _ in range(int(k / 0.1) // 2 + 1):
            cc.round()
        assert cc.cwnd == pytest.approx(1000 * MSS, rel=0.003)
        for _ in range(60):
            cc.round()
        assert cc.cwnd == pytest.approx((1000 + C * 6**3) * MSS, rel=0.02), "convex beyond"


def test_cubic_is_reno_on_a_short_path():
    """RFC 9438, 4.3: alpha in a round trip up to what it was, then one segment."""
    with Cc(CUBIC).grown_to(40 * MSS) as cc:
        rounds = round(0.3 * 40 / ALPHA)
        for _ in range(rounds):
            cc.round(rtt=MS)
        assert cc.cwnd == pytest.approx(40 * MSS, rel=0.02)
        for _ in range(20):
            cc.round(rtt=MS)
        assert cc.cwnd == pytest.approx(60 * MSS, rel=0.02)


def test_cubic_converges_fast():
    """RFC 9438, 4.7: who loses again below W_max aims lower."""
    with Cc(CUBIC).grown_to(1000 * MSS) as cc, Cc(CUBIC).grown_to(700 * MSS) as fresh:
        cc.loss()
        for _ in range(65):
            cc.round()
            fresh.round()
        # both at 490 segments; W_max is 595 there and 700 here, and K 6.4 s and 8.07 s
        assert cc.cwnd == pytest.approx(595 * MSS, rel=0.005)
        assert fresh.cwnd == pytest.approx((700 - C * (8.07 - 6.5) ** 3) * MSS, rel=0.005)


@pytest.mark.parametrize("which", [RENO, CUBIC])
def test_not_cwnd_limited(which):
    with Cc(which) as cc:
        for _ in range(5):
            cc.round(limited=False)
        assert cc.cwnd == 10 * MSS
        cc.grown_to(100 * MSS)
        before = cc.cwnd
        for _ in range(50):
            cc.round(limited=False)
        assert cc.cwnd == before


@pytest.mark.parametrize("how", ["idle", "unlimited"])
def test_cubic_does_not_count_time_without_growth(how):
    """RFC 9438, 5.8: as if there had been no pause."""
    with Cc(CUBIC).grown_to(1000 * MSS) as cc, Cc(CUBIC).grown_to(1000 * MSS) as steady:
        for _ in range(20):
            cc.round()
            steady.round()
        if how == "idle":
            cc.idle(3600 * SECOND, rto_ns=7200 * SECOND)
        else:
            for _ in range(100):
                cc.round(limited=False)
        assert cc.cwnd == steady.cwnd
        for _ in range(20):
            cc.round()
            steady.round()
            assert cc.cwnd == pytest.approx(steady.cwnd, rel=1e-9, abs=2)


@pytest.mark.parametrize("which", [RENO, CUBIC])
def test_idle(which):
    """RFC 2861 and 5681, 4.1."""
    rto = 200 * MS
    with Cc(which).grown_to(1000 * MSS) as cc:
        cwnd, ssthresh = cc.cwnd, cc.ssthresh
        cc.idle(rto, rto)
        assert (cc.cwnd, cc.ssthresh) == (cwnd, ssthresh)
        cc.idle(rto + 1, rto)
        assert cc.cwnd == cwnd // 2
        assert cc.ssthresh == max(ssthresh, cwnd * 3 // 4)
        cc.idle(3600 * SECOND, rto)
        assert cc.cwnd == 10 * MSS
        before = cc.cwnd
        cc.round()
        assert cc.cwnd == 2 * before, "slow start up to ssthresh"
        cc.undo()
        assert cc.cwnd == 2 * before, "what was before the pause is no longer known"
    with Cc(which).grown_to(20 * MSS) as cc:
        cc.timeout()
        for _ in range(60):
            cc.round()
        assert cc.cwnd > 40 * MSS
        cc.idle(SECOND, rto)
        before = cc.cwnd
        cc.round(acks=1)
        assert cc.cwnd == 2 * before, "the timeout is long over"
    with Cc(which) as cc:
        cc.timeout()
        cc.idle(SECOND, rto)
        assert cc.cwnd == MSS, "never up"


@pytest.mark.parametrize("which", [RENO, CUBIC])
@pytest.mark.parametrize("event", ["loss", "timeout"])
def test_undo(which, event):
    """As if it had not been, also in what follows."""
    with Cc(which).grown_to(500 * MSS) as cc, Cc(which).grown_to(500 * MSS) as steady:
        for one in (cc, steady):
            for _ in range(10):
                one.round()
        before = cc.cwnd, cc.ssthresh
        getattr(cc, event)()
        if event == "timeout":
            cc.timeout(first=False)
        assert cc.cwnd < before[0]
        cc.undo()
        assert (cc.cwnd, cc.ssthresh) == before
        for _ in range(30):
            cc.round()
            steady.round()
        assert cc.cwnd == pytest.approx(steady.cwnd, abs=MSS)
        after = cc.cwnd, cc.ssthresh
        cc.undo()
        assert (cc.cwnd, cc.ssthresh) == after, "once"


def test_undo_in_slow_start():
    with Cc(CUBIC) as cc:
        cc.timeout()
        cc.undo()
        assert cc.ssthresh == UNLIMITED
        cc.ack(10 * MSS)
        assert cc.cwnd == 20 * MSS


def test_undo_when_it_has_grown_since():
    """RFC 9438, 4.9: what there is now is kept."""
    with Cc(RENO).grown_to(20 * MSS) as cc:
        cc.loss()
        for _ in range(30):
            cc.round()
        now = cc.cwnd, cc.ssthresh
        assert now[0] > 20 * MSS
        cc.undo()
        assert (cc.cwnd, cc.ssthresh) == now


@pytest.mark.parametrize("which", [RENO, CUBIC])
def test_smaller_mss(which):
    """As many segments, each smaller; also what an undo gives back."""
    with Cc(which, 8948).grown_to(895 * 8948) as cc:
        segments = cc.cwnd / 8948, cc.ssthresh / 8948
        cc.mss(1448)
        assert (cc.cwnd / 1448, cc.ssthresh / 1448) == pytest.approx(segments, rel=1e-6)
        cc.undo()
        assert cc.cwnd == pytest.approx(895 * 1448, rel=1e-6)
        assert cc.ssthresh == UNLIMITED


@pytest.mark.parametrize("which", [RENO, CUBIC])
def test_larger_mss(which):
    with Cc(which).grown_to(1000 * MSS) as cc:
        before = cc.cwnd, cc.ssthresh
        cc.mss(8948)
        assert (cc.cwnd, cc.ssthresh) == before
        cc.timeout()
        assert cc.cwnd == 8948
    with Cc(which) as cc:
        cc.timeout()
        cc.mss(8948)
        assert cc.cwnd == 8948, "at least one"


def test_cubic_with_another_mss():
    """K stays what it was when a path's MTU falls: W_max counts segments, and so does cwnd."""
    with Cc(CUBIC, 2 * MSS).grown_to(2000 * MSS) as cc:
        cc.mss(MSS)
        for _ in range(92):
            cc.round()
        assert cc.cwnd == pytest.approx(1000 * MSS, rel=0.005)
    # When it rises, W_max is the same bytes: 300 segments are 150 of twice the size, K = cbrt(150 / 0.4).
    with Cc(CUBIC, MSS).grown_to(1000 * MSS) as cc:
        cc.mss(2 * MSS)
        for _ in range(73):
            cc.round()
        assert cc.cwnd == pytest.approx(1000 * MSS, rel=0.005)

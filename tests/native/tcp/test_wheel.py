"""The timer wheel against a dict of what is armed."""

import random

import pytest
from ccpieces import SECOND, UNLIMITED, Piece, pieces
from hypothesis import example, given, settings
from hypothesis import strategies as st

TICK = 1 << 18
LEVELS = 8
CLOCK_MAX = UNLIMITED - 1
HOUR = 3600 * SECOND


class Wheel(Piece):
    """A wheel and the model beside it; every call checks what wheel.h promises."""

    def __init__(self, n, now=0):
        super().__init__(pieces.timers(n, now))
        self.n, self.now = n, now
        self.armed = {}
        """number -> (due_ns, the clock of the wheel when it was armed)"""
        self.pushes = 0

    def arm(self, i, due):
        due = min(max(due, 0), CLOCK_MAX)
        self.pushes += i in self.armed
        self.armed[i] = due, self.now
        pieces.arm(self.handle, i, due)

    def cancel(self, i):
        self.armed.pop(i, None)
        pieces.cancel(self.handle, i)

    def expire(self, again=lambda i: None):
        """All that is due; `again` may arm. Never early, and once."""
        gone = []
        for _ in range(len(self.armed) + 1):
            i = pieces.expire(self.handle, self.now)
            if i < 0:
                break
            assert self.armed.pop(i)[0] <= self.now, "early"
            assert not pieces.is_armed(self.handle, i)
            gone.append(i)
            again(i)
        else:
            pytest.fail("the loop does not end")
        for i, (due, since) in self.armed.items():
            assert self.now < max(due, since) + TICK, f"{i} is late"
        assert self.next > self.now, "who sleeps until then would spin"
        return gone

    def advance(self, ns, **how):
        self.now = min(self.now + ns, CLOCK_MAX - TICK)
        return self.expire(**how)

    @property
    def next(self):
        return pieces.next_ns(self.handle)

    def check(self):
        for i in range(self.n):
            assert bool(pieces.is_armed(self.handle, i)) == (i in self.armed)
        assert self.next > self.now
        if self.armed:
            assert self.next <= min(max(due, since) + TICK for due, since in self.armed.values())
        else:
            assert self.next == UNLIMITED

    def sleep(self):
        """Until next_ns, again and again, until something is due: few wakes are for nothing."""
        for _ in range(LEVELS * (len(self.armed) + self.pushes) + 1):
            if not self.armed:
                return
            self.now = max(self.next, self.now)
            if self.now >= CLOCK_MAX - TICK or self.expire():
                return
        pytest.fail("woken too often for nothing")


# From parts of a tick to centuries: every level.
spans = st.one_of(
    st.integers(0, 3 * TICK), st.integers(0, 62).flatmap(lambda bits: st.integers(0, 1 << bits))
)
numbers = st.integers(0, 7)
steps = st.one_of(
    st.tuples(st.just("arm"), numbers, spans),
    st.tuples(st.just("arm"), numbers, spans.map(lambda ns: -ns)),
    st.tuples(st.just("cancel"), numbers, st.just(0)),
    st.tuples(st.just("advance"), numbers, spans),
    st.tuples(st.just("again"), numbers, spans),
    st.tuples(st.just("sleep"), numbers, st.just(0)),
)


@given(start=st.sampled_from([0, 1, TICK - 1, 10**15, 2**63 - 5, 2**63]), script=st.lists(steps, max_size=60))
@settings(max_examples=400, deadline=None)
@example(start=0, script=[("arm", 0, TICK), ("arm", 0, 100 * TICK), ("sleep", 0, 0)])
@example(start=0, script=[("arm", i, 64 * TICK + i * TICK) for i in range(8)] + [("advance", 0, 66 * TICK)])
def test_as_the_model(start, script):
    with Wheel(8, start) as wheel:
        for what, i, ns in script:
            if what == "arm":
                wheel.arm(i, wheel.now + ns)
            elif what == "cancel":
                wheel.cancel(i)
            elif what == "sleep":
                wheel.sleep()
            elif what == "again":
                wheel.advance(ns, again=lambda one, back=i: wheel.arm(one, wheel.now - back * TICK))
            else:
                wheel.advance(ns)
            wheel.check()


@given(level=st.integers(0, LEVELS - 1), digit=st.integers(1, 63), now=st.integers(0, 2**40), off=spans)
@settings(max_examples=300, deadline=None)
def test_exactly_when(level, digit, now, off):
    """Not a nanosecond before due_ns, and with the tick that follows."""
    due = min(now + (digit << 6 * level) * TICK + off % TICK, 2**62)
    with Wheel(1, now) as wheel:
        wheel.arm(0, due)
        assert wheel.advance(max(due - 1 - now, 0)) == []
        assert wheel.advance(due + TICK - wheel.now) == [0]


def test_thousands():
    """Pushed back with every ACK, as an RTO is; then all at once after an hour of sleep."""
    chance = random.Random(6298)
    with Wheel(4000) as wheel:
        expired = 0
        for _ in range(60):
            for i in chance.sample(range(wheel.n), 1000):
                wheel.arm(i, wheel.now + chance.choice([50_000, 10**6, 2 * 10**8, 10**9, 10**10]))
            for i in chance.sample(range(wheel.n), 50):
                wheel.cancel(i)
            expired += len(wheel.advance(chance.randrange(4 * 10**7)))
            wheel.check()
        left = set(wheel.armed)
        assert expired > 1000
        assert len(left) > 1000
        assert set(wheel.advance(HOUR)) == left
        wheel.check()


def test_pushed_back_in_its_slot():
    """What was pushed back does not come with those that were not."""
    with Wheel(100) as wheel:
        for i in range(100):
            wheel.arm(i, 200 * TICK)
        for i in range(0, 100, 2):
            wheel.arm(i, 300 * TICK)
        assert set(wheel.advance(200 * TICK)) == set(range(1, 100, 2))
        assert set(wheel.advance(100 * TICK)) == set(range(0, 100, 2))


def test_armed_in_the_loop():
    """To a time that is over: with the next tick, so that the loop ends."""
    with Wheel(3) as wheel:
        for i in range(3):
            wheel.arm(i, TICK)
        assert len(wheel.advance(HOUR, again=lambda i: wheel.arm(i, 0))) == 3
        assert wheel.expire() == []
        assert len(wheel.advance(TICK)) == 3


def test_clock_goes_back():
    with Wheel(2, HOUR) as wheel:
        wheel.arm(0, HOUR + TICK)
        assert pieces.expire(wheel.handle, 0) == -1
        wheel.arm(1, 0)
        assert pieces.expire(wheel.handle, 0) == -1
        assert wheel.expire() == []
        assert sorted(wheel.advance(2 * TICK)) == [0, 1]


def test_never():
    """UINT64_MAX is as far as the clock reaches."""
    with Wheel(1) as wheel:
        pieces.arm(wheel.handle, 0, UNLIMITED)
        assert pieces.expire(wheel.handle, 2**63) == -1
        assert pieces.expire(wheel.handle, UNLIMITED - 1) == -1
        assert wheel.next == UNLIMITED
        pieces.cancel(wheel.handle, 0)
        pieces.cancel(wheel.handle, 0)
        assert not pieces.is_armed(wheel.handle, 0)

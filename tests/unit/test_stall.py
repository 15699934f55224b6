"""How long a link may be away, by the judge of stalls."""

from types import SimpleNamespace

import pytest

from xsk_engine import stall
from xsk_engine._ffi import native as ffi

TIMEOUT_S = 5.0


class Worker:
    """Is called back for a command every `every_s`."""

    def __init__(self, clock, every_s):
        self.counters = SimpleNamespace(state=ffi.LOOP_RUNNING, completed_descs=0)
        self._clock, self._every_s, self._last = clock, every_s, 0.0

    def called(self):
        is_due = self._clock.now - self._last >= self._every_s
        if is_due:
            self._last = self._clock.now
        return ffi.CALLED_BY_COMMAND if is_due else ffi.NOT_CALLED


@pytest.fixture
def clock(monkeypatch):
    """``now`` goes on with each sleep; ``carrier``: has the link one?"""
    clock = SimpleNamespace(now=0.0, carrier=False)

    def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(stall, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    device = lambda _: SimpleNamespace(up=True, carrier=clock.carrier)  # noqa: E731
    monkeypatch.setattr(stall, "netdevs", SimpleNamespace(get=device))
    return clock


def judged(clock, worker, judge, until_s):
    """The first verdict that ends it, and when; between two the loop stalls for a second."""
    while clock.now < until_s:
        verdict = judge.judge(worker, None)
        if verdict != ffi.ERROR_NONE:
            return verdict, clock.now
        clock.now += 1.0
    return ffi.ERROR_NONE, clock.now


@pytest.mark.parametrize("every_s", [0.01, 1.0, 3.0, 1000.0])
def test_commands_make_it_no_longer(clock, every_s):
    judge = stall.StallJudge(None, "eth1", TIMEOUT_S, [])
    verdict, after = judged(clock, Worker(clock, every_s), judge, 60)
    assert verdict == ffi.ERROR_LINK_DOWN
    assert TIMEOUT_S < after < TIMEOUT_S + 1.1


def test_each_time_anew(clock):
    """When something has completed in between, or it was judged with a link."""
    judge = stall.StallJudge(SimpleNamespace(may_fall_back=False), "eth1", TIMEOUT_S, [])
    worker = Worker(clock, 3.0)
    for _ in range(10):
        assert judge.judge(worker, None) == ffi.ERROR_NONE
        worker.counters.completed_descs += 1
        clock.now += 100
    worker.xsk = "moved"
    for _ in range(10):
        assert judge.judge(worker, None) == ffi.ERROR_NONE
        clock.carrier = True
        assert judge.judge(worker, None) == ffi.ERROR_NONE
        clock.carrier = False
        clock.now += 100

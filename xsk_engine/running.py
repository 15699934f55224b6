"""Traffic that runs beside other things on an open engine: stopped, changed and looked at while it does."""

from __future__ import annotations

import asyncio
import errno
import math
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from xsk_engine.errors import BrokenError, ClosedError, DeadlineError
from xsk_engine.flow import Pace
from xsk_engine.mixprogram import MixProgram, PaceProgram, repaced
from xsk_engine.single import Single
from xsk_engine.stats import FlowCounts, merge_flows
from xsk_engine.units import Rate, parse_rate
from xsk_engine.waiting import awaited, check_timeout, wait_until

if TYPE_CHECKING:
    from xsk_engine.inside import Inside
    from xsk_engine.mix import Mixes
    from xsk_engine.worker import Worker


def as_pace(rate: Pace | Rate | Fraction | int | str | None) -> Pace:
    """ "1Mpps", a number of packets per second, a Rate, a Pace; None: as fast as it goes. ValueError."""
    if isinstance(rate, Pace):
        return rate
    if rate is None:
        return Pace()
    if isinstance(rate, str):
        return Pace(parse_rate(rate))
    if not isinstance(rate, Rate):
        if isinstance(rate, float) and not math.isfinite(rate):
            raise ValueError(f"rate: {rate} is no number of packets per second")
        rate = Rate("pps", Fraction(rate))
    return Pace(rate)


class RunningTraffic(Single):
    """What :meth:`Engine.start` returns. Any thread, one at a time; ``await`` in the event loop of aopen().

    Keep it: of traffic that nobody holds, neighbours are not followed, and only closing the engine ends it.

        flow = xsk_engine.parse_flow("ip dst=10.77.0.2 / udp dst=9000")
        running = engine.start(flow, rate="10kpps", count=100)
        running.wait(5.0)
    """

    def __init__(
        self,
        parts: Sequence[tuple[Worker, Mixes, Sequence[MixProgram]]],
        seed: int,
        changed: Callable[[float], asyncio.Future[None]] | None,
        inside: Inside,
    ) -> None:
        self._parts = parts
        self._inside = inside
        self._seed = seed
        self._changed = changed
        self._last: FlowCounts | None = None
        # The neighbours' thread and the caller's: what has ended is named in no command.
        self._lock = threading.RLock()
        self._forked = False
        self.owner: object = None
        """its engine, which lives as long as it is held"""
        self.at_end: Callable[[RunningTraffic], None] | None = None
        """called with it when it is done"""
        self.followers: list[FollowingFlows] = []
        """live as long as it does"""
        for worker, mixes, _ in parts:
            worker.start_mixes(mixes)

    @property
    def done(self) -> bool:
        """All of it has been posted, or it was stopped. BrokenError when the engine has failed."""
        self._check_not_forked()
        with self._inside.here(), self._lock:
            if self._last is None:
                for worker, _, _ in self._parts:
                    failure = worker.failure()
                    if failure is not None:
                        raise failure
                if not all(mixes.ended for _, mixes, _ in self._parts):
                    return False
                self._finish()
        self._raise_refused()
        return True

    def _raise_refused(self) -> None:
        for worker, mixes, _ in self._parts:
            worker.raise_refused(mixes)

    def sweep(self) -> None:
        """Frees what is done, also when nobody has looked."""
        with self._inside.here(), self._lock:
            if self._last is None and all(mixes.ended for _, mixes, _ in self._parts):
                self._finish()

    def _check_not_forked(self) -> None:
        if self._forked:
            raise BrokenError("running", "", "this process was forked; only the parent may use it")

    def forget(self) -> None:
        """In a forked child: everything is the parent's."""
        self._forked = True
        self._lock = threading.RLock()  # another thread may have had it

    def _finish(self) -> None:
        with self._inside.here(), self._lock:
            if self._last is not None:
                return
            self._last = self.counts()
            for worker, mixes, _ in self._parts:
                worker.forget_mixes(mixes)
        if self.at_end is not None:
            self.at_end(self)

    def set_mac(self, flows: Sequence[int], mac: bytes) -> None:
        """Another Ethernet destination for these."""
        with self._inside.here(), self._lock:
            if self._last is None:
                for worker, mixes, _ in self._parts:
                    worker.start_update(mixes, flows, 0, mac)

    def close(self) -> None:
        """When the loops have ended."""
        self._finish()  # also where another thread is just doing it

    def counts(self) -> FlowCounts:
        """What each flow has submitted so far, by its place in the traffic: packets and bytes.

            packets, size = running.counts()[0]

        Bytes of frames, without FCS.
        """
        self._check_not_forked()
        with self._inside.here(), self._lock:
            if self._last is not None:
                return self._last
            return merge_flows(mixes.posted() for _, mixes, _ in self._parts)

    def stop(self) -> None:
        """Posts no more of it; what was posted completes. Does not wait. Idempotent.
        BusyError when a thousand commands wait for the loop.

            running.stop()
            running.wait(1.0)
        """
        self._check_not_forked()
        with self._inside.here(), self._lock:
            if self._last is None:
                for worker, mixes, _ in self._parts:
                    worker.stop_mixes(mixes)

    def set_rate(self, rate: Pace | Rate | Fraction | int | str | None, flow: int | None = None) -> None:
        """Another rate from now on: "1Mpps", "2Gbps", packets per second, a Pace; None: as fast as it goes.
        Of the flows that share one, or of the one at this place that has its own. ValueError when there is
        none, or for what is no rate. ClosedError when it is done.

            running.set_rate("20kpps")
        """
        pace = as_pace(rate)
        self._check_not_forked()
        found = False
        with self._inside.here(), self._lock:
            if self._last is not None:
                raise ClosedError("set_rate", str(rate), "it is done")
            for worker, mixes, programs in self._parts:
                for at, program in enumerate(programs):
                    alone = flow in program.members and not program.shared
                    if alone or (flow is None and program.shared):
                        self._repace(worker, mixes, at, repaced(program, pace, self._seed))
                        found = True
        if not found:
            raise ValueError(
                "set_rate: every flow has a rate of its own; say which"
                if flow is None
                else f"set_rate: flow {flow} has no rate of its own"
            )

    @staticmethod
    def _repace(worker: Worker, mixes: Mixes, at: int, pace: PaceProgram) -> None:
        try:
            worker.repace(mixes, at, pace)
        except ClosedError:
            raise worker.failure() or ClosedError("set_rate", "", "its engine is closed") from None

    def __repr__(self) -> str:
        if self._forked:
            return "<RunningTraffic of another process>"
        return f"<RunningTraffic {self.counts()} {'done' if self._last is not None else 'running'}>"

    def wait(self, timeout: float | None = None) -> None:
        """Until it is done; DeadlineError after ``timeout`` seconds, and it goes on. None waits for
        ever. Errors of ``done``, too.

            engine.start(flow, count=100).wait(1.0)
        """
        wait_until(
            lambda: self.done,
            None if timeout is None else check_timeout("timeout", timeout),
            lambda: DeadlineError("wait", f"{timeout:g} s", "it is not done yet", errno=errno.ETIMEDOUT),
        )

    def __await__(self) -> Generator[object, None, None]:
        return awaited(lambda: self.done, self._changed).__await__()


class FollowingFlows:
    """Flows of a running traffic whose Ethernet destination is a neighbour's: told when it changes."""

    def __init__(self, running: RunningTraffic, flows: Sequence[int]) -> None:
        self._running = weakref.ref(running)
        self._flows = flows

    def set_mac(self, mac: bytes) -> None:
        """By the neighbours' thread."""
        running = self._running()
        if running is not None:
            running.set_mac(self._flows, mac)

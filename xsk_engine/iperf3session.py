"""One test against an iperf3 server: its control connection is the kernel's, its streams are the engine's."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xsk_engine import iperf3protocol as protocol
from xsk_engine import iperf3report as report
from xsk_engine import privileges
from xsk_engine.engine import Engine
from xsk_engine.errors import DeadlineError, TcpError, XskError
from xsk_engine.iperf3control import Control
from xsk_engine.iperf3protocol import COOKIE_BYTES, Iperf3Test, Results, StreamResult
from xsk_engine.iperf3report import Ends, Moment
from xsk_engine.signals import handled
from xsk_engine.tcp import TcpConnection
from xsk_engine.tcphandle import AGAIN
from xsk_engine.tcptarget import TcpTarget
from xsk_engine.waiting import pauses

# What one call writes at least, of blocks that are smaller: iperf3's own default block.
_WRITE_BYTES = protocol.DEFAULT_BLOCK_BYTES
# How often the control connection is looked at. Lower: takes time from the streams; higher: a server that
# gives up is noticed later.
_LOOK_S = 0.05
# At the end the server closes its streams, whatever its kernel has acknowledged and it has not read. It is
# given time until nothing has come from it for so long. Lower: it misses the last bytes, as it often does
# with iperf3's own client; higher: its time, and so the receiver's rate, is wrong by that.
_QUIET_S, _LONGEST_QUIET_S = 0.02, 1.0
_CLOSE_S = 1.0
# Of an interval: what would be shorter at the end belongs to the one before it, as iperf3 has it.
_SHORT = 0.1

Tell = Callable[[str, dict[str, Any]], None]
"""Called with what is known now: "start", "interval" or "end", and its part of the report"""


@dataclass
class Outcome:
    """``report``: iperf3's JSON; ``error`` what went wrong, ``signal`` what stopped it (or 0)."""

    report: dict[str, Any]
    error: XskError | None
    signal: int


class _Stopped(Exception):
    """A signal came."""


class _Signals:
    """Those that end it are noted, and what runs looks; while it waits for the server, and by the second one,
    it is stopped at once."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._waiting = False

    def note(self, number: int, _frame: object) -> None:
        """The handler."""
        self.numbers.append(number)
        if self._waiting or len(self.numbers) > 1:
            raise _Stopped

    @contextlib.contextmanager
    def waking(self) -> Iterator[None]:
        """Inside, one raises _Stopped at once."""
        self._waiting = True
        try:
            self.look()
            yield
        finally:
            self._waiting = False

    def look(self) -> None:
        """_Stopped, if one came."""
        if self.numbers:
            raise _Stopped


class _Budget:
    """Whole blocks, until there are enough of them or the time is over."""

    def __init__(self, test: Iperf3Test, over_at: float) -> None:
        self._block = test.block_bytes
        self._left = test.count_blocks
        self._most = max(_WRITE_BYTES // test.block_bytes, 1)
        self.most_bytes = self._most * test.block_bytes
        """that one call writes"""
        self._over_at = over_at

    def take(self) -> int:
        """Bytes to write next; 0: no more."""
        if self._left is None:
            return self.most_bytes if time.monotonic() < self._over_at else 0
        blocks = min(self._most, self._left)
        self._left -= blocks
        return blocks * self._block


class _Streams:
    """Writes to all connections in turn, from one buffer, in one thread. No call waits."""

    def __init__(self, connections: Sequence[TcpConnection], budget: _Budget, buffer: memoryview) -> None:
        self.connections = connections
        self._budget = budget
        self._buffer = buffer
        self._left = [0] * len(connections)
        self.finished = False
        """all that is to be written has been"""

    def write(self) -> bool:
        """Was there room in any of them?"""
        progress, open_ = False, False
        for i, connection in enumerate(self.connections):
            left = self._left[i] or self._budget.take()
            if not left:
                continue
            open_ = True
            result = connection.try_send(self._buffer[:left])
            if result != AGAIN:
                if result < 0:
                    raise connection.failed("send", result)
                left -= result
                progress = True
            self._left[i] = left
        self.finished = not open_
        return progress

    def flushed(self) -> bool:
        """All is acknowledged. TcpError: it never will be."""
        return all(one.is_flushed() for one in self.connections)

    def moments(self) -> list[Moment]:
        return [Moment.of(one.info(), COOKIE_BYTES) for one in self.connections]

    def heard(self) -> int:
        """Segments that have come from the peer."""
        return sum(one.info().received_segments for one in self.connections)


class _Intervals:
    """Figures of every interval; the last one goes on until all is acknowledged."""

    def __init__(
        self,
        streams: _Streams,
        interval_s: float,
        over_at: float | None,
        add: Callable[[float, float, list[Moment], list[Moment]], None],
    ) -> None:
        self._streams, self._interval_s, self._add = streams, interval_s, add
        self.begun = time.monotonic()
        self._due = self.begun + interval_s if interval_s else math.inf
        # What is due in the last moments is the last one's.
        self._last_at = over_at - _SHORT * interval_s if over_at is not None else math.inf
        self._since, self._before = 0.0, streams.moments()

    def tick(self, now: float) -> None:
        if self._due <= now < self._last_at:
            self._due += self._interval_s
            self.finish(now - self.begun)

    def finish(self, seconds: float) -> list[Moment]:
        """One that ends now, and what it ends with."""
        moments = self._streams.moments()
        self._add(self._since, seconds, self._before, moments)
        self._since, self._before = seconds, moments
        return moments


class _Stall:
    """DeadlineError when nothing has been acknowledged for too long: a server that is there, and reads
    nothing."""

    def __init__(self, streams: _Streams, name: str, timeout_s: float) -> None:
        self._streams, self._name, self._timeout_s = streams, name, timeout_s
        self._acked, self._at = -1, 0.0

    def look(self, now: float) -> None:
        acked = sum(one.acked_bytes for one in self._streams.moments())
        if acked != self._acked:
            self._acked, self._at = acked, now
        elif now - self._at > self._timeout_s:
            text = "the server has taken nothing for so long"
            raise DeadlineError("iperf3", f"{self._name}, {self._timeout_s:g} s", text)


class _Session:
    """From the first word to the last."""

    def __init__(self, target: TcpTarget, host: str, test: Iperf3Test, tell: Tell, signals: _Signals) -> None:
        self._target = target
        self._host = host
        self._test = test
        self._tell = tell
        self._signals = signals
        self._version = importlib.metadata.version("xsk-engine")  # while files can be read
        self._cookie = protocol.make_cookie(os.urandom(COOKIE_BYTES - 1))
        self._cpu = _cpu_s()
        self.report: dict[str, Any] = {"start": {}, "intervals": [], "end": {}}

    def run(self) -> None:
        """XskError, _Stopped."""
        with contextlib.ExitStack() as stack:
            with self._signals.waking():
                control = self._greet()
                stack.callback(control.close)
                control.expect(protocol.PARAM_EXCHANGE)
            engine = stack.enter_context(Engine(self._target.engine))
            if self._target.engine.drop_privileges:
                privileges.drop(engine.keeps)
            control.send_parameters(self._test)
            self._expect(control, protocol.CREATE_STREAMS)
            connections = [
                stack.enter_context(_closing(self._connect(engine))) for _ in range(self._test.streams)
            ]
            self._expect(control, protocol.TEST_START)
            self._expect(control, protocol.TEST_RUNNING)
            self._begin(control, connections)
            ours = self._send(control, connections)
            control.say(protocol.TEST_END)
            self._expect(control, protocol.EXCHANGE_RESULTS)
            with self._signals.waking():
                theirs = control.exchange_results(ours)
            self._expect(control, protocol.DISPLAY_RESULTS)
            control.say(protocol.IPERF_DONE)
            self._end(ours, theirs)

    def _greet(self) -> Control:
        target = self._target
        timeout_s = target.options["connect_timeout_s"]
        return Control(target.remote, target.port, target.source, timeout_s, self._cookie)

    def _expect(self, control: Control, state: int) -> None:
        with self._signals.waking():
            control.expect(state)

    def _connect(self, engine: Engine) -> TcpConnection:
        self._signals.look()
        connection = engine.tcp(self._target.remote, self._target.port, **self._target.ends)
        connection.sendall(self._cookie)
        return connection

    def _begin(self, control: Control, connections: Sequence[TcpConnection]) -> None:
        options = connections[0].options
        self.report["start"] = report.start(
            self._test,
            self._host,
            self._target.port,
            [Ends(one.local, one.remote) for one in connections],
            cookie=self._cookie,
            unix_s=int(time.time()),
            control_mss=control.mss_bytes,
            send_buffer_bytes=options.send_buffer_bytes,
            receive_buffer_bytes=options.receive_buffer_bytes,
            version=f"xsk-engine {self._version}",
            system=" ".join(platform.uname()[:5]),
        )
        self._tell("start", self.report["start"])

    def _send(self, control: Control, connections: Sequence[TcpConnection]) -> Results:
        """Until everything is acknowledged."""
        test = self._test
        self._cpu = _cpu_s()
        over_at = time.monotonic() + test.duration_s if test.count_bytes is None else math.inf
        budget = _Budget(test, over_at)
        streams = _Streams(connections, budget, memoryview(os.urandom(budget.most_bytes)))
        clock = _Intervals(streams, test.interval_s, over_at, self._add_interval)
        try:
            self._write(control, streams, clock)
        except _Stopped:
            seconds = time.monotonic() - clock.begun
            moments = clock.finish(seconds)
            nothing = [StreamResult(0, 0, round(seconds, 6)) for _ in connections]
            self._end(self._results(moments, seconds), Results(0.0, 0.0, 0.0, nothing, None))
            control.say(protocol.CLIENT_TERMINATE)
            raise
        except TcpError:
            control.check_soon()
            raise
        seconds = time.monotonic() - clock.begun
        ours = self._results(clock.finish(seconds), seconds)
        _settle(streams)
        return ours

    def _write(self, control: Control, streams: _Streams, clock: _Intervals) -> None:
        stall = _Stall(streams, control.name, streams.connections[0].options.user_timeout_s)
        waits, look_at = pauses(), 0.0
        while not streams.finished or not streams.flushed():
            if not streams.finished and streams.write():
                waits = pauses()
            else:
                time.sleep(next(waits))
            now = time.monotonic()
            clock.tick(now)
            if now >= look_at:
                look_at = now + _LOOK_S
                control.check()
                stall.look(now)
                self._signals.look()

    def _results(self, moments: list[Moment], seconds: float) -> Results:
        used = zip(_cpu_s(), self._cpu, strict=True)
        user, system = (100 * (now - then) / seconds for now, then in used)
        return Results(
            user + system,
            user,
            system,
            [StreamResult(one.acked_bytes, one.retransmits, round(seconds, 6)) for one in moments],
            self._test.congestion,
        )

    def _add_interval(self, start_s: float, end_s: float, then: list[Moment], now: list[Moment]) -> None:
        made = report.interval(round(start_s, 6), round(end_s, 6), then, now)
        self.report["intervals"].append(made)
        self._tell("interval", made)

    def _end(self, ours: Results, theirs: Results) -> None:
        self.report["end"] = report.end(self.report["intervals"], ours, theirs)
        self._tell("end", self.report["end"])


def _cpu_s() -> tuple[float, float]:
    """User and system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def _settle(streams: _Streams) -> None:
    """Until the server has probably read what its kernel has acknowledged."""
    begun = quiet = time.monotonic()
    heard = streams.heard()
    while (now := time.monotonic()) - quiet < _QUIET_S and now - begun < _LONGEST_QUIET_S:
        time.sleep(_QUIET_S / 10)
        if (latest := streams.heard()) != heard:
            heard, quiet = latest, time.monotonic()


@contextlib.contextmanager
def _closing(connection: TcpConnection) -> Iterator[TcpConnection]:
    """The server ends its streams by itself, and resets them where it has not read all: both are an end."""
    try:
        yield connection
    except _Stopped:
        _close(connection)  # a reset would reach the server before it is told why
        raise
    except BaseException:
        connection.abort()
        raise
    _close(connection)


def _close(connection: TcpConnection) -> None:
    try:
        connection.close(_CLOSE_S)
    except XskError:
        connection.abort()


def run(target: TcpTarget, host: str, test: Iperf3Test, tell: Tell) -> Outcome:
    """The whole test; whatever happens, there is a report. `host`: as the user has named it. Main thread
    only: it handles the signals that end it."""
    error: XskError | None = None
    signals = _Signals()
    with handled(signals.note):
        session = _Session(target, host, test, tell, signals)
        try:
            session.run()
        except XskError as failure:
            error = failure
        except _Stopped:
            session.report["error"] = report.INTERRUPTED
    if error is not None:
        session.report["error"] = str(error)
    return Outcome(session.report, error, signals.numbers[0] if signals.numbers else 0)

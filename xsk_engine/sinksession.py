"""One run of a sink as the command sees it: open, watch, stop, summary, whatever happens on the way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from xsk_engine import privileges
from xsk_engine.capture import PcapWriter
from xsk_engine.errors import XskError
from xsk_engine.outputs import Output, close_all, write_to_all
from xsk_engine.signals import handled
from xsk_engine.sink import Sink, SinkConfig
from xsk_engine.sinkreport import SinkFigures, as_json, interval

# How often it looks whether it is to stop. Lower: takes time from the receiver; higher: --count ends later.
_LOOK_S = 0.05


@dataclass(frozen=True)
class Until:
    """When it stops by itself: after so many seconds, so many packets received or sent back, so long
    without one (after the first); None: not for that reason."""

    duration_s: float | None = None
    packets: int | None = None
    idle_s: float | None = None


@dataclass
class Outcome:
    """``report`` is the summary; ``figures`` what it was made of; ``error`` what went wrong, ``signal`` what
    stopped it (or 0)."""

    report: dict[str, Any]
    figures: SinkFigures
    error: XskError | None
    signal: int


def figures_of(sink: Sink, *, flows: bool) -> SinkFigures:
    """Of this moment."""
    snapshot, way = sink.snapshot(flows=flows), sink.way
    busy_poll = way.busy_poll() if flows else None  # it asks the kernel
    return SinkFigures(
        sink.config.interface,
        way.method,
        way.mode,
        way.reason,
        str(sink.config.match),
        snapshot.arrivals,
        snapshot.overrun_packets,
        snapshot.receive.uncaptured_packets,
        busy_poll.as_dict() if busy_poll is not None else None,
        snapshot.reflected,
    )


class _Watch:
    """Looks at an open sink until it is to stop."""

    def __init__(self, sink: Sink, until: Until, outputs: Sequence[Output], interval_s: float) -> None:
        self._sink = sink
        self._until = until
        self._outputs = outputs
        self._interval_s = interval_s
        self._started = time.monotonic()
        self._before = (self._started, figures_of(sink, flows=False))

    def run(self, stopped_by: list[int], show: Callable[[dict[str, Any]], None] | None) -> None:
        due = self._started + self._interval_s
        while not stopped_by and not self._is_over():
            time.sleep(_LOOK_S)
            self._sink.raise_failure()
            if time.monotonic() >= due:
                due += self._interval_s
                record = self.record()
                failure = write_to_all(self._outputs, record)
                if failure is not None:
                    raise failure
                if show is not None:
                    show(record)

    def _is_over(self) -> bool:
        until, stats = self._until, self._sink.receive_stats()
        now = time.monotonic()
        if until.duration_s is not None and now - self._started >= until.duration_s:
            return True
        if until.packets is not None:
            seen = self._sink.snapshot(flows=False)
            back = seen.reflected
            if (back.packets if back else seen.arrivals.received_packets) >= until.packets:
                return True
        return until.idle_s is not None and bool(stats.last_ns) and now - stats.last_ns / 1e9 >= until.idle_s

    def record(self) -> dict[str, Any]:
        """What has happened since the last one."""
        then, before = self._before
        now, figures = time.monotonic(), figures_of(self._sink, flows=False)
        self._before = (now, figures)
        at = {"time_s": round(now - self._started, 6), "unix_s": round(time.time(), 6)}
        return {"kind": "interval", **at, **interval(figures, before, now - then)}


def run(
    config: SinkConfig,
    until: Until,
    *,
    outputs: Sequence[Output] = (),
    interval_s: float = 1.0,
    pcap_out: BinaryIO | None = None,
    on_open: Callable[[Sink], None] | None = None,
    show: Callable[[dict[str, Any]], None] | None = None,
) -> Outcome:
    """Receives until it is over or a signal that ends it comes (handled here, main thread only), and closes
    `outputs`. `on_open` is called when it receives, `show` with each interval's record. UnavailableError:
    nothing was opened."""
    stopped_by: list[int] = []
    error: XskError | None = None
    with contextlib.ExitStack() as stack:
        sink = Sink(config).open()
        stack.callback(sink.close)
        if config.drop_privileges:
            privileges.drop(sink.way.keeps)
        stack.enter_context(handled(lambda number, _: stopped_by.append(number)))
        writer = PcapWriter(pcap_out, [sink.capture]) if pcap_out is not None and sink.capture else None
        if writer is not None:  # also when who is told of it raises: it reads what the sink then frees
            stack.callback(writer.close)
        watch = _Watch(sink, until, outputs, interval_s)
        if on_open is not None:
            on_open(sink)
        try:
            watch.run(stopped_by, show)
        except XskError as failure:
            error = failure
        for close in (sink.stop, writer.close if writer else None):
            try:
                if close is not None:
                    close()
            except XskError as failure:
                error = error or failure
        last = watch.record()
        figures = figures_of(sink, flows=True)
        report = as_json(figures, error)
        at = {k: v for k, v in last.items() if k.endswith("_s")}
        failed = write_to_all(outputs, last, {"kind": "final", **at, **report})
        closed = close_all(outputs)
        failed = failed or closed
        if failed is not None and error is None:
            error = failed
            report["error"] = error.as_dict()
        sink.close()  # while signals cannot disturb
    return Outcome(report, figures, error, stopped_by[0] if stopped_by else 0)

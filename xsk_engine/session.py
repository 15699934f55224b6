"""One run of an engine as a command sees it: open, send, drain, summary, whatever happens on the way."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import psutil

from xsk_engine import privileges, shortage
from xsk_engine.capture import PcapWriter
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import BrokenError, XskError
from xsk_engine.figures import per_flow, per_queue
from xsk_engine.outside import command_loop
from xsk_engine.plan import Plan
from xsk_engine.replay import Replay
from xsk_engine.report import as_json
from xsk_engine.signals import Interrupted, ending, handled, raise_interrupted, told_to

Watch = Callable[[Engine], Awaitable[None]]
"""Runs beside the engine (a live view, say); cancelled when the traffic is over, which its error ends."""


@dataclass
class Outcome:
    """``report`` is the summary object; ``error`` what went wrong, ``signal`` what stopped it (or 0)."""

    report: dict[str, Any]
    error: XskError | None
    signal: int


def _replay_figures(engine: Engine, replay: Replay) -> dict[str, Any] | None:
    if engine.trace is None:
        return None
    return {
        "file": replay.path,
        "streamed": replay.stream,
        "loops": replay.loops,
        "oversize": replay.oversize,
        **asdict(engine.trace.summary),
    }


def _report(engine: Engine, plan: Plan, cpu_before: Any, error: XskError | None) -> dict[str, Any]:
    snapshot = engine.snapshot()
    posted_s = (snapshot.last_post_ns - snapshot.first_post_ns - snapshot.link_down_ns) / 1e9
    binding, umem, now = engine.binding, engine.umem, psutil.Process().cpu_times()
    kernel = engine.kernel_stats()
    assert umem is not None
    return as_json(
        interface=engine.config.interface,
        queues=list(engine.config.queues),
        mode=binding.mode if binding else None,
        mode_requested=engine.config.mode,
        mode_reason=binding.reason if binding else None,
        requested_rate=plan.rate_text,
        asked_pps=plan.asked_pps,
        gaps=engine.gaps(),
        snapshot=snapshot,
        per_queue=per_queue(engine.config.queues, engine.queue_snapshots()),
        flows=per_flow(plan.flows, engine.flow_counts(), seconds=posted_s),
        replay=_replay_figures(engine, plan.traffic) if isinstance(plan.traffic, Replay) else None,
        timestamps="timestamp" in engine.config.tx_metadata,
        kernel={
            "tx_invalid_descs": kernel.tx_invalid_descs,
            "tx_ring_empty_descs": kernel.tx_ring_empty_descs,
        },
        chunks=umem.area.length // umem.chunk_size,
        cpu={
            "user_s": round(now.user - cpu_before.user, 3),
            "system_s": round(now.system - cpu_before.system, 3),
        },
        umem={
            "bytes": umem.area.length,
            "page_size": umem.area.page_size,
            "numa_node": umem.area.numa_node,
            "rx_chunks": binding.rx_chunks if binding else 0,
        },
        error=error,
    )


async def _send(engine: Engine, plan: Plan, watches: Sequence[Watch], stopped_by: list[int]) -> None:
    stop = asyncio.Event()

    def on_signal() -> None:
        if len(stopped_by) > 1:  # the second one: at once
            for worker in engine.workers:
                worker.abort()
        stop.set()

    handler = told_to(asyncio.get_running_loop(), stopped_by, on_signal)
    for number in ending():
        signal.signal(number, handler)

    def on_end(watcher: asyncio.Future[None]) -> None:
        if not watcher.cancelled() and watcher.exception() is not None:
            stop.set()  # a file that takes no more, say: its error is the run's

    watchers = [asyncio.ensure_future(watch(engine)) for watch in watches]
    for watcher in watchers:
        watcher.add_done_callback(on_end)
    try:
        await asyncio.sleep(0)  # each has begun, also where all is done at once
        await engine.run(plan.traffic, stop)
    finally:
        for watcher in watchers:
            watcher.cancel()
        for failure in await asyncio.gather(*watchers, return_exceptions=True):
            if isinstance(failure, XskError):
                raise failure
            if isinstance(failure, Exception):  # whatever it is, the summary is still made
                lacking = shortage.unavailable(failure, "watch", engine.config.interface)
                raise lacking or BrokenError("watch", engine.config.interface, repr(failure)) from failure


def _incomplete(engine: Engine) -> XskError | None:
    now = engine.snapshot()
    if now.completed_descs == now.submitted_descs:
        return None
    return BrokenError(
        "drain",
        f"{engine.config.interface}, {engine.config.drain_timeout_s:g} s",
        f"{now.inflight_descs} descs were not completed; their packets may not have been sent",
        errno=errno.ETIMEDOUT,
    )


def run(
    config: EngineConfig,
    plan: Plan,
    watches: Sequence[Watch] = (),
    *,
    pcap_out: BinaryIO | None = None,
    at_end: Callable[[dict[str, Any]], XskError | None] | None = None,
) -> Outcome:
    """Sends it and returns what happened. Main thread only: it handles the signals that end it.
    `pcap_out`: a file for what the config captures. `at_end` gets the summary while signals still cannot
    disturb; what goes wrong there is the run's error if it has no other.

    UnavailableError (nothing was opened), Interrupted (a signal while opening).
    """
    stopped_by: list[int] = []
    error: XskError | None = None
    cpu_before = psutil.Process().cpu_times()
    engine = Engine(config)
    with handled(raise_interrupted) as numbers, command_loop() as loop:
        engine.open()
        if config.drop_privileges:
            privileges.drop()
        writer: PcapWriter | None = None
        try:
            if pcap_out is not None:
                writer = PcapWriter(pcap_out, engine.captures)
            # A flow that ends by itself leaves its errors in the workers; so does one that is stopped.
            loop.run_until_complete(_send(engine, plan, watches, stopped_by))
        except XskError as failure:
            error = failure
        except Interrupted as interrupted:
            stopped_by.append(interrupted.number)
        finally:
            # What comes now is noted, and the summary still made.
            for number in numbers:
                signal.signal(number, lambda n, _frame: stopped_by.append(n))
            error = _close(engine, writer) or error
        error = error or _incomplete(engine)
        report = _report(engine, plan, cpu_before, error)
        if at_end is not None and (failure_at_end := at_end(report)) is not None and error is None:
            error = failure_at_end
            report["error"] = error.as_dict()
    return Outcome(report, error, stopped_by[0] if stopped_by else 0)


def _close(engine: Engine, writer: PcapWriter | None) -> XskError | None:
    """Both, whatever happens; what went wrong first."""
    failures: list[XskError] = []
    for close in (engine.stop, writer.close if writer else None, engine.close):
        try:
            if close is not None:
                close()
        except XskError as error:
            failures.append(error)
    return failures[0] if failures else None

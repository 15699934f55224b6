"""Figures of a running engine, interval by interval."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xsk_engine.engine import Engine
from xsk_engine.figures import TOTAL, FlowFacts, names, of_queues, per_flow, per_queue
from xsk_engine.stats import FlowCounts, Snapshot, merge


@dataclass(frozen=True)
class _Moment:
    at: float
    total: Snapshot
    queues: list[Snapshot]
    flows: FlowCounts


class Sampler:
    """Records of what happened since the last one. In the thread that runs the engine's event loop."""

    def __init__(self, engine: Engine, facts: Sequence[FlowFacts], asked_pps: float | None) -> None:
        self._engine = engine
        self._facts = facts
        self._asked_pps = asked_pps
        self.started = time.monotonic()
        self._before = self._look()

    def _look(self) -> _Moment:
        queues = self._engine.queue_snapshots()
        return _Moment(time.monotonic(), merge(queues), queues, self._engine.flow_counts())

    def last(self, report: dict[str, Any]) -> dict[str, Any]:
        """What the summary says of the whole run, as a record."""
        figures = {name: report[name] for name in (*names(TOTAL), "per_queue", "flows")}
        return {"kind": "final", **self._now(time.monotonic()), **figures}

    def _now(self, at: float) -> dict[str, float]:
        return {"time_s": round(at - self.started, 6), "unix_s": round(time.time(), 6)}

    def take(self) -> dict[str, Any]:
        """One record: the figures of all (`figures.FIGURES`), of each queue and of each flow."""
        before, now = self._before, self._look()
        self._before = now
        seconds = now.at - before.at
        posted = now.total.submitted_packets - before.total.submitted_packets
        return {
            "kind": "interval",
            **self._now(now.at),
            **of_queues(now.total, before.total, seconds),
            "asked_pps": None if self._asked_pps is None else round(self._asked_pps, 6),
            "posted_pps": round(posted / seconds, 6) if seconds > 0 else 0.0,
            "per_queue": per_queue(self._engine.config.queues, now.queues, before.queues, seconds),
            "flows": per_flow(self._facts, now.flows, before.flows, seconds),
        }

"""The figures of a run: their names, the same in the summary, per interval and in metrics, and what they
mean. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xsk_engine.stats import FlowCounts, Snapshot

TOTAL, QUEUE, FLOW = "total", "queue", "flow"


@dataclass(frozen=True)
class Figure:
    """``kind``: "counter" grows, "gauge" is a state, "rate" belongs to the interval (in the summary to the
    whole run), "fact" does not change. ``scopes``: what there is one of: TOTAL, QUEUE, FLOW."""

    name: str
    kind: str
    unit: str
    scopes: tuple[str, ...]
    text: str


_ALL = (TOTAL, QUEUE, FLOW)
_QUEUES = (TOTAL, QUEUE)
FIGURES = (
    Figure("submitted_packets", "counter", "packets", _ALL, "packets given to the kernel"),
    Figure("submitted_bytes", "counter", "bytes", _ALL, "bytes given to the kernel: frames without FCS"),
    Figure(
        "submitted_descs",
        "counter",
        "descs",
        _QUEUES,
        "descs given to the kernel; a packet longer than a chunk has several",
    ),
    Figure("completed_packets", "counter", "packets", _QUEUES, "packets returned by the completion ring"),
    Figure(
        "dropped_packets",
        "counter",
        "packets",
        _QUEUES,
        "packets completed without being sent; the kernel says so per queue, not per packet",
    ),
    Figure("inflight_descs", "gauge", "descs", _QUEUES, "descs submitted and not completed"),
    Figure(
        "backpressure",
        "counter",
        "turns",
        _QUEUES,
        "turns of the loop in which packets were due and had no room",
    ),
    Figure("link_down_s", "counter", "seconds", _QUEUES, "seconds in which the link was waited for"),
    Figure(
        "asked_pps",
        "fact",
        "packets/s",
        (TOTAL, FLOW),
        "packets per second that were asked for; null (no metric): as fast as it goes",
    ),
    Figure(
        "posted_pps", "rate", "packets/s", (TOTAL, FLOW), "packets submitted per second, first post to last"
    ),
    Figure("pps", "rate", "packets/s", _QUEUES, "packets completed per second"),
    Figure("bps_l2", "rate", "bit/s", _QUEUES, "bits completed per second, frames without FCS"),
    Figure(
        "bps_l1",
        "rate",
        "bit/s",
        _QUEUES,
        "bits completed per second, with FCS, preamble and gap, frames padded to 60 bytes",
    ),
)
BY_NAME = {figure.name: figure for figure in FIGURES}


def names(scope: str) -> list[str]:
    """Of what there is one of in this scope."""
    return [figure.name for figure in FIGURES if scope in figure.scopes]


@dataclass(frozen=True)
class FlowFacts:
    """What is known of a flow before it runs."""

    name: str
    """the user's, or ''; as text that can be written anywhere"""
    description: str
    """its first packet in words; '' beyond what anybody sees at once"""
    asked_pps: float | None

    def __post_init__(self) -> None:
        # file names and arguments may hold bytes that are no text
        for what in ("name", "description"):
            text = getattr(self, what).encode(errors="surrogateescape").decode(errors="backslashreplace")
            object.__setattr__(self, what, text)


def of_queues(now: Snapshot, before: Snapshot | None = None, seconds: float = 0.0) -> dict[str, Any]:
    """A queue's figures, or those of all. Rates since `before`, or of the whole run."""
    row: dict[str, Any] = {
        name: getattr(now, name) for name in names(QUEUE) if BY_NAME[name].kind in ("counter", "gauge")
    }
    if before is None:
        rates = (now.pps, now.bps_l2, now.bps_l1)
    else:
        per_second = 1 / seconds if seconds > 0 else 0.0
        rates = (
            (now.completed_packets - before.completed_packets) * per_second,
            (now.completed_bytes - before.completed_bytes) * 8 * per_second,
            (now.completed_wire_bytes - before.completed_wire_bytes) * 8 * per_second,
        )
    return row | {name: round(rate, 3) for name, rate in zip(("pps", "bps_l2", "bps_l1"), rates, strict=True)}


def per_queue(
    queues: Sequence[int],
    now: Sequence[Snapshot],
    before: Sequence[Snapshot] | None = None,
    seconds: float = 0.0,
) -> list[dict[str, Any]]:
    """One row per queue."""
    earlier: Sequence[Snapshot | None] = before or [None] * len(now)
    return [
        {"queue": queue, **of_queues(snapshot, earlier[i], seconds)}
        for i, (queue, snapshot) in enumerate(zip(queues, now, strict=True))
    ]


def per_flow(
    facts: Sequence[FlowFacts], now: FlowCounts, before: FlowCounts | None = None, seconds: float = 0.0
) -> list[dict[str, Any]]:
    """One row per flow; its rate over `seconds`."""
    rows = []
    for index, fact in enumerate(facts):
        packets, size = now.get(index, (0, 0))
        # of a whole run there is a gap less than packets
        more = packets - before.get(index, (0, 0))[0] if before is not None else max(packets - 1, 0)
        rows.append(
            {
                "flow": index,
                "name": fact.name,
                "submitted_packets": packets,
                "submitted_bytes": size,
                "asked_pps": None if fact.asked_pps is None else round(fact.asked_pps, 6),
                "posted_pps": round(more / seconds, 6) if seconds > 0 else 0.0,
            }
        )
    return rows


def flat(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A record of an interval as rows of a table: one for all, one per queue, one per flow."""
    common = {name: record[name] for name in ("kind", "time_s", "unix_s")}
    total = {name: record[name] for name in names(TOTAL)}
    rows = [{**common, "scope": TOTAL, "id": "", "name": "", **total}]
    for scope, key in ((QUEUE, "per_queue"), (FLOW, "flows")):
        for one in record[key]:
            values = {name: one[name] for name in names(scope)}
            rows.append({**common, "scope": scope, "id": one[scope], "name": one.get("name", ""), **values})
    return rows


COLUMNS = ("kind", "time_s", "unix_s", "scope", "id", "name", *(figure.name for figure in FIGURES))
"""of the table"""

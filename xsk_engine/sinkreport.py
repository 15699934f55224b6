"""What a sink has to say: a summary, a record per interval, a text, and whether nothing was wrong. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xsk_engine import spread
from xsk_engine.arrivals import Arrivals, Latency, Reflected
from xsk_engine.units import format_ns, format_si

SCHEMA = 1
_MOST_FLOWS = 12
COUNTS = (
    "received_packets",
    "received_bytes",
    "lost_packets",
    "duplicate_packets",
    "reordered_packets",
    "late_packets",
    "corrupt_packets",
    "truncated_packets",
    "foreign_packets",
    "unknown_flow_packets",
    "csum_partial_packets",
    "unverified_packets",
    "untimed_packets",
    "negative_latency_packets",
    "restarts",
)
"""of Arrivals: what grows from one interval to the next"""
_FAULTS = (
    "lost_packets",
    "duplicate_packets",
    "late_packets",
    "corrupt_packets",
    "truncated_packets",
    "unknown_flow_packets",
)


@dataclass(frozen=True)
class SinkFigures:
    """What a report is made of."""

    interface: str
    method: str
    mode: str
    reason: str
    match: str
    arrivals: Arrivals
    overrun_packets: int
    uncaptured_packets: int
    busy_poll: dict[str, Any] | None = None
    reflected: Reflected | None = None
    """None: it receives"""


def _rates(packets: int, size: int, seconds: float) -> dict[str, float]:
    pps = packets / seconds if seconds > 0 else 0.0
    return {"pps": round(pps, 3), "bps_l2": round(size * 8 / seconds, 3) if seconds > 0 else 0.0}


def as_json(figures: SinkFigures, error: Exception | None) -> dict[str, Any]:
    """The summary object; units are in the names. Latencies are of the packets' CLOCK_TAI stamps to this
    machine's clock: between two machines they are as right as their clocks agree, which ``clock`` says."""
    arrivals = figures.arrivals
    report = arrivals.as_dict()
    flows = report.pop("flows")
    back = figures.reflected
    rates = (
        _rates(back.packets, back.bytes, back.duration_s)
        if back
        else _rates(arrivals.received_packets, arrivals.received_bytes, arrivals.duration_s)
    )
    return {
        "schema": SCHEMA,
        "interface": figures.interface,
        "method": figures.method,
        "mode": figures.mode,
        "reason": figures.reason,
        "match": figures.match,
        "reflects": back is not None,
        "latency_kind": "one-way" if back is None else None,
        "clock": "CLOCK_TAI of this machine; the sender's, if it is another, is not known to agree",
        **report,
        **({"duration_s": back.duration_s} if back else {}),
        **rates,
        **reflected_counts(back),
        "overrun_packets": figures.overrun_packets,
        "uncaptured_packets": figures.uncaptured_packets,
        "busy_poll": figures.busy_poll,
        "lossless": not faults(figures) if back is None else None,
        "flows": flows,
        "error": getattr(error, "as_dict", lambda: str(error))() if error else None,
    }


def reflected_counts(back: Reflected | None) -> dict[str, int]:
    """Of a report, an interval and metrics."""
    back = back or Reflected()
    return {
        "reflected_packets": back.packets,
        "reflected_bytes": back.bytes,
        "refused_packets": back.refused_packets,
    }


def faults(figures: SinkFigures) -> list[str]:
    """What --expect lossless does not allow, in words; nothing received is a fault, too."""
    counts = {name: getattr(figures.arrivals, name) for name in _FAULTS}
    counts["overrun_packets"] = figures.overrun_packets
    found = [f"{n:,} {name.removesuffix('_packets').replace('_', ' ')}" for name, n in counts.items() if n]
    return found if figures.arrivals.received_packets else [*found, "nothing received"]


def interval(now: SinkFigures, before: SinkFigures, seconds: float) -> dict[str, Any]:
    """What has happened in between. Percentiles are of this interval's packets."""
    a, b = now.arrivals, before.arrivals
    counts = {name: getattr(a, name) - getattr(b, name) for name in COUNTS}
    back, back_before = reflected_counts(now.reflected), reflected_counts(before.reflected)
    reflected = {name: n - back_before[name] for name, n in back.items()}
    of = ("reflected_packets", "reflected_bytes") if now.reflected else ("received_packets", "received_bytes")
    packets, size = ((counts | reflected)[name] for name in of)
    latency = since(a.latency, b.latency).as_dict()
    latency.pop("buckets")
    return {
        **counts,
        **_rates(packets, size, seconds),
        **reflected,
        "overrun_packets": now.overrun_packets - before.overrun_packets,
        "flow_count": a.flow_count,
        **{f"latency_{name}": value for name, value in latency.items()},
    }


COLUMNS = (
    "time_s",
    "unix_s",
    *COUNTS,
    "pps",
    "bps_l2",
    *reflected_counts(None),
    "overrun_packets",
    "flow_count",
    *(
        f"latency_{name}"
        for name in ("count", "mean_ns", "min_ns", "p50_ns", "p90_ns", "p99_ns", "p99_9_ns", "max_ns")
    ),
)
"""of the table: an interval's"""


def rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the table: one per interval."""
    return [{name: record[name] for name in COLUMNS}] if record["kind"] == "interval" else []


def since(now: Latency, before: Latency) -> Latency:
    """The latencies that came in between; their extremes as exact as their buckets."""
    old = dict(before.buckets)
    buckets = tuple((at, n - old.get(at, 0)) for at, n in now.buckets if n > old.get(at, 0))
    if not buckets:
        return Latency()
    part = Latency(sum(n for _, n in buckets), now.sum_ns - before.sum_ns, 0, now.max_ns, buckets)
    return Latency(part.count, part.sum_ns, part.percentile_ns(0), part.percentile_ns(100), buckets)


def as_text(report: Mapping[str, Any]) -> str:
    """The summary for a person."""
    lines = [
        ("interface", f"{report['interface']}, {report['method']} {report['mode']} ({report['reason']})"),
        (
            "packets",
            f"{report['reflected_packets']:,} reflected, {report['reflected_bytes']:,} bytes"
            + (f", {report['refused_packets']:,} refused" if report["refused_packets"] else ""),
        )
        if report["reflects"]
        else (
            "packets",
            f"{report['received_packets']:,} received, {report['lost_packets']:,} lost, "
            f"{report['duplicate_packets']:,} duplicate, {report['reordered_packets']:,} reordered, "
            f"{report['corrupt_packets']:,} corrupt, {report['late_packets']:,} late",
        ),
        (
            "rate",
            f"{format_si(report['pps'], 'pps')}, {format_si(report['bps_l2'], 'bit/s')} layer 2, "
            f"over {report['duration_s']:.3f} s",
        ),
        *_other_lines(report),
        *_busy_poll_lines(report["busy_poll"]),
        *_latency_lines(report["latency"]),
        *_flow_lines(report["flows"]),
    ]
    return "\n".join(f"{name:<10} {text}" for name, text in lines)


def _other_lines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    words = {
        "overrun_packets": "lost by this sink, which was too slow",
        "foreign_packets": "foreign",
        "truncated_packets": "truncated",
        "unknown_flow_packets": "of flows beyond the table (--flows)",
        "csum_partial_packets": "with an unfinished checksum",
        "unverified_packets": "without a checksum",
        "untimed_packets": "without a time of sending",
        "negative_latency_packets": "before they were sent: the clocks differ",
        "restarts": "restarts of a flow's sender",
        "uncaptured_packets": "not in the file: it is too slow",
    }
    told = [f"{report[name]:,} {text}" for name, text in words.items() if report[name]]
    return [("also", ", ".join(told))] if told else []


def _busy_poll_lines(busy_poll: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if busy_poll is None:
        return []
    driven = [str(napi_id) for napi_id in busy_poll["napi_ids"] if napi_id]
    words = [f"drives NAPI {', '.join(driven)}"] if driven else []
    return [("busy poll", "; ".join([*words, *([busy_poll["note"]] if busy_poll["note"] else [])]))]


def _latency_lines(latency: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not latency["count"]:
        return []
    return [("latency", spread.in_words(latency))]


def _flow_lines(flows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    if len(flows) < 2:
        return []
    lines = [
        (
            f"flow {flow['flow_id']}",
            f"{flow['received_packets']:,} received, {flow['lost_packets']:,} lost, "
            f"{flow['duplicate_packets']:,} duplicate, {flow['reordered_packets']:,} reordered"
            + (f", p99 {format_ns(flow['latency']['p99_ns'])}" if flow["latency"]["count"] else "")
            + f", jitter {format_ns(flow['jitter_ns'])}",
        )
        for flow in flows[:_MOST_FLOWS]
    ]
    more = len(flows) - _MOST_FLOWS
    return [*lines, ("flows", f"and {more:,} more: --json has them")] if more > 0 else lines


def histogram(latency: Mapping[str, Any], width: int = 40) -> str:
    """A picture of the latencies in characters: a line per power of two of ns."""
    powers: dict[int, int] = {}
    for top, n in latency["buckets"]:
        powers[top.bit_length()] = powers.get(top.bit_length(), 0) + n
    if not powers:
        return ""
    most, total = max(powers.values()), sum(powers.values())
    lines = []
    for power in range(min(powers), max(powers) + 1):
        n = powers.get(power, 0)
        bar = "#" * max(round(n / most * width), 1 if n else 0)
        lines.append(f"{format_ns((1 << power) - 1):>10} {n / total:7.2%} {bar}")
    return "\n".join(lines)

"""What a measurement has to say: one object, a text, a line per trial. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from xsk_engine.rfc2544 import SizeResult, Trial
from xsk_engine.units import format_ns, format_si

SCHEMA = 1
_LATENCIES = ("min_ns", "p50_ns", "p90_ns", "p99_ns", "p99_9_ns", "max_ns")
_WIRE_OVERHEAD_BYTES = 24  # FCS, preamble and gap


def trial_as_json(trial: Trial) -> dict[str, Any]:
    """Units are in the names."""
    found = {one.name: getattr(trial, one.name) for one in fields(trial)}
    return found | {
        "lost_packets": trial.lost_packets,
        "lost_ratio": trial.lost_ratio,
        "reached": trial.reached,
        "latency": trial.latency.as_dict(),
    }


def size_as_json(result: SizeResult) -> dict[str, Any]:
    """What was found for one length; trials are named by their numbers, null where there is none."""
    throughput, burst = result.throughput, result.back_to_back
    bits = result.size_bytes * 8
    return {
        "size_bytes": result.size_bytes,
        "maximum_pps": result.maximum.achieved_pps if result.maximum else None,
        "maximum_trial": _number(result.maximum),
        "most_pps": result.most_pps,
        "throughput": throughput
        and {
            "pps": throughput.pps,
            "bps_l2": throughput.pps * bits,
            "bps_l1": throughput.pps * (bits + _WIRE_OVERHEAD_BYTES * 8),
            "limit": throughput.limit,
            "passed_trial": _number(throughput.passed),
            "failed_trial": _number(throughput.failed),
        },
        "latency": [{"load_percent": load, "trial": trial.number} for load, trial in result.latency],
        "loss": [trial.number for trial in result.loss],
        "back_to_back": burst
        and {
            "packets": burst.packets,
            "is_longest_tried": burst.failed is None,
            "passed_trial": _number(burst.passed),
            "failed_trial": _number(burst.failed),
        },
    }


def _number(trial: Trial | None) -> int | None:
    return trial.number if trial is not None else None


def as_json(
    *,
    sizes: Sequence[SizeResult],
    trials: Sequence[Trial],
    notes: Sequence[str],
    topology: Mapping[str, Any],
    latency_kind: str,
    settings: Mapping[str, Any],
    software: Mapping[str, Any],
    duration_s: float,
    signal: int,
    error: Exception | None,
) -> dict[str, Any]:
    """The whole of it. ``error`` and ``signal`` say why it is not complete."""
    return {
        "schema": SCHEMA,
        "software": dict(software),
        "topology": dict(topology),
        "latency_kind": latency_kind,
        "settings": dict(settings),
        "duration_s": round(duration_s, 3),
        "notes": list(notes),
        "complete": not signal and error is None,
        "signal": signal,
        "error": getattr(error, "as_dict", lambda: str(error))() if error else None,
        "sizes": [size_as_json(one) for one in sizes],
        "trials": [trial_as_json(one) for one in trials],
    }


def trial_line(trial: Trial) -> str:
    """One trial, while it goes on."""
    asked = "max" if trial.asked_pps is None else format_si(trial.asked_pps, "pps")
    words = [f"{trial.test:<12} {trial.size_bytes:>5} B  asked {asked:>10}"]
    words.append(f"achieved {format_si(trial.achieved_pps, 'pps'):>10}")
    words.append(f"{trial.sent_packets:>10,} sent {trial.lost_packets:>9,} lost")
    if trial.overrun_packets:
        words.append(f"{trial.overrun_packets:,} of them by the sink")
    if not trial.reached:
        words.append("rate not reached")
    return "  ".join(words)


def _grid(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in (heads, *rows)
    ]
    return ["", title, *lines]


def far_end(report: Mapping[str, Any]) -> str:
    """Where the packets go, in words."""
    rx = report["topology"].get("rx") or {}
    reflector = rx.get("reflector")
    return f"{reflector} and back" if reflector else str(rx.get("interface"))


def as_text(report: Mapping[str, Any]) -> str:
    """For a person."""
    tx, rx = (report["topology"].get(end) or {} for end in ("tx", "rx"))
    trials, sizes = report["trials"], report["sizes"]
    lines = [
        f"{tx.get('interface')} ({tx.get('driver')}, {tx.get('mode')}) to {far_end(report)} "
        f"({rx.get('driver')}, {rx.get('method')} {rx.get('mode')}): {len(trials)} trials "
        f"in {report['duration_s']:.1f} s",
        *report["notes"],
        *_throughput_lines(sizes, report["settings"]["allowed_loss_percent"]),
        *_latency_lines(sizes, trials, report["latency_kind"]),
        *_loss_lines(sizes, trials),
        *_burst_lines(sizes, trials),
        *_overrun_lines(trials),
    ]
    if not report["complete"]:
        lines += ["", "It ended early: this is what there is."]
    return "\n".join(lines)


def _throughput_lines(sizes: Sequence[Any], allowed: float) -> list[str]:
    rows = [
        [
            str(one["size_bytes"]),
            format_si(one["maximum_pps"], "pps"),
            format_si(found["pps"], "pps") if found["pps"] else "0",
            format_si(found["bps_l2"], "bit/s") if found["pps"] else "0",
            found["limit"],
        ]
        for one in sizes
        if (found := one["throughput"])
    ]
    title = f"Throughput: the highest rate with loss up to {allowed:.3g} % (RFC 2544, 26.1)"
    return _grid(title, ("bytes", "sender's maximum", "throughput", "layer 2", "limit"), rows)


def _latency_lines(sizes: Sequence[Any], trials: Sequence[Any], kind: str) -> list[str]:
    rows = []
    for one in sizes:
        for entry in one["latency"]:
            trial = trials[entry["trial"]]
            latency = trial["latency"]
            times = [format_ns(latency[name]) if latency["count"] else "-" for name in _LATENCIES]
            rows.append(
                [
                    str(one["size_bytes"]),
                    f"{entry['load_percent']:g} %",
                    format_si(trial["achieved_pps"], "pps"),
                    *times,
                    format_ns(trial["jitter_ns"]),
                    f"{trial['lost_packets']:,}",
                ]
            )
    heads = ("bytes", "load", "rate", "min", "p50", "p90", "p99", "p99.9", "max", "jitter", "lost")
    title = f"{kind.capitalize()} latency, of every packet, at parts of the throughput (26.2)"
    return _grid(title, heads, rows)


def _loss_lines(sizes: Sequence[Any], trials: Sequence[Any]) -> list[str]:
    rows = []
    for one in sizes:
        for number in one["loss"]:
            trial = trials[number]
            rows.append(
                [
                    str(one["size_bytes"]),
                    format_si(trial["asked_pps"], "pps"),
                    format_si(trial["achieved_pps"], "pps"),
                    f"{100 * trial['lost_ratio']:.4g} %",
                    f"{trial['lost_packets']:,}",
                    f"{trial['overrun_packets']:,}",
                ]
            )
    heads = ("bytes", "asked", "achieved", "loss", "lost", "by the sink")
    return _grid("Frame loss, by rate (26.3)", heads, rows)


def _burst_lines(sizes: Sequence[Any], trials: Sequence[Any]) -> list[str]:
    rows = []
    for one in sizes:
        found = one["back_to_back"]
        if not found:
            continue
        passed = found["passed_trial"]
        pps = trials[passed]["achieved_pps"] if passed is not None else 0
        rate = format_si(pps, "pps") if pps else "-"  # of one packet, or of one batch, there is none
        longest = "or more: the longest tried" if found["is_longest_tried"] else ""
        rows.append([str(one["size_bytes"]), f"{found['packets']:,}", rate, longest])
    heads = ("bytes", "packets", "at", "")
    return _grid("Back-to-back: the longest burst without loss (26.4)", heads, rows)


def _overrun_lines(trials: Sequence[Any]) -> list[str]:
    mine = sum(min(one["overrun_packets"], one["lost_packets"]) for one in trials)
    lost = sum(one["lost_packets"] for one in trials)
    if not mine:
        return []
    return [
        "",
        f"Of {lost:,} lost packets the sink itself lost {mine:,}, which was too slow: what is measured is "
        "not at fault for those.",
    ]

"""The same figures as JSON and as text. Pure."""

from __future__ import annotations

from dataclasses import fields
from textwrap import fill
from typing import Any

from xsk_engine import spread
from xsk_engine.errors import XskError
from xsk_engine.figures import of_queues
from xsk_engine.replay import TraceSummary
from xsk_engine.stats import Gaps, Snapshot
from xsk_engine.units import format_ns, format_si

SCHEMA = 1

_MOST_FLOWS = 12
"""of the summary for a person"""

FIELDS = {
    "schema": "of this object: 1",
    "interface": "its name",
    "queues": "queue ids",
    "mode": "copy or zerocopy; null: nothing was opened",
    "mode_requested": "what was asked for",
    "mode_reason": "why it is this one",
    "requested_rate": "as it was written",
    "duration_s": "first post to last completion",
    "rate_error_percent": "by how much the asked rate was missed, first post to last; null: none asked",
    "per_queue": "a list: `queue` and the figures that there are of queues",
    "flows": "a list: `flow` (its place, from 0), `name` and the figures that there are of flows",
    "replay": "null, or what was read of the file",
    "replay.file": "its path",
    "replay.streamed": "false: loaded once",
    "replay.loops": "passes asked for; null: without end",
    "replay.oversize": "what was asked for: refuse, skip or truncate",
    **{f"replay.{one.name}": one.metadata["text"] for one in fields(TraceSummary)},
    "rtt": "null, or what a reflector has sent back (--rtt)",
    "rtt.sent_packets": "submitted",
    "rtt.received_packets": "that came back, intact, each once",
    "rtt.lost_packets": "that did not, whichever way they were lost",
    "rtt.duplicate_packets": "that came back again",
    "rtt.reordered_packets": "of the received: behind a later one",
    "rtt.late_packets": "behind the last 4096 of their flow",
    "rtt.corrupt_packets": "that came back with a wrong checksum: lost, too",
    "rtt.overrun_packets": "that came back and found no room here: lost, too",
    "rtt.jitter_ns": "RFC 3550, 6.4.1, of the round trip; of several flows the mean, by packets",
    "rtt.latency": "there and back by this machine's clock; as gaps.post, buckets a sixteenth wide",
    "rtt.notes": "what may keep packets from coming back",
    "gaps.post": "between packets that share a rate, taken at the post: count, mean, extremes and "
    "percentiles in ns (upper ends of buckets an eighth wide), buckets as [largest ns, how many]",
    "gaps.error": "how far each of them was from the gap asked for; as gaps.post",
    "gaps.wire": "between the kernel's tx timestamps; as gaps.post",
    "latency": "from the post to the kernel's tx timestamp, both CLOCK_TAI, as gaps.post, and "
    "`negative_packets`: stamped before they were posted, in none of the others; null without --timestamps",
    "latency_reason": "null, or why there is none in spite of --timestamps",
    "kernel.tx_invalid_descs": "descs that the kernel refused: 0",
    "kernel.tx_ring_empty_descs": "the kernel looked and found nothing",
    "kicks.calls": "sendto() calls",
    "kicks.eagain": "of them: nothing lost, again later",
    "kicks.ebusy": "of them: a packet dropped each",
    "kicks.enobufs": "of them: the kernel had no memory",
    "kicks.enetdown": "of them: the link was down",
    "kicks.other": "of them: fatal",
    "allocator.chunks": "of the umem",
    "allocator.allocated_frags": "by the loops' arenas",
    "allocator.recycled_chunks": "that came back to them",
    "allocator.cross_thread_returns": "of them: released by another thread",
    "allocator.quota_waits": "allocations that found no chunk",
    "drain.inflight_descs": "not completed when the drain ended",
    "cpu.user_s": "of the whole process",
    "cpu.system_s": "of the whole process, in the kernel",
    "umem.bytes": "its length",
    "umem.page_size": "bytes of a page of it",
    "umem.numa_node": "where it lies; null: anywhere",
    "umem.rx_chunks": "set aside for what a driver in zero-copy receives",
    "error": "null, or operation, args, errno (its name) and message",
}
"""What else is in the summary beside the figures (figures.py): the path of each value, and what it means."""


def as_json(
    *,
    interface: str,
    queues: list[int],
    mode: str | None,
    mode_requested: str,
    mode_reason: str | None,
    requested_rate: str,
    asked_pps: float | None,
    gaps: Gaps,
    snapshot: Snapshot,
    per_queue: list[dict[str, Any]],
    flows: list[dict[str, Any]],
    replay: dict[str, Any] | None,
    timestamps: bool,
    kernel: dict[str, int],
    chunks: int,
    cpu: dict[str, float],
    umem: dict[str, Any],
    error: XskError | None,
) -> dict[str, Any]:
    """The summary object; units are in the names, the layer of every rate too."""
    s = snapshot
    return {
        "schema": SCHEMA,
        "interface": interface,
        "queues": queues,
        "mode": mode,
        "mode_requested": mode_requested,
        "mode_reason": mode_reason,
        "requested_rate": requested_rate,
        "duration_s": round(s.duration_s, 9),
        **of_queues(s),
        "asked_pps": None if asked_pps is None else round(asked_pps, 6),
        "posted_pps": round(s.posted_pps, 6),
        "rate_error_percent": None if gaps.rate_error is None else round(gaps.rate_error * 100, 6),
        "per_queue": per_queue,
        "flows": flows,
        "replay": replay,
        "rtt": None,
        "gaps": {"post": gaps.post.as_dict(), "error": gaps.error.as_dict(), "wire": gaps.wire.as_dict()},
        **_latency(gaps, mode, timestamps),
        "kernel": kernel,
        "kicks": {
            "calls": s.kick_calls,
            "eagain": s.kick_eagain,
            "ebusy": s.kick_ebusy,
            "enobufs": s.kick_enobufs,
            "enetdown": s.kick_enetdown,
            "other": s.kick_other,
        },
        "allocator": {
            "chunks": chunks,
            "allocated_frags": s.allocated_frags,
            "recycled_chunks": s.recycled_chunks,
            "cross_thread_returns": s.cross_thread_returns,
            "quota_waits": s.quota_waits,
        },
        "drain": {"inflight_descs": s.inflight_descs},
        "cpu": cpu,
        "umem": umem,
        "error": error.as_dict() if error else None,
    }


def _latency(gaps: Gaps, mode: str | None, timestamps: bool) -> dict[str, Any]:
    """Of one socket: only where the stamps are of the clock of the post."""
    reason = None
    if not timestamps:
        return {"latency": None, "latency_reason": None}
    if mode == "zerocopy":
        reason = (
            "in zero-copy the NIC's own clock gives the tx timestamps, which are not to be compared with the "
            "time of the post; --mode copy has the kernel's"
        )
    elif not gaps.latency.count and not gaps.negative_latency_packets:
        reason = "no packet came back with a tx timestamp"
    figures = gaps.latency.as_dict() | {"negative_packets": gaps.negative_latency_packets}
    return {"latency": None if reason else figures, "latency_reason": reason}


def as_text(report: dict[str, Any], width: int | None = None) -> str:
    """The summary for a person: a few aligned lines, at most so wide."""
    queues = ",".join(map(str, report["queues"]))
    kicks, allocator = report["kicks"], report["allocator"]
    lines = [
        (
            "interface",
            f"{report['interface']} queue {queues}, {report['mode']} ({report['mode_reason']})",
        ),
        (
            "packets",
            f"{report['submitted_packets']:,} submitted, {report['completed_packets']:,} completed, "
            f"{report['dropped_packets']:,} dropped by the kernel, "
            f"{report['inflight_descs']:,} descs inflight",
        ),
        (
            "rate",
            f"{format_si(report['pps'], 'pps')}, {format_si(report['bps_l2'], 'bit/s')} layer 2, "
            f"{format_si(report['bps_l1'], 'bit/s')} layer 1, over {report['duration_s']:.3f} s "
            f"(asked: {report['requested_rate']})",
        ),
        *_link_lines(report),
        *_pace_lines(report),
        *_latency_lines(report),
        *_part_lines(report),
        *_replay_lines(report["replay"]),
        *_rtt_lines(report["rtt"]),
        (
            "kicks",
            ", ".join(f"{value:,} {name}" for name, value in kicks.items() if value or name == "calls"),
        ),
        (
            "allocator",
            f"{allocator['chunks']:,} chunks, {allocator['allocated_frags']:,} frags allocated, "
            f"{allocator['recycled_chunks']:,} chunks recycled",
        ),
        ("cpu", f"{report['cpu']['user_s']:.2f} s user, {report['cpu']['system_s']:.2f} s system"),
    ]
    return "\n".join(_line(name, text, width) for name, text in lines)


def _line(name: str, text: str, width: int | None) -> str:
    line = f"{name:<10} {text}"
    return line if width is None else fill(line, max(width, 40), subsequent_indent=" " * 11)


def _link_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = report["link_down_s"]
    return [("link", f"down for {seconds:.3f} s, which do not count")] if seconds else []


def _part_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Each queue and each flow, where there are several."""
    lines = []
    if len(report["per_queue"]) > 1:
        for queue in report["per_queue"]:
            words = f"{queue['completed_packets']:,} completed, {queue['dropped_packets']:,} dropped"
            lines.append((f"queue {queue['queue']}", f"{words}, {format_si(queue['pps'], 'pps')}"))
    flows = report["flows"]
    for flow in flows[:_MOST_FLOWS] if len(flows) > 1 else ():
        asked = "max" if flow["asked_pps"] is None else format_si(flow["asked_pps"], "pps")
        name = f"{flow['name']}: " if flow["name"] else ""
        words = f"{name}{flow['submitted_packets']:,} submitted, {format_si(flow['posted_pps'], 'pps')}"
        lines.append((f"flow {flow['flow']}", f"{words} (asked: {asked})"))
    if len(flows) > _MOST_FLOWS:
        lines.append(("flows", f"and {len(flows) - _MOST_FLOWS:,} more: --json has them"))
    return lines


_COUNTED = {
    "edited_packets": "edited",
    "oversize_packets": "too long: {}",
    "snapped_packets": "recorded in part",
    "short_packets": "skipped, no Ethernet header",
    "backward_packets": "older than the one before",
    "long_gaps": "gaps shortened",
}


def _replay_lines(replay: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What was not as the file has it."""
    if replay is None:
        return []
    how = "streamed" if replay["streamed"] else "loaded once"
    words = [f"{replay['packets']:,} packets read, {how}"]
    for name, text in _COUNTED.items():
        if replay[name]:
            words.append(f"{replay[name]:,} {text.format(replay['oversize'])}")
    damage = [("file", f"it ends early: {replay['damage']}")] if replay["damage"] else []
    return [("replay", ", ".join(words)), *damage]


def _rtt_lines(rtt: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What came back, and when."""
    if rtt is None:
        return []
    names = ("duplicate", "reordered", "late", "corrupt", "overrun")
    back, sent = rtt["received_packets"], rtt["sent_packets"]
    words = [f"{back:,} of {sent:,} came back, {rtt['lost_packets']:,} lost"]
    words += [f"{rtt[f'{name}_packets']:,} {name}" for name in names if rtt[f"{name}_packets"]]
    lines = [("returned", ", ".join(words))]
    if back:
        jitter = format_ns(rtt["jitter_ns"])
        lines.append(("round trip", f"{spread.in_words(rtt['latency'])}, jitter {jitter}"))
    else:
        lines += [("note", note) for note in rtt["notes"]]
    return lines


def _pace_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """How well the pace was kept."""
    lines = []
    if report["rate_error_percent"] is not None:
        lines.append(
            (
                "pace",
                f"asked {report['asked_pps']:,.3f} pps, posted {report['posted_pps']:,.3f} pps, "
                f"off by {round(report['rate_error_percent'], 4) + 0:+.4f} %",
            )
        )
    for name, key in (("gaps", "post"), ("gap error", "error"), ("wire gaps", "wire")):
        one = report["gaps"][key]
        if (one["count"] and report["rate_error_percent"] is not None) or (one["count"] and key == "wire"):
            lines.append((name, spread.in_words(one, ("mean", "p50", "p99", "p99_9", "max"))))
    return lines


def _latency_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """From the post to the tx timestamp, or why not, where timestamps were asked for."""
    latency = report["latency"]
    if latency is None:
        return [("latency", report["latency_reason"])] if report["latency_reason"] else []
    negative = latency["negative_packets"]
    also = f"; {negative:,} packets stamped before their post: another clock" if negative else ""
    return [("latency", f"post to tx timestamp: {spread.in_words(latency)}{also}")]

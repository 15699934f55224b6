"""What a TCP connection has done, for a program and for a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from xsk_engine.tcpinfo import TcpInfo
from xsk_engine.units import format_ns, format_si

ENDS = {
    "done": "both sides have ended their streams",
    "peer": "the peer has ended its stream, and the terminal's input does not matter any more",
    "wait": "all is acknowledged; the peer has not ended its stream in the time given",
    "signal": "stopped by a signal",
    "error": "it failed",
}
"""why a connection ended: JSON's word, and what it says to a person"""

FIELDS = {
    "interface": "that was sent through",
    "mode": "copy or zerocopy, as it turned out",
    "mode_reason": "why",
    "local": "[address, port] of this side",
    "remote": "[address, port] of the peer",
    "duration_s": "from established to the end",
    "sending_s": "from established to the last acknowledgement",
    "written_bytes": "taken from the input",
    "goodput_bps": "acknowledged payload in bit/s, over sending_s",
    "end": "why it ended: " + ", ".join(ENDS),
    "tcp": "the connection's own figures, as TcpInfo has them (docs/api.md)",
    "error": "null, or operation, args, errno and message",
}
"""the summary of --json"""


@dataclass(frozen=True)
class TcpFigures:
    """Of one connection whose end it has seen; `info` is taken after the drain."""

    interface: str
    mode: str
    mode_reason: str
    local: tuple[str, int]
    remote: tuple[str, int]
    duration_s: float
    sending_s: float
    written_bytes: int
    info: TcpInfo
    end: str
    error: Mapping[str, Any] | None


def goodput_bps(acked_bytes: int, seconds: float) -> float:
    """0 for no time at all."""
    return acked_bytes * 8 / seconds if seconds > 0 else 0.0


def as_json(figures: TcpFigures) -> dict[str, Any]:
    """By the names of FIELDS."""
    return {
        "interface": figures.interface,
        "mode": figures.mode,
        "mode_reason": figures.mode_reason,
        "local": list(figures.local),
        "remote": list(figures.remote),
        "duration_s": round(figures.duration_s, 6),
        "sending_s": round(figures.sending_s, 6),
        "written_bytes": figures.written_bytes,
        "goodput_bps": round(goodput_bps(figures.info.acked_bytes, figures.sending_s), 1),
        "end": figures.end,
        "tcp": asdict(figures.info),
        "error": figures.error,
    }


def _end(address: tuple[str, int] | list[Any]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def as_text(report: Mapping[str, Any]) -> str:
    """Of what as_json() has made; some lines."""
    tcp = report["tcp"]
    left = report["written_bytes"] - tcp["acked_bytes"]
    acked = "all acknowledged" if left <= 0 else f"{left:,} of them not acknowledged"
    rate = format_si(report["goodput_bps"], "bit/s")
    rtt = (
        f"{format_ns(tcp['srtt_ns'])}, shortest {format_ns(tcp['min_rtt_ns'])}"
        if tcp["srtt_ns"]
        else "unknown"
    )
    lost = (
        f"{tcp['recoveries']:,} recoveries, {tcp['timeouts']:,} timeouts, {tcp['tail_probes']:,} tail probes"
    )
    lines = {
        "from": f"{_end(report['local'])} to {_end(report['remote'])}",
        "through": f"{report['interface']}, {report['mode']} ({report['mode_reason']})",
        "sent": f"{report['written_bytes']:,} bytes, {acked}; {report['sending_s']:.3f} s, {rate}",
        "received": f"{tcp['received_bytes']:,} bytes",
        "segments": f"{tcp['sent_segments']:,} sent, {tcp['retransmitted_segments']:,} of them again; "
        f"{tcp['received_segments']:,} received",
        "loss": lost,
        "round trip": rtt,
        "end": ENDS[report["end"]],
    }
    return "\n".join(f"{name:<11} {text}" for name, text in lines.items())

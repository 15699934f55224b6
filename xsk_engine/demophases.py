"""What the demo does: a laboratory of its own, a sink that checks every packet, two phases, a report."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from xsk_engine import outfd
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab, enter_new
from xsk_engine.packet import parse_mac, udp_frame, udp_header_bytes

if TYPE_CHECKING:
    from xsk_engine.sink import Sink

FRAME_BYTES = 512
PACED_PPS = 100_000
PORT = 9000
FIRST_SRC_PORT = 40_000
SRC_PORTS = 256

# Of an XDP sink, of 100 kpps: 160 ms, on busy machines 60 were needed. A packet socket's ring holds more.
RING_SIZE = 16384

_SETTLE_S = 1.0
_LOOK_S = 0.25
_COUNTS = ("duplicate_packets", "reordered_packets", "corrupt_packets")


def _payload() -> bytes:
    return bytes((7 * i + 3) & 0xFF for i in range(FRAME_BYTES - udp_header_bytes(4)))


def _open_sink() -> tuple[Sink, str]:
    """In this thread's network namespace; and why it receives the way it does. In a user namespace no program
    is ever loaded, and an XDP sink takes locked memory, of which others than root have little."""
    from xsk_engine.sink import Sink, SinkConfig
    from xsk_engine.steering import Match

    # By the port, too: a packet with a damaged signature is to be seen.
    config = SinkConfig(topology.RX_INTERFACE, Match(ports=(PORT,)), max_flows=1, ring_size=RING_SIZE)
    whole = Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(0xFFFFFFFF)]
    reason = "in a user namespace no XDP program is loaded"
    if whole:
        sink = Sink(config).open()
        return sink, sink.way.reason
    return Sink(replace(config, method="packet")).open(), reason


@contextlib.contextmanager
def _sink(lab: PrivateLab) -> Iterator[tuple[Sink, str]]:
    """At vrx. The UDP socket that nobody reads is for the kernel, which sees the packets beside a packet
    socket: it would answer those to a closed port."""
    with contextlib.ExitStack() as stack:
        with namespaces.entered(lab.rx_fd):  # a socket belongs to the namespace it was made in
            unread = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            unread.bind((topology.RX_IPV4, PORT))
            sink, reason = _open_sink()
            stack.enter_context(sink)
        yield sink, reason


def _settle(sink: Sink, expected: int) -> None:
    """Waits until everything is there, or nothing has come for a while."""
    last, since = -1, time.monotonic()
    while (now := sink.receive_stats().packets) < expected:
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > _SETTLE_S:
            return
        time.sleep(0.005)


@dataclass(frozen=True)
class Phase:
    """``rate`` None: as fast as it goes."""

    name: str
    rate: int | None
    seconds: float


def _live(sink: Sink, name: str, file: TextIO) -> Any:
    async def show(engine: Any) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            now, received = engine.snapshot(), sink.receive_stats().packets
            line = f"{name}: {now.completed_packets:>10,} completed {received:>10,} received"
            file.write(f"\r{line} {now.pps:>10,.0f} pps")

    return [show] if file.isatty() else []


def _traffic(phase: Phase) -> Any:
    from xsk_engine.flow import Flow, Pace, Traffic
    from xsk_engine.units import parse_rate
    from xsk_engine.values import Range

    frame = udp_frame(
        parse_mac(topology.RX_MAC),
        parse_mac(topology.TX_MAC),
        ipaddress.ip_address(topology.TX_IPV4),
        ipaddress.ip_address(topology.RX_IPV4),
        FIRST_SRC_PORT,
        PORT,
        _payload(),
    )
    ports = Range(FIRST_SRC_PORT, FIRST_SRC_PORT + SRC_PORTS - 1)
    return Traffic(
        Flow(frame, {"udp.src": ports}, signature=True),
        count=round(phase.rate * phase.seconds) if phase.rate else None,
        duration_s=None if phase.rate else phase.seconds,
        rate=Pace(parse_rate(f"{phase.rate}pps")) if phase.rate else None,
    )


def _run_phase(lab: PrivateLab, phase: Phase) -> tuple[dict[str, Any], int]:
    """The report of one phase, and the signal that stopped it (or 0)."""
    from xsk_engine import session
    from xsk_engine.config import EngineConfig
    from xsk_engine.plan import plan_traffic

    plan = plan_traffic(_traffic(phase))
    with _sink(lab) as (sink, reason), outfd.shown() as shown:
        outcome = session.run(EngineConfig(topology.TX_INTERFACE), plan, _live(sink, phase.name, shown))
        report = outcome.report
        _settle(sink, report["completed_packets"] - report["dropped_packets"])
        sink.stop()
        seen, way = sink.snapshot(flows=False), sink.way
        if shown.isatty():
            shown.write("\r\033[K")
    arrivals = seen.arrivals
    causes = {"kernel_busy": report["dropped_packets"], "receive_buffer": seen.overrun_packets}
    missing = report["completed_packets"] - arrivals.received_packets - arrivals.corrupt_packets
    causes["other"] = max(missing - sum(causes.values()), 0)
    report |= {
        "phase": phase.name,
        "sink": {"method": way.method, "mode": way.mode, "reason": reason},
        "delivered_packets": arrivals.received_packets,
        **{name: getattr(arrivals, name) for name in _COUNTS},
        "unverified_packets": arrivals.unverified_packets + arrivals.csum_partial_packets,
        "lost_packets": causes,
        "latency": arrivals.latency.as_dict(),
    }
    return report, outcome.signal


def _complaint(report: dict[str, Any]) -> str | None:
    """What went wrong in a phase that must deliver everything."""
    if report["error"]:
        return str(report["error"]["message"])
    asked, names = report["submitted_packets"], (*_COUNTS, "unverified_packets")
    if report["delivered_packets"] == asked and not any(report[name] for name in names):
        return None
    causes = ", ".join(f"{n:,} {cause}" for cause, n in report["lost_packets"].items() if n) or "nothing"
    counts = "".join(f", {report[name]:,} {name.removesuffix('_packets')}" for name in names if report[name])
    told = f"{asked:,} submitted, {report['delivered_packets']:,} delivered{counts} (lost: {causes})"
    if report["lost_packets"]["receive_buffer"]:
        told += "; its ring was full: this machine is so busy that the sink had no core for 160 ms"
    return told


def _way(report: dict[str, Any]) -> str:
    sink = report["sink"]
    return "packet socket" if sink["method"] == "packet" else f"{sink['method'].upper()} {sink['mode']}"


def _table(reports: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    from xsk_engine.units import format_ns, format_si

    table = Table(box=box.SIMPLE_HEAD, title=f"{FRAME_BYTES}-byte frames, vtx to vrx")
    table.add_column("")
    for report in reports:
        table.add_column(report["phase"], justify="right")

    def row(name: str, value: Any) -> None:
        table.add_row(name, *(str(value(r)) for r in reports))

    row("sender", lambda r: f"AF_XDP {r['mode']}")
    row("sink", _way)
    row("rate asked", lambda r: r["requested_rate"])
    row("submitted", lambda r: f"{r['submitted_packets']:,}")
    row("completed", lambda r: f"{r['completed_packets']:,}")
    row("delivered, intact", lambda r: f"{r['delivered_packets']:,}")
    row("lost", lambda r: f"{sum(r['lost_packets'].values()):,}")
    for cause in reports[0]["lost_packets"]:
        if any(report["lost_packets"][cause] for report in reports):
            row(f"lost: {cause}", lambda r, cause=cause: f"{r['lost_packets'][cause]:,}")
    for name in _COUNTS:
        row(name.removesuffix("_packets"), lambda r, name=name: f"{r[name]:,}")
    for name in ("p50", "p90", "p99", "p99_9", "max"):
        row(
            f"latency {name.replace('_', '.')}",
            lambda r, name=name: format_ns(r["latency"][f"{name}_ns"]),
        )
    row("completed pps", lambda r: format_si(r["pps"]))
    row("layer 2", lambda r: format_si(r["bps_l2"], "bit/s"))
    row("layer 1", lambda r: format_si(r["bps_l1"], "bit/s"))
    row("frags allocated", lambda r: f"{r['allocator']['allocated_frags']:,}")
    row("chunks recycled", lambda r: f"{r['allocator']['recycled_chunks']:,}")
    row("umem", lambda r: f"{r['allocator']['chunks']:,} chunks, {format_si(r['umem']['bytes'], 'B')}")
    row(
        "CPU, sender and sink",
        lambda r: f"{r['cpu']['user_s']:.2f} s user {r['cpu']['system_s']:.2f} s sys",
    )
    return table


def _picture(report: dict[str, Any]) -> str:
    from xsk_engine.picture import latency_svg
    from xsk_engine.units import format_si

    machine, counts = os.uname(), {name: report[name] for name in _COUNTS}
    told = ", ".join(f"{n:,} {name.removesuffix('_packets')}" for name, n in counts.items())
    return latency_svg(
        report["latency"],
        f"{machine.sysname} {machine.release}: {FRAME_BYTES}-byte frames at {format_si(PACED_PPS, 'pps')}, "
        "one-way latency",
        f"AF_XDP {report['mode']} to {_way(report)}, vtx to vrx: {report['delivered_packets']:,} delivered, "
        f"{sum(report['lost_packets'].values()):,} lost, {told}",
    )


def _print(reports: list[dict[str, Any]], picture: str | None, good: bool) -> None:
    from rich.console import Console

    from xsk_engine import sinkreport

    Console().print(_table(reports))
    lines = sinkreport.histogram(reports[0]["latency"])
    if lines:
        print(f"Latency of the {reports[0]['phase']} phase (up to, share of the packets):\n{lines}\n")
    if good:
        print("Every frame of the paced phase arrived once, in order and intact.")
    if picture is not None:
        print(f"The picture of its latency is {picture}")


def _write(picture: str, report: dict[str, Any]) -> str | None:
    """What went wrong, if so."""
    try:
        Path(picture).write_text(_picture(report), encoding="utf-8")
    except OSError as error:
        return f"{picture}: {error.strerror}"
    return None


def run(seconds: float, *, as_json: bool, picture: str | None) -> int:
    """The demo in this process; the exit code. `picture`: the file for one of the paced phase's latency."""
    lab = enter_new(topology.LabOptions())
    reports: list[dict[str, Any]] = []
    stopped = 0
    for phase in (Phase("paced", PACED_PPS, seconds), Phase("maximum", None, min(seconds, 1.0))):
        report, stopped = _run_phase(lab, phase)
        reports.append(report)
        if stopped or report["error"]:
            break
    complaint = None if stopped else _complaint(reports[0])
    failed = complaint or next((r["error"]["message"] for r in reports if r["error"]), None)
    unwritten = _write(picture, reports[0]) if picture is not None else None
    picture = None if unwritten else picture
    if as_json:
        maximum = reports[1] if len(reports) > 1 else None
        print(json.dumps(reports[0] | {"maximum": maximum, "picture": picture}))
    else:
        _print(reports, picture, not failed and not stopped)
    sys.stdout.flush()
    for text in (failed, unwritten):
        if text:
            print(f"xsk-engine: demo: {text}", file=sys.stderr)
    return 128 + stopped if stopped else int(bool(failed or unwritten))

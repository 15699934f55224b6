"""The demo: a laboratory of its own, a kernel UDP receiver that checks every payload, two phases.

Runs as a fresh process (``python -m xsk_engine.demo``), because a user namespace can only be made by a
process without threads, and so that everything it made ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xsk_engine.errors import XskError
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab, enter_new
from xsk_engine.packet import parse_mac, udp_frame, udp_header_bytes

FRAME_BYTES = 512
PACED_PPS = 100_000
PORT = 9000
FIRST_SRC_PORT = 40_000

# One socket's default buffer holds 3 ms of 100 kpps, and an ordinary user cannot enlarge it. The kernel
# spreads the source ports over these.
SOCKETS = 32
SRC_PORTS = 256

_HEADERS_BYTES = udp_header_bytes(4)
_MAX_PPS = 20_000_000
_SETTLE_S = 1.0
_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h


def _payload() -> bytes:
    return bytes((7 * i + 3) & 0xFF for i in range(FRAME_BYTES - _HEADERS_BYTES))


class _Receiver:
    """Sockets in the rx namespace and a native thread that reads them."""

    def __init__(self, lab: PrivateLab, max_sequences: int) -> None:
        from xsk_engine._ffi import native as ffi

        self._ffi = ffi
        self._sockets = self._open_sockets(lab)
        fds = (ctypes.c_int32 * SOCKETS)(*(s.fileno() for s in self._sockets))
        payload = (ctypes.c_uint8 * len(_payload()))(*_payload())
        config = ffi.SinkConfig(fds, SOCKETS, len(payload), payload, max_sequences)
        self._sink = ffi.create(ffi.native.sink_create, ctypes.byref(config))
        self._thread = threading.Thread(target=ffi.native.sink_run, args=(self._sink,), daemon=True)
        self._thread.start()

    def _open_sockets(self, lab: PrivateLab) -> list[socket.socket]:
        sockets = []
        with namespaces.entered(lab.rx_fd):  # a socket belongs to the namespace it was made in
            for _ in range(SOCKETS):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
                        break
                sock.bind((topology.RX_IPV4, PORT))
                sockets.append(sock)
        return sockets

    def read(self) -> Any:
        """A fresh copy of its counters."""
        counters = self._ffi.SinkCounters()
        self._ffi.native.sink_read(self._sink, ctypes.byref(counters))
        return counters

    def settle(self, expected: int) -> None:
        """Waits until everything is there, or nothing has come for a while."""
        last, since = -1, time.monotonic()
        while (now := self.read().delivered_packets) < expected:
            if now != last:
                last, since = now, time.monotonic()
            if time.monotonic() - since > _SETTLE_S:
                return
            time.sleep(0.005)

    def close(self) -> None:
        self._ffi.native.sink_stop(self._sink)
        self._thread.join(2.0)
        self._ffi.native.sink_destroy(self._sink)
        for sock in self._sockets:
            sock.close()


@contextlib.contextmanager
def _receiver(lab: PrivateLab, max_sequences: int) -> Iterator[_Receiver]:
    receiver = _Receiver(lab, max_sequences)
    try:
        yield receiver
    finally:
        receiver.close()


def _udp_errors(lab: PrivateLab) -> dict[str, int]:
    """The receiver's kernel counters (RFC 4113 and Linux's own)."""
    with namespaces.entered(lab.rx_fd):
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Udp:"))
    return dict(zip(names, map(int, values), strict=True))


@dataclass(frozen=True)
class Phase:
    """``rate`` None: as fast as it goes."""

    name: str
    rate: int | None
    seconds: float


def _live(receiver: _Receiver, name: str) -> Any:
    async def show(engine: Any) -> None:
        while True:
            await asyncio.sleep(0.25)
            now, delivered = engine.snapshot(), receiver.read().delivered_packets
            line = f"{name}: {now.completed_packets:>10,} completed {delivered:>10,} delivered"
            print(f"\r{line} {now.pps:>10,.0f} pps", end="", file=sys.stderr, flush=True)

    return [show] if sys.stderr.isatty() else []


def _run_phase(lab: PrivateLab, phase: Phase) -> tuple[dict[str, Any], int]:
    """The report of one phase, and the signal that stopped it (or 0)."""
    from xsk_engine import session
    from xsk_engine.config import EngineConfig
    from xsk_engine.flow import Flow, Pace, Traffic
    from xsk_engine.plan import plan_traffic
    from xsk_engine.units import parse_rate
    from xsk_engine.values import Range, Sequence, Values

    frame = udp_frame(
        parse_mac(topology.RX_MAC),
        parse_mac(topology.TX_MAC),
        ipaddress.ip_address(topology.TX_IPV4),
        ipaddress.ip_address(topology.RX_IPV4),
        FIRST_SRC_PORT,
        PORT,
        _payload(),
    )
    fields: dict[str, Values] = {
        f"@{_HEADERS_BYTES}/8": Sequence(),
        "udp.src": Range(FIRST_SRC_PORT, FIRST_SRC_PORT + SRC_PORTS - 1),
    }
    traffic = Traffic(
        Flow(frame, fields),
        count=round(phase.rate * phase.seconds) if phase.rate else None,
        duration_s=None if phase.rate else phase.seconds,
        rate=Pace(parse_rate(f"{phase.rate}pps")) if phase.rate else None,
    )
    before = _udp_errors(lab)
    with _receiver(lab, traffic.count or int(_MAX_PPS * phase.seconds)) as receiver:
        config = EngineConfig(topology.TX_INTERFACE)
        outcome = session.run(config, plan_traffic(traffic), _live(receiver, phase.name))
        report = outcome.report
        receiver.settle(report["completed_packets"] - report["dropped_packets"])
        seen = receiver.read()
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    after = _udp_errors(lab)
    missing = report["completed_packets"] - seen.delivered_packets - seen.corrupt_packets
    causes = {
        "kernel_busy": report["dropped_packets"],
        "receive_buffer": after["RcvbufErrors"] - before["RcvbufErrors"],
        "bad_checksum": after["InCsumErrors"] - before["InCsumErrors"],
        "no_socket": after["NoPorts"] - before["NoPorts"],
    }
    causes["other"] = max(missing - sum(causes.values()), 0)
    report |= {
        "phase": phase.name,
        "delivered_packets": seen.delivered_packets,
        "corrupt_packets": seen.corrupt_packets,
        "duplicate_packets": seen.duplicate_packets,
        "lost_packets": causes,
    }
    return report, outcome.signal


def _complaint(report: dict[str, Any]) -> str | None:
    """What went wrong in a phase that must deliver everything."""
    if report["error"]:
        return str(report["error"]["message"])
    asked = report["submitted_packets"]
    if report["delivered_packets"] == asked and not report["corrupt_packets"]:
        return None
    causes = ", ".join(f"{n:,} {cause}" for cause, n in report["lost_packets"].items() if n)
    return (
        f"{asked:,} submitted, {report['delivered_packets']:,} delivered, "
        f"{report['corrupt_packets']:,} corrupt (lost: {causes or 'nothing'})"
    )


def _table(reports: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    from xsk_engine.units import format_si

    table = Table(box=box.SIMPLE_HEAD, title=f"{FRAME_BYTES}-byte frames, vtx to vrx")
    table.add_column("")
    for report in reports:
        table.add_column(report["phase"], justify="right")

    def row(name: str, value: Any) -> None:
        table.add_row(name, *(str(value(r)) for r in reports))

    row("mode", lambda r: r["mode"])
    row("rate asked", lambda r: r["requested_rate"])
    row("submitted", lambda r: f"{r['submitted_packets']:,}")
    row("completed", lambda r: f"{r['completed_packets']:,}")
    row("delivered, intact", lambda r: f"{r['delivered_packets']:,}")
    row("corrupt", lambda r: f"{r['corrupt_packets']:,}")
    for cause in reports[0]["lost_packets"]:
        row(f"lost: {cause}", lambda r, cause=cause: f"{r['lost_packets'][cause]:,}")
    row("completed pps", lambda r: format_si(r["pps"]))
    row("layer 2", lambda r: format_si(r["bps_l2"], "bit/s"))
    row("layer 1", lambda r: format_si(r["bps_l1"], "bit/s"))
    row("frags allocated", lambda r: f"{r['allocator']['allocated_frags']:,}")
    row("chunks recycled", lambda r: f"{r['allocator']['recycled_chunks']:,}")
    row("umem", lambda r: f"{r['allocator']['chunks']:,} chunks, {format_si(r['umem']['bytes'], 'B')}")
    row(
        "CPU, sender and receiver",
        lambda r: f"{r['cpu']['user_s']:.2f} s user {r['cpu']['system_s']:.2f} s sys",
    )
    return table


def run(seconds: float, as_json: bool) -> int:
    """The demo in this process; the exit code."""
    lab = enter_new(topology.LabOptions())
    reports: list[dict[str, Any]] = []
    stopped = 0
    for phase in (Phase("paced", PACED_PPS, seconds), Phase("maximum", None, seconds)):
        report, stopped = _run_phase(lab, phase)
        reports.append(report)
        if stopped or report["error"]:
            break
    complaint = None if stopped else _complaint(reports[0])
    failed = complaint or next((r["error"]["message"] for r in reports if r["error"]), None)
    if as_json:
        print(json.dumps(reports[0] | {"maximum": reports[1] if len(reports) > 1 else None}))
    else:
        from rich.console import Console

        Console().print(_table(reports))
        if not failed and not stopped:
            print("Every frame of the paced phase arrived once and intact.")
    sys.stdout.flush()
    if failed:
        print(f"xsk-engine: demo: {failed}", file=sys.stderr)
    return 128 + stopped if stopped else int(bool(failed))


def main(arguments: list[str]) -> int:
    """SECONDS [json]; started by ``xsk-engine demo``."""
    from xsk_engine._ffi.libc import die_with_parent
    from xsk_engine.cli import EXIT_ENVIRONMENT, EXIT_FAILED, fail
    from xsk_engine.errors import UnavailableError
    from xsk_engine.session import Interrupted

    die_with_parent(signal.SIGKILL)
    try:
        return run(float(arguments[0]), "json" in arguments)
    except (Interrupted, KeyboardInterrupt) as error:
        return 128 + getattr(error, "number", signal.SIGINT)
    except UnavailableError as error:
        return fail(error, EXIT_ENVIRONMENT)
    except (XskError, OSError) as error:
        return fail(error, EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``make bench-pace``: how well rates are kept. The engine's from 1 pps to 90 % of what the wire can do;
and at some rates beside trafgen, tcpreplay and iperf3 -u asked for the same, all of them judged by when
frames arrive.

Runs inside a laboratory. Sender and engine on CPU 0, everything else on CPU 1.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness import BUILD, save, spread
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

SENDER_CPU, OWN_CPU = 0, 1
PORT = 9000
ROUNDS = 5
FRAME_BYTES = 60
IPERF_PAYLOAD = FRAME_BYTES - 42
RATES = (1, 10, 100, 1_000, 10_000, 100_000, 300_000)
SHARE_OF_WIRE = 0.9
LEAST_PACKETS, LEAST_SECONDS, MOST_SECONDS = 1_000, 3, 60
COMPARED = {1_000: 3, 10_000: 3, 100_000: 2}
"""rate: seconds of each round"""
MEAN_TARGET_PERCENT, GAP_TARGET_NS = 0.1, 5_000


def engine(rate: float, packets: int) -> list[str]:
    return [
        *(sys.executable, "-m", "xsk_engine", "send", topology.TX_INTERFACE, "--cpu", str(SENDER_CPU)),
        *("--packet", f"ip src={topology.TX_IPV4} dst={topology.RX_IPV4} / udp dst={PORT}"),
        *("--rate", f"{rate:.3f}pps", "--count", str(packets), "--json"),
    ]


def trafgen(folder: Path, rate: float, packets: int) -> list[str]:
    config = folder / "trafgen.cfg"
    config.write_text(
        f"{{ eth(da={topology.RX_MAC}, sa={topology.TX_MAC}), "
        f"ipv4(da={topology.RX_IPV4}, sa={topology.TX_IPV4}), "
        f"udp(sp=9, dp={PORT}), fill(0, {FRAME_BYTES - 42}) }}\n"
    )
    return [
        *("trafgen", "--dev", topology.TX_INTERFACE, "--conf", str(config), "--cpus", "1", "--no-cpu-stats"),
        *("--rate", f"{rate:.0f}pps", "--num", str(packets)),
    ]


def tcpreplay(folder: Path, rate: float, packets: int) -> list[str]:
    path = folder / "one.pcap"
    macs = f"eth dst={topology.RX_MAC} src={topology.TX_MAC}"
    packet = f"{macs} / ip src={topology.TX_IPV4} dst={topology.RX_IPV4} / udp dst={PORT}"
    what = ["--dry-run", "--pcap-out", str(path), "--count", "100", "--packet", packet]
    command = [sys.executable, "-m", "xsk_engine", "send", *what]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return [
        *("tcpreplay", "-i", topology.TX_INTERFACE, "--preload-pcap", f"--pps={rate:.0f}", "--quiet"),
        *(f"--loop={packets // 100}", str(path)),
    ]


def iperf3(rate: float, packets: int) -> list[str]:
    seconds = packets / rate
    return [
        *(
            "iperf3",
            "-u",
            "-c",
            topology.RX_IPV4,
            "-p",
            str(PORT),
            "-l",
            str(IPERF_PAYLOAD),
            "-t",
            f"{seconds:.0f}",
        ),
        *("-b", f"{rate * IPERF_PAYLOAD * 8:.0f}", "--pacing-timer", "1000"),
    ]


def pinned(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    own = {SENDER_CPU, OWN_CPU} if "xsk_engine" in command else {SENDER_CPU}
    return subprocess.Popen(command, preexec_fn=partial(os.sched_setaffinity, 0, own), **options)


def arrive(lab: PrivateLab, rate: float, command: list[str]) -> dict[str, float]:
    """What `command` achieved, seen from the receiver: percent off the rate, and gap errors in ns."""
    silence = max(1.0, 3 / rate)
    receiver = [str(BUILD / "arrivals"), topology.RX_INTERFACE, str(PORT), str(silence), f"{1e9 / rate:.0f}"]
    with namespaces.entered(lab.rx_fd):
        watcher = subprocess.Popen(
            receiver, stdout=subprocess.PIPE, preexec_fn=partial(os.sched_setaffinity, 0, {OWN_CPU})
        )
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == b"ready\n"
    sender = pinned(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        said = sender.communicate(timeout=MOST_SECONDS + 30)[1]
        out = watcher.communicate(timeout=30)[0]
    finally:
        for process in (sender, watcher):
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=10)
    seen = json.loads(out)
    if seen["frames"] < 2:
        raise RuntimeError(f"{command}: nothing arrived: {said.decode()}")
    achieved = (seen["frames"] - 1) / seen["span_ns"] * 1e9
    return {"percent": (achieved / rate - 1) * 100} | seen


def keep(rate: float) -> dict[str, Any]:
    """The engine alone at one rate, by its own clock and by the peer's count."""
    packets = int(max(min(rate * MOST_SECONDS, LEAST_PACKETS), rate * LEAST_SECONDS))
    done = subprocess.run(engine(rate, packets), capture_output=True, check=True, timeout=MOST_SECONDS + 30)
    report = json.loads(done.stdout)
    return {
        "packets": report["completed_packets"],
        "dropped_packets": report["dropped_packets"],
        "off_percent": report["rate_error_percent"],
        "gap_error_p99_ns": report["gaps"]["error"]["p99_ns"],
        "gap_error_p99_9_ns": report["gaps"]["error"]["p99_9_ns"],
    }


def spin(rate: int) -> dict[str, int]:
    """What the machine leaves of a sender that does nothing but look at the clock, on the same CPU."""
    command = [str(BUILD / "spin"), str(SENDER_CPU), str(10**9 // rate), str(rate * LEAST_SECONDS)]
    found: dict[str, int] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def wire_pps() -> float:
    """What this wire takes now."""
    command = [part if part != "1.000pps" else "max" for part in engine(1, 1_000_000)]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return float(report["pps"])


def compare(lab: PrivateLab, rate: int, seconds: int, folder: Path) -> dict[str, Any]:
    """All senders in turn, some rounds."""
    packets = rate * seconds
    arms: dict[str, Callable[[], list[str]]] = {
        "engine": lambda: engine(rate, packets),
        "trafgen": lambda: trafgen(folder, rate, packets),
        "tcpreplay": lambda: tcpreplay(folder, rate, packets),
        "iperf3 -u": lambda: iperf3(rate, packets),
    }
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for index in range(ROUNDS):
        for name in list(arms)[:: 1 if index % 2 == 0 else -1]:
            seen[name].append(arrive(lab, rate, arms[name]()))
        print(f"{rate} pps: round {index + 1} of {ROUNDS}", end="\r", file=sys.stderr, flush=True)
    return {
        name: {key: spread([run[key] for run in runs]) for key in ("percent", "p50_ns", "p99_ns", "p99_9_ns")}
        for name, runs in seen.items()
    }


def show(kept: dict[str, Any], compared: dict[str, Any]) -> None:
    view = Table(box=box.SIMPLE_HEAD, title="the engine, by its own clock")
    for column in ("asked pps", "packets", "off by %", "p99 gap error us", "p99.9"):
        view.add_column(column, justify="right")
    for rate, one in kept.items():
        gaps = (f"{one[key] / 1e3:.2f}" for key in ("gap_error_p99_ns", "gap_error_p99_9_ns"))
        view.add_row(rate, f"{one['packets']:,}", f"{one['off_percent']:+.5f}", *gaps)
    Console().print(view)
    view = Table(box=box.SIMPLE_HEAD, title="by when frames arrive: medians")
    for column in ("asked pps", "", "off by %", "gap error p50 us", "p99", "p99.9"):
        view.add_column(column, justify="right")
    for rate, arms in compared.items():
        for name, one in arms.items():
            gaps = (f"{one[key]['median'] / 1e3:.2f}" for key in ("p50_ns", "p99_ns", "p99_9_ns"))
            view.add_row(rate, name, f"{one['percent']['median']:+.4f}", *gaps)
    Console().print(view)


def main() -> None:
    missing = [name for name in ("trafgen", "tcpreplay", "iperf3") if not shutil.which(name)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; apt-get install netsniff-ng tcpreplay iperf3")
    os.sched_setaffinity(0, {SENDER_CPU, OWN_CPU})
    lab = PrivateLab.from_environment()
    with namespaces.entered(lab.rx_fd):
        sink = socket(AF_INET, SOCK_DGRAM)
        sink.bind((topology.RX_IPV4, PORT))  # no ICMP errors; nobody reads
        server = subprocess.Popen(
            ["iperf3", "-s", "-p", str(PORT), "-B", topology.RX_IPV4],
            stdout=subprocess.DEVNULL,
            preexec_fn=partial(os.sched_setaffinity, 0, {OWN_CPU}),
        )
    try:
        with tempfile.TemporaryDirectory() as folder:
            sink.close()
            compared = {str(r): compare(lab, r, s, Path(folder)) for r, s in COMPARED.items()}
        with namespaces.entered(lab.rx_fd):
            sink = socket(AF_INET, SOCK_DGRAM)
        server.send_signal(signal.SIGTERM)
        server.wait(10)
        sink.bind((topology.RX_IPV4, PORT))
        most = statistics.median(wire_pps() for _ in range(3))
        kept = {f"{rate:.0f}": keep(rate) for rate in (*RATES, SHARE_OF_WIRE * most)}
        again, floor = [], []
        for _ in range(ROUNDS):
            again.append(keep(10_000))
            floor.append(spin(10_000))
    finally:
        if server.poll() is None:
            server.kill()
            server.wait(10)
        sink.close()
    show(kept, compared)
    worst = max(abs(one["off_percent"]) for one in kept.values())
    p99 = statistics.median(one["gap_error_p99_ns"] for one in again)
    bare = {key: spread([one[key] for one in floor]) for key in ("p99_ns", "p99_9_ns")}
    targets = {
        "mean error, worst rate, %": {"figure": worst, "at_most": MEAN_TARGET_PERCENT},
        "p99 gap error at 10 kpps, ns": {"figure": p99, "at_most": GAP_TARGET_NS},
    }
    for name, one in targets.items():
        print(f"{name}: {one['figure']:.5g}, target {one['at_most']}: "
              f"{'met' if one['figure'] <= one['at_most'] else 'MISSED'}")  # fmt: skip
    print(
        f"a bare clock on this CPU: p99 {bare['p99_ns']['median'] / 1e3:.2f} us "
        f"({bare['p99_ns']['min'] / 1e3:.2f} to {bare['p99_ns']['max'] / 1e3:.2f}), "
        f"p99.9 {bare['p99_9_ns']['median'] / 1e3:.2f} us"
    )
    setup = {"frame_bytes": FRAME_BYTES, "rounds": ROUNDS, "wire_pps": most, "cpu": SENDER_CPU}
    figures = {
        "setup": setup,
        "targets": targets,
        "engine": kept,
        "engine_10kpps": again,
        "arrivals": compared,
        "bare_clock_10kpps": bare,
    }
    print(save("pace", "make bench-pace", figures))


if __name__ == "__main__":
    main()

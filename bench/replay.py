"""``make bench-replay``: a capture file sent again, beside tcpreplay: as fast as it goes, and with its own gaps.

Runs inside a laboratory. Senders on CPU 0, the receiver's programs on CPU 1. As fast as it goes: packets that the
peer's interface counted, over the time that the sender says it took. With its gaps: when frames arrive, by the
kernel's time stamps at the peer, against the times in the file.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Any

from bench.harness import interleave, received, save, spread
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

SENDER_CPU, OWN_CPU = 0, 1
PORT = 9000
ROUNDS = 7
PACKETS, PASSES = 10_000, 40
GAP_PPS, GAP_PACKETS = 5_000, 20_000
RATIO_TARGET, GAP_TARGET_NS = 2.0, 20_000
_SETTLE_S = 0.3


def make(path: Path, packets: int, *more: str) -> None:
    """Packets of 60, 590 and 1514 bytes at 7:4:1 from a thousand ports."""
    packet = (
        f"eth dst={topology.RX_MAC} src={topology.TX_MAC} / ip src={topology.TX_IPV4} dst={topology.RX_IPV4}"
        f" / udp src=1000-1999 dst={PORT} ; size=imix"
    )
    subprocess.run(
        [sys.executable, "-m", "xsk_engine", "send", "--dry-run", "--pcap-out", str(path), "--count",
         str(packets), "--packet", packet, *more],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def pinned(command: list[str]) -> str:
    """Runs it; the engine's own threads choose their CPU."""
    cpus = {SENDER_CPU, OWN_CPU} if "xsk_engine" in command else {SENDER_CPU}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300,
        preexec_fn=partial(os.sched_setaffinity, 0, cpus),
    )  # fmt: skip
    return done.stdout


def engine(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "xsk_engine", "replay", topology.TX_INTERFACE, str(path), "--cpu",
            str(SENDER_CPU), "--json", *more]  # fmt: skip


def tcpreplay(path: Path, *more: str) -> list[str]:
    return ["tcpreplay", "-i", topology.TX_INTERFACE, "--preload-pcap", *more, str(path)]


def seconds_of_tcpreplay(said: str) -> float:
    found = re.search(r"Actual: \d+ packets .* sent in ([\d.]+) seconds", said)
    if not found:
        raise RuntimeError(f"tcpreplay: {said}")
    return float(found[1])


def at_top_speed(lab: PrivateLab, path: Path) -> dict[str, Callable[[], float]]:
    def rate(command: list[str], seconds: Callable[[str], float]) -> float:
        before = received(lab)
        took = seconds(pinned(command))
        time.sleep(_SETTLE_S)
        return (received(lab) - before) / took

    by_json: Callable[[str], float] = lambda said: float(json.loads(said)["duration_s"])  # noqa: E731
    return {
        "engine": lambda: rate(engine(path, "--speed", "max", "--loop", str(PASSES)), by_json),
        "engine, streamed": lambda: rate(
            engine(path, "--speed", "max", "--loop", str(PASSES), "--umem-mb", "1"), by_json
        ),
        "tcpreplay": lambda: rate(tcpreplay(path, "--topspeed", f"--loop={PASSES}"), seconds_of_tcpreplay),
    }


def times_of(path: Path) -> list[int]:
    from scapy.utils import RawPcapReader

    times = []
    with RawPcapReader(str(path)) as reader:
        for _, at in reader:
            seconds, fraction = (at.sec, at.usec) if hasattr(at, "sec") else (0, 0)
            times.append(seconds * 10**9 + fraction * (1 if reader.nano else 1000))
    return times


def gap_errors(lab: PrivateLab, path: Path, command: list[str], folder: Path) -> dict[str, float]:
    """How far the gaps at the peer were from the file's, in ns."""
    seen = folder / "seen.pcap"
    with namespaces.entered(lab.rx_fd):
        recorder = subprocess.Popen(
            ["tcpdump", "-i", topology.RX_INTERFACE, "-w", str(seen), "-s", "64", "-B", "16384",
             "--time-stamp-precision=nano", f"udp dst port {PORT}"],
            stderr=subprocess.PIPE, preexec_fn=partial(os.sched_setaffinity, 0, {OWN_CPU}),
        )  # fmt: skip
    assert recorder.stderr is not None
    try:
        while b"listening on" not in recorder.stderr.readline():
            if recorder.poll() is not None:
                raise RuntimeError("tcpdump has ended")
        said = pinned(command)
        time.sleep(_SETTLE_S)
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.communicate(timeout=10)
    wanted, got = times_of(path), times_of(seen)
    if len(got) != len(wanted):
        raise RuntimeError(f"{command}: {len(got)} of {len(wanted)} packets were recorded")
    gaps = zip(itertools.pairwise(got), itertools.pairwise(wanted), strict=True)
    errors = sorted(abs((b - a) - (d - c)) for (a, b), (c, d) in gaps)
    figures = {"p50_ns": errors[len(errors) // 2], "p99_ns": errors[int(len(errors) * 0.99)]}
    if "xsk_engine" in command:
        figures["own_p99_ns"] = json.loads(said)["gaps"]["error"]["p99_ns"]
    return figures


def main() -> None:
    missing = [name for name in ("tcpreplay", "tcpdump") if not shutil.which(name)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; apt-get install {' '.join(missing)}")
    lab = PrivateLab.from_environment()
    with namespaces.entered(lab.rx_fd):
        sink = socket(AF_INET, SOCK_DGRAM)
        sink.bind((topology.RX_IPV4, PORT))  # no ICMP errors; nobody reads
    with sink, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fast, paced = folder / "fast.pcap", folder / "paced.pcap"
        make(fast, PACKETS)
        make(paced, GAP_PACKETS, "--rate", f"{GAP_PPS}pps", "--poisson")
        pps = interleave(at_top_speed(lab, fast), ROUNDS)
        errors: dict[str, list[dict[str, float]]] = {"engine": [], "tcpreplay": []}
        commands = {"engine": engine(paced), "tcpreplay": tcpreplay(paced)}
        for _ in range(ROUNDS):
            for arm, command in commands.items():
                errors[arm].append(gap_errors(lab, paced, command, folder))
    rates = {arm: spread(values) for arm, values in pps.items()}
    gaps = {arm: {key: spread([run[key] for run in runs]) for key in runs[0]} for arm, runs in errors.items()}
    ratio = spread([a / b for a, b in zip(pps["engine"], pps["tcpreplay"], strict=True)])
    for arm, one in rates.items():
        print(f"{arm:<18} {one['median']:>10,.0f} pps delivered ({one['min']:,.0f} to {one['max']:,.0f})")
    for arm, by_key in gaps.items():
        told = ", ".join(f"{key} {one['median'] / 1e3:.2f} us" for key, one in by_key.items())
        print(f"{arm:<18} gap error at 1x: {told}")
    targets = {
        "engine : tcpreplay --topspeed": {"figure": ratio["median"], "at_least": RATIO_TARGET},
        "p99 gap error at 1x, ns": {
            "figure": gaps["engine"]["own_p99_ns"]["median"],
            "at_most": GAP_TARGET_NS,
        },
    }
    for told, one in targets.items():
        met = one["figure"] >= one["at_least"] if "at_least" in one else one["figure"] <= one["at_most"]
        print(
            f"{told}: {one['figure']:.5g}, target {one.get('at_least', one.get('at_most'))}: {'met' if met else 'MISSED'}"
        )
    setup: dict[str, Any] = {
        "rounds": ROUNDS, "packets": PACKETS, "passes": PASSES, "sizes": "60, 590, 1514 at 7:4:1",
        "gap_file": f"{GAP_PACKETS} packets, exponential gaps, {GAP_PPS} pps on average", "cpu": SENDER_CPU,
    }  # fmt: skip
    figures = {"setup": setup, "targets": targets, "ratio": ratio, "delivered_pps": rates, "gap_error": gaps}
    print(save("replay", "make bench-replay", figures))


if __name__ == "__main__":
    main()

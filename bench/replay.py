"""``make bench-replay``: a capture file sent again, beside tcpreplay: as fast as it goes, and with its own
gaps. Runs inside a laboratory with two queues.

As fast as it goes: both run for ever on CPU 0, in turn (bench/limit.py), and the peer's interface counts.
With its gaps: when frames arrive, by the kernel's time stamps at the peer, against the times in the file.
"""

from __future__ import annotations

import itertools
import json
import os
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

from scapy.utils import RawPcapReader

from bench.harness import save, spread
from bench.limit import OWN_CPU, SENDER_CPU, SLICE_S, SLICES, Pair, compare, judge, minimal_sender
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

PORT = 9000
ROUNDS = 7
PACKETS = 10_000
FOREIGN_MAC = "02:00:00:00:00:99"
"""as captures from elsewhere have: the peer counts such packets and drops them at once"""
GAP_PPS, GAP_PACKETS = 5_000, 20_000
RATIO_TARGET, GAP_TARGET_NS = 2.0, 20_000
_SETTLE_S = 0.3


def make(path: Path, packets: int, mac: str, *more: str, size: str = "imix") -> None:
    """From a thousand ports to one."""
    packet = (
        f"eth dst={mac} src={topology.TX_MAC} / ip src={topology.TX_IPV4} dst={topology.RX_IPV4}"
        f" / udp src=1000-1999 dst={PORT} ; size={size}"
    )
    subprocess.run(
        [sys.executable, "-m", "xsk_engine", "send", "--dry-run", "--pcap-out", str(path), "--count",
         str(packets), "--packet", packet, *more],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def engine(path: Path, *more: str) -> Callable[[int], list[str]]:
    """`replay` on a queue."""
    return lambda queue: [
        *(sys.executable, "-m", "xsk_engine", "replay", topology.TX_INTERFACE, str(path)),
        *("--queue", str(queue), "--cpu", str(SENDER_CPU), "--json", *more),
    ]


def tcpreplay(path: Path, *more: str) -> Callable[[int], list[str]]:
    return lambda _: [
        *("taskset", "--cpu-list", str(SENDER_CPU)),
        *("tcpreplay", "-i", topology.TX_INTERFACE, *more, str(path)),
    ]


def minimal(path: Path) -> Callable[[int], list[str]]:
    """The least C sender with the file's first frame."""
    with RawPcapReader(str(path)) as reader:
        return minimal_sender(next(iter(reader))[0], path.with_suffix(".frame"))


def at_top_speed(folder: Path) -> list[Pair]:
    foreign, ours, short = folder / "foreign.pcap", folder / "ours.pcap", folder / "short.pcap"
    make(foreign, PACKETS, FOREIGN_MAC)
    make(ours, PACKETS, topology.RX_MAC)
    make(short, PACKETS, FOREIGN_MAC, size="60")
    forever = ("--speed", "max", "--loop", "0")
    topspeed = ("--topspeed", "--loop=0")
    return [
        Pair(
            "a foreign file : tcpreplay --topspeed",
            engine(foreign, *forever),
            tcpreplay(foreign, *topspeed),
            RATIO_TARGET,
        ),
        Pair(
            "a foreign file : tcpreplay --topspeed --preload-pcap",
            engine(foreign, *forever),
            tcpreplay(foreign, *topspeed, "--preload-pcap"),
            RATIO_TARGET,
        ),
        Pair(
            "a file to a bound port : tcpreplay --topspeed",
            engine(ours, *forever),
            tcpreplay(ours, *topspeed),
            RATIO_TARGET,
        ),
        Pair(
            "a foreign file, streamed : loaded",
            engine(foreign, *forever, "--umem-mb", "1"),
            engine(foreign, *forever),
            0.9,
        ),
        Pair("a foreign file, 60 bytes : minimal C sender", engine(short, *forever), minimal(short), 0.95),
    ]


def times_of(path: Path) -> list[int]:
    """Of its packets, in ns; the file is pcap with times in ns."""
    with RawPcapReader(str(path)) as reader:
        return [at.sec * 10**9 + at.usec for _, at in reader]


def gap_errors(
    lab: PrivateLab, path: Path, command: Callable[[int], list[str]], folder: Path
) -> dict[str, float]:
    """How far the gaps at the peer were from the file's, in ns."""
    seen = folder / "seen.pcap"
    with namespaces.entered(lab.rx_fd):
        recorder = subprocess.Popen(
            ["tcpdump", "-i", topology.RX_INTERFACE, "-w", str(seen), "-s", "64", "-B", "16384",
             "--immediate-mode", "--time-stamp-precision=nano", f"udp dst port {PORT}"],
            stderr=subprocess.PIPE, preexec_fn=partial(os.sched_setaffinity, 0, {OWN_CPU}),
        )  # fmt: skip
    assert recorder.stderr is not None
    try:
        while b"listening on" not in recorder.stderr.readline():
            if recorder.poll() is not None:
                raise RuntimeError("tcpdump has ended")
        said = subprocess.run(
            command(0), capture_output=True, text=True, check=True, timeout=60,
            preexec_fn=partial(os.sched_setaffinity, 0, {SENDER_CPU, OWN_CPU}),
        ).stdout  # fmt: skip
        time.sleep(_SETTLE_S)
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.communicate(timeout=10)
    wanted, got = times_of(path), times_of(seen)
    if len(got) != len(wanted):
        raise RuntimeError(f"{command(0)}: {len(got)} of {len(wanted)} packets were recorded")
    gaps = zip(itertools.pairwise(got), itertools.pairwise(wanted), strict=True)
    errors = sorted(abs((b - a) - (d - c)) for (a, b), (c, d) in gaps)
    figures = {"p50_ns": errors[len(errors) // 2], "p99_ns": errors[int(len(errors) * 0.99)]}
    if "xsk_engine" in command(0):
        figures["own_p99_ns"] = json.loads(said)["gaps"]["error"]["p99_ns"]
    return figures


def main() -> None:
    missing = [name for name in ("tcpreplay", "tcpdump") if not shutil.which(name)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; apt-get install {' '.join(missing)}")
    os.sched_setaffinity(0, {OWN_CPU})
    lab = PrivateLab.from_environment()
    with namespaces.entered(lab.rx_fd):
        sink = socket(AF_INET, SOCK_DGRAM)
        sink.bind((topology.RX_IPV4, PORT))  # no ICMP errors; nobody reads
    with sink, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = {pair.name: judge(pair, compare(lab, pair)) for pair in at_top_speed(folder)}
        paced = folder / "paced.pcap"
        make(paced, GAP_PACKETS, topology.RX_MAC, "--rate", f"{GAP_PPS}pps", "--poisson")
        errors: dict[str, list[dict[str, float]]] = {"engine": [], "tcpreplay": []}
        commands = {"engine": engine(paced), "tcpreplay": tcpreplay(paced, "--preload-pcap")}
        for _ in range(ROUNDS):
            for arm, command in commands.items():
                errors[arm].append(gap_errors(lab, paced, command, folder))
    gaps = {arm: {key: spread([run[key] for run in runs]) for key in runs[0]} for arm, runs in errors.items()}
    for arm, by_key in gaps.items():
        told = ", ".join(f"{key} {one['median'] / 1e3:.2f} us" for key, one in by_key.items())
        print(f"{arm}: gap error with the file's gaps: {told}")
    own = gaps["engine"]["own_p99_ns"]["median"]
    print(f"p99 gap error {own / 1e3:.2f} us, target 20: {'met' if own <= GAP_TARGET_NS else 'MISSED'}")
    setup = {
        "slices": 2 * SLICES, "slice_s": SLICE_S, "cpu": SENDER_CPU, "counted_by": "vrx rx_packets",
        "file": f"{PACKETS} packets, 60, 590 and 1514 bytes at 7:4:1", "foreign_mac": FOREIGN_MAC,
        "gap_file": f"{GAP_PACKETS} packets, exponential gaps, {GAP_PPS} pps on average",
        "gap_rounds": ROUNDS,
    }  # fmt: skip
    target = {"figure": own, "at_most": GAP_TARGET_NS}
    figures = {"setup": setup, "pairs": pairs, "gap_error": gaps, "p99_gap_error_ns": target}
    print(save("replay", "make bench-replay", figures))


if __name__ == "__main__":
    main()

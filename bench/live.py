"""``make bench-live``: what watching costs: the rate with the live view on a terminal, with records and
scrapes four times a second, and with neither. Runs inside a laboratory."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Sequence

from bench.harness import interleave, save, spread
from xsk_engine.lab import topology

ROUNDS = 9
SECONDS = 3
PORT = 9187
INTERVAL_S = 0.25
TARGET = 0.99


def send(*more: str) -> float:
    """Packets per second of its summary, with stderr on a terminal."""
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=swallow, args=(ours,))
    reader.start()
    packet = f"eth dst={topology.RX_MAC} / ip dst={topology.RX_IPV4} / udp dst=9000 ; size=60"
    command = [sys.executable, "-m", "xsk_engine", "send", topology.TX_INTERFACE,
               "--duration", f"{SECONDS}s", "--json", "--cpu", "0", "--packet", packet, "--packet", packet,
               *more]  # fmt: skip
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=60)
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    return float(json.loads(done.stdout)["pps"])


def swallow(fd: int) -> None:
    try:
        while os.read(fd, 65536):
            pass
    except OSError:  # nobody has the other end any more
        return


def scraped(arm: Callable[[], float]) -> float:
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(INTERVAL_S):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=2).read()
            except OSError:
                continue

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        return arm()
    finally:
        stop.set()
        thread.join()


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    return spread([a / b for a, b in zip(over, under, strict=True)])


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    records = [
        "--jsonl",
        os.devnull,
        "--csv",
        os.devnull,
        "--interval",
        f"{INTERVAL_S}s",
        "--metrics",
        str(PORT),
    ]
    pps = interleave(
        {
            "nobody looks": lambda: send("--no-live"),
            "live view": lambda: send("--live"),
            "records and scrapes": lambda: scraped(lambda: send("--no-live", *records)),
        },
        ROUNDS,
    )
    ratios = {arm: ratio(pps[arm], pps["nobody looks"]) for arm in list(pps)[1:]}
    for arm, one in ratios.items():
        met = "met" if one["median"] >= TARGET else "MISSED"
        spread_text = f"{one['min']:.4f} to {one['max']:.4f}"
        print(f"{arm}: {one['median']:.4f} of the rate ({spread_text}), target {TARGET}: {met}")
    figures = {
        "setup": {"rounds": ROUNDS, "seconds": SECONDS, "interval_s": INTERVAL_S, "flows": 2, "cpu": 0},
        "target": TARGET,
        "ratios": ratios,
        "pps": {arm: spread(values) for arm, values in pps.items()},
    }
    print(save("live", "make bench-live", figures))


if __name__ == "__main__":
    main()

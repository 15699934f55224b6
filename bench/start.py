"""``make bench-start``: from starting ``send`` to its first frame at the peer. Runs inside a laboratory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.harness import received, save, spread
from xsk_engine.lab import topology
from xsk_engine.lab.private import PrivateLab

ROUNDS = 21
TARGET_S = 0.5


def first_frame_s(lab: PrivateLab) -> float:
    before, start = received(lab), time.perf_counter()
    command = [sys.executable, "-m", "xsk_engine", "send", "vtx", "--dst-ip", topology.RX_IPV4]
    process = subprocess.Popen([*command, "--count", "1"], stderr=subprocess.DEVNULL)
    while received(lab) == before and time.perf_counter() - start < 10:
        time.sleep(0.001)
    took = time.perf_counter() - start
    process.wait(timeout=10)
    return took


def main() -> None:
    lab = PrivateLab.from_environment()
    first_frame_s(lab)  # caches
    values = [first_frame_s(lab) for _ in range(ROUNDS)]
    median = statistics.median(values)
    verdict = "met" if median <= TARGET_S else "MISSED"
    print(f"first frame after {median:.3f} s ({min(values):.3f} to {max(values):.3f})")
    print(f"target {TARGET_S} s: {verdict}")
    print(save("start", "make bench-start", {"first_frame_s": spread(values), "rounds": ROUNDS}))


if __name__ == "__main__":
    main()

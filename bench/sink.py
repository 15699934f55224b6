"""``make bench-sink``: what checking every packet costs: the rate of a sink that checks a stream of the
shortest packets with a signature (66 bytes without FCS), beside one that only counts them. Runs inside a
laboratory."""

from __future__ import annotations

import os
import statistics
import time

from bench.harness import interleave, save, spread
from xsk_engine import Engine, EngineConfig, parse_flow
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.sink import Sink, SinkConfig

ROUNDS = 40
SECONDS = 0.4
TARGET = 0.9
FLOW = f"ip dst={topology.RX_IPV4} / udp dst=9000 ; signature ; size=66"


def rate(lab: PrivateLab, engine: Engine, method: str, check: bool) -> float:
    """Packets per second that come off its ring while the engine sends all it can; with its own core."""
    with namespaces.entered(lab.rx_fd):
        sink = Sink(SinkConfig(topology.RX_INTERFACE, method=method, check=check)).open()
    with sink:
        running = engine.start(parse_flow(FLOW))
        time.sleep(0.1)
        before, start = sink.receive_stats().packets, time.monotonic()
        time.sleep(SECONDS)
        after, end = sink.receive_stats().packets, time.monotonic()
        running.stop()
        running.wait(5)
    if check:
        arrivals = sink.snapshot().arrivals
        assert arrivals.packets == arrivals.received_packets, arrivals
    return (after - before) / (end - start)


def main() -> None:
    lab = PrivateLab.from_environment()
    figures = {}
    with Engine(EngineConfig(topology.TX_INTERFACE, cpus=(0,))) as engine:
        os.sched_setaffinity(0, {1})  # and with it the sink's thread
        for method in ("xdp", "packet"):
            pps = interleave(
                {
                    "checks": lambda method=method: rate(lab, engine, method, True),
                    "counts": lambda method=method: rate(lab, engine, method, False),
                },
                ROUNDS,
            )
            ratios = [a / b for a, b in zip(pps["checks"], pps["counts"], strict=True)]
            low, median, high = statistics.quantiles(ratios, n=4)
            met = "met" if median >= TARGET else "MISSED"
            kpps = {arm: statistics.median(values) / 1e3 for arm, values in pps.items()}
            print(
                f"{method}: {kpps['checks']:.0f} : {kpps['counts']:.0f} kpps, {median:.3f} "
                f"({low:.3f} to {high:.3f}), target {TARGET}: {met}"
            )
            figures[method] = {
                "pps": {arm: spread(values) for arm, values in pps.items()},
                "ratio": {"median": median, "quartiles": [low, high]},
            }
    setup = {"rounds": ROUNDS, "seconds": SECONDS, "cpu": {"sender": 0, "sink": 1}, "flow": FLOW}
    print(save("sink", "make bench-sink", {"setup": setup, "target": TARGET, **figures}))


if __name__ == "__main__":
    main()

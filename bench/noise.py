"""Is this machine quiet enough for its figures to be worth something?

Two things spoil them: other work, here (CPU time that is used while nothing is measured) or beside this
machine on its host (steal); and a clock that changes: a fixed piece of work is timed in every round.
"""

from __future__ import annotations

import statistics
import time
import zlib
from typing import Any

import psutil

IDLE_S = 1.0
# CPUs. More: the arms get less than the machine, and CPU time per packet is somebody else's, too.
BUSY_LIMIT = 0.1
# Of the time. Less is usual on rented machines.
STEAL_LIMIT_PERCENT = 2.0
# Quartiles' distance in percent of the median. More: figures of one run move with the machine; ratios of the
# same round do not.
SPEED_LIMIT_PERCENT = 10.0
_WORK = bytes(1 << 20)


def cpu_seconds() -> dict[str, float]:
    """Of the whole machine so far: cpu_user_s, cpu_system_s, cpu_softirq_s. Ticks of the kernel's clock."""
    now = psutil.cpu_times()
    return {
        "cpu_user_s": float(now.user + now.nice),
        "cpu_system_s": float(now.system),
        "cpu_softirq_s": float(now.softirq + now.irq),
    }


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}


def busy_cpus(seconds: float = IDLE_S) -> float:
    """How many CPUs are at work while this process waits."""
    before, start = sum(cpu_seconds().values()), time.perf_counter()
    time.sleep(seconds)
    return (sum(cpu_seconds().values()) - before) / (time.perf_counter() - start)


def _steal() -> tuple[float, float]:
    now = psutil.cpu_times()
    return float(getattr(now, "steal", 0.0)), float(sum(now))


class Watch:
    """From before the first round to after the last. ``look`` belongs into every round."""

    def __init__(self) -> None:
        self._busy_before = busy_cpus()
        self._steal_before = _steal()
        self._looks: list[float] = []

    def look(self) -> None:
        """Times the fixed work: about a tenth of a millisecond, twice."""
        best = float("inf")
        for _ in range(2):
            start = time.perf_counter()
            zlib.crc32(_WORK)
            best = min(best, time.perf_counter() - start)
        self._looks.append(best)

    def end(self) -> dict[str, Any]:
        """What was seen, and ``noisy``: why these figures are worth less; empty for a quiet machine."""
        steal, total = (now - then for now, then in zip(_steal(), self._steal_before, strict=True))
        seen = {
            "busy_cpus_before": round(self._busy_before, 3),
            "busy_cpus_after": round(busy_cpus(), 3),
            "steal_percent": round(100 * steal / total, 2) if total else 0.0,
            "speed_spread_percent": round(_spread_percent(self._looks), 1),
        }
        return seen | {"noisy": complaints(seen)}


def _spread_percent(looks: list[float]) -> float:
    if len(looks) < 4:
        return 0.0
    low, median, high = statistics.quantiles(looks, n=4)
    return 100 * (high - low) / median


def complaints(seen: dict[str, float]) -> list[str]:
    """Sentences about what is beyond its limit. Pure."""
    found = []
    busy = max(seen["busy_cpus_before"], seen["busy_cpus_after"])
    if busy > BUSY_LIMIT:
        found.append(f"other work took {busy:.2f} CPUs while nothing was measured")
    if seen["steal_percent"] > STEAL_LIMIT_PERCENT:
        found.append(f"the host took away {seen['steal_percent']:g} % of the CPU time")
    if seen["speed_spread_percent"] > SPEED_LIMIT_PERCENT:
        found.append(f"the CPU's speed varied by {seen['speed_spread_percent']:g} % (quartiles)")
    return found

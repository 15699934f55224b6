"""What the latency experiment makes of what its receiver says, which is made up here."""

import pytest

from bench.experiments import latency
from bench.result import Case

SAID = {
    "frames": 1001,
    "dropped": 3,
    "judged": 950,
    "span_ns": 2_000_000,
    **{
        f"due_{part}_ns": ns
        for part, ns in (("min", 1), ("p50", 2000), ("p99", 5000), ("p99_9", 7000), ("max", 9500))
    },
    **{
        f"taken_up_{part}_ns": ns
        for part, ns in (("min", 1), ("p50", 1000), ("p99", 4000), ("p99_9", 6000), ("max", 9000))
    },
}


def test_a_loaded_run():
    sample = latency.judged(SAID, sent=1010, arrived=1001, asked=500_000, limit=1e6)
    assert sample["p50_us"] == 2
    assert sample["max_us"] == 9.5
    assert sample["posted_p99_us"] == 4
    assert sample["pps"] == pytest.approx(500_000)
    assert sample["lost_packets"] == 9
    assert sample["unseen_packets"] == 3
    case = Case.of("50 %", {"engine": [sample]}, latency.EXPERIMENT.figures)
    assert case.arms["engine"]["p99_9_us"]["median"] == 7
    assert "echo_p99_us" not in case.arms["engine"]


def test_nothing_seen_is_no_latency():
    with pytest.raises(RuntimeError, match="none was seen"):
        latency.judged({"frames": 0, "dropped": 0, "judged": 0}, 100, 0, 1000, 1e6)


def test_every_percentile_is_less_is_better():
    better = {figure.name: figure.better for figure in latency.EXPERIMENT.figures}
    assert all(better[name] == "less" for name in better if name.endswith("_us"))

"""The latency experiment, once and shortly, in this laboratory."""

import pytest

from bench.experiment import Plan
from bench.experiments import latency
from bench.noise import Watch
from bench.scene import BUILD, Scene

pytestmark = pytest.mark.skipif(not (BUILD / "delays").exists(), reason="needs make build/native")


def test_packets_are_judged_by_their_due_times(wire, tmp_path):
    scene = Scene.here(tmp_path)
    scene.watch = Watch()
    outcome = latency.measure(scene, Plan(quick=True, rounds=1, arms=("engine", "AF_PACKET sendmmsg")), "")
    (case,) = outcome.cases
    assert set(case.arms) == {"engine", "AF_PACKET sendmmsg", "no load"}, case.absent
    for name in ("engine", "AF_PACKET sendmmsg"):
        of = {figure: values["median"] for figure, values in case.arms[name].items()}
        # No packet arrives before it was due, and one that is posted late is not posted early.
        assert 0 < of["p50_us"] <= of["p99_us"] <= of["p99_9_us"] <= of["max_us"]
        assert 0 < of["posted_p50_us"] <= of["p50_us"]
        assert of["offered_pps"] == pytest.approx(of["limit_pps"] / 2, rel=1e-4)
        assert 0 <= of["lost_packets"] < of["pps"]  # a busy machine's backlog overflows
    assert case.arms["no load"]["echo_p50_us"]["median"] > 0

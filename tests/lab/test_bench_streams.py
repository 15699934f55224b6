"""The experiments with streams, once and shortly, in this laboratory."""

import sys

import pytest

from bench.arm import AbsentError
from bench.arms.first import FirstPacketArm
from bench.experiment import Plan
from bench.experiments import limit, pace, start
from bench.noise import Watch
from bench.scene import BUILD, PORT, Scene

pytestmark = pytest.mark.skipif(not (BUILD / "arrivals").exists(), reason="needs make build/native")
MINIMAL, KERNEL = "minimal C AF_XDP sender", "AF_PACKET sendmmsg"


@pytest.fixture
def scene(wire, tmp_path):
    here = Scene.here(tmp_path)
    here.watch = Watch()
    return here


def test_a_pass_each_on_both_queues_makes_rounds_that_can_be_compared(scene):
    outcome = limit.measure(scene, Plan(quick=True, rounds=2), "")
    case = next(case for case in outcome.cases if case.name == "60 bytes")
    assert not case.absent
    for arm in (limit.ENGINE, MINIMAL):
        rounds = case.arms[arm]["pps"]["rounds"]
        assert len(rounds) == 2
        assert min(rounds) > 0
    (ratio,) = case.ratios
    assert ratio["target"] == ">= 0.98"


def test_the_first_packet_of_each_program_is_seen(scene):
    outcome = start.measure(scene, Plan(rounds=1, arms=(start.ENGINE, KERNEL)), "")
    (case,) = outcome.cases
    assert not case.absent
    assert set(case.arms) == {start.ENGINE, KERNEL}
    assert [target["bound"] for target in case.targets] == ["<= 0.5"]
    assert outcome.versions == {KERNEL: "bench/programs/packet_sender.c"}


def test_a_program_that_ends_without_a_packet_is_told_with_its_last_words(scene):
    command = [sys.executable, "-c", "import sys; sys.exit('no luck today')"]
    arm = FirstPacketArm("nobody", scene, lambda: command, (PORT,))
    with pytest.raises(AbsentError, match="nobody sends nothing: no luck today"):
        arm.setup()


def test_a_rate_is_judged_by_both_clocks(scene):
    chosen = (pace.ENGINE, pace.OWN_CLOCK, pace.BARE_CLOCK)
    (case,) = pace.measure(scene, Plan(quick=True, rounds=1, arms=chosen), "").cases
    assert set(case.arms) == set(chosen)
    for arm in (pace.ENGINE, pace.OWN_CLOCK):
        of = {figure: values["median"] for figure, values in case.arms[arm].items()}
        assert of["gap_error_p50_ns"] <= of["gap_error_p99_ns"] <= of["gap_error_p99_9_ns"]
    assert [target["bound"] for target in case.targets] == ["<= 0.1", "<= 5000"]

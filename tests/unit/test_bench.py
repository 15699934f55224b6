"""What of the benchmark's harness needs no kernel: what is made of samples, and how turns are taken."""

import json
import math

import pytest

from bench import figures, noise, ratios, results
from bench.arm import AbsentError, Arm, FunctionArm
from bench.experiment import Experiment, Laboratory, Plan
from bench.experiments import EXPERIMENTS
from bench.figures import CPU_PER_PACKET, PPS
from bench.ratios import Target
from bench.report import wording
from bench.result import Case
from bench.rounds import interleave


class Recorder(Arm):
    """Notes what is done with it, and fails where it is told to."""

    def __init__(self, name, notes, fails_in=None, ours=False, error=AbsentError):
        super().__init__(name)
        self.ours = ours
        self._notes, self._fails_in, self._error = notes, fails_in, error

    def _note(self, what):
        self._notes.append(f"{self.name} {what}")
        if what == self._fails_in:
            raise self._error(f"no {what}")

    def setup(self):
        self._note("setup")

    def run(self):
        self._note("run")

    def sample(self):
        return {"packets": 1}

    def teardown(self):
        self._note("teardown")


def test_turns_are_taken_in_alternating_order_and_end_in_reverse():
    notes = []
    looks = []
    measured = interleave([Recorder(n, notes) for n in "ab"], 3, lambda: looks.append(1))
    runs = [note.split()[0] for note in notes if note.endswith("run")]
    assert runs == ["a", "b", "b", "a", "a", "b"]
    assert notes[:2] == ["a setup", "b setup"]
    assert notes[-2:] == ["b teardown", "a teardown"]
    assert len(looks) == 3
    assert {name: len(rounds) for name, rounds in measured.samples.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize("step", ["setup", "run"])
@pytest.mark.parametrize("error", [AbsentError, OSError])
def test_an_arm_of_others_that_fails_is_told_and_the_rest_goes_on(step, error):
    notes = []
    measured = interleave([Recorder("a", notes), Recorder("b", notes, step, error=error)], 2)
    assert list(measured.samples) == ["a"]
    assert measured.absent == {"b": f"no {step}"}
    assert "b teardown" in notes
    assert len(measured.samples["a"]) == 2


@pytest.mark.parametrize("step", ["setup", "run"])
def test_one_of_ours_that_fails_fails_the_whole_and_everything_is_ended(step):
    notes = []
    arms = [Recorder("a", notes), Recorder("b", notes, step, ours=True, error=OSError)]
    with pytest.raises(OSError, match=f"no {step}"):
        interleave(arms, 2)
    assert notes[-2:] == ["b teardown", "a teardown"]


def test_one_of_ours_may_be_absent():
    arms = [Recorder("a", [], "setup", ours=True), FunctionArm("b", lambda: {"packets": 2})]
    measured = interleave(arms, 1)
    assert measured.absent == {"a": "no setup"}
    assert measured.samples == {"b": [{"packets": 2}]}


def test_figures_of_each_round_and_of_all():
    rounds = [
        {"packets": 100, "seconds": 0.1, "cpu_user_s": 0.0, "cpu_system_s": 0.01, "cpu_softirq_s": 0.0},
        {"packets": 300, "seconds": 0.1, "cpu_user_s": 0.01, "cpu_system_s": 0.0, "cpu_softirq_s": 0.0},
    ]
    assert PPS.values(rounds) == [1000, 3000]
    user, system, softirq = (figure.values(rounds) for figure in CPU_PER_PACKET)
    assert user == pytest.approx([25_000])
    assert system == pytest.approx([25_000])
    assert softirq == [0]


def test_a_figure_of_counts_that_are_not_there_is_left_out():
    case = Case.of("one", {"a": [{"value": 1.0}]}, [PPS, figures.value("value", "")])
    assert list(case.arms["a"]) == ["value"]
    assert figures.value("value", "").values([]) == []
    assert PPS.values([{"packets": 1, "seconds": 0}]) == []


def test_spread_keeps_rounds_and_six_digits():
    assert figures.spread([3.0, 1.0, 1234567.8]) == {
        "median": 3.0,
        "min": 1.0,
        "max": 1234570.0,
        "rounds": [3.0, 1.0, 1234570.0],
    }


def test_a_ratio_is_of_the_same_round_and_without_those_in_which_one_stood_still():
    of = ratios.ratio_of([2, 9, 0, 5], [1, 3, 1, 0])
    assert of["rounds"] == [2, 3]
    assert (of["median"], of["min"], of["max"]) == (2.5, 2, 3)
    assert 2 <= of["low"] <= of["median"] <= of["high"] <= 3


@pytest.mark.parametrize(("ours", "theirs"), [([1], [1, 2]), ([], []), ([0], [1])])
def test_a_ratio_needs_rounds(ours, theirs):
    with pytest.raises(ValueError, match="ratio"):
        ratios.ratio_of(ours, theirs)


def test_the_interval_holds_the_true_median_nineteen_times_in_twenty():
    """The oracle is the definition of a confidence interval: samples of a distribution whose median is 0."""
    import numpy

    random = numpy.random.default_rng(7)
    hits = 0
    for _ in range(200):
        low, high = ratios.interval(random.normal(size=25).tolist())
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 1.0
    assert hits < 200


def test_the_interval_is_the_same_for_the_same_rounds_and_shrinks_with_their_spread():
    wide, narrow = [1, 2, 3, 4, 5], [2.9, 3, 3.1, 3, 3]
    assert ratios.interval(wide) == ratios.interval(wide)
    assert ratios.interval([4.0]) == (4.0, 4.0)
    low, high = ratios.interval(wide)
    narrow_low, narrow_high = ratios.interval(narrow)
    assert narrow_high - narrow_low < high - low
    with pytest.raises(ValueError, match="no values"):
        ratios.interval([])


def test_significant_means_that_the_intervals_lie_apart():
    assert ratios.significant([1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 1.9, 2.0])
    assert not ratios.significant([1.0, 3.0, 2.0, 1.5], [2.0, 1.0, 3.0, 2.5])


def test_percent():
    assert ratios.percent(2, 3) == pytest.approx(50)
    assert ratios.percent(0, 0) == 0
    assert math.isinf(ratios.percent(0, 1))


@pytest.mark.parametrize(
    ("target", "value", "met", "text"),
    [
        (Target(0.9, at_least=True), 0.9, True, ">= 0.9"),
        (Target(0.9, at_least=True), 0.89, False, ">= 0.9"),
        (Target(1.0, at_least=False, required=False), 1.1, False, "<= 1 (aim)"),
    ],
)
def test_targets(target, value, met, text):
    assert target.is_met(value) is met
    assert str(target) == text


def test_a_case_compares_only_what_was_measured():
    samples = {"ours": [{"value": 2.0}, {"value": 4.0}], "theirs": [{"value": 1.0}, {"value": 2.0}]}
    case = Case.of("one", samples, [figures.value("value", "")], absent={"other": "not installed"})
    case.compare("ours", "theirs", "value", Target(3.0, at_least=True))
    case.compare("ours", "other", "value")
    case.aim("a bound", 5, Target(6, at_least=False))
    (one,) = case.ratios
    assert (one["median"], one["target"], one["met"]) == (2.0, ">= 3", False)
    told = json.loads(json.dumps(case.as_json()))
    assert told["absent"] == {"other": "not installed"}
    assert told["targets"] == [{"what": "a bound", "value": 5.0, "bound": "<= 6", "met": True}]
    assert "notes" not in told


QUIET = {"busy_cpus_before": 0.02, "busy_cpus_after": 0.03, "steal_percent": 0.1, "speed_spread_percent": 3.0}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"busy_cpus_after": 0.5}, "0.50 CPUs"),
        ({"steal_percent": 7.0}, "host took away 7 %"),
        ({"speed_spread_percent": 30.0}, "varied by 30 %"),
    ],
)
def test_a_noisy_machine_is_told_of(change, says):
    assert noise.complaints(QUIET) == []
    (complaint,) = noise.complaints(QUIET | change)
    assert says in complaint


def experiment(**more):
    texts = dict.fromkeys(("title", "question", "held_equal", "not_claimed", "counted_by"), "a text?")
    return Experiment(name="made-up", figures=(PPS,), measure=lambda *_: None, **{**texts, **more})


def test_laboratories_of_a_plan():
    of = experiment(laboratories={"a": Laboratory(1500), "b": Laboratory(9000)}, quick_laboratories=("b",))
    assert [name for name, _ in of.labs(Plan())] == ["a", "b"]
    assert [name for name, _ in of.labs(Plan(quick=True))] == ["b"]
    assert experiment(laboratories={}).labs(Plan()) == [("", None)]


def test_a_plan_survives_json():
    plan = Plan(quick=True, rounds=3, arms=("engine",))
    assert Plan.from_json(json.loads(json.dumps(plan.as_json()))) == plan
    assert plan.choose(9, 5) == 3
    assert (Plan().choose(9, 5), Plan(quick=True).choose(9, 5)) == (9, 5)
    assert plan.wants("engine")
    assert not plan.wants("scapy")


def test_results_are_written_and_found_again(tmp_path):
    case = Case.of("one", {"a": [{"packets": 1, "seconds": 1}]}, [PPS])
    part = {
        "laboratory": "", "cases": [case.as_json()], "rounds": 1, "details": {}, "scene": {},
        "versions": {"trafgen": "0.6.8"}, "noise": {**QUIET, "noisy": ["too loud"]},
    }  # fmt: skip
    path = results.write(tmp_path, results.as_json(experiment(), [part], "made up"))
    assert results.load(path) == results.load(tmp_path)
    of = results.load(tmp_path)["made-up"]
    assert of["cases"] == [case.as_json()]
    assert of["noisy"] == ["too loud"]
    assert of["versions"]["trafgen"] == "0.6.8"
    assert of["figures"] == {"pps": {"unit": "packets/s", "better": "more", "pooled": False}}


@pytest.mark.parametrize("text", ["", "[]", "{}", "null"])
def test_files_that_are_no_results_are_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json: is no result"):
        results.load(tmp_path)


def test_an_empty_folder_has_no_results(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        results.load(tmp_path)


@pytest.mark.parametrize("one", EXPERIMENTS.values(), ids=lambda one: one.name)
def test_every_experiment_says_what_it_is_and_is_not(one):
    assert one.question.endswith("?")
    for text in (one.title, one.held_equal, one.not_claimed, one.counted_by):
        assert len(text) > 10
    assert one.figures
    assert set(one.quick_laboratories or ()) <= set(one.laboratories)


def test_a_ratio_whose_rounds_were_not_kept():
    of = {"median": 0.9, "min": 0.8, "max": 1.25, "rounds": []}
    assert wording.ratio(of) == "0.90 (0.80 to 1.25, extremes)"
    assert wording.ratio({"median": 0.9}) == "0.90"
    assert wording.ratio(of | {"low": 0.85, "high": 0.95}) == "0.90 (0.85 to 0.95)"


def test_the_readme_names_every_experiment():
    text = (results.REFERENCE.parent / "README.md").read_text()
    missing = [name for name in EXPERIMENTS if f"`{name}`" not in text]
    assert not missing

"""What became worse: made-up results, before and after."""

import copy
import json

import pytest
from click.testing import CliRunner

from bench import cli
from bench.compare import BETTER, SAME, UNJUDGED, UNSURE, WORSE, compare
from bench.figures import Figure
from bench.ratios import Target
from bench.result import Case

FIGURES = (
    Figure("pps", "packets/s", lambda one: one["packets"]),
    Figure("ns", "ns", lambda one: 1e9 / one["packets"], "less"),
    Figure("size", "bytes", lambda one: one["packets"], None),
    Figure("cpu_ns", "ns", lambda one: 1e9 / one["packets"], "less", pooled=True),
)
STEADY = [1000, 1001, 999, 1002, 998, 1000, 1001]
WILD = [1000, 1400, 700, 1300, 600, 1200, 900]


def result(arms, target=None, **more):
    case = Case.of("60 bytes", {arm: [{"packets": n} for n in of] for arm, of in arms.items()}, FIGURES)
    if {"engine", "other"} <= arms.keys():
        case.compare("engine", "other", "pps", target)
        case.compare("engine", "other", "ns")
    return {
        "experiment": "rate",
        "machine": {"cpu": "A", "cores": 2, "kernel": "6.18"},
        "figures": {figure.name: figure.as_json() for figure in FIGURES},
        "cases": [case.as_json()],
        **more,
    }


def scaled(rounds, factor):
    return [factor * n for n in rounds]


def verdicts(before, after, **how):
    found = compare({"rate": before}, {"rate": after}, **how)
    return {(one.arm, one.figure): one.verdict for one in found.changes}


def test_worse_is_what_is_worse_for_the_figure():
    before = result({"engine": STEADY, "other": STEADY})
    slower = result({"engine": scaled(STEADY, 0.9), "other": STEADY})
    assert verdicts(before, slower) == {
        ("engine", "pps"): WORSE,
        ("engine", "ns"): WORSE,
        ("engine", "size"): UNJUDGED,  # neither way is better
        ("engine", "cpu_ns"): UNJUDGED,  # all rounds are one value
        ("other", "pps"): SAME,
        ("other", "ns"): SAME,
        ("other", "size"): SAME,
        ("other", "cpu_ns"): SAME,
        ("engine : other", "pps"): WORSE,
        ("engine : other", "ns"): WORSE,
    }
    back = verdicts(slower, before)
    assert back["engine", "pps"] == back["engine", "ns"] == back["engine : other", "ns"] == BETTER


def test_the_tolerance_is_a_bound():
    before, slower = result({"engine": STEADY}), result({"engine": scaled(STEADY, 0.9)})
    assert verdicts(before, slower, tolerance_percent=11)["engine", "pps"] == SAME
    assert verdicts(before, slower, tolerance_percent=9)["engine", "pps"] == WORSE


def test_what_varies_much_is_no_regression():
    found = verdicts(result({"engine": WILD}), result({"engine": scaled(WILD, 0.9)}))
    assert found["engine", "pps"] == UNSURE


def test_rounds_that_were_not_kept_are_not_judged():
    before, slower = result({"engine": STEADY}), result({"engine": scaled(STEADY, 0.5)})
    before["cases"][0]["arms"]["engine"]["pps"]["rounds"] = []
    assert verdicts(before, slower)["engine", "pps"] == UNJUDGED


@pytest.mark.parametrize(
    "machine",
    [
        {"cpu": "B", "cores": 2, "kernel": "6.18"},
        {"cpu": "A", "cores": 4, "kernel": "6.18"},
        {"cpu": "A", "cores": 2, "kernel": "6.19"},
        {"cpu": "A", "cores": 2},
    ],
)
def test_of_another_machine_only_ratios_are_compared(machine):
    before = result({"engine": STEADY, "other": STEADY})
    after = result({"engine": scaled(STEADY, 0.9), "other": scaled(STEADY, 3)}, machine=machine)
    found = compare({"rate": before}, {"rate": after})
    assert {one.arm for one in found.changes} == {"engine : other"}
    assert found.changes[0].verdict == WORSE
    assert any("only ratios are compared" in text for text in found.apart)


def test_unknown_is_no_machine():
    unknown = result({"engine": STEADY}, machine={"cpu": "unknown", "cores": 2, "kernel": "6.18"})
    assert compare({"rate": unknown}, {"rate": unknown}).changes == ()


def test_what_vanished_and_what_is_new_is_told_once():
    before = result({"engine": STEADY, "other": STEADY, "third": STEADY})
    after = result({"engine": STEADY, "fourth": STEADY})
    after["cases"][0]["absent"] = {"other": "not installed"}
    del after["cases"][0]["arms"]["engine"]["ns"]
    gone = copy.deepcopy(before["cases"][0]) | {"name": "1514 bytes"}
    before["cases"].append(gone)
    found = compare({"rate": before, "pace": before}, {"rate": after, "live": after})
    assert found.vanished == (
        "rate, 60 bytes: other (absent: not installed)",
        "rate, 60 bytes: third",
        "rate, 60 bytes: engine, ns",
        "rate, 1514 bytes",
        "pace",
    )
    assert found.appeared == ("rate, 60 bytes: fourth", "live")


def test_a_ratio_that_vanished_alone():
    before = result({"engine": STEADY, "other": STEADY})
    after = copy.deepcopy(before)
    del after["cases"][0]["ratios"][1]
    assert compare({"rate": before}, {"rate": after}).vanished == ("rate, 60 bytes: engine : other, ns",)


def test_targets_that_changed_sides():
    aim = Target(0.95, at_least=True)
    before = result({"engine": STEADY, "other": STEADY}, aim)
    after = result({"engine": scaled(STEADY, 0.9), "other": STEADY}, aim)
    text = "rate, 60 bytes: engine : other, pps, target >= 0.95: "
    assert compare({"rate": before}, {"rate": after}).targets == (text + "not met now, and was",)
    assert compare({"rate": after}, {"rate": before}).targets == (text + "met now, and was not",)
    assert compare({"rate": after}, {"rate": after}).targets == ()


def test_noise_is_told():
    noisy = result({"engine": STEADY}, noisy=["the host took away 9 %"])
    assert compare({"rate": noisy}, {"rate": result({"engine": STEADY})}).apart == (
        "rate: before is noisy: the host took away 9 %",
    )


def test_nothing_in_common():
    with pytest.raises(ValueError, match="nothing to compare"):
        compare({"rate": result({})}, {"pace": result({})})


def run(tmp_path, before, after, *options):
    for name, one in (("a", before), ("b", after)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "rate.json").write_text(json.dumps(one))
    paths = [str(tmp_path / "a"), str(tmp_path / "b/rate.json")]
    return CliRunner().invoke(cli.command, ["compare", *paths, *options], standalone_mode=False)


def test_the_command_fails_for_a_regression_only(tmp_path):
    before, slower = result({"engine": STEADY}), result({"engine": scaled(STEADY, 0.9)})
    worse = run(tmp_path, before, slower)
    assert worse.return_value == 1
    assert "900" in worse.output
    assert "-10.0 %" in worse.output
    assert "2 worse, 0 better" in worse.output
    better = run(tmp_path, slower, before, "--changed")
    assert better.return_value == 0
    assert "0 worse, 2 better" in better.output
    assert "bytes" not in better.output.replace("60 bytes", "")  # `size` is neither
    assert run(tmp_path, before, slower, "--tolerance", "20").return_value == 0


def test_json_is_json_also_from_nothing(tmp_path):
    idle = result({"engine": STEADY})
    idle["cases"][0]["arms"]["engine"]["pps"] |= {"median": 0, "rounds": [0, 0, 0]}
    done = run(tmp_path, idle, result({"engine": STEADY}), "--json")
    told = json.loads(done.output, parse_constant=pytest.fail)
    assert told["better"] == 1
    assert [one["percent"] for one in told["changes"] if one["figure"] == "pps"] == [None]
    assert {"regressions", "changes", "vanished", "appeared", "targets", "notes"} < told.keys()


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"experiment": "rate"}', "\x80"])
def test_files_that_are_no_results(tmp_path, text):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(result({"engine": STEADY})))
    bad.write_text(text, encoding="latin-1")
    for pair in ((good, bad), (bad, good)):
        done = CliRunner().invoke(cli.command, ["compare", *map(str, pair)], standalone_mode=False)
        assert isinstance(done.exception, ValueError)  # exit code 2 of xsk-engine
        assert "bad.json: is no result" in str(done.exception)

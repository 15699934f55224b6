"""The benchmark as a user starts it: in a laboratory of its own, from the command line to the page."""

import json
import subprocess
import sys

import pytest

from bench.report.writing import MARKDOWN, PAGE
from bench.scene import BUILD, ROOT

pytestmark = pytest.mark.skipif(not (BUILD / "minimal").exists(), reason="needs make build/native")
ENGINE, RIVAL = "engine", "minimal C AF_XDP sender"


def bench(*arguments):
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_from_the_command_line_to_the_page(tmp_path):
    out = tmp_path / "results"
    arms = ("--arm", ENGINE, "--arm", RIVAL)
    done = bench("run", "rate", "--quick", "--rounds", 2, *arms, "--out", out)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "rate.json").read_text())
    assert [case["name"] for case in result["cases"]] == ["60 bytes", "1514 bytes"]
    for case in result["cases"]:
        assert set(case["arms"]) == {ENGINE, RIVAL}
        for of in case["arms"].values():
            assert len(of["pps"]["rounds"]) == 2
            assert min(of["pps"]["rounds"]) > 0
        assert [ratio["theirs"] for ratio in case["ratios"]] == [RIVAL]
    assert result["scene"]["MTU 1500"]["rx"]["mtu"] == 1500
    assert result["noise"]["MTU 1500"]["busy_cpus_before"] >= 0
    for name in (MARKDOWN, PAGE):
        assert RIVAL in (out / name).read_text()
    assert str(out / PAGE) in done.stdout

    same = bench("compare", out, out, "--json")
    assert same.returncode == 0, same.stderr
    assert json.loads(same.stdout)


def test_an_experiment_that_there_is_not(tmp_path):
    done = bench("run", "no-such", "--out", tmp_path)
    assert done.returncode == 2
    assert "no-such" in done.stderr
    assert not list(tmp_path.iterdir())

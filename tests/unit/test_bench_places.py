"""Where a benchmark runs: the command line, and what a place does not have."""

import contextlib
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from bench import cli, places, results, runner
from bench.experiment import Experiment, Laboratory, Plan
from bench.experiments import EXPERIMENTS
from bench.places import Emulated, Veth
from bench.scene import engine_mode, place
from xsk_engine.errors import UnavailableError

OUTCOME = {"cases": [], "rounds": 1, "versions": {}, "details": {}, "noise": {"noisy": []}, "scene": {}}


def experiment(**laboratories):
    return Experiment("one", "One", "Is it?", "all", "much", "the peer", (), lambda *_: None, laboratories)


class Small:
    """A place that has MTU 1500 and nothing else."""

    def run(self, laboratory, command, out):
        if laboratory.mtu != 1500:
            raise UnavailableError("set up", f"MTU {laboratory.mtu}", "the driver refuses")
        out.write_text(json.dumps(OUTCOME | {"command": command}))


def test_what_a_place_does_not_have_is_told_and_the_rest_is_measured(tmp_path, capsys):
    both = experiment(small=Laboratory(), large=Laboratory(mtu=9000))
    large = experiment(large=Laboratory(mtu=9000))
    own = experiment()
    failed = runner.run({"both": both, "large": large, "own": own}, Plan(), Small(), tmp_path)
    assert list(failed) == ["both, large", "large", "own"]
    assert "MTU 9000): the driver refuses" in failed["large"]
    assert "on this host only" in failed["own"]
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]
    assert "both, large: failed: " in capsys.readouterr().err


@pytest.fixture
def run(tmp_path):
    """``bench run latency``, with these arguments and a folder of its own."""
    return lambda *more: CliRunner().invoke(cli.command, ["run", "latency", "--out", str(tmp_path), *more])


@pytest.fixture
def asked(monkeypatch):
    """What the command line makes of its options; nothing is measured."""
    seen = []

    def record(name):
        def place(*arguments):
            seen.append((name, *arguments))
            return contextlib.nullcontext(name)

        return place

    monkeypatch.setattr(places, "emulated", record("emulated"))
    monkeypatch.setattr(places, "interfaces", record("interfaces"))

    def measure_nothing(chosen, plan, place, out):
        seen.append(place)
        return dict.fromkeys(chosen, "nothing is measured")

    monkeypatch.setattr(runner, "run", measure_nothing)
    monkeypatch.setattr(runner, "check_programs", lambda: None)
    return seen


def test_the_command_line(asked, run):
    assert run("--machine", "--nics", "virtio", "--mode", "copy").exception is None
    assert run("--interfaces", "eth8", "eth9").exception is None
    assert asked == [
        ("emulated", "virtio", "copy"),
        "emulated",
        ("interfaces", "eth8", "eth9", None),
        "interfaces",
    ]
    assert run().exception is None
    assert isinstance(asked[-1], Veth)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--machine", "--interfaces", "eth8", "eth9"), "one of them"),
        (("--mode", "copy"), "veth has no other"),
    ],
)
def test_places_that_do_not_go_together(asked, run, arguments, said):
    done = run(*arguments)
    assert isinstance(done.exception, ValueError)  # exit code 2, in main()
    assert said in str(done.exception)
    assert not asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--interfaces", "eth8"), "requires 2 arguments"),
        (("--machine", "--out", str(results.REFERENCE)), "say --out"),
    ],
)
def test_wrong_command_lines(asked, run, arguments, said):
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert not asked


def test_unknown_interfaces_are_refused(monkeypatch, run):
    monkeypatch.setattr(runner, "check_programs", lambda: None)
    done = run("--interfaces", "no-such-0", "no-such-1")
    assert isinstance(done.exception, UnavailableError)
    assert "no-such-0): ENODEV" in str(done.exception)


def test_the_machine_has_one_mtu(tmp_path):
    with pytest.raises(UnavailableError, match="MTU 9000"):
        Emulated(None).run(Laboratory(mtu=9000), [], tmp_path / "out")


def test_a_child_knows_its_place(monkeypatch):
    assert place() == {"place": "laboratory"}
    assert engine_mode() == "auto"
    for name, text in places.said("emulated machine", "worth little", "copy").items():
        monkeypatch.setenv(name, text)
    assert place() == {"place": "emulated machine", "caveat": "worth little", "mode": "copy"}
    assert engine_mode() == "copy"


def test_a_child_that_fails_is_an_error():
    places.run_child(["true"])
    with pytest.raises(places.subprocess.CalledProcessError):
        places.run_child(["false"])


def test_there_are_experiments_for_the_machine():
    assert any(lab.mtu == places.MTU for one in EXPERIMENTS.values() for lab in one.laboratories.values())


@pytest.mark.parametrize(("uid", "left"), [(0, ["a", "b"]), (1000, ["b"])])
def test_an_ordinary_user_measures_what_needs_no_root(monkeypatch, capsys, uid, left):
    monkeypatch.setattr(runner.os, "geteuid", lambda: uid)
    both = [replace(experiment(), name="a", needs_root=True), replace(experiment(), name="b")]
    assert runner.possible(both, asked=False) == left
    assert ("a: left out" in capsys.readouterr().err) == bool(uid)
    if uid:
        with pytest.raises(UnavailableError, match="needs root"):
            runner.possible(both, asked=True)

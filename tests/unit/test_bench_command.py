"""``xsk-engine bench``: found in the sources, and what it says where there are none."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from bench import cli, runner
from bench.experiments import EXPERIMENTS
from xsk_engine.cli import _group
from xsk_engine.cli import bench as command
from xsk_engine.errors import UnavailableError

ROOT = Path(__file__).parents[2]


def test_it_is_the_benchmarks_own_command():
    assert command.command is cli.command
    assert set(cli.command.commands) == {"compare", "list", "report", "run"}


def test_from_any_folder(tmp_path):
    (tmp_path / "bench").mkdir()  # somebody else's of the same name
    (tmp_path / "bench/__init__.py").write_text("raise SystemExit('the wrong one')")
    script = str(Path(sys.executable).with_name("xsk-engine"))
    for program in ([script], [sys.executable, "-m", "xsk_engine"]):
        done = subprocess.run(
            [*program, "bench", "list"], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert [line.split()[0] for line in done.stdout.splitlines()] == list(EXPERIMENTS), done.stderr


@pytest.mark.parametrize("arguments", [[], ["run", "--quick", "rate"], ["compare", "a", "b", "--json"]])
def test_without_sources_it_says_what_to_do(tmp_path, arguments):
    done = CliRunner().invoke(command.find(tmp_path), arguments, standalone_mode=False)
    assert isinstance(done.exception, UnavailableError)
    assert "needs the source tree" in str(done.exception)
    assert "make bench" in str(done.exception)


def test_an_installed_package_has_no_benchmark(tmp_path):
    shutil.copytree(
        ROOT / "xsk_engine", tmp_path / "xsk_engine", ignore=shutil.ignore_patterns("__pycache__")
    )
    program = "import sys; sys.argv[1:] = ['bench', 'report', 'x']; from xsk_engine.cli import main; main()"
    paths = [str(tmp_path), *(path for path in sys.path if path.endswith("site-packages"))]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {paths!r}; {program}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "needs the source tree" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_running_needs_the_programs(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "BUILD", tmp_path)
    done = CliRunner().invoke(cli.command, ["run", "rate", "--out", str(tmp_path)], standalone_mode=False)
    assert isinstance(done.exception, UnavailableError)
    assert "make build/native" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_both_ways_to_call_it_are_one(tmp_path):
    for module in ("xsk_engine bench", "bench"):
        done = subprocess.run(
            [sys.executable, "-m", *module.split(), "compare", "README.md", "README.md"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2
        assert "README.md: is no result of this benchmark" in done.stderr


def test_completion_knows_commands_options_and_experiments():
    def words(*arguments):
        complete = ShellComplete(_group, {}, "xsk-engine", "_XSK_ENGINE_COMPLETE")
        return [item.value for item in complete.get_completions(["bench", *arguments[:-1]], arguments[-1])]

    assert words("") == ["compare", "list", "report", "run"]
    assert words("compare", "--t") == ["--tolerance"]
    assert words("run", "r") == [name for name in EXPERIMENTS if name.startswith("r")]

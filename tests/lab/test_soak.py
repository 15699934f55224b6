"""The soak in short, so that it still works when it is wanted for long."""

import sys

import pytest
from wire import cli

pytestmark = pytest.mark.usefixtures("wire")


def soak(tmp_path, *arguments):
    """In a laboratory of its own, whose links go down."""
    program = (sys.executable, "-m", "tests.soak", "--out", str(tmp_path), *arguments)
    return cli("lab", "run", "--queues", "2", "--", *program, timeout=250)


def test_it_finds_nothing(tmp_path):
    result = soak(tmp_path, "--seconds", "10")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "BAD" not in result.stdout


@pytest.mark.parametrize(
    ("kept", "said"), [("fd", "BAD fds"), pytest.param("chunk", "BAD problems", marks=pytest.mark.slow)]
)
def test_it_finds_what_is_kept(tmp_path, kept, said):
    result = soak(tmp_path, "--seconds", "2", "--leak", kept)
    assert result.returncode == 1
    assert said in result.stdout, result.stdout + result.stderr

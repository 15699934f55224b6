"""The commands of README and the tour, as they stand there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def commands(page):
    """Those for the laboratory's shell; shorter than a reader's."""
    text = (ROOT / page).read_text()
    lines = re.findall(r"^xsk-engine (?:send|replay) .*$", text, re.M)
    return [re.sub(r"--duration \d+s", "--duration 300ms", line) for line in lines]


@pytest.mark.parametrize("page", ["README.md", "docs/tour.md"])
def test_the_tour_is_true(wire, tmp_path, page):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "xsk-engine").write_text(f'#!/bin/sh\nexec {sys.executable} -m xsk_engine "$@"\n')
    (tmp_path / "xsk-engine").chmod(0o755)
    wire.ip("link", "set", "lo", "up")
    told = commands(page)
    assert len(told) >= 7
    for line in told:
        result = subprocess.run(
            f'PATH="$PWD:$PATH"; {line}', shell=True, cwd=tmp_path, capture_output=True, text=True,
            timeout=30,
            check=False,
        )  # fmt: skip
        assert result.returncode == 0, (line, result.stderr)
        assert " 0 submitted" not in result.stderr, line

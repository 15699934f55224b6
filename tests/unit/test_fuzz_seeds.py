"""What the fuzzers in Python begin with, and what they have found: all of it holds, also without atheris."""

import importlib
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"
SEEDS = [
    (target.name.removesuffix("_fuzz.py"), seed)
    for target in sorted(FUZZ.glob("*_fuzz.py"))
    for seed in sorted((FUZZ / "corpus" / target.name.removesuffix("_fuzz.py")).glob("*"))
]


@pytest.mark.parametrize(("target", "seed"), SEEDS, ids=[f"{target}-{seed.name}" for target, seed in SEEDS])
def test_a_seed(target, seed, monkeypatch):
    monkeypatch.syspath_prepend(FUZZ)
    monkeypatch.setattr("socket.create_connection", None)  # a target puts its own there
    try:
        importlib.import_module(f"{target}_fuzz").one(seed.read_bytes())
    finally:
        for name in [name for name in sys.modules if name.endswith("_fuzz") or name == "fuzzing"]:
            del sys.modules[name]


def test_there_are_seeds():
    assert {target for target, _ in SEEDS} >= {"values", "config", "pcap", "iperf3"}

"""``make model``: every interleaving of the models in native/models, by spin's exhaustive search."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.models import mirrors
from tests.models.mirrors import Run

_DEADLINE_S = 300
_DEPTH = 200_000
# Invalid end states and assertions, no bit-state hashing.
_PAN = ["-DSAFETY", "-DVECTORSZ=2048", "-DMEMLIM=2000"]
_UNFINISHED = ("max search depth too small", "out of memory", "reached -DMEMLIM", "VECTORSZ")


@dataclass(frozen=True)
class Outcome:
    run: Run
    states: int
    seconds: float
    error: str
    """what spin found; empty: nothing"""
    trail: str

    @property
    def as_expected(self) -> bool:
        return not self.error if self.run.must_hold else self.error not in ("", "unfinished")


def _call(command: list[str], where: Path, **options: object) -> str:
    done = subprocess.run(
        command, cwd=where, capture_output=True, text=True, timeout=_DEADLINE_S, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"model: {' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def explore(run: Run) -> Outcome:
    """Builds spin's verifier for it and runs it. SystemExit when that cannot be done."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="xsk-model-") as folder:
        where = Path(folder)
        _call(["spin", "-a", *run.flags, str(run.model)], where)
        # What must fail does so soon: it is not worth optimizing.
        _call(["cc", "-O1" if run.must_hold else "-O0", *_PAN, "-o", "pan", "pan.c"], where)
        said = _call(["./pan", f"-m{_DEPTH}"], where)
        errors, states = re.search(r"errors: (\d+)", said), re.search(r"(\d+) states, stored", said)
        found = re.search(r"^pan:1: (.*?)(?: \(at depth \d+\))?$", said, re.M)
        error = found[1] if found else ""
        if not errors or not states or (errors[1] == "0") != (not error):
            error = "unfinished"
        if any(word in said for word in _UNFINISHED):
            error = error or "unfinished"
        trail = ""
        if error and run.must_hold:
            steps = ["spin", "-p", *run.flags, "-k", f"{run.model.name}.trail", str(run.model)]
            trail = said if error == "unfinished" else _call(steps, where)
        return Outcome(run, int(states[1]) if states else 0, time.monotonic() - start, error, trail)


def _say(outcome: Outcome) -> None:
    mark = "" if outcome.as_expected else "  <-- not as it must be"
    result = outcome.error or "no error"
    print(
        f"{outcome.run!s:60} {outcome.states:>9,} states  {outcome.seconds:4.1f} s  {result}{mark}",
        flush=True,
    )
    if outcome.trail:
        print(outcome.trail)


def main(arguments: list[str]) -> int:
    if arguments == ["--compared"]:
        for model in mirrors.MODELS:
            mirrors.compared(model)
        return 0
    if not shutil.which("spin"):
        print("model: spin is not installed; make setup-test installs it", file=sys.stderr)
        return 1
    wanted = [m for m in mirrors.MODELS if not arguments or m.stem in arguments]
    runs = [run for model in wanted for run in mirrors.runs_of(model)]
    start, wrong, states = time.monotonic(), 0, 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for outcome in pool.map(explore, runs):
            _say(outcome)
            wrong += not outcome.as_expected
            states += outcome.states if outcome.run.must_hold else 0
    holds = sum(run.must_hold for run in runs)
    found = f"{wrong} runs are not as they must be" if wrong else "each was found"
    print(f"{len(wanted)} models: {holds} runs without a mistake, {states:,} states, every interleaving")
    print(f"{len(runs) - holds} runs with one: {found}; {time.monotonic() - start:.0f} s")
    return 1 if wrong or not runs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Interleaved rounds: A B C, C B A, A B C... so that a slow minute hits all of them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.arm import AbsentError, Arm, Sample
from xsk_engine.errors import UnavailableError, XskError

REFUSALS = (AbsentError, UnavailableError)
"""the environment lacks something, as an ordinary user lacks root: of ours, too"""
FAILURES = (*REFUSALS, RuntimeError, OSError, XskError, subprocess.SubprocessError)
"""of others' senders: they are told, and the rest goes on"""


@dataclass
class Measured:
    """``samples``: by arm, one for every round. ``absent``: arms that could not be measured, and why."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def _attempt(arm: Arm, step: Callable[[], object], absent: dict[str, str]) -> bool:
    try:
        step()
    except FAILURES as error:
        if arm.ours and not isinstance(error, REFUSALS):
            raise
        absent[arm.name] = " ".join(str(error).split()) or type(error).__name__
        return False
    return True


def interleave(
    arms: Sequence[Arm], rounds: int, each_round: Callable[[], object] = lambda: None, what: str = ""
) -> Measured:
    """Every arm once a round. An arm that is refused something, or of others' that fails, is taken out; one
    of ours that fails, fails the whole. `each_round` is called before each; `what` is told on stderr."""
    measured = Measured()
    with contextlib.ExitStack() as stack:
        running: list[Arm] = []
        for arm in arms:
            stack.callback(arm.teardown)
            if _attempt(arm, arm.setup, measured.absent):
                running.append(arm)
                measured.samples[arm.name] = []
        for number in range(rounds):
            each_round()
            # The first of a round has no advantage of its own.
            for arm in running[:: 1 if number % 2 == 0 else -1]:
                if _attempt(arm, arm.run, measured.absent):
                    measured.samples[arm.name].append(arm.sample())
                else:
                    running = [one for one in running if one is not arm]
                    del measured.samples[arm.name]
            print(f"\r{what}: round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return measured


def joined(passes: Sequence[Measured]) -> Measured:
    """The rounds of several passes, one after the other. An arm that one of them lacks is absent."""
    whole = Measured()
    for one in passes:
        whole.absent |= one.absent
    for one in passes:
        for arm, samples in one.samples.items():
            if arm not in whole.absent:
                whole.samples.setdefault(arm, []).extend(samples)
    return whole

"""Two results, or two folders of them: what became worse or better, and what vanished. Pure.

A figure is worse where it is so by more than the tolerance and the 95 % intervals of both medians lie apart.
Ratios are always compared; other figures only where both come from the same CPU, kernel and core count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.ratios import percent, significant

Result = Mapping[str, Any]
TOLERANCE_PERCENT = 5.0
WORSE, BETTER, SAME, UNSURE, UNJUDGED = "regression", "better", "same", "unsure", "unjudged"
"""SAME: within the tolerance. Beyond it: UNSURE: the intervals overlap; UNJUDGED: neither way is better, or
there are not enough rounds to tell."""
LEAST_ROUNDS = 2
"""One value has no interval: CPU time, of which all rounds make one, is told and not judged."""
_SAME_MACHINE = ("cpu", "kernel", "cores")


@dataclass(frozen=True)
class Change:
    """``arm``: of a ratio "ours : theirs". ``percent``: infinite from 0."""

    experiment: str
    case: str
    arm: str
    figure: str
    unit: str
    is_ratio: bool
    before: float
    after: float
    percent: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """``vanished``, ``appeared``: what only one has, in words. ``apart``: what was not compared, or is to be
    taken with care. ``targets``: those that are met on one side only, in words."""

    changes: tuple[Change, ...]
    vanished: tuple[str, ...]
    appeared: tuple[str, ...]
    targets: tuple[str, ...]
    apart: tuple[str, ...]

    def of(self, verdict: str) -> list[Change]:
        return [change for change in self.changes if change.verdict == verdict]

    def as_json(self) -> dict[str, Any]:
        """``percent`` is null from 0."""
        changes = [asdict(change) for change in self.changes]
        for change in changes:
            if abs(change["percent"]) == float("inf"):
                change["percent"] = None
        return {
            "regressions": len(self.of(WORSE)),
            "better": len(self.of(BETTER)),
            "changes": changes,
            "vanished": list(self.vanished),
            "appeared": list(self.appeared),
            "targets": list(self.targets),
            "notes": list(self.apart),
        }


def compare(
    before: Mapping[str, Result], after: Mapping[str, Result], tolerance_percent: float = TOLERANCE_PERCENT
) -> Comparison:
    """Results by experiment, as bench.results.load gives them. ValueError: they have none in common."""
    common = [name for name in before if name in after]
    if not common:
        raise ValueError(f"nothing to compare: {', '.join(before)} there, {', '.join(after)} here")
    changes: list[Change] = []
    apart: list[str] = []
    for name in common:
        old, new = before[name], after[name]
        machines = _other_machine(old, new)
        if machines:
            apart.append(f"{name}: only ratios are compared, as {machines}")
        apart += [
            f"{name}: {which} is noisy: {text}"
            for which, result in (("before", old), ("after", new))
            for text in result.get("noisy", ())
        ]
        changes += _changes(old, new, tolerance_percent, figures=not machines)
    return Comparison(
        tuple(changes),
        tuple(_only_in(before, after, tell_why=True)),
        tuple(_only_in(after, before, tell_why=False)),
        tuple(text for name in common for text in _targets(before[name], after[name])),
        tuple(apart),
    )


def _other_machine(old: Result, new: Result) -> str:
    """What differs, or is not known; empty where nothing does."""
    differing = []
    for name in _SAME_MACHINE:
        a, b = (result.get("machine", {}).get(name, "unknown") for result in (old, new))
        if a != b or a == "unknown":
            differing.append(f"{name} was {a} and is {b}")
    return ", ".join(differing)


def _cases(result: Result) -> dict[str, Mapping[str, Any]]:
    return {case["name"]: case for case in result["cases"]}


def _ratios(case: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """By "ours : theirs" and figure."""
    return {(f"{of['ours']} : {of['theirs']}", of["figure"]): of for of in case.get("ratios", ())}


def _figures(case: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """By arm and figure."""
    arms = case.get("arms", {})
    return {(arm, figure): spread for arm, figures in arms.items() for figure, spread in figures.items()}


def _changes(old: Result, new: Result, tolerance_percent: float, *, figures: bool) -> Iterator[Change]:
    new_cases = _cases(new)
    for name, case in _cases(old).items():
        if name not in new_cases:
            continue
        pairs = [(_figures(case), _figures(new_cases[name]), False)] if figures else []
        for a, b, is_ratio in [*pairs, (_ratios(case), _ratios(new_cases[name]), True)]:
            for key in a:
                if key in b:
                    facts = new["figures"].get(key[1], {})
                    yield _change(
                        (new["experiment"], name, *key), facts, is_ratio, a[key], b[key], tolerance_percent
                    )


def _change(
    where: tuple[str, str, str, str],
    facts: Mapping[str, Any],
    is_ratio: bool,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    tolerance_percent: float,
) -> Change:
    by = percent(old["median"], new["median"])
    verdict = judge(by, facts.get("better"), old.get("rounds", ()), new.get("rounds", ()), tolerance_percent)
    unit = "" if is_ratio else str(facts.get("unit", ""))
    return Change(*where, unit, is_ratio, old["median"], new["median"], by, verdict)


def judge(
    by_percent: float,
    better: str | None,
    before: Sequence[float],
    after: Sequence[float],
    tolerance_percent: float,
) -> str:
    """Of a change and both sides' rounds."""
    if abs(by_percent) <= tolerance_percent:
        return SAME
    if better not in ("more", "less") or min(len(before), len(after)) < LEAST_ROUNDS:
        return UNJUDGED
    if not significant(before, after):
        return UNSURE
    return BETTER if (by_percent > 0) == (better == "more") else WORSE


def _only_in(these: Mapping[str, Result], others: Mapping[str, Result], *, tell_why: bool) -> Iterator[str]:
    """What the others lack, each at its largest: an experiment, a case, an arm, a figure, a ratio."""
    for name, result in these.items():
        if name not in others:
            yield name
            continue
        there = _cases(others[name])
        for title, case in _cases(result).items():
            if title not in there:
                yield f"{name}, {title}"
                continue
            absent = there[title].get("absent", {}) if tell_why else {}
            yield from (f"{name}, {title}: {text}" for text in _lacking(case, there[title], absent))


def _lacking(case: Mapping[str, Any], other: Mapping[str, Any], absent: Mapping[str, str]) -> Iterable[str]:
    arms, others = case.get("arms", {}), other.get("arms", {})
    gone = [arm for arm in arms if arm not in others]
    for arm in gone:
        yield arm + (f" (absent: {absent[arm]})" if arm in absent else "")
    for arm, figure in _figures(case):
        if arm not in gone and figure not in others[arm]:
            yield f"{arm}, {figure}"
    for of in case.get("ratios", ()):
        whose = f"{of['ours']} : {of['theirs']}"
        if (
            (whose, of["figure"]) not in _ratios(other)
            and of["ours"] not in gone
            and of["theirs"] not in gone
        ):
            yield f"{whose}, {of['figure']}"


def _targets(old: Result, new: Result) -> Iterator[str]:
    there = _cases(new)
    for name, case in _cases(old).items():
        before, after = _verdicts(case), _verdicts(there.get(name, {}))
        for what in before:
            if what in after and before[what] != after[what]:
                now = "met now, and was not" if after[what] else "not met now, and was"
                yield f"{new['experiment']}, {name}: {what}: {now}"


def _verdicts(case: Mapping[str, Any]) -> dict[str, bool]:
    found = {
        f"{whose}, {figure}, target {of['target']}": bool(of["met"])
        for (whose, figure), of in _ratios(case).items()
        if "target" in of
    }
    return found | {f"{of['what']}, target {of['bound']}": bool(of["met"]) for of in case.get("targets", ())}

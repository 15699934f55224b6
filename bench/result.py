"""What a benchmark writes: cases, in each the arms' figures and what was compared. Pure.

The form of results/EXPERIMENT.json, which the report and ``compare`` read:

    experiment, title, question, held_equal, not_claimed, counted_by    what it is
    command, when, machine, versions, scene, noise, rounds              how it came about
    figures     name -> unit, better ("more", "less" or null), pooled
    cases       a list: name, x (its place on an axis, or null),
                arms    arm -> figure -> median, min, max, rounds
                absent  arm -> why
                ratios  a list: ours, theirs, figure, median, min, max, low, high, rounds, [target, met]
                targets a list: what, value, bound, met
                notes   a list of sentences
    details     whatever else was seen, by the experiment's own names
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.arm import Sample
from bench.figures import Figure, rounded, spread
from bench.ratios import Target, quotients, ratio_of


@dataclass
class Case:
    """One condition under which all arms were run. ``x``: where it stands on an axis, if cases have one."""

    name: str
    x: float | None = None
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def of(
        name: str,
        samples: Mapping[str, Sequence[Sample]],
        figures: Iterable[Figure],
        *,
        x: float | None = None,
        absent: Mapping[str, str] | None = None,
    ) -> Case:
        """Every figure of every arm, of samples by arm and round."""
        case = Case(name, x, absent=dict(absent or {}))
        for arm, rounds in samples.items():
            of = {figure.name: figure.values(rounds) for figure in figures}
            case.arms[arm] = {name: spread(values) for name, values in of.items() if values}
        return case

    def compare(self, ours: str, theirs: str, figure: Figure | str, target: Target | None = None) -> None:
        """Adds ours : theirs, round by round, if both were measured."""
        name = figure if isinstance(figure, str) else figure.name
        rounds = [self.arms.get(arm, {}).get(name, {}).get("rounds") for arm in (ours, theirs)]
        if not rounds[0] or not rounds[1] or not quotients(*rounds):
            return
        of: dict[str, Any] = {"ours": ours, "theirs": theirs, "figure": name, **ratio_of(*rounds)}
        if target is not None:
            of |= {"target": str(target), "met": target.is_met(of["median"])}
        self.ratios.append(of)

    def aim(self, what: str, value: float, target: Target) -> None:
        """Adds a target for a figure that is no ratio of two arms."""
        self.targets.append(
            {"what": what, "value": rounded(value), "bound": str(target), "met": target.is_met(value)}
        )

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value not in ([], {})}

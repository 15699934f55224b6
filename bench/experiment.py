"""What an experiment is: a question, where it is asked, and a function that measures its cases. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench.figures import Figure
from bench.result import Case

if TYPE_CHECKING:
    from bench.scene import Scene


@dataclass(frozen=True)
class Plan:
    """How much is measured. ``quick``: a few minutes for everything, figures that show how things stand.
    ``rounds``: instead of the experiment's own. ``arms``: only those, by name."""

    quick: bool = False
    rounds: int | None = None
    arms: tuple[str, ...] = ()

    def choose(self, full: int, quick: int) -> int:
        """Rounds: what was asked for, or the experiment's own of either."""
        return self.rounds or (quick if self.quick else full)

    def wants(self, arm: str) -> bool:
        return not self.arms or arm in self.arms

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Plan:
        return Plan(**{**data, "arms": tuple(data["arms"])})


@dataclass(frozen=True)
class Laboratory:
    """The wire that an experiment wants: bytes of MTU, queues at each end."""

    mtu: int = 1500
    queues: int = 2


@dataclass(frozen=True)
class Outcome:
    """What one laboratory came to. ``rounds``: of its figures; ``versions``: of the programs that ran;
    ``details``: for the results file only."""

    cases: list[Case]
    rounds: int
    versions: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """``name``: of its results and on the command line. ``question`` ends in a question mark. ``held_equal``
    and ``not_claimed``: a sentence each, for every table and picture. ``counted_by``: whose count is the
    result. ``laboratories``: by name, for each of which `measure` runs in a process of its own that stands in
    it; {} for one that needs none, or makes its own. ``quick_laboratories``: those of a quick run.
    ``in_quick``: part of a quick run at all. ``needs_root``: an ordinary user's namespace is not
    enough.
    ``minutes``: of a full run, about."""

    name: str
    title: str
    question: str
    held_equal: str
    not_claimed: str
    counted_by: str
    figures: tuple[Figure, ...]
    measure: Callable[[Scene, Plan, str], Outcome]
    laboratories: Mapping[str, Laboratory] = field(default_factory=lambda: {"": Laboratory()})
    quick_laboratories: tuple[str, ...] | None = None
    in_quick: bool = True
    needs_root: bool = False
    minutes: float = 1.0
    picture: str | None = None
    """figure of the picture; None: the first. "": there is none"""

    def labs(self, plan: Plan) -> Iterable[tuple[str, Laboratory | None]]:
        if not self.laboratories:
            return [("", None)]
        names = self.laboratories
        if plan.quick and self.quick_laboratories is not None:
            return [(name, names[name]) for name in self.quick_laboratories]
        return list(names.items())

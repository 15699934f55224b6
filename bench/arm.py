"""The one interface of everything that is measured: setup, run, sample, teardown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

Sample = Mapping[str, float]
"""What was counted in one run, by name: packets, bytes, seconds, cpu_user_s... All of it can be added up over
runs; rates are made of it later (bench/figures.py)."""


class AbsentError(Exception):
    """This arm cannot be measured here. Says why, and what would have to be there."""


class Arm(ABC):
    """One way of sending, or of doing something else that is compared. setup once, then run and sample as
    often as there are rounds, then teardown, also after a failure of any of them. One thread.

    ``ours``: a failure is a failure of the benchmark. Of others' it is reported as :class:`AbsentError` is.
    """

    ours = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def setup(self) -> None:
        """Everything that is not to be measured. AbsentError."""

    @abstractmethod
    def run(self) -> None:
        """What is measured: a slice of a stream, or a whole transfer."""

    @abstractmethod
    def sample(self) -> Sample:
        """What the last run came to, by the receiver's count."""

    def teardown(self) -> None:  # noqa: B027, as most have nothing to end
        """Ends what setup began."""


class FunctionArm(Arm):
    """A function that does one run and returns its sample."""

    def __init__(self, name: str, function: Callable[[], Sample], *, ours: bool = False) -> None:
        super().__init__(name)
        self.ours = ours
        self._function = function
        self._sample: Sample = {}

    def setup(self) -> None:
        pass

    def run(self) -> None:
        self._sample = self._function()

    def sample(self) -> Sample:
        return self._sample

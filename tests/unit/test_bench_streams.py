"""What the experiments with streams make of what they see; the streams are made up here."""

import pytest

from bench import contests
from bench.experiment import Plan
from bench.rounds import Measured, joined


def test_rounds_of_passes_are_joined_in_their_order():
    first = Measured({"a": [{"packets": 1}, {"packets": 2}], "b": [{"packets": 10}, {"packets": 20}]})
    second = Measured({"a": [{"packets": 3}], "b": [{"packets": 30}]})
    whole = joined([first, second])
    assert whole.samples == {
        "a": [{"packets": 1}, {"packets": 2}, {"packets": 3}],
        "b": [{"packets": 10}, {"packets": 20}, {"packets": 30}],
    }
    assert not whole.absent


@pytest.mark.parametrize("lacks", [0, 1])
def test_an_arm_that_one_pass_lacks_is_absent(lacks):
    """Else the rounds of two arms would not be those of the same time."""
    passes = [Measured({"a": [{"packets": 1}], "b": [{"packets": 2}]}) for _ in range(2)]
    del passes[lacks].samples["b"]
    passes[lacks].absent["b"] = "has ended"
    whole = joined(passes)
    assert list(whole.samples) == ["a"]
    assert len(whole.samples["a"]) == 2
    assert whole.absent == {"b": "has ended"}


def test_contestants_never_share_a_queue_and_swap_them():
    assert [[contests.queue_of(place, number) for place in (0, 1)] for number in (0, 1)] == [[0, 1], [1, 0]]


@pytest.mark.parametrize(("rounds", "of_a_pass"), [(1, 1), (2, 1), (3, 2), (200, 100)])
def test_slices_are_no_fewer_than_asked_for(rounds, of_a_pass):
    assert contests.slices_of_a_pass(Plan(rounds=rounds), 10, 4) == of_a_pass

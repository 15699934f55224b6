"""What the experiment `allocator` makes of the native program's rounds."""

import re
from pathlib import Path

from bench.experiments import allocator

SOURCE = Path(allocator.__file__).parents[1] / "programs/ablation.c"


def test_every_arm_of_the_native_program_has_its_opposite():
    named = re.findall(r'\{"(\w+)", \1\}', SOURCE.read_text())
    used = [name for arms in allocator.PAIRS.values() for name in arms.values()]
    assert sorted(named) == sorted(used)
    assert all(len(arms) == 2 for arms in allocator.PAIRS.values())


def test_ours_is_compared_with_its_opposite_round_by_round():
    names = [name for arms in allocator.PAIRS.values() for name in arms.values()]
    rounds = {name: [4.0, 8.0, 6.0] for name in names} | {"cloned": [1.0, 4.0, 2.0]}
    case = next(one for one in allocator.native_cases(rounds) if "clone" in one.arms)
    (ratio,) = case.ratios
    assert (ratio["ours"], ratio["theirs"]) == ("clone", "copy")
    assert ratio["rounds"] == [0.25, 0.5, 0.333333]
    assert case.arms["copy"]["ns_per_packet"]["median"] == 6

"""What the experiment `premap` makes of its measurements: it takes minutes to get some, so they are made up
here."""

import pytest

from bench import machine
from bench.experiments import premap
from bench.names import ENGINE, MINIMAL, PATCHED, PATCHED_SMALL, UDP

SENDERS = (UDP, PATCHED, PATCHED_SMALL, ENGINE, MINIMAL)
MAPS = {"dma_maps": 500, "dma_unmaps": 500, "iommu_maps": 250, "iommu_unmaps": 250}


def measured(counted, user=5_500, engines_maps=0):
    """One traced round and three others; the minimal sender's maps are not traced."""
    for sender in SENDERS:
        traced = {"arm": sender, "traced": True, "packets": 500}
        if sender != MINIMAL:
            traced["send"] = MAPS if sender == UDP else dict.fromkeys(MAPS, engines_maps)
        yield traced
    for number in range(3):
        for sender in SENDERS:
            one = {"arm": sender, "traced": False, "packets": 100}
            if counted:
                one |= {"kernel_instructions": 17_000 + 100 * number, "user_instructions": user}
            yield one


def judged(**how):
    cases = {iommu: machine.case_of(premap.case_name(iommu), list(measured(**how))) for iommu in premap.IOMMU}
    premap.judge(cases)
    return cases


def test_figures_and_targets():
    cases = judged(counted=True)
    udp = cases["strict"].arms[UDP]
    assert udp["dma_maps"]["rounds"] == [1000]
    assert udp["iommu_maps"]["rounds"] == [500]
    assert udp["kernel_instructions"]["rounds"] == [170, 171, 172]
    assert udp["instructions"]["median"] == 171 + 55
    assert "dma_maps" not in cases["lazy"].arms[MINIMAL], "absent, not guessed"
    met = {one["what"]: one["met"] for one in cases["strict"].targets}
    assert len(met) == 5
    assert all(met.values())
    assert len(cases["lazy"].targets) == 4, "one is between two modes"
    ratios = {one["theirs"]: one for one in cases["lazy"].ratios}
    assert set(ratios) == {UDP, MINIMAL}
    assert (ratios[MINIMAL]["median"], ratios[MINIMAL]["target"]) == (1, "<= 1.1")


@pytest.mark.parametrize(
    ("how", "missed"),
    [
        ({"user": 8_100}, f"user instructions per packet, {ENGINE}"),
        ({"engines_maps": 1}, "DMA maps per 1000 packets, engine"),
    ],
)
def test_targets_that_are_missed(how, missed):
    for case in judged(counted=True, **how).values():
        assert [one["what"] for one in case.targets if not one["met"]] == [missed]


def test_without_the_plugin_nothing_is_guessed():
    for case in judged(counted=False).values():
        assert not any("kernel_instructions" in of for of in case.arms.values())
        assert [one["what"] for one in case.targets] == ["DMA maps per 1000 packets, engine"]
        assert case.notes == [machine.UNCOUNTED]


def test_strict_beside_passthrough():
    cases = judged(counted=True)
    for case in cases.values():
        case.targets.clear()
    cases["passthrough"].arms[ENGINE]["kernel_instructions"]["median"] = 171 / 1.2
    premap.judge(cases)
    of = cases["strict"].targets[-1]
    assert (of["value"], of["met"]) == (1.2, False)

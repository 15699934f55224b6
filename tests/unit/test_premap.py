"""What bench-premap makes of its measurements: it takes minutes to get some, so they are made up here."""

import pytest

from bench import premap, premap_picture

SENDERS = ("kernel UDP", premap.PATCHED, premap.PATCHED_SMALL, premap.ENGINE, premap.RIVAL)
MAPS = {"dma_maps": 500, "dma_unmaps": 500, "iommu_maps": 250, "iommu_unmaps": 250}


def measured(counted):
    """One traced round and three others; the minimal sender's maps are not traced."""
    for sender in SENDERS:
        traced = {"sender": sender, "traced": True, "packets": 500}
        zerocopy = dict.fromkeys(MAPS, 0)
        if sender != premap.RIVAL:
            traced["send"] = MAPS if sender == "kernel UDP" else zerocopy
        yield traced
    for number in range(3):
        for sender in SENDERS:
            one = {"sender": sender, "traced": False, "packets": 100}
            if counted:
                one |= {"kernel_instructions": 17_000 + 100 * number, "user_instructions": 5_500}
            yield one


@pytest.mark.parametrize("counted", [True, False])
def test_figures_and_targets(counted):
    by_iommu = {iommu: premap.per_packet(list(measured(counted))) for iommu in premap.IOMMU}
    kernel = by_iommu["strict"]["kernel UDP"]
    assert kernel["per_1000"] == {name: 2 * n for name, n in MAPS.items()}
    assert by_iommu["lazy"][premap.RIVAL]["per_1000"] == {}
    targets = {one["target"]: one for one in premap.verdicts(by_iommu)}
    assert targets["DMA maps per 1000 packets, strict"]["met"]
    assert premap.table(by_iommu).row_count == len(SENDERS)
    if counted:
        assert kernel["kernel_instructions"] == {"median": 171, "min": 170, "max": 172}
        assert targets[f"user instructions, {premap.ENGINE}"] | {"target": ""} == {
            "target": "",
            "value": 55,
            "limit": 80,
            "met": True,
        }
    else:
        assert "kernel_instructions" not in kernel
        assert len(targets) == len(premap.IOMMU), "absent, not guessed"


@pytest.mark.parametrize("counted", [True, False])
def test_the_picture(counted, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra bench is not installed")
    by_iommu = {iommu: premap.per_packet(list(measured(counted))) for iommu in premap.IOMMU}
    path = premap_picture.draw(by_iommu, tmp_path / "premap.svg")
    assert path.read_text().startswith("<?xml")

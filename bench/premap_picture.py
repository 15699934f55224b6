"""The picture of ``make bench-premap``: instructions per packet, sender by sender, and what each maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = {"strict": "#b5413b", "lazy": "#d9a441", "passthrough": "#4a7ba6"}


def draw(by_iommu: dict[str, dict[str, Any]], path: Path) -> Path:
    """An SVG; without instruction counts the bars are DMA maps."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    senders = list(next(iter(by_iommu.values())))
    counted = all("kernel_instructions" in of for f in by_iommu.values() for of in f.values())
    height = 0.8 / len(by_iommu)
    figure, axes = pyplot.subplots(figsize=(10, 0.75 * len(senders) + 1.6), layout="constrained")
    for index, (iommu, figures) in enumerate(by_iommu.items()):
        at = [i + 0.4 - height * (index + 0.5) for i in range(len(senders))]
        if counted:
            kernel = [figures[s]["kernel_instructions"]["median"] for s in senders]
            user = [figures[s]["user_instructions"]["median"] for s in senders]
            axes.barh(at, kernel, height * 0.92, color=COLOURS[iommu], label=f"kernel, IOMMU {iommu}")
            label = "user" if index == len(by_iommu) - 1 else None
            axes.barh(at, user, height * 0.92, left=kernel, color="#333333", label=label)
            ends = [k + u for k, u in zip(kernel, user, strict=True)]
        else:
            ends = [figures[s]["per_1000"].get("dma_maps", 0) / 1000 for s in senders]
            axes.barh(at, ends, height * 0.92, color=COLOURS[iommu], label=f"IOMMU {iommu}")
        for y, end, sender in zip(at, ends, senders, strict=True):
            maps = figures[sender]["per_1000"].get("dma_maps")
            text = f" {end:,.0f}" if counted else f" {end:g}"
            if maps is not None and counted and index == 0:
                text += f"   ({maps / 1000:.2g} DMA maps)"
            axes.text(end, y, text, va="center", fontsize=8)
    axes.set_yticks(range(len(senders)), senders)
    axes.set_xlabel("instructions per packet" if counted else "DMA maps per packet")
    axes.set_xlim(right=axes.get_xlim()[1] * 1.3)
    axes.set_title("Per packet of 1514 bytes, on the sender's CPU (igb, Linux under QEMU)", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper right", frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path

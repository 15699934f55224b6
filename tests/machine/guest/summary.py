"""One JSON object on stdout: what the machine's NICs can do. Zero-copy is tried, not asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from tests.machine.guest.adopt import adopt
from xsk_engine import netdev
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import XskError
from xsk_engine.flow import Traffic
from xsk_engine.lab import namespaces, topology
from xsk_engine.packet import parse_mac

FRAMES = 1000
# drivers/iommu/iommu.c, iommu_group_show_type
IOMMU_TYPES = {"DMA": "strict", "DMA-FQ": "lazy", "identity": "passthrough"}


def bus_address(interface: str) -> str:
    said = subprocess.run(
        ["ethtool", "-i", interface], capture_output=True, text=True, check=True, timeout=30
    )
    return next(line.split()[1] for line in said.stdout.splitlines() if line.startswith("bus-info:"))


def iommu(bus: str) -> str:
    try:
        kind = Path(f"/sys/bus/pci/devices/{bus}/iommu_group/type").read_text().strip()
    except OSError:
        return "none"
    return IOMMU_TYPES.get(kind, kind)


def zerocopy(interface: str, dst: str, src: str) -> dict[str, Any]:
    """Sends FRAMES frames; nobody needs to receive them."""
    frame = (parse_mac(dst) + parse_mac(src) + b"\x88\xb5").ljust(60, b"\0")  # 88b5: IEEE 802, experiments
    try:
        with Engine(EngineConfig(interface, mode="zerocopy", link_timeout_s=20)) as engine:
            asyncio.run(engine.run(Traffic(frame, count=FRAMES)))
    except XskError as error:
        return {"works": False, "detail": str(error)}
    completed = engine.snapshot().completed_packets
    program = "XDP program attached for it" if "XDP program" in engine.binding.reason else "no XDP program"
    return {"works": completed == FRAMES, "detail": f"{completed} of {FRAMES} frames completed, {program}"}


def main() -> None:
    _, rx = adopt()
    ends = [
        (topology.TX_INTERFACE, contextlib.nullcontext(), topology.RX_MAC, topology.TX_MAC),
        (topology.RX_INTERFACE, namespaces.entered(rx), topology.TX_MAC, topology.RX_MAC),
    ]
    nics = []
    for name, entered, dst, src in ends:
        with entered:
            bus, device = bus_address(name), netdev.get(name)
            nics.append(
                {
                    "name": name,
                    "driver": device.driver,
                    "bus": bus,
                    "queues": device.queues,
                    "iommu": iommu(bus),
                }
                | zerocopy(name, dst, src)
            )
    print(json.dumps({"kernel": platform.release(), "nics": nics}))


if __name__ == "__main__":
    main()

"""Each arm's colour, everywhere the same. Pure.

Okabe and Ito's colours, which people tell apart who see few of them: one for each family, and lighter or
darker within it. Bars also carry their arm's name, and lines their own marker.
"""

from __future__ import annotations

import zlib

OURS = "#d55e00"
"""vermilion, of nobody else"""
_FAMILIES = (
    (("engine",), (OURS,)),
    (("minimal C",), ("#4d4d4d",)),
    (("kernel TCP", "iperf3 -u", "iperf3"), ("#0072b2", "#4a9bd1", "#00507d", "#7fb9e0")),
    (("kernel UDP",), ("#56b4e9", "#2f8fc7", "#8accf2")),
    (("AF_PACKET",), ("#009e73", "#4cc3a3")),
    (("trafgen", "tcpreplay", "xdp-trafficgen"), ("#cc79a7", "#a5568a", "#e0a6c6")),
    (("testpmd",), ("#b59b00", "#d9c84a")),
    (("scapy", "asyncio"), ("#8c8c8c", "#b0b0b0")),
)
_OTHERS = ("#7a6fb0", "#9c8f6b", "#5f8f8f", "#a08080")
_FIXED = {
    "kernel TCP": "#0072b2",
    "kernel TCP, MSG_ZEROCOPY": "#4a9bd1",
    "iperf3": "#00507d",
    "iperf3 -u": "#7fb9e0",
    "kernel UDP sendto": "#56b4e9",
    "kernel UDP sendmmsg": "#2f8fc7",
    "kernel UDP UDP_SEGMENT": "#8accf2",
    "AF_PACKET sendmmsg": "#009e73",
    "AF_PACKET TX_RING": "#4cc3a3",
    "trafgen": "#cc79a7",
    "tcpreplay": "#a5568a",
    "xdp-trafficgen": "#e0a6c6",
    "testpmd af_xdp": "#b59b00",
    "testpmd af_packet": "#d9c84a",
    "scapy": "#8c8c8c",
    "asyncio": "#b0b0b0",
}
MARKERS = "osD^vPX*<>"


def is_ours(arm: str) -> bool:
    return arm.startswith("engine")


def colour(arm: str) -> str:
    if arm in _FIXED:
        return _FIXED[arm]
    for begins, colours in _FAMILIES:
        if arm.startswith(begins):
            return colours[zlib.crc32(arm.encode()) % len(colours)]
    return _OTHERS[zlib.crc32(arm.encode()) % len(_OTHERS)]

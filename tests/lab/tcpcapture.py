"""A capture of TCP at the peer, and what Wireshark remarks about its sequence of segments."""

import contextlib
import subprocess

import tshark

from tests.lab.wire import first_line
from xsk_engine.lab.topology import RX_INTERFACE

SNAPPED = 128  # all headers
RETRANSMISSION = "retransmission"
REMARKS = (
    *(RETRANSMISSION, "fast_retransmission", "spurious_retransmission", "out_of_order", "lost_segment"),
    *("ack_lost_segment", "duplicate_ack", "keep_alive", "keep_alive_ack", "reused_ports", "window_update"),
    *("window_full", "zero_window", "zero_window_probe", "zero_window_probe_ack"),
)
# The receiver was slower, which it may be.
SLOWER = {"window_update", "window_full", "zero_window", "zero_window_probe", "zero_window_probe_ack"}
# What was sent again had come already: a probe for a lost tail, and that it was told so (DSACK).
IN_VAIN = {"spurious_retransmission", "duplicate_ack"}


@contextlib.contextmanager
def captured(wire, path):
    """All that comes to and goes from the peer, headers only; nothing may be missing."""
    with wire.in_rx():
        dumpcap = subprocess.Popen(
            ["dumpcap", "-q", "-i", RX_INTERFACE, "-s", str(SNAPPED), "-B", "512", "-w", str(path)],
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        for said in ("Capturing", "File"):
            assert said in (line := first_line(dumpcap, of="stderr")), line
        yield
    finally:
        dumpcap.terminate()
        said = dumpcap.communicate(timeout=60)[1]
    assert "dropped on interface" in said
    assert "/0 (" in said, said


def seen(path, folder):
    """Wireshark's remarks about the sequence of segments: how often each."""
    counts = {}
    for line in tshark.remarks(path, folder / "settings", *(f"tcp.analysis.{name}" for name in REMARKS)):
        for name, value in zip(REMARKS, line.split("\t"), strict=True):
            if value:
                counts[name] = counts.get(name, 0) + 1
    return counts

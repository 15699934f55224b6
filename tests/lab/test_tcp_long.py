"""A gigabyte through one connection: every byte arrives, and Wireshark sees nothing that should not be."""

import contextlib
import hashlib
import subprocess
import sys

import pytest
import tshark
from tcppeer import ADDRESS, digest_of, peer
from wire import another_lab, first_line, wait_until

import xsk_engine
from xsk_engine.lab.topology import RX_INTERFACE, LabOptions

pytestmark = [pytest.mark.usefixtures("real_root"), pytest.mark.slow]

GIB = 1 << 30
PIECE = 1 << 20
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
        assert "Capturing" in first_line(dumpcap, of="stderr")
        assert "File" in first_line(dumpcap, of="stderr")
        yield
    finally:
        dumpcap.terminate()
        said = dumpcap.communicate(timeout=60)[1]
    assert "dropped on interface" in said
    assert "/0 (" in said, said


@pytest.mark.parametrize("mtu", [1500, 9000, 65535])
def test_a_gigabyte(real_root, tmp_path, mtu):
    piece = hashlib.shake_128(b"piece").digest(PIECE)
    sent = hashlib.sha256()
    path = tmp_path / "peer.pcapng"
    with (
        another_lab(LabOptions(mtu=mtu)) as wire,
        peer(wire, digest_of) as one,
        xsk_engine.open("vtx", tcp=True, umem_mb=8) as engine,
        captured(wire, path),
    ):
        with engine.tcp(ADDRESS[4], one.port) as connection:
            for number in range(GIB // PIECE):
                # no two pieces are alike, and hashing them all is not what takes the time
                data = number.to_bytes(8, "big") + piece[8:]
                sent.update(data)
                connection.sendall(data, 60)
            connection.close(60)
        info, dropped = connection.info(), engine.snapshot().kick_ebusy
        assert one.result() == (GIB, sent.hexdigest())
    assert info.acked_bytes == GIB
    assert (info.icmp_messages, info.refused_segments) == (0, 0)
    found = seen(path, tmp_path)
    if not dropped:  # our kernel counts what the peer's backlog had no room for; nothing else is lost here
        assert set(found) <= {*SLOWER, *IN_VAIN, RETRANSMISSION}, found
        assert (info.recoveries, info.timeouts) == (0, 0)
        assert info.retransmitted_segments <= info.tail_probes
    assert found.get(RETRANSMISSION, 0) <= info.retransmitted_segments
    assert found.get("duplicate_ack", 0) <= info.retransmitted_segments


def seen(path, folder):
    """Wireshark's remarks about the sequence of segments: how often each."""
    counts = {}
    for line in tshark.remarks(path, folder / "settings", *(f"tcp.analysis.{name}" for name in REMARKS)):
        for name, value in zip(REMARKS, line.split("\t"), strict=True):
            if value:
                counts[name] = counts.get(name, 0) + 1
    return counts


THOUSAND = """
import hashlib, selectors, socket, sys
found, open_ = {}, {}
listener = socket.create_server(("10.77.0.2", 0), backlog=4096)
listener.setblocking(False)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
print(listener.getsockname()[1], flush=True)
while sum(found.values()) < int(sys.argv[1]):
    ready = selector.select(30)
    assert ready, "nothing for half a minute"
    for key, _ in ready:
        if key.fileobj is listener:
            connection = listener.accept()[0]
            open_[connection] = hashlib.sha256()
            selector.register(connection, selectors.EVENT_READ)
        elif data := key.fileobj.recv(1 << 16):
            open_[key.fileobj].update(data)
        else:
            digest = open_.pop(key.fileobj).hexdigest()
            found[digest] = found.get(digest, 0) + 1
            selector.unregister(key.fileobj)
            key.fileobj.close()
print(found, flush=True)
"""


def test_a_thousand_connections(wire, real_root):
    """On one queue, with one thread: all of them send, and those that have nothing to send own no chunk."""
    many, data = 1000, bytes(range(256)) * 400
    with wire.in_rx():
        reader = subprocess.Popen(
            [sys.executable, "-c", THOUSAND, str(many)], stdout=subprocess.PIPE, text=True
        )
    try:
        port = int(first_line(reader))
        with xsk_engine.open("vtx", tcp=True, umem_mb=64) as engine:
            connections = [engine.tcp(ADDRESS[4], port) for _ in range(many)]
            for connection in connections:
                connection.sendall(data, 60)
            for connection in connections:
                connection.flush(60)
            idle = engine.tcp_stack.rx_chunks
            wait_until(lambda: engine.umem.audit(strict=False).referenced == idle)
            for connection in connections:
                connection.close(60)
        assert reader.communicate(timeout=60)[0].strip() == repr({hashlib.sha256(data).hexdigest(): many})
    finally:
        reader.kill()
        reader.wait(10)

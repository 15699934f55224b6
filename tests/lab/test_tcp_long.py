"""A gigabyte through one connection: every byte arrives, and Wireshark sees nothing that should not be."""

import hashlib
import subprocess
import sys

import pytest
from tcpcapture import IN_VAIN, RETRANSMISSION, SLOWER, captured, seen
from tcppeer import ADDRESS, digest_of, peer
from wire import another_lab, first_line, wait_until

import xsk_engine
from xsk_engine.lab.topology import LabOptions

pytestmark = [pytest.mark.usefixtures("real_root"), pytest.mark.slow]

GIB = 1 << 30
PIECE = 1 << 20


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

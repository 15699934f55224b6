"""TCP over a wire that loses, doubles, reorders, corrupts and delays, to a socket of the kernel's: every byte
arrives once and in order, whatever congestion control there is, and the engine's audit is clean."""

import hashlib

import pytest
from tcppeer import ADDRESS, digest_of, echo, peer
from wire import another_lab

import xsk_engine
from xsk_engine.lab.topology import LabOptions
from xsk_engine.lab.wirespec import parse_wire

pytestmark = pytest.mark.usefixtures("real_root")

FAULTS = {
    "loss": "drop=0.02,seed=1",
    "everything": "drop=0.01,dup=0.02,reorder=0.02,corrupt=0.005,delay=1ms,seed=2",
    "reordering": "reorder=0.05,reorder_by=20,delay=2ms,seed=3",
}
LENGTH = 4_000_000


@pytest.mark.parametrize("congestion", ["cubic", "reno"])
@pytest.mark.parametrize("faults", FAULTS)
def test_every_byte_arrives(real_root, faults, congestion):
    data = hashlib.shake_128(faults.encode()).digest(LENGTH)
    with (
        another_lab(LabOptions(wire=parse_wire(FAULTS[faults]))) as wire,
        peer(wire, digest_of) as one,
        xsk_engine.open("vtx", tcp=True) as engine,
    ):
        with engine.tcp(ADDRESS[4], one.port, congestion=congestion) as connection:
            connection.sendall(data, 60)
            connection.close(60)
        assert one.result() == (LENGTH, hashlib.sha256(data).hexdigest())
        counted, info = wire.faults(), connection.info()
    if faults != "reordering":
        assert counted["dropped_packets"] > 20
        assert info.retransmitted_segments >= counted["dropped_packets"] // 2
    else:
        assert counted["reordered_packets"] > 50
    assert info.acked_bytes == LENGTH


def test_both_directions(real_root):
    """Requests and their answers: what is received is put in order by the peer's sending it again."""
    data = hashlib.shake_128(b"both").digest(300_000)
    with (
        another_lab(LabOptions(wire=parse_wire("drop=0.02,dup=0.01,reorder=0.01,seed=4"))) as wire,
        peer(wire, echo) as one,
        xsk_engine.open("vtx", tcp=True) as engine,
        engine.tcp(ADDRESS[4], one.port) as connection,
    ):
        found = b""
        for at in range(0, len(data), 10_000):
            connection.sendall(data[at : at + 10_000], 60)
            while len(found) < at + 10_000:
                found += connection.recv(65536, 60)
    assert found == data

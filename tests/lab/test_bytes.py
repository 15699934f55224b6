"""Every byte that leaves arrives, over both ways of making a socket, from both chunk sizes."""

import asyncio
from fractions import Fraction

import pytest
from wire import another_lab, frame

from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import WouldBlockError
from xsk_engine.flow import Flow, Traffic
from xsk_engine.lab.topology import LabOptions
from xsk_engine.values import Sequence

RATE = Fraction(10_000)
COUNT = 150  # what the buffer of one UDP socket holds


@pytest.mark.parametrize("backend", [{}, {"tx_metadata_len": 16}], ids=["libxdp", "sockopt"])
@pytest.mark.parametrize("chunk_size", [2048, 4096])
@pytest.mark.parametrize("size", [60, 61, 1514])
def test_a_template_arrives(wire, send, size, chunk_size, backend):
    sent = frame(size)
    with wire.capture() as frames:
        engine = send(Traffic(sent, count=300, rate=RATE), chunk_size=chunk_size, **backend)
    assert frames == [sent] * 300
    snapshot = engine.snapshot()
    assert (snapshot.submitted_packets, snapshot.completed_packets) == (300, 300)
    assert snapshot.completed_bytes == 300 * size
    assert engine.kernel_stats().tx_invalid_descs == 0


@pytest.mark.parametrize("backend", [{}, {"tx_metadata_len": 16}], ids=["libxdp", "sockopt"])
def test_patched_frames_arrive_in_order(wire, send, backend):
    sent = frame(200)
    sequence = {"@42/8": Sequence()}
    with wire.capture() as frames, wire.listening() as receiver:
        send(Traffic(Flow(sent, sequence), count=COUNT, rate=RATE), **backend)
        receiver.settimeout(2)
        # The kernel has checked the checksum of what a socket delivers.
        payloads = [receiver.recv(2048) for _ in range(COUNT)]
    assert [int.from_bytes(f[42:50], "big") for f in frames] == list(range(COUNT))
    assert all(f[50:] == sent[50:] and f[:40] == sent[:40] for f in frames)
    assert payloads == [f[42:] for f in frames]


def test_ipv6(wire, send):
    sent = frame(100, version=6)
    with wire.capture() as frames:
        send(Traffic(sent, count=100, rate=RATE))
    assert frames == [sent] * 100


@pytest.mark.parametrize("size", [4096 + 1, 9014, 18 * 4096])
def test_jumbo_frames_in_several_descs(wire, send, size):
    size = min(size, 65535 + 14)
    with another_lab(LabOptions(mtu=65535)) as jumbo:
        sent = frame(size)
        with jumbo.capture() as frames:
            engine = send(Traffic(sent, count=50, rate=Fraction(2000)))
        assert len(frames) == 50
        assert all(f == sent for f in frames)
        assert engine.snapshot().submitted_descs == 50 * -(-size // 4096)


def test_two_queues_share_a_umem_and_divide_the_count(wire, send):
    sent = frame(60)
    sequence = {"@42/8": Sequence()}
    with wire.capture() as frames:
        engine = send(Traffic(Flow(sent, sequence), count=501, rate=RATE), queues=(0, 1), cpus=(1, 0))
    assert sorted(int.from_bytes(f[42:50], "big") for f in frames) == list(range(501))
    assert list(engine.workers) == [], "closed"
    assert engine.snapshot().completed_packets == 501


def test_a_million_frames_counted_by_the_peer(wire, send):
    with wire.counted() as arrived, wire.listening():
        engine = send(Traffic(frame(60), count=1_000_000))
        assert arrived() == 1_000_000
    assert engine.snapshot().completed_packets == 1_000_000


def test_raw_endpoints_beside_a_flow(wire):
    sent, other = frame(300), frame(300, fill=0x55)
    with wire.capture() as frames, Engine(EngineConfig("vtx")) as engine:
        endpoint = engine.raw(quota_chunks=2)

        async def both():
            running = asyncio.ensure_future(engine.run(Traffic(other, count=200, rate=Fraction(400))))
            for i in range(200):
                data = sent[:42] + i.to_bytes(2, "big") + sent[44:]
                while True:
                    try:
                        endpoint.send(data)
                        break
                    except WouldBlockError:
                        await asyncio.sleep(0.001)
                await asyncio.sleep(0 if wire.roomy else 0.001)  # as fast as the capture can
            await running

        asyncio.run(both())
        stats = endpoint.stats()
        with pytest.raises(ValueError, match="5000 bytes"):
            endpoint.send(bytes(5000))
        endpoint.close()
    raw = [f for f in frames if f[100] != 0x55]
    assert [int.from_bytes(f[42:44], "big") for f in raw] == list(range(200))
    assert len(frames) == 400
    assert stats.submitted_packets == 200
    assert stats.owned_chunks <= 2


def test_numpy_sees_counters_and_umem_without_copies(wire):
    sent = frame(100)
    with wire.capture() as frames, Engine(EngineConfig("vtx")) as engine:
        (page,) = engine.counter_pages()
        assert page["completed_packets"][0] == 0
        asyncio.run(engine.run(Traffic(sent, count=10)))
        assert page["completed_packets"][0] == 10
        with pytest.raises(ValueError, match="read-only"):
            page["turns"] = 1
        chunks = engine.umem.array()
        assert chunks.shape == (1024, 4096)
        (where,) = [i for i, chunk in enumerate(chunks) if bytes(chunk[:100]) == sent]  # the template
    assert page["completed_packets"][0] == 10
    assert bytes(chunks[where, :100]) == sent, "a view keeps the mapping alive"
    assert frames == [sent] * 10

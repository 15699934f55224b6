"""A kernel that gives nothing back, late, or what it never had; and a send buffer with room for some packets.

Completions of veth in copy mode come when the peer's NAPI takes the packets. No NAPI thread of the kernel can
be stopped, and packets that wait behind it (in a bridge and tbf) are no longer the sender's. But with an XDP
program at the peer, napi_defer_hard_irqs and a gro_flush_timeout its NAPI polls once, keeps its notifications
masked, and comes back when the timeout has passed; meanwhile its ring of 256 fills up."""

import asyncio
import contextlib
import ctypes
import errno
import subprocess
import time
from fractions import Fraction

import pytest
from wire import another_lab, during, frame

from xsk_engine import netdev
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import BrokenError
from xsk_engine.flow import Flow, Traffic
from xsk_engine.lab.topology import LabOptions
from xsk_engine.program import PassProgram
from xsk_engine.values import Sequence

pytestmark = pytest.mark.usefixtures("wire", "leaves_nothing")

PEER_RING = 256
_SLOW_NAPI = """mount -t sysfs none /sys && cd /sys/class/net/vrx &&
echo 1000000 > napi_defer_hard_irqs && echo {} > gro_flush_timeout"""


@contextlib.contextmanager
def peer_that_takes_packets_every(seconds):
    """A laboratory. The link goes down before it does, which empties the peer's ring."""
    with another_lab(LabOptions()) as lab:
        with lab.in_rx():
            program = PassProgram(netdev.get("vrx"))
            # The mount is gone with the process.
            script = _SLOW_NAPI.format(int(seconds * 1e9))
            subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True, timeout=10)
        try:
            yield lab
        finally:
            program.close()
            lab.ip("link", "set", "vrx", "down", rx=True)


def kicks_that_rest(seconds):
    """Most that a loop makes while nothing moves: one in 25 us."""
    return int(seconds * 40_000)


@pytest.mark.parametrize("rate", [Fraction(20), Fraction(150)])
def test_a_peer_whose_napi_never_runs(real_root, rate):
    """Named within the second that it may take; its packets are counted as inflight."""
    with peer_that_takes_packets_every(30) as lab:
        started = time.monotonic()
        engine, error = during(lab, Traffic(frame(60), duration_s=10, rate=rate))
        took = time.monotonic() - started
        assert error.errno == errno.ETIMEDOUT
        assert "no completion for too long" in str(error)
        assert took < 1 + 0.5 + 1, "the progress timeout and the drain"
        snapshot = engine.snapshot()
        assert 0 < snapshot.inflight_descs < PEER_RING
        assert snapshot.submitted_packets == snapshot.completed_packets + snapshot.inflight_descs
        assert snapshot.kick_calls < kicks_that_rest(took)


@pytest.mark.parametrize("rate", [Fraction(1000), None], ids=["paced", "max"])
def test_a_peer_whose_napi_never_runs_and_whose_ring_is_full(real_root, rate):
    """Every packet is dropped then: a link that is down."""
    with peer_that_takes_packets_every(30) as lab:
        started = time.monotonic()
        engine, error = during(lab, Traffic(frame(60), duration_s=10, rate=rate), link_timeout_s=0.5)
        took = time.monotonic() - started
        assert error.errno == errno.EBUSY
        assert "every packet was dropped" in str(error)
        assert took < 4
        snapshot = engine.snapshot()
        assert 1000 <= snapshot.dropped_packets < 1200
        assert snapshot.inflight_descs >= PEER_RING - 8
        assert snapshot.kick_calls < 2000 + kicks_that_rest(took)


def test_a_sender_waits_no_longer_than_its_drain_for_such_a_peer(real_root):
    with peer_that_takes_packets_every(30), Engine(EngineConfig("vtx", drain_timeout_s=0.2)) as engine:
        endpoint = engine.raw()
        endpoint.send_many([frame(60)] * 20)
        time.sleep(0.1)
        started = time.monotonic()
        engine.close()
        assert time.monotonic() - started < 1.2
        assert engine.snapshot().inflight_descs > 0
    # What is not completed keeps neither the queue nor the umem.
    with another_lab(LabOptions()), Engine(EngineConfig("vtx")):
        pass


@pytest.mark.parametrize("size", [60, 1514])
@pytest.mark.parametrize("buffer_bytes", [1, 16 << 20], ids=["tiny", "usual"])
def test_a_send_buffer_for_a_few_packets(real_root, monkeypatch, size, buffer_bytes):
    """SO_SNDBUF of 4.5 KiB, the kernel's least, and a peer that takes packets now and then: many a kick
    fails, and every packet is sent."""
    monkeypatch.setattr("xsk_engine.xsk._SEND_BUFFER_BYTES", buffer_bytes)
    count = 30 if buffer_bytes == 1 else 2 * PEER_RING // 3
    with peer_that_takes_packets_every(0.05) as lab, lab.counted() as arrived:
        started = time.monotonic()
        traffic = Traffic(Flow(frame(size), {"@42/8": Sequence()}), count=count)
        engine, error = during(lab, traffic, drain_timeout_s=10)
        took = time.monotonic() - started
        assert error is None
        snapshot = engine.snapshot()
        assert snapshot.completed_packets == arrived() == count
        assert bool(snapshot.kick_eagain) == (buffer_bytes == 1)
        told = (snapshot.kick_eagain, snapshot.kick_ebusy, snapshot.kick_enobufs, snapshot.kick_other)
        assert sum(told) == snapshot.kick_eagain
        assert snapshot.kick_calls < count + kicks_that_rest(took)


def test_a_send_buffer_for_a_few_packets_and_a_peer_that_keeps_up(monkeypatch):
    monkeypatch.setattr("xsk_engine.xsk._SEND_BUFFER_BYTES", 1)
    with another_lab(LabOptions(queues=2)) as lab, lab.counted() as arrived:
        engine, error = during(lab, Traffic(frame(1514), count=50_000), queues=(0, 1))
        assert error is None
        assert engine.snapshot().completed_packets == 50_000
        assert arrived() == 50_000 - engine.snapshot().dropped_packets


# ---- completions that cannot be -------------------------------------------------------------------------


def complete(engine, addr):
    """As a broken kernel would: the real one goes on in its own count, so this is the last that it says."""
    ring = engine.workers[0].xsk.cq
    producer = ctypes.c_uint32.from_address(ring.producer)
    ctypes.c_uint64.from_address(ring.ring + 8 * (producer.value & ring.mask)).value = addr
    producer.value += 1


@pytest.mark.parametrize("kind", ["outside the umem", "never posted", "completed before"])
def test_a_completion_that_cannot_be(kind):
    """The run ends with the addr, endpoints hear of it, and the audit is clean."""
    engine = Engine(EngineConfig("vtx"))
    with engine:
        endpoint = engine.raw()
        endpoint.send(frame(60))
        endpoint.drain()
        addr = {
            "outside the umem": engine.umem.area.length + 64,
            "never posted": engine.umem.area.length - engine.config.chunk_size,
            "completed before": ctypes.c_uint64.from_address(engine.workers[0].xsk.cq.ring).value,
        }[kind]

        async def run():
            task = asyncio.ensure_future(engine.run(Traffic(frame(60), duration_s=5, rate=Fraction(100))))
            await asyncio.sleep(0.1)
            complete(engine, addr)
            await task

        started = time.monotonic()
        with pytest.raises(BrokenError, match=rf"EPROTO: the kernel completed addr {addr:#x}, which was not"):
            asyncio.run(run())
        assert time.monotonic() - started < 2
        with pytest.raises(BrokenError, match="EPROTO"):
            endpoint.send(frame(60))
    snapshot = engine.snapshot()
    assert snapshot.bad_completions == 1
    assert snapshot.submitted_packets == snapshot.completed_packets + snapshot.inflight_descs

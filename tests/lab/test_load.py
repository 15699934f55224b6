"""Much of everything: 10,000 flows, 64 queues."""

import collections
import json
import struct
import threading
from pathlib import Path

import pytest
from wire import another_lab, cli, holdings, wait_until

import xsk_engine
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions

FLOWS, FIRST_PORT = 10_000, 20_000
SLABS = 2 * 16
"""chunks that the loops of two queues have taken and not cut yet"""


def chunks_in_use(engine):
    audit = engine.umem.audit(strict=False)
    return audit.chunks - audit.pooled


# What changes in a packet decides where it is made: 10,000 that stay the same lie in the umem all the time.
@pytest.mark.parametrize(
    ("size", "most_chunks"), [("60", 2 * FLOWS * 64 // 4096 + SLABS), ("60 ; @50/4=random", 64 + SLABS)]
)
def test_ten_thousand_flows_on_two_queues(wire, size, most_chunks):
    text = f"ip dst={topology.RX_IPV4} / udp src={{}} dst=9000 ; size={size}"
    flows = [xsk_engine.parse_flow(text.format(FIRST_PORT + i)) for i in range(FLOWS)]
    with wire.listening(), xsk_engine.open("vtx", queues=(0, 1)) as engine:
        with wire.capture() as frames:
            running = engine.start(flows, rate="15kpps", count=2 * FLOWS)
            wait_until(lambda: running.counts()[FLOWS // 2][0])
            assert 0 < chunks_in_use(engine) <= most_chunks
            running.wait(60)
        assert set(running.counts().values()) == {(2, 120)}
        wait_until(lambda: not chunks_in_use(engine))
        ports = collections.Counter(struct.unpack("!H", frame[34:36])[0] for frame in frames)
        if wire.roomy:
            assert ports == dict.fromkeys(range(FIRST_PORT, FIRST_PORT + FLOWS), 2)
        running = engine.start(flows)
        wait_until(lambda: running.counts()[FLOWS - 1][0])
        running.stop()
        running.wait(5)
        counts = [packets for packets, _ in running.counts().values()]
        assert max(counts) - min(counts) <= 2  # both queues have stopped in the middle
        wait_until(lambda: not chunks_in_use(engine))


# ---- 64 queues ------------------------------------------------------------------------------------------

QUEUES = 64


@pytest.fixture(scope="module")
def wide(wire):
    with another_lab(LabOptions(queues=QUEUES)) as lab:
        yield lab


def test_sixty_four_queues_send_side_by_side(wide):
    """Each with an endpoint and its part of a flow, out of the umem that one queue has by default."""
    flow = xsk_engine.parse_flow(
        f"ip dst={topology.RX_IPV4} / udp src=2000-{2000 + QUEUES - 1} dst=9000 ; size=100 ; @50/4=random"
    )
    with wide.listening(), wide.capture() as frames, xsk_engine.open("vtx", queues=range(QUEUES)) as engine:
        running = engine.start(
            flow, count=10 * QUEUES, rate="5kpps"
        )  # which an ordinary user's capture takes
        for queue in range(QUEUES):
            endpoint = engine.udp((topology.RX_IPV4, 9000), source=(None, 1000 + queue), queue=queue)
            endpoint.send_many([bytes([queue])] * 3)
            endpoint.drain()
        running.wait(20)
        wait_until(lambda: all(one.completed_packets == 13 for one in engine.queue_snapshots()))
        wait_until(lambda: not chunks_in_use(engine))
    sent = collections.Counter((frame[34:36], frame[42]) for frame in frames if len(frame) == 60)
    assert sent == {(struct.pack("!H", 1000 + queue), queue): 3 for queue in range(QUEUES)}
    assert len(frames) == 13 * QUEUES


# Each close waits for the kernel, twice for each queue.
@pytest.mark.parametrize("cycles", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_sixty_four_queues_open_and_close_again_and_again(wide, cycles):
    def cycle():
        with xsk_engine.open("vtx", queues=range(QUEUES)) as engine:
            running = engine.start(
                xsk_engine.parse_flow(f"ip dst={topology.RX_IPV4} / udp dst=9"), count=QUEUES
            )
            running.wait(10)
            assert threading.active_count() >= QUEUES

    cycle()
    before = holdings(), mappings()
    for _ in range(cycles):
        cycle()
    assert holdings() == before[0]
    assert mappings() <= before[1] + 4  # glibc's own


def mappings():
    return Path("/proc/self/maps").read_text().count("\n")


def test_the_command_sends_on_sixty_four_queues(wide):
    command = (
        "send",
        "vtx",
        "--dst-ip",
        topology.RX_IPV4,
        "--dst-port",
        "9000",
        "--queue",
        f"0-{QUEUES - 1}",
        "--count",
        "6400",
    )
    with wide.listening(), wide.counted() as arrived:
        result = cli(*command, "--json")
        assert result.returncode == 0, result.stderr
        assert arrived() == 6400
    report = json.loads(result.stdout)
    assert report["completed_packets"] == 6400
    assert [one["completed_packets"] for one in report["per_queue"]] == [100] * QUEUES

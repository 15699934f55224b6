"""Flows as objects beside application traffic: start, stop, another rate, everybody's turn."""

import threading
import time

import pytest
from wire import PORT, another_lab, wait_until

import xsk_engine
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions

PEER = (topology.RX_IPV4, PORT)


@pytest.fixture
def engine(wire):
    with xsk_engine.open("vtx") as one:
        yield one


def flow(port=PORT, **options):
    return xsk_engine.parse_flow(f"ip dst={topology.RX_IPV4} / udp src=1000-1999 dst={port} ; size=60")


def test_a_counted_flow_ends_by_itself(wire, engine):
    with wire.counted() as arrived, wire.listening():
        running = engine.start(flow(), rate="100kpps", count=1000)
        running.wait(5)
        assert running.done
        assert running.counts() == {0: (1000, 60_000)}
        wait_until(lambda: engine.snapshot().completed_packets == 1000)
        assert arrived() == 1000
    with pytest.raises(xsk_engine.ClosedError, match="it is done"):
        running.set_rate("1kpps")
    running.stop()


def test_again_and_again_on_one_engine(engine):
    for _ in range(50):
        engine.start(flow(), count=100).wait(5)
    wait_until(lambda: engine.snapshot().completed_packets == 5000)
    assert engine.snapshot().active_flows == 0


def test_stop(engine):
    running = engine.start(flow(), rate="10kpps")
    wait_until(lambda: running.counts()[0][0] > 100)
    assert not running.done
    with pytest.raises(xsk_engine.DeadlineError, match="not done yet"):
        running.wait(0.01)
    running.stop()
    running.wait(2)
    sent = running.counts()[0][0]
    time.sleep(0.05)
    assert running.counts()[0][0] == sent == engine.snapshot().submitted_packets


def test_another_rate_while_it_runs(engine):
    """By what the loop itself says of the gaps it was asked for, not by this machine's clock."""
    running = engine.start(flow(), rate="1kpps")
    wait_until(lambda: running.counts()[0][0] > 50)
    for rate, pps in (("20kpps", 20_000), ("1kpps", 1000)):
        running.set_rate(rate)
        first, before = running.counts()[0][0], engine.gaps()
        wait_until(lambda first=first, pps=pps: running.counts()[0][0] > first + pps // 5)
        after = engine.gaps()
        asked = (after.asked_ns - before.asked_ns) / (after.error.count - before.error.count)
        assert 0.9 < asked * pps / 1e9 < 1.1
    running.set_rate(None)
    first = running.counts()[0][0]
    wait_until(lambda: running.counts()[0][0] > first + 100_000)
    running.stop()
    running.wait(2)


def test_a_rate_of_its_own_is_changed_by_its_place(engine):
    own = xsk_engine.parse_flow(f"ip dst={topology.RX_IPV4} / udp dst={PORT} ; rate=1kpps")
    running = engine.start([own, flow()], rate="1kpps")
    running.set_rate("50kpps", flow=0)
    wait_until(lambda: running.counts()[0][0] > 5000)
    assert running.counts()[1][0] < 1000
    with pytest.raises(ValueError, match="flow 1 has no rate of its own"):
        running.set_rate("1kpps", flow=1)
    running.stop()


def test_everybody_has_a_turn(wire, engine):
    """Two flows without a rate and two threads that send all they can: nobody is left out."""
    counts, stop = [0, 0], threading.Event()

    def work(i):
        endpoint = engine.udp(PEER)
        while not stop.is_set():
            counts[i] += endpoint.send_many([b"x" * 18] * 200)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    running = [engine.start(flow()), engine.start(flow())]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    stop.set()
    flows = [one.counts()[0][0] for one in running]
    for one in running:
        one.stop()
    for thread in threads:
        thread.join()
    assert max(flows) < 1.3 * min(flows)
    # An application may be slower than its turn, with two cores for all of this; it is never shut out.
    assert min(counts) > 0.1 * max(flows)


def test_a_flow_without_chunks_is_refused_and_others_go_on(wire):
    with xsk_engine.open("vtx", umem_mb=1) as engine:
        endpoint = engine.udp(PEER)
        frags = engine.udp(PEER, quota_chunks=256).alloc(512, 1400)
        still = xsk_engine.parse_flow(f"ip dst={topology.RX_IPV4} / udp dst={PORT} ; size=60,590,1514")
        running = engine.start(still, count=10)
        with pytest.raises(xsk_engine.BrokenError, match="no chunks for its templates"):
            running.wait(2)
        waiting = engine.start(flow(), count=10)
        with pytest.raises(xsk_engine.DeadlineError, match="not done yet"):
            waiting.wait(1.5)  # longer than the loop's own patience
        frags.release()
        waiting.wait(2)
        endpoint.send(b"x")
        endpoint.drain()
        engine.start(flow(), count=10).wait(2)


def test_two_queues_share_a_running_flow(wire):
    with wire.counted() as arrived, wire.listening():
        with xsk_engine.open("vtx", queues=(0, 1)) as engine:
            running = engine.start(flow(), count=1001)
            running.wait(5)
        assert arrived() == 1001


def test_what_a_traffic_says_for_itself(engine):
    traffic = xsk_engine.Traffic(flow(), count=10)
    with pytest.raises(ValueError, match="of its own"):
        engine.start(traffic, rate="1kpps")
    engine.start(traffic).wait(2)
    with pytest.raises(ValueError, match="rate"):
        engine.start(flow(), rate="nonsense")


def test_the_device_goes_under_it(wire):
    with another_lab(LabOptions()) as lab, xsk_engine.open("vtx") as engine:
        running = engine.start(flow(), rate="10kpps")
        lab.ip("link", "delete", "vtx")
        with pytest.raises(xsk_engine.BrokenError, match=r"vtx.*gone"):
            running.wait(5)

"""The sink on a NIC in zero-copy: the driver receives into its umem, the rest still reaches the kernel."""

import socket

from tests.lab.wire import wait_until
from xsk_engine import netdev, parse_flow
from xsk_engine import open as open_engine
from xsk_engine._ffi import libbpf
from xsk_engine.lab import topology
from xsk_engine.roundtrip import ReturnSink
from xsk_engine.sink import Sink, SinkConfig

SIGNED = f"ip dst={topology.RX_IPV4} / udp src=1000-1015 dst=9000 ; signature ; size=66,590,1514"
COUNT = 2000


def test_a_sink_in_zerocopy(wire, igb):
    with wire.in_rx():
        interface = netdev.get("vrx")
        sink = Sink(SinkConfig("vrx", link_timeout_s=20)).open()
    with sink, wire.listening(9001) as other:
        assert (sink.way.method, sink.way.mode) == ("xdp", "zerocopy"), sink.way.reason
        with wire.in_rx():
            assert libbpf.attached_program(interface.ifindex)[1] == "driver"
        with open_engine("vtx", mode="zerocopy", link_timeout=20) as engine:
            running = engine.start(parse_flow(SIGNED), rate="2kpps", count=COUNT)
            running.wait(30)
            wait_until(lambda: sink.receive_stats().packets >= COUNT, 20)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"to the kernel", (topology.RX_IPV4, 9001))
            other.settimeout(5)
            assert other.recv(100) == b"to the kernel"
    last = sink.snapshot()
    assert last.arrivals.received_packets == COUNT
    assert last.arrivals.lost_packets == last.arrivals.duplicate_packets == last.arrivals.corrupt_packets == 0
    assert last.receive.bad_descs == last.overrun_packets == 0
    assert last.arrivals.flows[0].latency.count == COUNT
    with wire.in_rx():
        assert libbpf.attached_program(interface.ifindex)[0] == 0
        netdev.wait_for_link("vrx", 20)


def test_busy_polling_drives_the_driver(wire, igb):
    """igb names its NAPI instances, so the kernel knows which one a socket in zero-copy belongs to."""
    with wire.in_rx():
        sink = Sink(SinkConfig("vrx", busy_poll=True, link_timeout_s=20)).open()
    with sink:
        assert sink.way.mode == "zerocopy", sink.way.reason
        with open_engine("vtx", mode="zerocopy", link_timeout=20) as engine:
            engine.start(parse_flow(SIGNED), rate="1kpps", count=COUNT).wait(30)
            wait_until(lambda: sink.receive_stats().packets >= COUNT, 20)
        state = sink.way.busy_poll()
    assert state.prefer
    assert all(state.napi_ids)
    assert state.interrupts_deferred is False
    assert "napi_defer_hard_irqs" in state.note  # as the interface is, interrupts come all the same
    last = sink.snapshot()
    assert last.arrivals.received_packets == COUNT
    assert last.overrun_packets == 0
    assert sink.way.receiver._counters.sleeps == 0
    with wire.in_rx():
        netdev.wait_for_link("vrx", 20)


def test_a_reflector(wire, igb):
    """igb's XDP_TX, in between zero-copy sending and the sender's packet socket."""
    with wire.in_rx():
        there = Sink(SinkConfig("vrx", reflect=True, link_timeout_s=20)).open()
    back = ReturnSink(igb, max_flows=1, link_timeout_s=20)
    with there, back:
        with wire.in_rx():
            assert libbpf.attached_program(netdev.get("vrx").ifindex)[1] == "driver"
        with open_engine("vtx", mode="zerocopy", link_timeout=20) as engine:
            running = engine.start(parse_flow(SIGNED), rate="1kpps", count=COUNT)
            running.wait(30)
            wait_until(lambda: back.sink.receive_stats().packets >= COUNT, 20)
    assert there.snapshot().reflected.packets == COUNT
    arrivals = back.sink.snapshot().arrivals
    assert arrivals.received_packets == arrivals.latency.count == COUNT
    assert arrivals.lost_packets == arrivals.duplicate_packets == arrivals.corrupt_packets == 0
    with wire.in_rx():
        assert libbpf.attached_program(netdev.get("vrx").ifindex)[0] == 0
        netdev.wait_for_link("vrx", 20)

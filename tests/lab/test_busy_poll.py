"""The sink that polls: what the kernel says of its sockets, what it receives, and how it ends."""

import json
import subprocess
import sys
import time

import pytest
from wire import PORT, another_lab, cli, first_line, start, wait_until

import xsk_engine
from xsk_engine import busypoll
from xsk_engine._ffi import sockopt
from xsk_engine.errors import BrokenError, UnavailableError
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions
from xsk_engine.sink import Sink, SinkConfig

SIGNED = f"ip dst={topology.RX_IPV4} / udp src=1000-1009 dst={PORT} ; signature"
# Enough for bind; not for SO_PREFER_BUSY_POLL.
WITHOUT_ADMIN = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]


@pytest.fixture
def sink(wire, real_root):
    with wire.in_rx():
        sink = Sink(SinkConfig("vrx", busy_poll=True)).open()
    with sink:
        yield sink


def test_the_options_are_in_effect(sink):
    state = sink.way.busy_poll()
    assert (state.prefer, state.timeout_us) == (True, busypoll.TIMEOUT_US)
    assert len(state.napi_ids) == 2
    # veth names no NAPI instance; older kernels would have learnt it with the first packet.
    assert not any(state.napi_ids)
    assert state.interrupts_deferred is None
    assert "stays awake" in state.note
    assert state.as_dict()["napi_ids"] == [0, 0]


def test_a_sink_that_does_not_poll_has_none_of_them(wire, real_root):
    with wire.in_rx():
        sink = Sink(SinkConfig("vrx", method="xdp")).open()
    with sink:
        assert sink.way.busy_poll() is None
        assert [sockopt.read_busy_poll(xsk.fd) for xsk in sink.way._xsks] == [(False, 0, 0)] * 2


def test_every_packet_is_counted_and_it_never_sleeps(sink):
    with xsk_engine.open("vtx") as engine:
        running = engine.start(
            xsk_engine.parse_flow(f"{SIGNED} ; size=66,590,1514"), rate="20kpps", count=5000
        )
        running.wait(30)
        wait_until(lambda: sink.receive_stats().packets >= 5000)
    sink.stop()
    arrivals = sink.snapshot().arrivals
    assert arrivals.received_packets == arrivals.latency.count == 5000
    assert arrivals.lost_packets == arrivals.corrupt_packets == 0
    counters = sink.way.receiver._counters
    assert counters.sleeps == 0
    assert counters.wakeup_calls > 5000 / 64


def test_an_idle_one_still_stops(sink):
    """Within the deadline of stop(), and its counters are the last ones."""
    counters = sink.way.receiver._counters
    before = counters.wakeup_calls
    wait_until(lambda: counters.wakeup_calls > before + 1000)
    sink.stop()
    assert not sink.way.receiver._thread.is_alive()
    after = counters.wakeup_calls
    time.sleep(0.05)
    assert counters.wakeup_calls == after


def test_a_link_that_goes_and_comes_back_and_a_device_that_goes(wire, real_root):
    with another_lab(LabOptions()) as lab:
        with lab.in_rx():
            sink = Sink(SinkConfig("vrx", busy_poll=True)).open()
        with sink, xsk_engine.open("vtx", link_timeout=None) as engine:
            lab.ip("link", "set", "vrx", "down", rx=True)
            time.sleep(0.1)
            lab.ip("link", "set", "vrx", "up", rx=True)
            engine.start(xsk_engine.parse_flow(SIGNED), rate="1kpps", count=100).wait(30)
            wait_until(lambda: sink.receive_stats().packets >= 90)
            sink.raise_failure()
            lab.ip("link", "delete", "vrx", rx=True)
            wait_until(lambda: sink.way.receiver.failure() is not None)
            with pytest.raises(BrokenError, match="device is gone"):
                sink.raise_failure()


def test_the_command_says_what_became_of_it(wire, real_root):
    with wire.in_rx():
        process = start("sink", "vrx", "--busy-poll", "--json", "--count", "500", "--duration", "30s")
    with process:
        line = first_line(process, of="stderr")
        assert line.startswith("receiving on vrx"), line
        where = ("vtx", "--dst-ip", topology.RX_IPV4)
        done = cli("send", *where, "--signature", "--rate", "20kpps", "--count", "500")
        assert done.returncode == 0, done.stderr
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["received_packets"] == 500
    assert report["busy_poll"]["prefer"] is True
    assert "stays awake" in report["busy_poll"]["note"]


@pytest.mark.parametrize("method", ["auto", "xdp"])
def test_without_the_capability_it_names_the_option(wire, real_root, method):
    """And does not become a packet socket behind its user's back."""
    command = [sys.executable, "-m", "xsk_engine", "sink", "vrx", "--busy-poll", "--method", method]
    with wire.in_rx():
        done = subprocess.run(
            [*WITHOUT_ADMIN, *command, "--duration", "1s"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3, done.stderr
    assert "setsockopt SO_PREFER_BUSY_POLL(vrx, queue 0): EPERM: needs CAP_NET_ADMIN" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_kernel_that_cannot(wire, real_root, monkeypatch):
    monkeypatch.setattr("xsk_engine._ffi.uapi.SO_BUSY_POLL_BUDGET", 30_000)
    sink = Sink(SinkConfig("vrx", busy_poll=True))
    with (
        wire.in_rx(),
        pytest.raises(UnavailableError, match=r"SO_BUSY_POLL_BUDGET.*ENOPROTOOPT.*Linux 5\.11"),
    ):
        sink.open()


def test_packet_sockets_have_none(wire):
    done = cli("sink", "vrx", "--busy-poll", "--method", "packet")
    assert done.returncode == 2
    assert "--busy-poll: not with --method packet" in done.stderr
    with pytest.raises(ValueError, match="busy_poll"):
        SinkConfig("vrx", busy_poll=True, method="packet")

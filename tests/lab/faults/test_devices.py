"""Devices that change or go under a sender: an error that names it within its time, or it goes on; closing
audits, and nothing is left."""

import array
import contextlib
import errno
import os
import subprocess
import threading
import time
from fractions import Fraction

import pytest
from wire import another_lab, during, frame, wait_until

import xsk_engine
from xsk_engine import ethtool
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import UnavailableError
from xsk_engine.flow import Traffic
from xsk_engine.lab import namespaces, private
from xsk_engine.lab.topology import LabOptions

pytestmark = pytest.mark.usefixtures("wire", "leaves_nothing")

PACED = Traffic(frame(60), duration_s=1.0, rate=Fraction(1000))
JUMBO = 9014
_GET_CHANNELS, _SET_CHANNELS = 0x3C, 0x3D  # include/uapi/linux/ethtool.h


def set_channels(interface, queues):
    """As ethtool -L: its rx and tx queues. OSError."""
    now = array.array("I", [_GET_CHANNELS] + [0] * 8)
    ethtool.command(interface, now)
    ethtool.command(interface, array.array("I", [_SET_CHANNELS, *now[1:5], queues, queues, *now[7:]]))


# ---- it goes --------------------------------------------------------------------------------------------


def end_namespace(fd):
    """Nobody else holds it, so it ends now; the fd stays one of something."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


@contextlib.contextmanager
def elsewhere():
    """A process that stands in a network namespace of its own."""
    fd = namespaces.new_network()
    with namespaces.entered(fd):
        process = subprocess.Popen(["sleep", "60"])
    os.close(fd)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def ways_to_go(lab, pid):
    return {
        "the peer is deleted": (("link", "delete", "vrx"), True),
        "the peer's namespace ends": (lambda: end_namespace(lab.lab.rx_fd), False),
        "it moves to another namespace": (("link", "set", "vtx", "netns", str(pid)), False),
    }


WAYS = ["the peer is deleted", "the peer's namespace ends", "it moves to another namespace"]


@pytest.mark.parametrize("rate", [Fraction(1000), None], ids=["paced", "max"])
@pytest.mark.parametrize("way", WAYS)
def test_the_device_is_gone(way, rate):
    with another_lab(LabOptions()) as lab, elsewhere() as pid:
        what, rx = ways_to_go(lab, pid)[way]
        gone_at = []
        traffic = Traffic(frame(60), duration_s=10, rate=rate)
        engine, error = during(
            lab, traffic, (0.2, what, rx), (0.2, lambda: gone_at.append(time.monotonic()), False)
        )
        assert error.errno == errno.ENXIO
        assert "the device is gone" in str(error)
        # The drain has half a second for what the kernel has swallowed.
        assert time.monotonic() - gone_at[0] < 1.5
        snapshot = engine.snapshot()
        assert snapshot.submitted_descs == snapshot.completed_descs + snapshot.inflight_descs


@pytest.mark.parametrize("way", WAYS)
def test_an_endpoint_hears_that_the_device_is_gone(way):
    with another_lab(LabOptions()) as lab, elsewhere() as pid, xsk_engine.open("vtx") as engine:
        what, rx = ways_to_go(lab, pid)[way]
        endpoint = engine.raw()
        endpoint.send(frame(60))
        endpoint.drain()
        if callable(what):
            what()
        else:
            lab.ip(*what, rx=rx)

        def refused():
            try:
                endpoint.send(frame(60))
            except xsk_engine.BrokenError as error:
                return error.errno == errno.ENXIO
            return False

        wait_until(refused, 2)


def test_a_namespace_that_is_deleted_lives_as_long_as_the_engine():
    """`ip netns delete` takes its name. The engine's threads and sockets keep it; afterwards it is gone."""
    lab, _ = private.make(LabOptions())
    try:
        with namespaces.entered(lab.tx_fd):
            engine = xsk_engine.open("vtx")
        end_namespace(lab.tx_fd)

        def is_there():
            with namespaces.entered(lab.rx_fd):
                done = subprocess.run(["ip", "link", "show", "vrx"], capture_output=True, check=False)
            return done.returncode == 0

        with engine:
            running = engine.start(xsk_engine.Flow(frame(60)), rate=1000, count=300)
            running.wait(5)
            wait_until(lambda: engine.snapshot().completed_packets == 300)
            assert is_there()
        wait_until(lambda: not is_there(), 5)
    finally:
        os.close(lab.tx_fd)
        os.close(lab.rx_fd)


# ---- it changes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mtu", "size"), [(1500, 1400), (JUMBO - 14, JUMBO)], ids=["one desc", "jumbo"])
def test_our_mtu_is_lowered(mtu, size):
    """AF_XDP does not look at it: frames leave as they are. What is opened afterwards keeps to it."""
    with another_lab(LabOptions(mtu=mtu)) as lab, lab.counted() as arrived:
        lower = ("link", "set", "vtx", "mtu", "600")
        traffic = Traffic(frame(size), duration_s=0.6, rate=Fraction(1000))
        engine, error = during(lab, traffic, (0.2, lower, False))
        assert error is None
        assert engine.snapshot().completed_packets == arrived() > 500
        with xsk_engine.open("vtx") as engine, pytest.raises(ValueError, match="614"):
            engine.raw().send(frame(size))


def test_the_peers_mtu_is_lowered():
    """The peer drops what is longer. That is counted, and all of it looks like a link that is down."""
    with another_lab(LabOptions()) as lab:
        lower = ("link", "set", "vrx", "mtu", "600")
        engine, error = during(
            lab, Traffic(frame(1400), duration_s=5), (0.2, lower, True), link_timeout_s=0.5
        )
        assert error.errno == errno.EBUSY
        assert "every packet was dropped; check the peer, its link and its MTU" in str(error)
        assert 1000 <= engine.snapshot().dropped_packets < 1200


def test_the_peers_mtu_is_lowered_for_a_while():
    with another_lab(LabOptions()) as lab, lab.counted() as arrived:
        lower, back = (("link", "set", "vrx", "mtu", mtu) for mtu in ("600", "1500"))
        traffic = Traffic(frame(1400), duration_s=1.0, rate=Fraction(5000))
        engine, error = during(lab, traffic, (0.2, lower, True), (2.0, back, True), link_timeout_s=5)
        assert error is None
        snapshot = engine.snapshot()
        assert snapshot.link_down_ns > 1e9
        assert snapshot.completed_packets == snapshot.submitted_packets
        assert arrived() == snapshot.completed_packets - snapshot.dropped_packets > 3000


def test_short_packets_pass_a_lower_mtu():
    """Half of them are dropped, and it is no lost link."""
    with another_lab(LabOptions()) as lab, lab.counted() as arrived:
        lab.ip("link", "set", "vrx", "mtu", "600", rx=True)
        flows = [xsk_engine.Flow(frame(size)) for size in (1400, 60)]
        with xsk_engine.open("vtx", link_timeout=0.5) as engine:
            engine.start(flows, rate=20_000, count=10_000).wait(10)
            wait_until(lambda: engine.snapshot().completed_packets == 10_000)
            assert engine.snapshot().dropped_packets == 5000
            assert not engine.snapshot().link_down_ns
        assert arrived() == 5000


def test_it_gets_another_name():
    """Sockets are bound to the interface, not to its name; and so is the wait for its link."""
    with another_lab(LabOptions()) as lab:
        engine, error = during(
            lab,
            PACED,
            (0.2, ("link", "set", "vtx", "name", "other"), False),
            (0.4, ("link", "set", "other", "down"), False),
            (0.6, ("link", "set", "other", "up"), False),
        )
        assert error is None
        assert engine.snapshot().completed_packets == engine.snapshot().submitted_packets >= 900
        with pytest.raises(UnavailableError, match="no such interface"):
            xsk_engine.open("vtx")


def test_it_gets_another_mac():
    """Frames keep the source address that was looked up when they were made."""
    with another_lab(LabOptions()) as lab, lab.capture() as frames:
        change = ("link", "set", "vtx", "address", "02:77:00:00:00:55")
        _, error = during(lab, Traffic(frame(60), count=300, rate=Fraction(1000)), (0.1, change, False))
        assert error is None
        wait_until(lambda: len(frames) == 300)
    assert {one[6:12] for one in frames} == {bytes.fromhex("027700000001")}


def test_queues_are_taken_away_under_a_sender():
    """The kernel does not let it happen to us; the peer's it does, and its packets go another way."""
    with another_lab(LabOptions(queues=2)) as lab:
        refused = []

        def ours():
            with pytest.raises(OSError, match="Invalid argument") as error:
                set_channels("vtx", 1)
            refused.append(error)

        engine, error = during(
            lab,
            Traffic(frame(60), duration_s=0.8, rate=Fraction(2000)),
            (0.2, ours, False),
            (0.4, lambda: set_channels("vrx", 1), True),
            queues=(0, 1),
        )
        assert refused
        assert error is None
        assert engine.snapshot().completed_packets == engine.snapshot().submitted_packets


def test_queues_were_taken_away_before():
    with another_lab(LabOptions(queues=2)):
        set_channels("vtx", 1)
        with pytest.raises(UnavailableError, match=r"queue 1.*EINVAL.*1 queue\(s\), 0 to 0; see ethtool -l"):
            xsk_engine.open("vtx", queues=(0, 1))
        xsk_engine.open("vtx").close()


@pytest.mark.parametrize("end", ["vtx", "vrx"])
def test_a_carrier_that_flaps(end):
    """Fifty times within five seconds, at either end: no error, and afterwards it sends as before."""
    with another_lab(LabOptions()) as lab, lab.counted() as arrived:
        rx = end == "vrx"
        flaps = [(0.05 * i, ("link", "set", end, "up" if i % 2 else "down"), rx) for i in range(2, 102)]
        traffic = Traffic(frame(60), duration_s=3.0, rate=Fraction(5000))
        engine, error = during(lab, traffic, *flaps)
        assert error is None
        snapshot = engine.snapshot()
        assert snapshot.completed_packets == snapshot.submitted_packets
        assert arrived() <= snapshot.completed_packets - snapshot.dropped_packets
        with xsk_engine.open("vtx") as engine:
            engine.start(xsk_engine.Flow(frame(60)), rate=5000, count=500).wait(5)
            wait_until(lambda: engine.snapshot().completed_packets == 500)
        wait_until(lambda: arrived() >= 500)


def test_everything_at_once():
    """Other names, MTUs and MACs, links that go and come, while a flow and an endpoint send."""
    with another_lab(LabOptions()) as lab, Engine(EngineConfig("vtx")) as engine:
        endpoint, over, errors = engine.raw(), threading.Event(), []

        def send():
            while not over.is_set():
                try:
                    endpoint.send(frame(200))
                except xsk_engine.XskError as error:
                    errors.append(error)
                    return

        thread = threading.Thread(target=send)
        thread.start()
        running = engine.start(xsk_engine.Flow(frame(60)), rate=5000)
        try:
            for i in range(20):
                name, other = ("vtx", "vty") if i % 2 == 0 else ("vty", "vtx")
                lab.ip("link", "set", name, "name", other)
                lab.ip("link", "set", other, "mtu", str(1000 + i), "address", f"02:77:00:00:01:{i:02x}")
                lab.ip("link", "set", ("vrx", other)[i % 2], "down", rx=not i % 2)
                lab.ip("link", "set", ("vrx", other)[i % 2], "up", rx=not i % 2)
        finally:
            over.set()
            thread.join(12)
        assert not thread.is_alive()
        assert not errors
        running.stop()
        running.wait(5)
        endpoint.drain(5)

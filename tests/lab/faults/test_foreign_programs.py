"""Another program attaches and detaches XDP while we send or receive: sending goes on, and what is not ours
is left alone."""

import contextlib
import hashlib
import os
import socket
import subprocess

import pytest
from tcppeer import ADDRESS, digest_of, peer
from wire import PORT, another_lab, cli, frame, wait_until

import xsk_engine
from xsk_engine._ffi import libbpf
from xsk_engine.errors import UnavailableError
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions
from xsk_engine.sink import Sink, SinkConfig

pytestmark = pytest.mark.usefixtures("real_root", "leaves_nothing")

XDP_DROP = 1
MODES = pytest.mark.parametrize("generic", [False, True], ids=["driver", "generic"])


def load(verdict):
    """A program that says so of every packet; its fd."""
    program = (libbpf.BpfInsn * 2)(libbpf.BpfInsn(0xB7, 0, 0, verdict), libbpf.BpfInsn(0x95, 0, 0, 0))
    return libbpf.libbpf.bpf_prog_load(libbpf.BPF_PROG_TYPE_XDP, b"foreign", b"GPL", program, 2, None)


class Foreign:
    """Somebody else's program on an interface, at one end of a laboratory."""

    def __init__(self, lab, end, generic, verdict=libbpf.XDP_PASS):
        self._enter = lab.in_rx if end == "vrx" else contextlib.nullcontext
        self._generic = generic
        self._program = load(verdict)
        self._link = -1
        with self._enter():
            self._ifindex = socket.if_nametoindex(end)

    def attach(self):
        with self._enter():
            self._link = libbpf.attach(self._program, self._ifindex, generic=self._generic)

    def detach(self):
        if self._link >= 0:
            os.close(self._link)
        self._link = -1

    def attached(self):
        """The id of what is attached there, or 0; and how."""
        with self._enter():
            return libbpf.attached_program(self._ifindex)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.detach()
        os.close(self._program)


def await_more(engine, packets):
    before = engine.snapshot().completed_packets
    wait_until(lambda: engine.snapshot().completed_packets >= before + packets)


@MODES
@pytest.mark.parametrize("end", ["vtx", "vrx"])
def test_it_comes_and_goes_while_we_send(end, generic):
    with another_lab(LabOptions()) as lab, lab.counted() as arrived, Foreign(lab, end, generic) as other:
        with xsk_engine.open("vtx") as engine:
            running = engine.start(xsk_engine.Flow(frame(60)), rate=5000)
            for _ in range(5):
                other.attach()
                await_more(engine, 100)
                other.detach()
                await_more(engine, 100)
            other.attach()
            before = other.attached()
            await_more(engine, 100)
            running.stop()
            running.wait(5)
        assert other.attached() == before
        assert before[1] == ("generic" if generic else "driver")
        snapshot = engine.snapshot()
        assert snapshot.completed_packets == snapshot.submitted_packets
        # The peer's driver may lose what is under way when its rings are exchanged.
        assert snapshot.completed_packets - arrived() <= (0 if end == "vtx" or generic else 512)


@MODES
def test_one_that_takes_every_packet(generic):
    """They are sent and completed; that nothing is delivered only the receiver knows."""
    with another_lab(LabOptions()) as lab, lab.counted() as arrived:
        with Foreign(lab, "vrx", generic, XDP_DROP) as other, xsk_engine.open("vtx") as engine:
            other.attach()
            engine.start(xsk_engine.Flow(frame(60)), rate=50_000, count=5000).wait(5)
            wait_until(lambda: engine.snapshot().completed_packets == 5000)
            assert not engine.snapshot().dropped_packets
        assert not arrived()


@MODES
def test_one_that_is_there_when_we_need_the_place(generic):
    with another_lab(LabOptions()) as lab, Foreign(lab, "vtx", generic) as other:
        other.attach()
        before = other.attached()
        with pytest.raises(UnavailableError, match=rf"XDP program id {before[0]} is attached.*not ours"):
            xsk_engine.open("vtx", tcp=True)
        with pytest.raises(UnavailableError, match=rf"XDP program id {before[0]} is attached.*not ours"):
            Sink(SinkConfig("vtx", method="xdp")).open()
        for command in (("sink", "vtx", "--method", "xdp"), ("tcp", "10.77.0.2", "9")):
            done = cli(*command)
            assert done.returncode == 3
            assert f"XDP program id {before[0]} is attached" in done.stderr
        with xsk_engine.open("vtx") as engine:
            engine.raw().send(frame(60))
        assert other.attached() == before


def refused(other):
    """Nobody can put a program into our program's place, or take ours away."""
    mine = other.attached()
    with pytest.raises(OSError, match=r"busy|exists"):
        other.attach()
    for form in ("xdp", "xdpgeneric", "xdpdrv"):
        with other._enter():
            subprocess.run(["ip", "link", "set", "vrx", form, "off"], capture_output=True, check=False)
            subprocess.run(["ip", "link", "set", "vtx", form, "off"], capture_output=True, check=False)
    assert other.attached() == mine != (0, "none")


@MODES
def test_nobody_takes_the_sinks_place(generic):
    """The kernel refuses, and every packet is received."""
    flow = xsk_engine.parse_flow(f"ip dst={topology.RX_IPV4} / udp dst={PORT} ; signature")
    with another_lab(LabOptions()) as lab, Foreign(lab, "vrx", generic) as other:
        with lab.in_rx():
            sink = Sink(SinkConfig("vrx", method="xdp")).open()
        with sink, xsk_engine.open("vtx") as engine:
            running = engine.start(flow, rate=5000, count=3000)
            refused(other)
            running.wait(5)
            wait_until(lambda: sink.receive_stats().packets >= 3000)
        assert not sink.snapshot().arrivals.lost_packets
        assert other.attached() == (0, "none")
        other.attach()  # now it may


@MODES
def test_nobody_takes_the_place_of_tcps(generic):
    data = bytes(range(256)) * (1 << 14)
    with another_lab(LabOptions()) as lab, Foreign(lab, "vtx", generic) as other, peer(lab, digest_of) as one:
        with xsk_engine.open("vtx", tcp=True) as engine, engine.tcp(ADDRESS[4], one.port) as connection:
            connection.sendall(data)
            refused(other)
            connection.sendall(data)
        assert one.result() == (2 * len(data), hashlib.sha256(data * 2).hexdigest())
        assert other.attached() == (0, "none")


@MODES
def test_at_the_peer_while_tcp_sends(generic):
    data = bytes(range(256)) * (1 << 14)
    with another_lab(LabOptions()) as lab, Foreign(lab, "vrx", generic) as other, peer(lab, digest_of) as one:
        with xsk_engine.open("vtx", tcp=True) as engine, engine.tcp(ADDRESS[4], one.port) as connection:
            for _ in range(5):
                other.attach()
                connection.sendall(data)
                other.detach()
                connection.sendall(data)
            other.attach()
            before = other.attached()
        assert one.result() == (10 * len(data), hashlib.sha256(data * 10).hexdigest())
        assert other.attached() == before

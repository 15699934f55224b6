"""Every sender that the benchmark starts, as far as it is installed: what it sends arrives as it says, it can
be stopped and continued, and nothing of it is left when it is killed."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP, in4_pseudoheader
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import raw
from scapy.utils import checksum
from wire import ETH_P_ALL, wait_until

from bench.peers import PEERS, XDP_TRAFFICGEN_BYTES, Stream, iperf3_port, missing, version
from bench.scene import Scene
from xsk_engine.lab import topology

FRAMES = 5
DEADLINE_S = 15.0
IPERF3_HELLO = b"9876"
"""what an iperf3 client says first, in a datagram of its own"""


def ethtool(wire, interface, feature, setting, *, rx=False):
    command = ["ethtool", "-K", interface, feature, setting]
    with wire.in_rx() if rx else open(os.devnull):
        subprocess.run(command, check=True, capture_output=True, timeout=10)


@pytest.fixture
def as_one_wire(wire):
    """vtx cuts UDP itself, so that frames arrive and not 64 KiB of them; vrx takes what XDP sends."""
    ethtool(wire, topology.TX_INTERFACE, "tx-udp-segmentation", "off")
    ethtool(wire, topology.RX_INTERFACE, "gro", "on", rx=True)
    yield
    ethtool(wire, topology.RX_INTERFACE, "gro", "off", rx=True)
    ethtool(wire, topology.TX_INTERFACE, "tx-udp-segmentation", "on")


def arrived(wire, port):
    """The next frames at vrx to a UDP port, as scapy reads them."""
    with wire.in_rx():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with tap:
        tap.bind((topology.RX_INTERFACE, 0))
        tap.settimeout(DEADLINE_S)
        frames, deadline = [], time.monotonic() + DEADLINE_S
        while len(frames) < FRAMES and time.monotonic() < deadline:
            frame, address = tap.recvfrom(1 << 17)
            seen = Ether(frame)
            if address[2] == socket.PACKET_OUTGOING or UDP not in seen or seen[UDP].dport != port:
                continue
            if raw(seen[UDP].payload) != IPERF3_HELLO:
                frames.append(seen)
    assert len(frames) == FRAMES
    return frames


def kind_of_checksum(seen):
    found = seen[UDP].chksum
    if found == 0:
        return "zero"
    if IP in seen and found == 0xFFFF - checksum(in4_pseudoheader(17, seen[IP], len(raw(seen[UDP])))):
        return "offloaded"
    copy = seen.copy()
    del copy[UDP].chksum
    return "right" if Ether(raw(copy))[UDP].chksum == found else "wrong"


def is_quiet(wire):
    scene = Scene(wire.lab, Path())
    before = scene.received()
    time.sleep(0.05)
    return scene.received() == before


def is_listening(wire, port):
    with wire.in_rx():
        lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def group_is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def link():
    command = ["ip", "link", "show", "dev", topology.TX_INTERFACE]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def files_of_dpdk():
    return sorted(Path("/var/run/dpdk").rglob("*")) if Path("/var/run/dpdk").exists() else []


@pytest.mark.usefixtures("real_root", "as_one_wire")
@pytest.mark.parametrize("size", [60, 1514])
@pytest.mark.parametrize("name", PEERS)
def test_it_sends_what_it_says_and_leaves_nothing(name, size, wire, mortal, tmp_path):
    peer, stream = PEERS[name], Stream.of(size, tmp_path)
    if reason := missing(name) or peer.cannot(stream):
        pytest.skip(reason)
    port, six = stream.dst_port, name == "xdp-trafficgen"
    link_before, files_before = link(), files_of_dpdk()
    assert version(name)
    with wire.listening(port):
        if peer.server:
            port = iperf3_port(stream)
            with wire.in_rx():
                server = mortal(subprocess.Popen(peer.server(stream), stdout=subprocess.DEVNULL))
            wait_until(lambda: is_listening(wire, port))
        sender = mortal(
            subprocess.Popen(
                peer.command(stream),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        try:
            for seen in arrived(wire, port):
                assert len(raw(seen)) == (XDP_TRAFFICGEN_BYTES if six else size)
                assert (seen.src, seen.dst) == (stream.src_mac, stream.dst_mac)
                ip, ends = (
                    (IPv6, (stream.src_ipv6, stream.dst_ipv6))
                    if six
                    else (IP, (stream.src_ip, stream.dst_ip))
                )
                assert (seen[ip].src, seen[ip].dst) == ends
                assert kind_of_checksum(seen) == peer.checksum
                if not peer.differs:
                    assert raw(seen) == stream.frame
            os.killpg(sender.pid, signal.SIGSTOP)
            wait_until(lambda: is_quiet(wire))
            os.killpg(sender.pid, signal.SIGCONT)
            arrived(wire, port)
            assert sender.poll() is None
        finally:
            os.killpg(sender.pid, signal.SIGKILL)
            sender.wait(10)
            for command in peer.undo(stream):
                subprocess.run(command, check=True, timeout=10)
        if peer.server:
            assert server.wait(10) is not None
    wait_until(lambda: group_is_gone(sender.pid))
    wait_until(lambda: is_quiet(wire))
    assert link() == link_before
    assert files_of_dpdk() == files_before

"""The commands while their device goes: exit status 1, and one line that says what has happened."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tcppeer import ADDRESS, peer
from wire import another_lab, first_line, frame, is_real_root, start, wait_until

from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions

pytestmark = pytest.mark.usefixtures("wire", "leaves_nothing")

TO = ("vtx", "--dst-ip", topology.RX_IPV4)
PATIENCE_S = 10
"""a drain of half a second, and Python's own end, on a machine that may be busy"""


def last_line(process):
    """What it says at its end, with everything else that it has printed."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, err
    assert "Traceback" not in out + err
    lines = err.splitlines()
    assert [line for line in lines if line.startswith("xsk-engine:")] == lines[-1:], err
    return lines[-1], out


def at_rx(lab, *arguments):
    with lab.in_rx():
        return start(*arguments)


def test_senders_and_sinks(mortal, tmp_path):
    """A veth goes with its peer: at both ends."""
    from scapy.utils import wrpcap

    wrpcap(str(tmp_path / "some.pcap"), [frame(60)] * 10, linktype=1)
    with another_lab(LabOptions(queues=3)) as lab:
        methods = ("xdp", "packet") if is_real_root() else ("packet",)
        sinks = [mortal(at_rx(lab, "sink", "vrx", "--method", method)) for method in methods]
        # Three of them within an ordinary user's locked memory.
        figures = ("--umem-mb", "1", "--jsonl", "-", "--interval", "100ms")
        replay = ("replay", "vtx", str(tmp_path / "some.pcap"), "--loop", "0", "--rate", "1kpps")
        senders = [
            mortal(start("send", *TO, "--rate", "1kpps", *figures)),
            mortal(start("send", *TO, "--queue", "1", *figures)),
            mortal(start(*replay, "--queue", "2", *figures)),
        ]
        for sender in senders:
            assert json.loads(first_line(sender))
        for sink in sinks:
            assert first_line(sink, of="stderr").startswith("receiving on vrx")
        lab.ip("link", "delete", "vrx", rx=True)
        for queue, sender in enumerate(senders):
            line, _ = last_line(sender)
            assert line.startswith(f"xsk-engine: sendto(vtx, queue {queue}): ENXIO: the device is gone")
        for sink in sinks:
            line, _ = last_line(sink)
            assert line == "xsk-engine: receive(vrx): ENXIO: the device is gone"


def test_json_has_the_error(mortal):
    with another_lab(LabOptions()) as lab:
        sender = mortal(start("send", *TO, "--rate", "1kpps", "--json"))
        with lab.counted(9) as arrived:
            wait_until(lambda: arrived() > 10, 20)
        lab.ip("link", "delete", "vtx")
        line, out = last_line(sender)
        error = json.loads(out)["error"]
        assert (error["operation"], error["args"], error["errno"]) == ("sendto", "vtx, queue 0", "ENXIO")
        assert error["message"] in line


def hold(received):
    """Reads, and says how much it has; never ends by itself."""

    def handler(connection):
        while data := connection.recv(1 << 16):
            received.append(len(data))

    return handler


@pytest.mark.parametrize("waits", [False, True], ids=["sends", "waits"])
def test_tcp(real_root, mortal, waits):
    """Also when it only waits for what the peer will say."""
    received = []
    with another_lab(LabOptions()) as lab, peer(lab, hold(received)) as one:
        read, write = os.pipe()
        source = ("--file", "/dev/zero") if not waits else ()
        process = mortal(start("tcp", ADDRESS[4], str(one.port), *source, stdin=read))
        os.close(read)
        os.write(write, b"a first word")
        wait_until(lambda: received, 20)
        lab.ip("link", "delete", "vrx", rx=True)
        line, _ = last_line(process)
        os.close(write)
        assert "the engine has ended: sendto(vtx, queue 0): ENXIO: the device is gone" in line


def sent_bytes():
    """By the kernel's count of this end."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == "vtx":
            return int(figures.split()[8])
    return 0


@pytest.mark.skipif(not shutil.which("iperf3"), reason="iperf3 is not installed")
def test_iperf3(real_root, mortal):
    with another_lab(LabOptions()) as lab:
        with lab.in_rx():
            mortal(subprocess.Popen(["iperf3", "-s", "-1"], stdout=subprocess.DEVNULL))
            wait_until(lambda: ":1451 " in Path("/proc/thread-self/net/tcp6").read_text())  # 5201
        process = mortal(start("iperf3", ADDRESS[4], "--time", "30"))
        wait_until(lambda: sent_bytes() > 10_000_000, 20)
        lab.ip("link", "delete", "vrx", rx=True)
        line, _ = last_line(process)
        assert "the device is gone" in line

"""Capture files through a real interface: what was recorded is what arrives."""

import contextlib
import gzip
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import PcapReader, wrpcap
from wire import cli, snmp, start, wait_until

OURS = {"src": "02:77:00:00:00:01", "dst": "02:77:00:00:00:02"}
MARK = b"replayed"


def one(i, rng):
    body, mac = MARK + i.to_bytes(4, "big") + rng.randbytes(rng.choice([6, 100, 700, 1400])), Ether(**OURS)
    kinds = [
        mac / IP(src="10.1.1.1", dst="10.77.0.2") / UDP(sport=i, dport=9) / body,
        mac / IP(src="10.1.1.1", dst="10.77.0.2") / TCP(sport=i, dport=80, seq=i) / body,
        mac / IPv6(src="fd00::1", dst="fd77::2") / UDP(sport=i, dport=9) / body,
        mac / Dot1Q(vlan=5) / IP(src="10.1.1.1", dst="10.77.0.2") / ICMP() / body,
        mac / ARP(op=2, psrc="10.1.1.1", pdst="10.77.0.2") / body[:18],
        Ether(dst="01:00:5e:00:00:05", src=OURS["src"], type=0x88B5) / body,
    ]
    return kinds[i % len(kinds)]


def made(count):
    """Of all sorts, each one different, marked so that they can be told from the kernels' own."""
    rng = random.Random(count)
    packets = [one(i, rng) for i in range(count)]
    for i, packet in enumerate(packets):
        packet.time = 1_700_000_000 + i * 0.002 + rng.random() * 0.001
    return packets


def written_frames(path, packets, **options):
    wrpcap(str(path), packets, nano=True, **options)
    return [bytes(packet) for packet in packets]


def is_marked(frame):
    return MARK in frame


def replay(*arguments, code=0, **options):
    result = cli("replay", "vtx", *map(str, arguments), "--json", **options)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return json.loads(result.stdout) if result.stdout else result.stderr


@pytest.fixture
def few(wire):
    """As many as a receiver keeps who may not enlarge his buffer."""
    return 600 if wire.roomy else 100


@pytest.mark.parametrize("speed", ["1", "2x", "max"])
@pytest.mark.parametrize("way", ["loaded", "streamed", "gzip", "pipe"])
def test_what_is_in_the_file_arrives_in_order(wire, tmp_path, few, speed, way):
    file = tmp_path / "some.pcap"
    frames = written_frames(file, made(few))
    arguments = {"stdin": None}
    if way == "gzip":
        compressed = tmp_path / "some.pcap.gz"
        compressed.write_bytes(gzip.compress(file.read_bytes()))
        file = compressed
    if way == "pipe":
        arguments = {"stdin": open(file, "rb")}  # noqa: SIM115
        file = "-"
    more = ["--umem-mb", 1] if way == "streamed" else []
    with wire.capture(is_marked) as got:
        report = replay(file, "--speed", speed, *more, **arguments)
        wait_until(lambda: len(got) >= few)
    assert got == frames
    assert report["submitted_packets"] == report["completed_packets"] == few
    assert report["replay"]["packets"] == few
    assert report["replay"]["streamed"] == (way == "pipe")
    if way == "pipe":
        arguments["stdin"].close()
    if speed != "max":
        seconds = (few - 1) * 0.002 / float(speed.removesuffix("x"))
        assert report["duration_s"] == pytest.approx(seconds, rel=0.02, abs=0.05)


def test_a_real_recording(wire, tmp_path):
    """What the kernels of both sides said to each other, recorded by somebody else's program."""
    file = tmp_path / "real.pcapng"
    with wire.in_rx():
        recorder = subprocess.Popen(
            [shutil.which("dumpcap"), "-q", "-n", "-i", "vrx", "-w", str(file)],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    try:
        wait_until(lambda: file.exists() and file.stat().st_size > 0)
        time.sleep(0.2)
        talk(wire)
        time.sleep(0.5)
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.communicate(timeout=10)
    with PcapReader(str(file)) as reader:
        frames = [bytes(packet) for packet in reader]
    assert len(frames) > 60
    assert len({len(frame) for frame in frames}) > 10
    assert {frame[12:14] for frame in frames} >= {b"\x08\x00", b"\x86\xdd"}
    wanted = set(frames)
    for speed in ("1", "2x", "max"):
        with wire.capture(wanted.__contains__) as got:
            replay(file, "--speed", speed)
            wait_until(lambda got=got: len(got) >= len(frames))
        assert got == frames, speed


def talk(wire):
    """TCP, UDP to a closed port and the ICMP that answers, IPv4 and IPv6, in many sizes."""
    for family, there in ((socket.AF_INET, "10.77.0.2"), (socket.AF_INET6, "fd77::2")):
        with wire.in_rx():
            server = socket.socket(family, socket.SOCK_STREAM)
            server.bind((there, 0))
            server.listen()
        with server, socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            with socket.create_connection(server.getsockname()[:2], timeout=5) as client:
                accepted, _ = server.accept()
                with accepted:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for size in (1, 10, 200, 999):
                        client.sendall(bytes(size))
                        accepted.sendall(accepted.recv(4096))
                        client.recv(4096)
            for size in range(1, 1400, 120):
                datagrams.sendto(bytes(size), (there, 9))
                time.sleep(0.005)


def test_again_and_again_without_copying(wire, tmp_path):
    file = tmp_path / "some.pcap"
    frames = written_frames(file, made(30))
    with wire.capture(is_marked) as got:
        report = replay(file, "--loop", 4, "--rate", "2kpps")
        wait_until(lambda: len(got) >= 120)
    assert got == frames * 4
    assert report["replay"]["packets"] == 30
    assert report["duration_s"] == pytest.approx(119 / 2000, rel=0.05, abs=0.02)


def test_a_file_larger_than_the_umem_streams(wire, tmp_path):
    file = tmp_path / "large.pcap"
    packets = [
        Ether(**OURS, type=0x88B5) / Raw(MARK + i.to_bytes(4, "big") + bytes(1488)) for i in range(1000)
    ]
    frames = written_frames(file, packets)
    with wire.capture(is_marked) as got:
        report = replay(file, "--umem-mb", 1, "--rate", "2kpps")
        wait_until(lambda: len(got) >= 1000)
    assert report["replay"]["streamed"]
    assert report["replay"]["chunks"] * 4096 > 1 << 20
    assert got == frames
    report = replay(file, "--umem-mb", 1, "--speed", "max", "--loop", 3)
    assert report["submitted_packets"] == 3000


def test_frames_that_are_too_long(wire, tmp_path):
    file = tmp_path / "long.pcap"
    packets = made(4)
    packets.insert(2, Ether(**OURS, type=0x88B5) / Raw(MARK + bytes(3000)))
    packets[2].time = packets[1].time
    frames = written_frames(file, packets)
    said = replay(file, code=3)
    assert "longer than the interface takes: 1, the longest 3022 bytes" in said
    with wire.capture(is_marked) as got:
        report = replay(file, "--oversize", "skip", "--speed", "max")
        wait_until(lambda: len(got) >= 4)
    assert got == frames[:2] + frames[3:]
    assert report["replay"]["oversize_packets"] == 1
    with wire.capture(is_marked) as got:
        replay(file, "--oversize", "truncate", "--speed", "max")
        wait_until(lambda: len(got) >= 5)
    assert got == [*frames[:2], frames[2][:1514], *frames[3:]]
    with open(file, "rb") as stdin:  # what cannot be read twice is found out on the way
        report = replay("-", "--speed", "max", code=1, stdin=stdin)
    assert "longer than the interface takes" in report["error"]["message"]


def test_edited_packets_are_accepted_by_the_receiver(wire, tmp_path):
    file = tmp_path / "foreign.pcap"
    packets = [
        Ether(src="02:00:00:00:00:11", dst="02:00:00:00:00:12")
        / IP(src="192.0.2.9", dst="198.51.100.7")
        / UDP(sport=5, dport=53)
        / (MARK + bytes(i))
        for i in range(50)
    ]
    written_frames(file, packets)
    before = snmp(wire)
    with wire.listening(9000) as sock:
        sock.settimeout(5)
        replay(file, "--speed", "max", "--map-mac", "--edit", "ip.dst=10.77.0.2",
               "--edit", "ip.src=10.77.0.0/24", "--edit", "port.dst=9000")  # fmt: skip
        for i in range(50):
            payload, sender = sock.recvfrom(4096)
            assert payload == MARK + bytes(i)
            assert sender == ("10.77.0.9", 5)
    after = snmp(wire)
    assert after["UdpInCsumErrors"] == before["UdpInCsumErrors"]
    assert after["IpInHdrErrors"] == before["IpInHdrErrors"]


def test_edits_are_counted(wire, tmp_path):
    file = tmp_path / "some.pcap"
    written_frames(file, made(12))
    report = replay(file, "--speed", "max", "--edit", "ip.dst=fd77::2")
    assert report["replay"]["edited_packets"] == 0, "that is where they go already"
    report = replay(file, "--speed", "max", "--edit", "ip.dst=fd77::3")
    assert report["replay"]["edited_packets"] == 2
    text = cli("replay", "vtx", str(file), "--speed", "max", "--edit", "vlan=3").stderr
    assert "12 packets read, loaded once, 12 edited" in text


def test_a_neighbour_must_be_the_only_one_or_be_named(wire, tmp_path):
    file = tmp_path / "some.pcap"
    written_frames(file, made(1))
    wire.ip("neigh", "replace", "10.77.0.77", "lladdr", "02:77:00:00:00:77", "dev", "vtx", "nud", "permanent")
    try:
        said = replay(file, "--map-mac", code=3)
        assert "which one?" in said
        assert "02:77:00:00:00:77 has 10.77.0.77" in said
        with wire.capture(is_marked) as got:
            replay(file, "--neighbour", "10.77.0.77")
            wait_until(lambda: got)
        assert got[0][:6].hex(":") == "02:77:00:00:00:77"
    finally:
        wire.ip("neigh", "del", "10.77.0.77", "dev", "vtx")


def test_vlan_tags_do_not_count_in_the_mtu(wire, tmp_path):
    file = tmp_path / "full.pcap"
    written_frames(file, [Ether(**OURS, type=0x88B5) / Raw(MARK + bytes(1492))])
    with wire.capture(is_marked) as got:
        replay(file, "--edit", "vlan=7")
        wait_until(lambda: got)
    assert got[0][12:16] == b"\x81\x00\x00\x07"
    assert len(got[0]) == 1518


def test_it_stops_within_a_second_wherever_it_is(wire, tmp_path):
    slow = tmp_path / "slow.pcap"
    packets = made(3)
    for i, packet in enumerate(packets):
        packet.time = 1_700_000_000 + 3600 * i
    written_frames(slow, packets)
    for more in ([], ["--umem-mb", "1"]):
        process = start("replay", "vtx", str(slow), "--json", *more)
        with wire.counted(9) as arrived:
            wait_until(lambda arrived=arrived: arrived() >= 1)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        out, err = process.communicate(timeout=10)
        assert time.monotonic() - asked < 2
        assert process.returncode == 130, err
        assert json.loads(out)["submitted_packets"] == 1


@pytest.mark.parametrize("written", [0, 10, 2000], ids=["nothing", "half a header", "packets"])
@pytest.mark.parametrize("named", [True, False], ids=["fifo", "stdin"])
def test_a_pipe_that_stalls_does_not_hold_it(wire, tmp_path, written, named):
    file, fifo = tmp_path / "some.pcap", tmp_path / "fifo"
    written_frames(file, made(20))
    os.mkfifo(fifo)
    process = start(
        "replay", "vtx", str(fifo) if named else "-", "--json", "--speed", "max", stdin=subprocess.PIPE
    )
    pipe = open(fifo, "wb", buffering=0) if named and written else process.stdin.buffer.raw  # noqa: SIM115
    with process, contextlib.closing(pipe):
        pipe.write(file.read_bytes()[:written])
        time.sleep(2)  # until it waits for more
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        process.wait(timeout=5)
        assert time.monotonic() - asked < 2
        out, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert bool(json.loads(out)["submitted_packets"]) == (written > 1000)


def test_a_pipe_whose_reader_is_stopped_and_continued(wire, tmp_path):
    """Its thread has then written a part of a block."""
    file, count = tmp_path / "many.pcap", 30_000
    wrpcap(str(file), [Ether(**OURS) / IP(src="10.1.1.1", dst="10.77.0.2") / UDP(dport=9) / bytes(500)])
    header, packet = file.read_bytes()[:24], file.read_bytes()[24:]
    file.write_bytes(header + packet * count)
    with subprocess.Popen(["cat", file], stdout=subprocess.PIPE) as source, wire.counted(9) as arrived:
        options = ("--rate", "20kpps", "--json", "--umem-mb", "1")
        process = start("replay", "vtx", "-", *options, stdin=source.stdout)
        source.stdout.close()
        wait_until(lambda: arrived() > 0)
        for _ in range(5):
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.05)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.15)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        report = json.loads(out)
        assert (report["submitted_packets"], report["replay"]["damage"]) == (count, "")
        wait_until(lambda: arrived() == count)


def test_a_pipe_that_starts_late_keeps_its_gaps(wire, tmp_path):
    file = tmp_path / "some.pcap"
    written_frames(file, made(200))
    process = start("replay", "vtx", "-", "--json", "--strict-rate", stdin=subprocess.PIPE)
    time.sleep(1)
    process.stdin.buffer.write(file.read_bytes())
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert json.loads(out)["duration_s"] == pytest.approx(199 * 0.002, rel=0.1)


def test_a_pipe_without_packets_is_an_error(wire, tmp_path):
    file = tmp_path / "none.pcap"
    written_frames(file, [])
    with open(file, "rb") as stdin:
        report = replay("-", code=1, stdin=stdin)
    assert "no packet in it that can be sent" in report["error"]["message"]


def test_a_damaged_file_is_said_to_be(wire, tmp_path):
    file = tmp_path / "cut.pcap"
    written_frames(file, made(10))
    file.write_bytes(file.read_bytes()[:-3])
    report = replay(file, "--speed", "max")
    assert report["submitted_packets"] == 9
    assert "truncated" in report["replay"]["damage"]

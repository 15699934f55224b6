"""The laboratory's wire: what arrives at vrx, told apart by numbers in payloads, against its own counts."""

import ipaddress
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from wire import PORT, another_lab, cli, is_ours, start, wait_until

from xsk_engine import packet
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions
from xsk_engine.lab.wirespec import parse_wire

ALL = "drop=0.03,dup=0.03,reorder=0.03,corrupt=0.03"
HEADERS = {4: 42, 6: 62}


def numbered(number, size=100, version=4, tag=None):
    """A UDP frame with its number three times in the payload, and every other byte known."""
    src, dst = (topology.TX_IPV4, topology.RX_IPV4) if version == 4 else (topology.TX_IPV6, topology.RX_IPV6)
    payload = struct.pack("!I", number) * 3
    payload += bytes((number + i) & 0xFF for i in range(size - HEADERS[version] - len(payload)))
    one = packet.udp_frame(
        packet.parse_mac(topology.RX_MAC),
        packet.parse_mac(topology.TX_MAC),
        ipaddress.ip_address(src),
        ipaddress.ip_address(dst),
        1234,
        PORT,
        payload,
    )
    return one if tag is None else one[:12] + struct.pack("!HH", 0x8100, tag) + one[12:]


def untagged(frame):
    return frame[:12] + frame[16:] if frame[12:14] == b"\x81\x00" else frame


def send_all(frames, pause_s=0.0, group_bytes=1 << 20):
    """A pause behind every 20 frames, or so many bytes."""
    group = max(min(20, group_bytes // len(frames[0])), 1)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind(("vtx", 0))
        for i, one in enumerate(frames):
            sock.send(one)
            if i % group == group - 1:
                time.sleep(pause_s)


class Arrived:
    """What a capture shows of frames `sent[number]`."""

    def __init__(self, sent, frames, shift):
        self.order, self.flipped = [], {}
        for one in frames:
            numbers = struct.unpack_from("!3I", one, shift)
            number = Counter(numbers).most_common(1)[0][0]  # a flipped bit can be in one of the three
            self.order.append(number)
            assert len(one) == len(sent[number])
            if one != sent[number]:
                pairs = enumerate(zip(one, sent[number], strict=True))
                self.flipped[number] = [
                    8 * at + bit for at, (a, b) in pairs for bit in range(8) if (a ^ b) >> bit & 1
                ]
        self.lost = set(range(len(sent))) - set(self.order)
        times = Counter(self.order)
        self.twice = {number for number, n in times.items() if n == 2}
        assert set(times.values()) <= {1, 2}
        assert all(self.order[self.order.index(number) + 1] == number for number in self.twice)
        self.ahead = {}
        """of those that come late: how many later ones came before them"""
        highest, seen = -1, set()
        for number in self.order:
            if number < highest and number not in seen:
                self.ahead[number] = len([other for other in seen if other > number])
            highest = max(highest, number)
            seen.add(number)

    @property
    def fates(self):
        """What does not depend on when a packet was there."""
        return self.lost, self.twice, self.flipped


def through(spec, sent, shift=42, **options):
    """Sends the frames through a wire of their own; what arrived, and the wire's counts."""
    with another_lab(LabOptions(wire=parse_wire(spec), **options)) as lab:
        with lab.capture(lambda one: is_ours(untagged(one))) as frames:
            # An ordinary user's socket holds 208 KiB, with the kernel's overhead: a dozen frames of 9 KB.
            send_all(sent, 0.0005 if lab.roomy else 0.01, 40_000)
            wait_until(lambda: lab.forwarder.page.read()["forward"]["taken_packets"] >= len(sent))
            counts = lab.faults()
        assert counts["missed_packets"] == counts["overrun_packets"] == counts["send_error_packets"] == 0
        assert counts["held_packets"] == 0
        taken, dropped, doubled = (counts[f"{n}_packets"] for n in ("taken", "dropped", "duplicated"))
        assert counts["forwarded_packets"] == taken - dropped + doubled
        # Kernels announce their groups; that is forwarded and does not count as ours.
        assert len(frames) == counts["forwarded_packets"] - (taken - len(sent))
        return Arrived(sent, frames, shift), counts


def assert_exact(arrived, counts, payload_bit):
    assert len(arrived.lost) == counts["dropped_packets"]
    assert len(arrived.twice) == counts["duplicated_packets"]
    assert len(arrived.flipped) == counts["corrupted_packets"]
    assert len(arrived.ahead) == counts["reordered_packets"]
    for bits in arrived.flipped.values():
        assert len(bits) == 1
        assert bits[0] >= payload_bit
    # Before the time is over, or there are no later ones.
    assert all(n <= 3 for n in arrived.ahead.values())
    met = [arrived.lost, arrived.twice, set(arrived.flipped), set(arrived.ahead)]
    assert len(set().union(*met)) == sum(map(len, met))


@pytest.mark.parametrize("seed", [1, 7, 123456789])
def test_every_fault_is_found(wire, seed):
    sent = [numbered(i) for i in range(5000)]
    arrived, counts = through(f"{ALL},seed={seed}", sent)
    assert_exact(arrived, counts, 8 * 42)
    for name in ("dropped", "duplicated", "corrupted", "reordered"):
        # 5000 draws of 0.03: 150, a standard deviation of 12
        assert 90 < counts[f"{name}_packets"] < 210
    assert Counter(arrived.ahead.values()).most_common(1)[0][0] == 3


@pytest.mark.parametrize(
    ("options", "shift"),
    [
        ({"version": 6}, 62),
        ({"tag": 0x6007}, 46),
        ({"size": 9014}, 42),
        ({"size": 9014, "version": 6, "tag": 5}, 66),
    ],
)
def test_other_frames(wire, options, shift):
    sent = [numbered(i, **options) for i in range(600)]
    arrived, counts = through(f"{ALL},seed=3", sent, shift, mtu=9000)
    assert_exact(arrived, counts, 8 * shift)
    assert all(counts[f"{name}_packets"] for name in ("dropped", "duplicated", "corrupted", "reordered"))


def test_same_seed_same_fate(wire):
    sent = [numbered(i) for i in range(2000)]
    first, again, other = (through(f"{ALL},seed={seed}", sent)[0] for seed in (5, 5, 6))
    assert first.fates == again.fates
    assert first.lost != other.lost
    delayed, counts = through(f"{ALL},seed=5,delay=2ms", sent)
    assert delayed.fates == first.fates
    assert_exact(delayed, counts, 8 * 42)


def test_a_clean_wire_changes_nothing(wire):
    sent = [numbered(i, size) for i, size in enumerate([60, 61, 1000, 1514] * 200)]
    arrived, _ = through("clean", sent)
    assert arrived.order == list(range(len(sent)))
    assert not arrived.flipped


def test_every_packet_may_be_met(wire):
    sent = [numbered(i) for i in range(300)]
    assert len(through("drop=1", sent)[0].lost) == 300
    assert len(through("dup=1", sent)[0].twice) == 300
    assert len(through("corrupt=1", sent)[0].flipped) == 300
    assert through("reorder=1", sent)[0].order == list(range(300))  # nobody is left to go ahead


def test_held_back_by_ten(wire):
    arrived, counts = through("reorder=0.01,reorder_by=10,seed=2", [numbered(i) for i in range(3000)])
    assert len(arrived.ahead) == counts["reordered_packets"] > 0
    assert Counter(arrived.ahead.values()).most_common(1)[0][0] == 10


def test_without_a_payload_nothing_is_corrupted(wire):
    empty = [one[:42] + bytes(18) for one in (numbered(i, 42 + 12) for i in range(50))]
    empty = [one[:16] + struct.pack("!H", 28) + one[18:38] + struct.pack("!H", 8) + one[40:] for one in empty]
    with another_lab(LabOptions(wire=parse_wire("corrupt=1"))) as lab, lab.capture() as frames:
        send_all(empty)
        wait_until(lambda: lab.forwarder.page.read()["forward"]["taken_packets"] >= 50)
        counts = lab.faults()
    assert frames == empty
    assert counts["corrupted_packets"] == 0


def internet_checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def answers(n):
    """Echo requests that the receiver's kernel has answered."""
    got = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(2)
        for i in range(n):
            body = struct.pack("!HH", 77, i) + b"is anybody there"
            sock.sendto(echo(8, body), (topology.RX_IPV4, 0))
            while sock.recv(2000)[20:] != echo(0, body):
                pass
            got += 1
    return got


def echo(kind, body):
    """An ICMP message, RFC 792."""
    checksum = internet_checksum(struct.pack("!BBH", kind, 0, 0) + body)
    return struct.pack("!BBH", kind, 0, checksum) + body


@pytest.mark.parametrize("spec", ["clean", "delay=1ms", "drop=0.02,dup=0.02,reorder=0.02,direction=both"])
def test_the_kernels_talk_through_it(wire, spec):
    """ARP and neighbour discovery included; what TCP makes of loss is its own."""
    with another_lab(LabOptions(queues=2, wire=parse_wire(spec))) as lab:
        for rx in (False, True):
            for family in ("-4", "-6"):
                lab.ip(family, "neigh", "flush", "dev", "vrx" if rx else "vtx", "nud", "permanent", rx=rx)
        if "drop" not in spec:
            assert answers(10) == 10
        data = os.urandom(2 << 20)
        for host in (topology.RX_IPV4, topology.RX_IPV6):
            with lab.in_rx():
                server = socket.create_server(
                    (host, 5000), family=socket.AF_INET6 if ":" in host else socket.AF_INET
                )
            with server, socket.create_connection((host, 5000), 10) as client:
                accepted, _ = server.accept()
                accepted.settimeout(20)
                got = bytearray()

                def read(accepted=accepted, got=got):
                    with accepted:
                        while piece := accepted.recv(1 << 16):
                            got.extend(piece)

                thread = threading.Thread(target=read)
                thread.start()
                client.settimeout(20)
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                thread.join(30)
                assert bytes(got) == data
        assert lab.forwarder.page.read()["back"]["taken_packets"] > 0


def test_the_engine_sends_through_it(wire):
    with another_lab(LabOptions(queues=2, wire=parse_wire("drop=0.1,dup=0.1,seed=9"))) as lab:
        with lab.counted() as arrived, lab.listening():
            sent = cli("send", "vtx", "--dst-ip", "10.77.0.2", "--dst-port", str(PORT), "--count", "20k",
                       "--rate", "40kpps", "--queue", "0-1", "--json")  # fmt: skip
            assert sent.returncode == 0, sent.stderr
            counts = lab.faults()
            assert counts["taken_packets"] - counts["missed_packets"] >= 20_000
            assert arrived() == 20_000 - counts["dropped_packets"] + counts["duplicated_packets"]
        assert counts["dropped_packets"] > 1500 < counts["duplicated_packets"]


def test_what_the_far_end_refuses_is_counted(wire):
    with another_lab(LabOptions(wire=parse_wire("clean"))) as lab:
        lab.faults()  # what the kernels announced is through
        before = lab.forwarder.page.read()["forward"]
        lab.ip("link", "set", "vrx", "down", rx=True)
        send_all([numbered(i) for i in range(20)])
        wait_until(lambda: lab.faults()["taken_packets"] - before["taken_packets"] >= 20)
        assert lab.faults()["send_error_packets"] >= 20
        lab.ip("link", "set", "vrx", "up", rx=True)
        with lab.capture() as frames:
            send_all([numbered(i) for i in range(20)])
            wait_until(lambda: len(frames) == 20)


# ---- as commands ----------------------------------------------------------------------------------------

SCRIPT = """
import socket, subprocess, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for i in range(200):
        sock.sendto(b"0123456789", ("10.77.0.2", 9000))
wire = [sys.executable, "-m", "xsk_engine", "lab", "wire", "--json"]
sys.exit(subprocess.run(wire, close_fds=False).returncode)
"""


@pytest.mark.parametrize("prefix", [[], ["unshare", "--user", "--map-root-user"]])
def test_lab_run_with_a_wire(wire, prefix):
    """Once with no right on the host's namespaces."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "xsk_engine", "lab", "run", "--wire", "drop=0.25,seed=4", "--",
         sys.executable, "-c", SCRIPT],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wire"] == "drop=0.25,seed=4"
    counts = report["forward"]
    assert counts["taken_packets"] >= 200
    assert 20 < counts["dropped_packets"] < 80
    assert counts["forwarded_packets"] == counts["taken_packets"] - counts["dropped_packets"]


def forwarders():
    """Processes of wires that run in this machine."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"xsk_engine.lab.forwarder" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_command(wire, number):
    before = forwarders()
    process = start("lab", "run", "--wire", "clean", "--", "sh", "-c", "echo $$; exec sleep 60")
    try:
        assert int(process.stdout.readline()) == process.pid
        ours = forwarders() - before
        assert ours
        process.send_signal(number)
        process.communicate(timeout=10)  # nobody else holds its pipes
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours))
    finally:
        process.kill()
        process.wait()


def test_a_laboratory_without_a_wire_says_so(wire):
    result = cli("lab", "wire", env=os.environ | {"XSK_LAB_WIRE_FD": "999"})
    assert (result.returncode, len(result.stderr.splitlines())) == (3, 1)
    assert "no laboratory of lab run --wire" in result.stderr


@pytest.mark.parametrize(
    ("spec", "says"),
    [("drop=2", "not a chance"), ("nonsense=1", "there is no 'nonsense'"), ("delay=1h", "unknown unit 'h'")],
)
def test_options_are_refused(wire, spec, says):
    result = cli("lab", "run", "--wire", spec, "--", "true")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert says in result.stderr


def test_named_laboratories_with_a_wire(wire, real_root):
    name, spec = f"w{os.getpid()}", "drop=0.5,seed=3"
    up = ("lab", "up", name, "--queues", "2", "--wire", spec)
    try:
        made = cli(*up)
        assert made.returncode == 0, made.stderr
        again = cli(*up)
        assert again.returncode == 0
        assert "up already" in again.stderr
        other = cli("lab", "up", name, "--queues", "2", "--wire", "drop=0.4,seed=3")
        assert other.returncode == 2
        assert f"--wire {spec}" in other.stderr
        assert f"{name}  mtu 1500  queues 2  wire {spec}\n" in cli("lab", "list").stdout
        inside = cli("lab", "exec", name, "wire", "--", "ls", "/sys/class/net")
        assert inside.stdout.split() == ["lo", "w0", "w1"]
        send = f"{sys.executable} -m xsk_engine send vtx --dst-ip 10.77.0.2 --count 1000 --rate 20kpps"
        sent = cli("lab", "exec", name, "tx", "--", *send.split(), "--queue", "0-1")
        assert sent.returncode == 0, sent.stderr
        counts = json.loads(cli("lab", "wire", name, "--json").stdout)["forward"]
        assert counts["taken_packets"] >= 1000
        assert 400 < counts["dropped_packets"] < 600
        assert "tx to rx" in cli("lab", "wire", name).stdout

        pid = forwarder_in(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        assert f"{name}  incomplete" in cli("lab", "list").stdout
        assert "has ended" in cli("lab", "wire", name).stderr
        assert cli(*up).returncode == 0
        pid = forwarder_in(name)
    finally:
        cli("lab", "down", name)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())  # init has seen it end
    assert not [side for side in ("tx", "rx", "wire") if Path(f"/run/netns/{name}-{side}").exists()]
    assert "no such laboratory" in cli("lab", "wire", name).stderr


def test_several_at_once_make_or_remove_the_same_one(wire, real_root):
    """One does it, the others find it done."""
    name = f"o{os.getpid()}"
    try:
        for _ in range(2):
            makers = [start("lab", "up", name, "--queues", "2", "--wire", "clean") for _ in range(3)]
            said = [process.communicate(timeout=60)[1] for process in makers]
            assert [process.returncode for process in makers] == [0, 0, 0], said
            assert sorted("already" in text for text in said) == [False, True, True]
            enders = [start("lab", "down", name) for _ in range(3)]
            said = [process.communicate(timeout=60)[1] for process in enders]
            assert sorted(process.returncode for process in enders) == [0, 3, 3], said
            assert sum("no such laboratory" in text for text in said) == 2
    finally:
        cli("lab", "down", name)


def test_a_program_in_a_laboratory_has_its_signals(wire):
    """Python ignores two of them."""
    result = cli("lab", "run", "--", "sh", "-c", "yes | head -1; grep SigIgn /proc/self/status")
    assert (result.returncode, result.stderr) == (0, "")
    assert int(result.stdout.split()[-1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


def forwarder_in(name):
    inode = os.stat(f"/run/netns/{name}-wire").st_ino
    (pid,) = (pid for pid in forwarders() if os.stat(f"/proc/{pid}/ns/net").st_ino == inode)
    return pid

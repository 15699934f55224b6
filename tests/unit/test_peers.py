"""The commands of bench/peers.py, and the files that they read. scapy is the oracle."""

import re

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import raw
from scapy.utils import rdpcap

from bench import peers, scapy_sender

SIZES = (60, 1514, 9014, 65535)
FIELDS = {
    "interface": "one", "queue": 3, "cpu": 1, "src_mac": "02:00:00:00:00:0a", "dst_mac": "02:00:00:00:00:0b",
    "src_ip": "10.1.2.3", "dst_ip": "10.1.2.4", "src_port": 77, "dst_port": 1234,
}  # fmt: skip


@pytest.fixture
def stream(tmp_path):
    return lambda size=60: peers.Stream.of(size, tmp_path, **FIELDS)


def command(name, stream):
    return peers.PEERS[name].command(stream)


@pytest.mark.parametrize("size", SIZES)
def test_the_frame_is_what_scapy_would_build(size, stream):
    built = (
        Ether(src=FIELDS["src_mac"], dst=FIELDS["dst_mac"])
        / IP(src=FIELDS["src_ip"], dst=FIELDS["dst_ip"])
        / UDP(sport=77, dport=1234)
        / bytes(size - 42)
    )
    seen = Ether(stream(size).frame)
    assert len(seen) == size
    assert (seen.src, seen.dst, seen[IP].src, seen[IP].dst) == (
        built.src, built.dst, built[IP].src, built[IP].dst,
    )  # fmt: skip
    assert raw(seen[UDP]) == raw(Ether(raw(built))[UDP])


@pytest.mark.parametrize("size", SIZES)
def test_scapy_rebuilds_the_same_datagram(size, stream):
    frame = stream(size).frame
    assert raw(Ether(raw(scapy_sender.layers(frame)))[UDP]) == raw(Ether(frame)[UDP])


@pytest.mark.parametrize(
    "name",
    ["AF_PACKET sendmmsg", "AF_PACKET TX_RING", "minimal C AF_XDP sender", "scapy sendp", "scapy L2socket"],
)
def test_the_file_is_the_frame(name, stream):
    one = stream(1514)
    *_, path = [part for part in command(name, one) if part.endswith(".frame")]
    with open(path, "rb") as file:
        assert file.read() == one.frame
    assert "one" in command(name, one)


@pytest.mark.parametrize(
    ("name", "how"), [("sendto", "sendto"), ("sendmmsg", "sendmmsg"), ("UDP_SEGMENT", "segment")]
)
def test_kernel_udp_gets_the_payloads_size(name, how, stream):
    assert command(f"kernel UDP {name}", stream(1514))[1:] == [how, "10.1.2.4", "1234", "1", "1472"]


def test_minimal_gets_its_queue_and_cpu(stream):
    assert command("minimal C AF_XDP sender", stream())[1:5] == ["one", "3", "1", "inf"]


@pytest.mark.parametrize("size", SIZES)
def test_tcpreplays_file_holds_the_frame_some_hundred_times(size, stream):
    one = stream(size)
    packets = rdpcap(command("tcpreplay", one)[-1])
    assert 100 <= len(packets) <= 500
    assert {raw(packet) for packet in packets} == {one.frame}
    assert all(isinstance(packet, Ether) for packet in packets)


@pytest.mark.parametrize("size", [60, 1514, 9014])
def test_trafgens_file_holds_the_frame(size, stream):
    one = stream(size)
    arguments = command("trafgen", one)
    with open(arguments[arguments.index("--conf") + 1]) as file:
        text = file.read()
    head, value, count = re.fullmatch(r"\{ (.*), fill\((0x..), (\d+)\) \}\n", text).groups()
    frame = bytes(int(byte, 16) for byte in head.split(", ")) + bytes([int(value, 16)]) * int(count)
    assert frame == one.frame
    assert ("--jumbo-support" in arguments) == (size > 2016)
    assert {"--no-sock-mem", "--notouch-irq"} <= set(arguments)


@pytest.mark.parametrize("size", [60, 1514])
@pytest.mark.parametrize("name", ["testpmd af_xdp", "testpmd af_packet"])
def test_testpmd_is_told_everything(name, size, stream):
    arguments = command(name, stream(size))
    assert {"--eth-peer=0,02:00:00:00:00:0b", "--tx-ip=10.1.2.3,10.1.2.4", "--tx-udp=77,1234"} <= set(
        arguments
    )
    assert f"--txpkts={size}" in arguments
    assert arguments[arguments.index("--lcores") + 1] == "0@1,1@1"
    assert "iface=one" in arguments[arguments.index("--vdev") + 1]


@pytest.mark.parametrize("size", [9014, 65535])
def test_testpmd_cuts_large_frames_into_two_mbufs_and_has_slots_for_them(size, stream):
    arguments = command("testpmd af_packet", stream(size))
    (parts,) = (part for part in arguments if part.startswith("--txpkts="))
    (mbuf,) = (part for part in arguments if part.startswith("--mbuf-size="))
    lengths = [int(length) for length in parts.split("=")[1].split(",")]
    assert sum(lengths) == size
    assert max(lengths) + 128 <= int(mbuf.split("=")[1]) <= 65535
    slot = int(re.search(r"framesz=(\d+)", " ".join(arguments))[1])
    assert slot >= size + 52
    assert slot % 4096 == 0


def test_iperf3_and_its_server_agree(stream):
    client, server = command("iperf3 -u", stream()), peers.PEERS["iperf3 -u"].server(stream())
    assert client[client.index("-p") + 1] == server[server.index("-p") + 1] == "1235"
    assert (client[client.index("-c") + 1], client[client.index("-l") + 1]) == ("10.1.2.4", "18")


@pytest.mark.parametrize(
    ("name", "sends"),
    [
        ("minimal C AF_XDP sender", SIZES),
        ("trafgen", (60, 1514, 9014)),
        ("testpmd af_xdp", (60, 1514)),
        ("testpmd af_packet", SIZES),
        ("xdp-trafficgen", (60,)),
    ],
)
def test_what_cannot_be_sent_is_said(name, sends, stream):
    can = peers.PEERS[name].cannot
    assert tuple(size for size in SIZES if not can(stream(size))) == sends


def test_the_xdp_driver_refuses_a_large_mtu(tmp_path):
    assert "3506" in peers.PEERS["testpmd af_xdp"].cannot(peers.Stream.of(60, tmp_path, mtu=3507))


def test_an_absent_program_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(peers.shutil, "which", lambda _: None)
    assert peers.missing("trafgen") == "no trafgen; apt-get install netsniff-ng"
    assert peers.version("trafgen") == ""


def test_a_program_that_this_kernel_cannot_run_is_missing_too(monkeypatch):
    monkeypatch.setattr(peers.shutil, "which", lambda name: name)
    monkeypatch.setattr(peers, "_run", lambda _: (1, "first\nno such tracepoint\n"))
    assert "no such tracepoint" in peers.missing("xdp-trafficgen")


@pytest.mark.parametrize(
    ("name", "said", "version"),
    [
        ("trafgen", "trafgen 0.6.8 (Flutternozzle), Git id: (none)\nGNU GPL version 2.0", "trafgen 0.6.8"),
        ("tcpreplay", "tcpreplay version: 4.4.3 (build git:v4.4.3) (debug)\n", "tcpreplay 4.4.3"),
        ("iperf3 -u", "iperf 3.12 (cJSON 1.7.15)\n", "iperf3 3.12"),
        (
            "testpmd af_xdp",
            "EAL: Detected CPU lcores: 2\nEAL: RTE Version: 'DPDK 22.11.11'\n",
            "dpdk-testpmd 22.11.11",
        ),
    ],
)
def test_versions_are_what_programs_say(name, said, version, monkeypatch):
    monkeypatch.setattr(peers.shutil, "which", lambda name: name)
    monkeypatch.setattr(peers, "_run", lambda _: (0, said))
    assert peers.version(name) == version

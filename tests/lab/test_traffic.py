"""Traffic programs on a real wire: what arrives is what scapy, Wireshark and the receiver's kernel call
right."""

import asyncio
import json
import os
import signal
import struct
import time
from fractions import Fraction

import pytest
import tshark
from hypothesis import HealthCheck, Phase, given, settings
from packets import flows, sent, why_wrong
from wire import another_lab, cli, frame, snmp, start, wait_until

from xsk_engine import resolve, sizes
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import UnavailableError
from xsk_engine.flow import Flow, Traffic
from xsk_engine.headers import Header
from xsk_engine.lab.topology import RX_MAC, TX_MAC, LabOptions
from xsk_engine.packet import parse_mac
from xsk_engine.spec import parse_flow
from xsk_engine.values import Random, Range, Sequence

OURS = parse_mac(TX_MAC)
UDP = "ip src=10.77.0.1 dst=10.77.0.2 / udp src=1234 dst=9000"
ETH = f"eth dst={RX_MAC} src={TX_MAC} / "


def to_the_peer(flow):
    """The same flow with the laboratory's MAC addresses."""
    headers = list(flow.template)
    values = {"dst": int.from_bytes(parse_mac(RX_MAC), "big"), "src": int.from_bytes(OURS, "big")}
    headers[0] = Header("eth", values)
    return Flow(**{**vars(flow), "template": tuple(headers)})


def random_programs(wire, send, tmp_path_factory, programs, packets):
    """Frames of random flow programs as they arrived, in a pcap file; and how many."""
    folder = tmp_path_factory.mktemp("random")
    arrived = []

    @given(flows())
    @settings(
        max_examples=programs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    def run(flow):
        flow = to_the_peer(flow)
        with wire.capture(lambda frame: frame[6:12] == OURS) as frames:
            send(Traffic(flow, count=packets, rate=Fraction(15_000)))
        assert len(frames) == packets or not wire.roomy
        wanted = sent(Traffic(flow), packets)
        if not flow.signature:  # which says when
            assert frames == wanted[: len(frames)] or not wire.roomy
        arrived.extend(frames)

    run()
    tshark.write_pcap(folder / "arrived.pcap", arrived)
    return folder, len(arrived)


@pytest.mark.parametrize(("programs", "packets"), [(40, 250), pytest.param(400, 300, marks=pytest.mark.slow)])
def test_wireshark_finds_nothing_wrong_with_random_programs(wire, send, tmp_path_factory, programs, packets):
    folder, arrived = random_programs(wire, send, tmp_path_factory, programs, packets)
    assert arrived > programs * packets // 2
    assert tshark.complaints(folder / "arrived.pcap", folder / "settings") == []
    assert tshark.count(folder / "arrived.pcap", folder / "settings") == arrived


def test_wireshark_would_find_something(tmp_path):
    good = frame(200)
    bad = [good[:24] + b"\1\2" + good[26:], good[:40] + b"\0\1" + good[42:], good[:38] + b"\1\0" + good[40:]]
    tshark.write_pcap(tmp_path / "bad.pcap", [good, *bad, good])
    numbers = [
        line.split("\t")[0] for line in tshark.complaints(tmp_path / "bad.pcap", tmp_path / "settings")
    ]
    assert numbers == ["2", "3", "4"]


MIXTURE = (
    f"{ETH}{UDP} ; @50/4=random ; size=random(60-200) ; weight=6",
    f"{ETH}ip src=10.77.0.1 dst=10.77.0.2 id=random / tcp src=random dst=9 flags=A seq=random ; weight=2",
    f"{ETH}ip src=10.77.0.1 dst=10.77.0.2 / icmp type=0 id=sequence ; @50/8=random",
    f"{ETH}ip src=fd77::1 dst=fd77::2 flow=random / udp src=random dst=9000 ; size=62-300 ; weight=2",
    f"{ETH}ip src=fd77::1 dst=fd77::2 / icmpv6 type=129 seq=sequence ; @80/2=random ; size=100",
)


@pytest.mark.parametrize("packets", [240_000, pytest.param(12_000_000, marks=pytest.mark.slow)])
def test_the_receivers_kernel_finds_no_bad_checksum(wire, send, packets):
    # To closed ports: the kernel verifies those at once, and those for a socket only when they are read.
    before = snmp(wire)
    send(Traffic([parse_flow(text) for text in MIXTURE], count=packets))
    after = snmp(wire)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: n for name, n in grown.items() if "CsumErrors" in name and n} == {}
    assert grown["IpInHdrErrors"] == 0
    assert grown["UdpNoPorts"] == packets * 6 // 12
    assert grown["Udp6NoPorts"] == packets * 2 // 12
    assert grown["TcpInSegs"] == packets * 2 // 12
    assert grown["IcmpInMsgs"] == grown["Icmp6InMsgs"] == packets // 12


def test_the_receivers_kernel_would_find_one(wire, send):
    before = snmp(wire)["UdpInCsumErrors"]
    flow = parse_flow(f"{ETH}ip src=10.77.0.1 dst=10.77.0.2 / udp dst=9000 csum=7")
    send(Traffic(flow, count=10))
    wait_until(lambda: snmp(wire)["UdpInCsumErrors"] == before + 10)


# ---- jumbo frames, offload, timestamps ----------------------------------------------------------------


@pytest.mark.parametrize("size", ["5000", "9014", "60-65549/5953", "random(4000-4200)"])
@pytest.mark.parametrize("extra", ["", "; @50/2=sequence", "; signature", "; @50/2=random ; signature"])
def test_jumbo_frames_with_fields_in_front_and_behind(send, wire, size, extra):
    with another_lab(LabOptions(mtu=65535)) as jumbo:
        if "signature" in extra:
            size = size.replace("60-", "80-")
        flow = parse_flow(f"{ETH}{UDP} ; size={size} ; payload=pattern {extra}")
        with jumbo.capture() as frames:
            send(Traffic(flow, count=40, rate=Fraction(500)))
    assert len(frames) == 40
    expected = sent(Traffic(flow), 40)
    for i, (one, wanted) in enumerate(zip(frames, expected, strict=True)):
        assert not why_wrong(one)
        if "signature" not in extra:
            assert one == wanted, i
        else:
            assert (one[-24:-8], one[42:-24]) == (wanted[-24:-8], wanted[42:-24])


@pytest.mark.parametrize("packet", [UDP, "ip src=fd77::1 dst=fd77::2 / udp src=1 dst=9000"])
def test_the_device_completes_the_checksum(wire, packet):
    before = snmp(wire)
    with wire.listening() as receiver:
        result = cli("send", "vtx", "--packet", f"{packet} ; size=200 ; @70/8=random",
                     "--checksum", "offload", "--count", "100", "--rate", "5kpps")  # fmt: skip
        assert result.returncode == 0, result.stderr
        time.sleep(0.1)
        after = snmp(wire)
        if packet == UDP:
            receiver.settimeout(2)
            payloads = {receiver.recv(2048) for _ in range(100)}
            assert len(payloads) == 100
    assert after["UdpInCsumErrors"] == before["UdpInCsumErrors"]
    assert after["Udp6InCsumErrors"] == before["Udp6InCsumErrors"]


def test_the_kernels_timestamps(wire):
    with wire.counted() as arrived, wire.listening():
        result = cli(
            "send", "vtx", "--packet", UDP, "--timestamps", "--count", "500", "--rate", "5kpps", "--json"
        )
        assert result.returncode == 0, result.stderr
        assert arrived() == 500
    gaps = json.loads(result.stdout)["gaps"]
    assert gaps["wire"]["count"] == gaps["post"]["count"] == 499
    assert sum(n for _, n in gaps["wire"]["buckets"]) == 499
    assert gaps["wire"]["mean_ns"] == pytest.approx(200_000, rel=0.2)


def test_what_a_driver_in_zero_copy_cannot_do_is_refused(wire, monkeypatch):
    from xsk_engine import netdevgenl

    monkeypatch.setattr(netdevgenl, "tx_metadata_features", lambda _: frozenset())
    wanted = frozenset({"checksum"})
    with pytest.raises(UnavailableError, match="checksum"):
        Engine(EngineConfig("vtx", mode="zerocopy", tx_metadata_len=24, tx_metadata=wanted)).open()
    with Engine(EngineConfig("vtx", tx_metadata_len=24, tx_metadata=wanted)) as one:
        assert one.binding.mode == "copy"
        assert "checksum" in one.binding.reason


# ---- while it runs -----------------------------------------------------------------------------


def test_a_neighbours_new_mac_is_followed(wire):
    """Half of it with a template, half with copies."""
    new = bytes.fromhex("027700000099")
    with wire.capture(lambda frame: frame[6:12] == OURS) as frames:
        process = start("send", "vtx", "--packet", "ip dst=10.77.0.2 / udp dst=9000",
                        "--packet", "ip dst=10.77.0.2 / udp dst=9000 ; @50/8=sequence",
                        "--rate", "200pps")  # fmt: skip
        try:
            wait_until(lambda: len(frames) > 20)
            wire.ip("neigh", "replace", "10.77.0.2", "lladdr", new.hex(":"), "dev", "vtx", "nud", "permanent")
            changed = time.monotonic()
            wait_until(lambda: frames[-1][:6] == new)
            took = time.monotonic() - changed
            wait_until(lambda: sum(one[:6] == new for one in frames) > 20)
        finally:
            wire.ip("neigh", "replace", "10.77.0.2", "lladdr", RX_MAC, "dev", "vtx", "nud", "permanent")
            process.terminate()
            process.communicate(timeout=10)
    assert took < 1
    switch = next(i for i, one in enumerate(frames) if one[:6] == new)
    until = max(i for i, one in enumerate(frames) if one[:6] != new and i < switch + 20)
    assert until == switch - 1, "both flows at once"
    numbers = [one[50:58] for one in frames if any(one[50:58])]
    assert numbers == sorted(numbers), "nothing is skipped or repeated"


def test_a_new_route_is_followed(wire):
    old, new = bytes.fromhex("027700000051"), bytes.fromhex("027700000052")
    for last, mac in ((51, old), (52, new)):
        wire.ip(
            "neigh", "replace", f"10.77.0.{last}", "lladdr", mac.hex(":"), "dev", "vtx", "nud", "permanent"
        )
    wire.ip("route", "replace", "10.99.0.0/24", "via", "10.77.0.51")
    with wire.capture(lambda frame: frame[6:12] == OURS) as frames:
        process = start("send", "vtx", "--dst-ip", "10.99.0.7", "--rate", "200pps")
        try:
            wait_until(lambda: len(frames) > 10)
            assert frames[0][:6] == old
            wire.ip("route", "replace", "10.99.0.0/24", "via", "10.77.0.52")
            changed = time.monotonic()
            wait_until(lambda: frames[-1][:6] == new)
            assert time.monotonic() - changed < 1
        finally:
            process.terminate()
            process.communicate(timeout=10)
            wire.ip("route", "del", "10.99.0.0/24")
            for last in (51, 52):
                wire.ip("neigh", "del", f"10.77.0.{last}", "dev", "vtx")


def test_pcap_out_holds_what_was_sent(wire, tmp_path):
    path = tmp_path / "sent.pcap"
    with wire.capture() as frames:
        result = cli("send", "vtx", "--packet", f"{UDP} ; @50/4=random ; size=imix", "--count", "300",
                     "--rate", "3kpps", "--signature", "--size", "80", "--pcap-out", str(path))  # fmt: skip
        assert result.returncode == 2, "a signature does not fit into imix' 60 bytes"
        result = cli("send", "vtx", "--packet", f"{UDP} ; @50/4=random ; size=100:3,300:2,1514:1",
                     "--count", "300", "--rate", "3kpps", "--signature", "--pcap-out", str(path))  # fmt: skip
        assert result.returncode == 0, result.stderr
    written = read_pcap(path)
    assert [data for _, data in written] == frames
    assert len(frames) == 300
    times = [ns for ns, _ in written]
    assert times == sorted(times)
    assert (times[-1] - times[0]) / 299 == pytest.approx(10**9 / 3000, rel=0.02)
    assert abs(times[-1] / 1e9 - time.time()) < 60


def read_pcap(path):
    data, at, found = path.read_bytes(), 24, []
    assert data[:4] == b"\x4d\x3c\xb2\xa1"
    while at < len(data):
        seconds, ns, length, _ = struct.unpack_from("<IIII", data, at)
        found.append((seconds * 10**9 + ns, data[at + 16 : at + 16 + length]))
        at += 16 + length
    return found


def test_only_the_first_packets_into_the_file(wire, tmp_path):
    path = tmp_path / "sent.pcap"
    with wire.counted() as arrived, wire.listening():
        result = cli(
            "send", "vtx", "--packet", UDP, "--count", "100k", "--pcap-out", str(path), "--pcap-count", "70"
        )
        assert result.returncode == 0, result.stderr
        assert arrived() == 100_000
    assert len(read_pcap(path)) == 70


def test_everything_into_the_file_at_full_speed(wire, tmp_path):
    path = tmp_path / "sent.pcap"
    with wire.counted() as arrived, wire.listening():
        result = cli("send", "vtx", "--packet", f"{UDP} ; @50/8=sequence ; size=500", "--count", "100k",
                     "--queue", "0-1", "--pcap-out", str(path))  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert arrived() == 100_000
    numbers = sorted(int.from_bytes(data[50:58], "big") for _, data in read_pcap(path))
    assert numbers == list(range(100_000))


@pytest.mark.parametrize("path", ["/nonexistent/file", "/dev/full"])
def test_a_file_that_cannot_be_written(wire, path):
    result = cli("send", "vtx", "--packet", UDP, "--count", "200k", "--pcap-out", path, timeout=30)
    assert result.returncode == (1 if path == "/dev/full" else 2)
    assert "Traceback" not in result.stderr
    assert path in result.stderr


def test_a_reader_of_the_file_that_has_stopped_holds_nothing_up(wire, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)
    try:
        process = start("send", "vtx", "--packet", f"{UDP} ; size=1514", "--pcap-out", str(path))
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        _, err = process.communicate(timeout=20)
    finally:
        os.close(reader)
    assert time.monotonic() - asked < 6
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_mac_that_was_given_is_not_followed(wire):
    from xsk_engine import netdev

    flow = parse_flow("ip dst=10.77.0.2 / udp dst=9000")
    flow = Flow(flow.template, {"eth.dst": 0x020000000099})
    resolved = resolve.resolve(Traffic(flow), netdev.get("vtx"))
    assert not resolved.followed


# ---- rates and many flows ----------------------------------------------------------------------------------


def test_strict_rate(wire):
    with wire.listening():
        fits = cli("send", "vtx", "--packet", UDP, "--rate", "2kpps", "--duration", "500ms", "--strict-rate")
        assert fits.returncode == 0, fits.stderr
        result = cli(
            "send", "vtx", "--packet", UDP, "--rate", "200Mpps", "--duration", "300ms", "--strict-rate"
        )
    assert result.returncode == 1
    assert "strict-rate" in result.stderr


def test_the_summary_says_how_the_pace_was_kept(wire):
    with wire.listening():
        result = cli(
            "send", "vtx", "--packet", UDP, "--rate", "1Mbps", "--count", "500", "--size", "125", "--json"
        )
    report = json.loads(result.stdout)
    assert report["requested_rate"] == "1Mbps"
    assert report["asked_pps"] == 1000
    assert report["posted_pps"] == pytest.approx(1000, rel=0.02)
    assert abs(report["rate_error_percent"]) < 2
    assert report["gaps"]["post"]["count"] == report["gaps"]["error"]["count"] == 499


def test_a_thousand_flows_from_a_file_on_two_queues(wire, tmp_path):
    path = tmp_path / "flows"
    path.write_text("# a comment\n" + "".join(f"{UDP.replace('1234', str(1000 + i))}\n" for i in range(1000)))
    with wire.capture() as frames:
        result = cli(
            "send", "vtx", "--flows", str(path), "--count", "2000", "--rate", "8kpps", "--queue", "0-1"
        )
        assert result.returncode == 0, result.stderr
    ports = [struct.unpack("!H", one[34:36])[0] for one in frames]
    if wire.roomy:
        assert sorted(ports) == sorted([*range(1000, 2000)] * 2)
    assert not [why for why in map(why_wrong, frames[:50]) if why]


def test_a_scapy_packet_as_template(wire, send):
    from scapy.layers.inet import IP
    from scapy.layers.inet import UDP as ScapyUDP
    from scapy.layers.l2 import Dot1Q, Ether

    packet = Ether(dst=RX_MAC, src=TX_MAC) / Dot1Q(vlan=7) / IP(src="10.77.0.1", dst="10.77.0.2")
    packet = packet / ScapyUDP(sport=1, dport=9) / b"from scapy"
    flow = Flow(packet, {"vlan.id": Range(7, 9), "udp.src": Random(), "ipv4.id": Sequence()})
    with wire.capture(lambda one: one[6:12] == OURS) as frames:
        send(Traffic(flow, count=60, rate=Fraction(3000)))
    assert len(frames) == 60
    assert {one[15] for one in frames} == {7, 8, 9}
    assert all(one.endswith(b"from scapy") and not why_wrong(one) for one in frames)


def test_the_library_resolves_what_a_flow_leaves_open(wire):
    from xsk_engine import netdev

    flow = parse_flow("ip dst=10.77.0.2 / udp dst=9000")
    resolved = resolve.resolve(Traffic(flow, count=5), netdev.get("vtx"))
    assert [list(indexes) for indexes in resolved.followed.values()] == [[0]]
    with wire.capture() as frames, Engine(EngineConfig("vtx")) as engine:
        asyncio.run(engine.run(resolved.traffic))
    assert len(frames) == 5
    assert frames[0][:12] == parse_mac(RX_MAC) + OURS
    assert sizes.of([60]).distinct == (len(frames[0]),)

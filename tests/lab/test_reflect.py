"""Reflectors: what they send back, byte for byte; two of them; and the round trips that senders measure."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import tshark
from packets import why_wrong
from scapy.compat import raw
from scapy.layers.inet import IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from test_measure import QUICK, check_against_itself, measured_lab, report_of
from wire import (
    PORT,
    another_lab,
    cli,
    first_line,
    is_real_root,
    need_real_root,
    says_gone,
    start,
    wait_until,
)

import xsk_engine
from xsk_engine import netdev
from xsk_engine._ffi import libbpf
from xsk_engine.errors import UnavailableError
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.topology import LabOptions
from xsk_engine.lab.wirespec import parse_wire
from xsk_engine.program import PassProgram
from xsk_engine.report import FIELDS
from xsk_engine.roundtrip import ReturnSink
from xsk_engine.sink import Sink, SinkConfig

SIGNATURE, BACK = b"xske", b"kexs"
TO_RX = f"ip dst={topology.RX_IPV4} / udp src=1000 dst={PORT} ; signature"


def needs_root():
    need_real_root()


@contextlib.contextmanager
def reflector(wire, interface="vrx"):
    needs_root()
    with wire.in_rx() if interface == "vrx" else contextlib.nullcontext():
        sink = Sink(SinkConfig(interface, reflect=True)).open()
    with sink:
        yield sink


@contextlib.contextmanager
def returns(wire):
    """The frames that come back to vtx, as a socket of ours sees them; and a sink that checks them."""
    is_back = lambda frame: frame[-24:-20] in (SIGNATURE, BACK)  # noqa: E731
    with ReturnSink(netdev.get("vtx"), max_flows=16, link_timeout_s=5) as back:
        assert not back.notes
        with wire.capture(is_back, at="vtx") as frames:
            yield back.sink, frames


def send(spec, **options):
    """How many packets were submitted."""
    with xsk_engine.open("vtx") as engine:
        running = engine.start(xsk_engine.parse_flow(spec), **options)
        running.wait(30)
        # a flow has ended a moment before the loop's counters say so
        wait_until(lambda: not (now := engine.snapshot()).active_flows and not now.inflight_descs)
        assert not engine.snapshot().dropped_packets
        return engine.snapshot().completed_packets


def opposite(frame):
    """The request that a frame of the reflector answers, by scapy: it is swapped back, and every checksum
    that it has is left as it is."""
    packet = Ether(frame)
    packet.src, packet.dst = packet.dst, packet.src
    for kind in (IP, IPv6):
        if kind in packet:
            packet[kind].src, packet[kind].dst = packet[kind].dst, packet[kind].src
    for kind in (UDP, TCP):
        if kind in packet:
            packet[kind].sport, packet[kind].dport = packet[kind].dport, packet[kind].sport
    whole = raw(packet)
    assert whole[-24:-20] == BACK
    return whole[:-24] + SIGNATURE + whole[-20:]


KINDS = {
    "ipv4": TO_RX,
    "odd length": f"{TO_RX} ; size=67",
    "ipv6": f"ip dst={topology.RX_IPV6} / udp src=1000 dst={PORT} ; signature ; size=86,87",
    "vlan": f"vlan id=7 / ip dst={topology.RX_IPV4} / udp src=1000 dst={PORT} ; signature ; size=90,91",
    "qinq": f"qinq id=5 / vlan id=7 / ip dst={topology.RX_IPV6} / udp dst={PORT} ; signature",
    "tcp": f"ip dst={topology.RX_IPV4} / tcp src=1000 dst=80 flags=S ; signature ; size=100,101",
    "no ip": f"eth dst={topology.RX_MAC} type=0x88b5 ; signature ; size=100",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back(wire, kind, tmp_path, tmp_path_factory):
    """All of it, counted alike by both; right by Wireshark and by scapy, and otherwise as it was sent."""
    count = 100
    with reflector(wire) as sink, returns(wire) as (back, frames), wire.capture(lambda f: True) as seen:
        assert send(KINDS[kind], rate="2kpps", count=count) == count
        wait_until(lambda: len(frames) >= count and back.receive_stats().packets >= count)
    last = sink.snapshot()
    assert last.reflected.packets == len(frames) == count
    assert last.reflected.bytes == sum(map(len, frames))
    assert not last.reflected.refused_packets
    assert not last.arrivals.packets
    assert not [one for one in seen if SIGNATURE in one[-24:]], "the kernel there sees none"
    arrivals = back.snapshot().arrivals
    assert arrivals.received_packets == arrivals.latency.count == count
    assert not arrivals.corrupt_packets + arrivals.lost_packets + arrivals.foreign_packets
    assert not [why for why in map(why_wrong, frames) if why]
    pcap, settings = tmp_path / "back.pcap", tmp_path_factory.getbasetemp() / "tshark"
    tshark.write_pcap(pcap, frames)
    assert tshark.complaints(pcap, settings) == []
    assert tshark.count(pcap, settings) == count
    requests = [opposite(one) for one in frames]
    assert not [why for why in map(why_wrong, requests) if why]
    sent = [one for _, one in xsk_engine_dry(KINDS[kind], count)]
    assert [request[:12] for request in requests] == [one[:12] for one in sent]
    # But for the time in it, and what is summed over that.
    assert [without_time(one) for one in requests] == [without_time(one) for one in sent]


def xsk_engine_dry(spec, count):
    """What is sent, as it is in a dry run."""
    from xsk_engine import dryrun, resolve

    traffic = xsk_engine.Traffic(xsk_engine.parse_flow(spec), count=count)
    return dryrun.packets(resolve.resolve(traffic, netdev.get("vtx")).traffic, count)


def without_time(frame):
    packet = Ether(frame[:-8] + bytes(8))
    for kind in (UDP, TCP):
        if kind in packet:
            packet[kind].chksum = 0
    return raw(packet)


def raw_sender():
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind(("vtx", 0))
    return sock


def signed(packet, sequence=0):
    return raw(packet / (bytes(10) + SIGNATURE + struct.pack("!IQQ", 0, sequence, 1)))


def ether(dst=topology.RX_MAC):
    return Ether(src=topology.TX_MAC, dst=dst)


V4 = {"src": topology.TX_IPV4, "dst": topology.RX_IPV4}


def test_what_is_left_to_the_kernel(wire):
    """Nobody may be made to answer with an address of many; and no fragment comes back alone."""
    udp = UDP(sport=1000, dport=PORT)
    whole = signed(ether() / IP(**V4) / udp)
    pieces = fragment(IP(whole[14:]), 16)
    refused = [
        signed(ether("ff:ff:ff:ff:ff:ff") / IP(**V4) / udp),
        signed(ether("01:00:5e:01:02:03") / IP(src=V4["src"], dst="239.1.2.3") / udp),
        signed(ether() / IP(src=V4["src"], dst="239.1.2.3") / udp),
        signed(ether() / IP(src=V4["src"], dst="255.255.255.255") / udp),
        signed(ether() / IPv6(src=topology.TX_IPV6, dst="ff02::1") / udp),
        raw(ether() / IP(raw(IP(**V4, flags="MF", proto=17) / raw(udp) / (SIGNATURE + bytes(20))))),
        raw(ether() / pieces[-1])[:34] + SIGNATURE + bytes(20),
        raw(ether())[:12] + b"\x08\x00" + b"\x41" + bytes(11) + SIGNATURE + bytes(20),  # an IHL below 5
    ]
    unsigned = [raw(ether() / IP(**V4) / udp / bytes(40)), raw(ether())[:14] + bytes(46)]
    with reflector(wire) as sink, returns(wire) as (_, frames), raw_sender() as sock:
        for frame in (*refused, *unsigned):
            sock.send(frame)
        wait_until(lambda: sink.snapshot().reflected.refused_packets >= len(refused))
        for i, options in enumerate(([], [IPOption_Router_Alert()])):
            sock.send(signed(ether() / IP(**V4, options=options) / udp, i))
        wait_until(lambda: len(frames) >= 2)
    assert sink.snapshot().reflected.refused_packets == len(refused)
    assert sink.snapshot().reflected.packets == len(frames) == 2
    assert not [why for why in map(why_wrong, frames) if why]
    assert [Ether(one)[UDP].dport for one in frames] == [1000, 1000]


@pytest.mark.parametrize("size", [4000, 9014])
def test_packets_of_several_fragments(wire, size):
    with another_lab(LabOptions(mtu=9000)) as lab, reflector(lab) as sink, returns(lab) as (back, frames):
        with xsk_engine.open("vtx", umem_mb=8) as engine:
            engine.start(xsk_engine.parse_flow(f"{TO_RX} ; size={size}"), rate="1kpps", count=100).wait(30)
            wait_until(lambda: back.receive_stats().packets >= 100)
        wait_until(lambda: len(frames) >= 100 or not lab.roomy)
    assert sink.snapshot().reflected.bytes == 100 * size
    arrivals = back.snapshot().arrivals
    assert (arrivals.received_packets, arrivals.received_bytes) == (100, 100 * size)
    assert not arrivals.corrupt_packets
    assert not [why for why in map(why_wrong, frames[:5]) if why]


def test_two_reflectors_do_not_play_ping_pong(wire):
    """What one has sent back, none sends back again, wherever it goes."""
    with (
        reflector(wire) as far,
        reflector(wire, "vtx") as near,
        wire.capture(lambda frame: frame[-24:-20] == BACK, at="vtx") as frames,
    ):
        send(TO_RX, rate="10kpps", count=1000)
        wait_until(lambda: len(frames) >= 1000 or not wire.roomy)
    assert far.snapshot().reflected.packets == 1000
    assert near.snapshot().reflected.packets == near.snapshot().reflected.refused_packets == 0


# ---- the ends -----------------------------------------------------------------------------------------


def attached(wire):
    with wire.in_rx():
        return libbpf.attached_program(socket.if_nametoindex("vrx"))[0]


@contextlib.contextmanager
def command(wire, *arguments):
    """`sink vrx --reflect`, once it does."""
    needs_root()
    with wire.in_rx():
        process = start("sink", "vrx", "--reflect", *arguments)
    with process:
        try:
            line = first_line(process, of="stderr")
            assert line.startswith("reflecting on vrx"), line
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(10)


def test_nothing_stays_attached(wire):
    with command(wire) as process:
        assert attached(wire)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        wait_until(lambda: not attached(wire))
    with command(wire):
        assert attached(wire)
    assert not attached(wire)
    assert not libbpf.attached_program(socket.if_nametoindex("vtx"))[0]


@pytest.mark.parametrize("how", [("--reflect",), ("--method", "xdp", "--port", "9")], ids=" ".join)
def test_the_capabilities_that_are_named_are_enough(wire, how):
    """Without CAP_PERFMON the verifier allows less of a program."""
    needs_root()
    few = "--bounding-set=-all,+bpf,+net_admin,+net_raw,+ipc_lock,+dac_override"
    with wire.in_rx():
        sink = (sys.executable, "-m", "xsk_engine", "sink", "vrx", *how, "--duration", "100ms")
        done = subprocess.run(
            ["setpriv", few, *sink], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr


def test_a_device_that_goes(wire):
    with another_lab(LabOptions()) as lab, reflector(lab) as sink:
        sink.raise_failure()
        lab.ip("link", "delete", "vrx", rx=True)
        wait_until(lambda: says_gone(sink))


def test_where_no_program_may_be_attached(wire, monkeypatch):
    """It never falls back to a packet socket, which sends nothing back."""
    with wire.in_rx():
        if not is_real_root():
            done = cli("sink", "vrx", "--reflect")
            assert (done.returncode, "CAP_BPF" in done.stderr) == (3, True), done.stderr
        done = cli("sink", "vrx", "--reflect", "--method", "packet")
        assert (done.returncode, "sends nothing back" in done.stderr) == (3, True), done.stderr
        for given in (("--port", "9"), ("--queue", "0"), ("--pcap", "-"), ("--expect", "lossless")):
            done = cli("sink", "vrx", "--reflect", *given)
            assert (done.returncode, given[0] in done.stderr) == (2, True), done.stderr
        monkeypatch.setattr("xsk_engine.steering._PROGRAM", "nosuch.o")
        with pytest.raises(UnavailableError):
            Sink(SinkConfig("vrx", reflect=True)).open()


def test_its_own_report(wire, tmp_path):
    lines = tmp_path / "l.jsonl"
    told = ("--json", "--jsonl", str(lines), "--interval", "100ms", "--csv", str(tmp_path / "t.csv"))
    with command(wire, "--count", "2000", "--duration", "30s", *told) as process:
        send(f"{TO_RX} ; size=100", rate="10kpps", count=2000)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert (report["reflected_packets"], report["reflected_bytes"], report["refused_packets"]) == (
        2000,
        200_000,
        0,
    )
    assert (report["packets"], report["lossless"], report["latency_kind"]) == (0, None, None)
    assert report["pps"] > 0
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sum(one["reflected_packets"] for one in records[:-1]) == 2000
    with command(wire, "--idle", "200ms") as process:
        send(TO_RX, rate="10kpps", count=10)
        _, err = process.communicate(timeout=20)
    assert "10 reflected, 660 bytes" in err


# ---- round trips --------------------------------------------------------------------------------------


def test_send_tells_the_round_trip(wire):
    what = ("send", "vtx", "--dst-ip", topology.RX_IPV4, "--signature", "--rtt", "--rate", "10kpps")
    with command(wire):
        done = cli(*what, "--count", "5000", "--src-port", "1000-1009", "--json", "--jsonl", os.devnull)
        text = cli(*what, "--count", "100")
        six = cli(
            "send", "vtx", "--packet", f"ip dst={topology.RX_IPV6} / udp ; signature", "--rtt", "--count", "9"
        )
    rtt = report_of(done)["rtt"]
    assert {f"rtt.{name}" for name in rtt} == {name for name in FIELDS if name.startswith("rtt.")}
    assert (rtt["sent_packets"], rtt["received_packets"], rtt["lost_packets"]) == (5000, 5000, 0)
    assert rtt["latency"]["count"] == 5000
    times = [rtt["latency"][f"{name}_ns"] for name in ("min", "p50", "p90", "p99", "p99_9", "max")]
    assert times[0] > 0
    assert times == sorted(times)
    assert not libbpf.attached_program(socket.if_nametoindex("vtx"))[0]
    assert "100 of 100 came back, 0 lost" in text.stderr
    assert "round trip min" in text.stderr
    assert "9 of 9 came back" in six.stderr


def test_nobody_sends_anything_back(wire):
    what = ("send", "vtx", "--dst-ip", topology.RX_IPV4, "--count", "10", "--rtt")
    done = cli(*what, "--signature")
    assert done.returncode == 0
    assert "0 of 10 came back, 10 lost" in done.stderr
    assert (cli(*what).returncode, cli(*what, "--signature", "--dry-run").returncode) == (2, 2)


def test_the_kernel_of_the_sender_does_not_answer(wire):
    """Packets that come back are for ports that nobody has; a kernel would say so, to each."""

    def unanswered():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Udp:"))
        return int(dict(zip(names, values, strict=True))["NoPorts"])

    before = unanswered()
    with command(wire):
        what = ("--signature", "--rtt", "--rate", "10kpps", "--count", "500", "--src-port", "1000-1063")
        done = cli("send", "vtx", "--dst-ip", topology.RX_IPV4, *what)
    assert "500 of 500 came back" in done.stderr
    assert unanswered() == before


def test_a_wire_that_drops_both_ways(wire):
    """What is missing has been lost on the one way or on the other; the wire knows how much."""
    needs_root()
    spec = parse_wire("drop=0.02,dup=0.01,seed=5,direction=both")
    with another_lab(LabOptions(wire=spec)) as lab, contextlib.ExitStack() as stack:
        with namespaces.entered(lab.lab.wire_net_fd):  # veth needs a program to take what is sent back
            stack.callback(PassProgram(netdev.get("w1")).close)
        sink = stack.enter_context(reflector(lab))
        back, _ = stack.enter_context(returns(lab))
        send(TO_RX, rate="10kpps", count=5000)
        done = lab.forwarder.page.settled(5.0)
        wait_until(lambda: back.receive_stats().packets >= sink.snapshot().reflected.packets * 0.9)
    there, here = done["forward"], done["back"]
    assert not there["missed_packets"] + here["missed_packets"], "this machine was too slow for the wire"
    reflected = sink.snapshot().reflected.packets
    assert reflected == 5000 - there["dropped_packets"] + there["duplicated_packets"]
    arrivals = back.snapshot().arrivals
    assert arrivals.packets == reflected - here["dropped_packets"] + here["duplicated_packets"]
    assert min(there["dropped_packets"], here["dropped_packets"], arrivals.duplicate_packets) > 0


def test_measure_there_and_back(wire):
    with measured_lab() as (lab, options), command(lab):
        asked = ("--size", "124", *QUICK, "--rate", "20kpps", "--load", "50")
        report = report_of(
            cli("measure", "vtx", "--reflector", topology.RX_IPV4, *asked, "--json", **options)
        )
        six = (
            "--reflector",
            topology.RX_IPV6,
            "--size",
            "60",
            *QUICK,
            "--rate",
            "2kpps",
            "--tests",
            "latency",
        )
        text = cli("measure", "vtx", *six, **options)
    check_against_itself(report)
    assert report["latency_kind"] == "round-trip"
    assert report["topology"]["rx"]["reflector"] == topology.RX_IPV4
    assert report["topology"]["rx"]["method"] == "packet"
    assert any(one["received_packets"] for one in report["trials"])
    assert text.returncode == 0, text.stderr
    assert "Round-trip latency" in text.stderr
    assert f"{topology.RX_IPV6} and back" in text.stderr


def test_what_measure_refuses(wire):
    with measured_lab() as (_, options):
        done = cli("measure", "vtx", "--reflector", topology.RX_IPV4, *QUICK, **options)
        assert (done.returncode, "sink INTERFACE --reflect run there?" in done.stderr) == (1, True), (
            done.stderr
        )
        for wrong in (
            (),
            ("vrx", "--reflector", topology.RX_IPV4),
            ("--reflector", "nowhere"),
            ("--reflector", topology.RX_IPV4, "--method", "xdp"),
            ("--reflector", topology.RX_IPV4, "--dst-ip", "10.0.0.1"),
        ):
            assert cli("measure", "vtx", *wrong, **options).returncode == 2, wrong


def test_one_way_is_called_so(wire):
    with measured_lab() as (_, options):
        asked = ("--size", "124", "--tests", "loss", "--rate", "2kpps", *QUICK)
        report = report_of(cli("measure", "vtx", "vrx", *asked, "--json", **options))
    assert report["latency_kind"] == "one-way"

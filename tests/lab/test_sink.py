"""The sink against senders, the wire's own counts, and what else comes to its interface."""

import contextlib
import csv
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from wire import (
    PORT,
    another_lab,
    cli,
    exit_code_of,
    first_line,
    is_real_root,
    need_real_root,
    says_gone,
    start,
    wait_until,
)

import xsk_engine
from xsk_engine import sinksession
from xsk_engine._ffi import libbpf
from xsk_engine.capture import PcapWriter
from xsk_engine.errors import ClosedError, QueueTakenError, UnavailableError
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions
from xsk_engine.lab.wirespec import parse_wire
from xsk_engine.sink import Sink, SinkConfig
from xsk_engine.sinksession import Until
from xsk_engine.steering import Match

SIGNED = f"ip dst={topology.RX_IPV4} / udp src=1000-1009 dst={PORT} ; signature"


@pytest.fixture(params=["xdp", "packet"])
def method(request, wire):
    if request.param == "xdp":
        need_real_root()
    return request.param


@contextlib.contextmanager
def sink_of(wire, **options):
    with wire.in_rx():
        sink = Sink(SinkConfig("vrx", **options)).open()
    with sink:
        yield sink


def send(engine, spec, **options):
    """All of it, with what it has counted per flow."""
    flows = [xsk_engine.parse_flow(one) for one in ([spec] if isinstance(spec, str) else spec)]
    running = engine.start(flows, **options)
    running.wait(30)
    counts = running.counts()
    wait_until(lambda: not (now := engine.snapshot()).active_flows and not now.inflight_descs)
    return counts


def settled(sink, expected):
    """Its arrivals once so many have been looked at."""
    wait_until(lambda: sink.receive_stats().packets >= expected)
    return sink.snapshot().arrivals


def test_who_is_told_that_it_receives_may_raise(wire, tmp_path):
    """A stderr whose reader is gone, say: nobody reads the capture any more when it is freed."""

    def tell(_sink):
        raise BrokenPipeError

    config = SinkConfig("vrx", method="packet", capture=True)
    with wire.in_rx(), open(tmp_path / "x.pcap", "wb", buffering=0) as file, pytest.raises(BrokenPipeError):
        sinksession.run(config, Until(), pcap_out=file, on_open=tell)
    assert not [one for one in threading.enumerate() if one.name == "pcap-out"]


# ---- counting -----------------------------------------------------------------------------------------


def test_every_packet_is_counted(wire, method):
    with sink_of(wire, method=method) as sink, xsk_engine.open("vtx") as engine:
        send(engine, f"{SIGNED} ; size=66,590,1514", rate="50kpps", count=20_000)
        settled(sink, 20_000)
        assert sink.way.method == method
    last = sink.snapshot()
    arrivals = last.arrivals
    assert arrivals.packets == arrivals.received_packets == last.receive.packets == 20_000
    assert arrivals.received_bytes == last.receive.bytes == engine.snapshot().completed_bytes
    (flow,) = arrivals.flows
    assert (flow.first_sequence, flow.highest_sequence) == (0, 19_999)
    assert (flow.lost_packets, flow.duplicate_packets, flow.reordered_packets) == (0, 0, 0)
    assert flow.latency.count == 20_000
    assert 0 < flow.latency.min_ns <= flow.latency.percentile_ns(50) <= flow.latency.max_ns
    assert not last.overrun_packets


def test_flows_are_told_apart(wire, method):
    specs = [
        f"ip dst={topology.RX_IPV4} / udp dst={PORT} ; signature ; weight={1 + i % 3}" for i in range(50)
    ]
    with sink_of(wire, method=method, max_flows=40) as sink, xsk_engine.open("vtx") as engine:
        counts = send(engine, specs, rate="20kpps", count=5000)
        arrivals = settled(sink, 5000)
    assert {flow.flow_id: flow.received_packets for flow in arrivals.flows} == {
        i: counts[i][0] for i in range(40)
    }
    assert arrivals.unknown_flow_packets == sum(counts[i][0] for i in range(40, 50)) > 0
    assert not arrivals.lost_packets


@pytest.mark.parametrize(
    "spec",
    [
        f"ip dst={topology.RX_IPV6} / udp dst={PORT} ; signature",
        f"vlan id=7 / ip dst={topology.RX_IPV4} / udp dst={PORT} ; signature",
        f"ip dst={topology.RX_IPV4} / tcp dst=80 flags=S ; signature",
        f"eth dst={topology.RX_MAC} type=0x88b5 ; signature ; size=100",
    ],
    ids=["ipv6", "vlan", "tcp", "no ip"],
)
def test_packets_of_many_kinds(wire, method, spec):
    with sink_of(wire, method=method) as sink, xsk_engine.open("vtx") as engine:
        send(engine, spec, rate="5kpps", count=200)
        arrivals = settled(sink, 200)
    assert arrivals.received_packets == 200
    assert arrivals.unverified_packets == (200 if "type=" in spec else 0)


@pytest.mark.parametrize(("mtu", "size"), [(9000, 9014), (65535, 65549)])
def test_jumbo_frames(wire, method, mtu, size):
    with another_lab(LabOptions(mtu=mtu)) as lab, sink_of(lab, method=method) as sink:
        with xsk_engine.open("vtx", umem_mb=8) as engine:
            send(engine, f"{SIGNED} ; size={size}", rate="1kpps", count=300)
        arrivals = settled(sink, 300)
    assert arrivals.received_packets == 300
    assert arrivals.received_bytes == 300 * size
    assert not arrivals.corrupt_packets


def test_the_wires_faults_are_found_exactly(wire, method):
    """What the wire says it has done is what the sink finds."""
    spec = "drop=0.02,dup=0.02,reorder=0.02,corrupt=0.02,seed=11"
    count = 30_000 if wire.roomy else 5_000
    with (
        another_lab(LabOptions(wire=parse_wire(spec))) as lab,
        sink_of(lab, method=method, match=Match(ports=(PORT,)), ring_size=4096) as sink,
        xsk_engine.open("vtx") as engine,
    ):
        send(engine, f"{SIGNED} ; size=66,300", rate="15kpps", count=count)
        done = lab.faults()
        # What the kernels send of themselves (group reports) is taken, too, and is not ours.
        ours = count - done["dropped_packets"] + done["duplicated_packets"]
        arrivals = settled(sink, ours)
        assert not done["missed_packets"], "this machine was too slow for the wire"
    assert sink.snapshot().overrun_packets == 0, "this machine was too slow for the sink"
    assert 0 <= done["taken_packets"] - count < 10
    assert min(done[f"{fault}_packets"] for fault in ("dropped", "duplicated", "reordered", "corrupted")) > 0
    assert arrivals.packets == ours
    assert arrivals.duplicate_packets == done["duplicated_packets"]
    assert arrivals.reordered_packets == done["reordered_packets"]
    assert arrivals.corrupt_packets == done["corrupted_packets"]
    assert count - arrivals.received_packets == done["dropped_packets"] + done["corrupted_packets"]
    (flow,) = arrivals.flows
    behind = count - 1 - flow.highest_sequence  # nobody can miss what comes behind the last one
    assert flow.lost_packets == count - arrivals.received_packets - behind
    assert 3 <= flow.extent_max_packets <= 8
    assert not arrivals.foreign_packets


def test_unfinished_checksums_are_counted_and_accepted(wire, method):
    """As the kernel of the same host sends them over veth."""
    now = time.clock_gettime_ns(time.CLOCK_TAI)
    with sink_of(wire, method=method) as sink:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for i in range(100):
                sock.sendto(bytes(10) + struct.pack("!IIQQ", 0x78736B65, 3, i, now), (topology.RX_IPV4, PORT))
        arrivals = settled(sink, 100)
    assert arrivals.received_packets == 100
    assert arrivals.csum_partial_packets >= 99, "one in 65,535 is right by chance"
    assert arrivals.flows[0].flow_id == 3


def test_what_is_not_ours_passes_to_the_kernel(wire, method):
    options = {"method": method, "match": Match(ports=(PORT,))}
    with sink_of(wire, **options) as sink, wire.listening(PORT + 1) as other, wire.listening(PORT) as ours:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for i in range(50):
                sock.sendto(b"not signed %d" % i, (topology.RX_IPV4, PORT))
                sock.sendto(b"another port %d" % i, (topology.RX_IPV4, PORT + 1))
        other.settimeout(5)
        assert [other.recv(100) for _ in range(50)] == [b"another port %d" % i for i in range(50)]
        arrivals = settled(sink, 50)
        assert arrivals.foreign_packets + arrivals.csum_partial_packets >= 50
        ours.settimeout(0.2)
        if method == "xdp":
            with pytest.raises(TimeoutError):
                ours.recv(100)
        else:
            assert ours.recv(100) == b"not signed 0"
    assert sink.snapshot().receive.packets == 50


# ---- the program, and the ends ------------------------------------------------------------------------


def attached(wire):
    with wire.in_rx():
        return libbpf.attached_program(socket.if_nametoindex("vrx"))[0]


def test_a_foreign_program_is_named_and_left_alone(wire, real_root):
    with wire.in_rx():
        program = libbpf.load_pass_program()
        link = libbpf.attach(program, socket.if_nametoindex("vrx"))
    try:
        number = attached(wire)
        with wire.in_rx(), pytest.raises(UnavailableError, match=rf"program id {number} .*not ours"):
            Sink(SinkConfig("vrx")).open()
        assert attached(wire) == number
    finally:
        os.close(link)
        os.close(program)
    with sink_of(wire) as sink:
        assert sink.way.method == "xdp"


HOLDER = """
import sys, time
from xsk_engine.sink import Sink, SinkConfig
sink = Sink(SinkConfig("vrx")).open()
print("up", flush=True)
time.sleep(60)
"""


def test_nothing_stays_attached(wire, real_root):
    for _ in range(5):
        with wire.in_rx():
            process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
        with process:
            assert first_line(process) == "up\n"
            assert attached(wire)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        wait_until(lambda: not attached(wire))
    with sink_of(wire):  # its queue is free, too
        assert attached(wire)
    assert not attached(wire)


def test_a_taken_queue_and_bad_configurations(wire, real_root, monkeypatch):
    monkeypatch.setattr("xsk_engine.xsk.REBIND_DEADLINE_S", 0.1)
    with sink_of(wire), wire.in_rx(), pytest.raises(QueueTakenError, match="of this process"):
        Sink(SinkConfig("vrx")).open()
    with wire.in_rx(), pytest.raises(ValueError, match=r"queues: \[7\]"):
        Sink(SinkConfig("vrx", queues=(7,))).open()
    with wire.in_rx(), pytest.raises(UnavailableError, match="no zero-copy"):
        Sink(SinkConfig("vrx", mode="zerocopy")).open()
    with pytest.raises(UnavailableError, match="no such interface"):
        Sink(SinkConfig("nosuch0")).open()
    for wrong in ({"method": "x"}, {"mode": "x"}, {"ring_size": 100}, {"max_flows": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong)).removeprefix("max_")):
            SinkConfig("vrx", **wrong)
    for wrong in ({"signature": False}, {"ports": (70000,)}):
        with pytest.raises(ValueError, match=r"match|ports"):
            Match(**wrong)
    assert not attached(wire)


def test_without_a_program_it_is_a_packet_socket_and_says_so(wire, monkeypatch):
    """An ordinary user hears EPERM; a package without the program, that it has none."""
    if is_real_root():
        monkeypatch.setattr("xsk_engine.steering._PROGRAM", "nosuch.o")
    with sink_of(wire) as sink:
        assert sink.way.method == "packet"
        assert "not by XDP here" in sink.way.reason
    with wire.in_rx(), pytest.raises(UnavailableError):
        Sink(SinkConfig("vrx", method="xdp")).open()


def test_two_queues_are_one_flow(wire, real_root):
    with another_lab(LabOptions(queues=2)) as lab, sink_of(lab) as sink:
        with xsk_engine.open("vtx", queues=(0, 1)) as engine:
            send(engine, SIGNED, rate="20kpps", count=4000)
        arrivals = settled(sink, 4000)
    assert arrivals.received_packets == 4000
    assert not arrivals.lost_packets


def test_a_link_that_goes_and_comes_back(wire, method):
    with another_lab(LabOptions()) as lab, sink_of(lab, method=method) as sink:
        with xsk_engine.open("vtx", link_timeout=None) as engine:
            send(engine, SIGNED, rate="10kpps", count=100)
            settled(sink, 100)
            lab.ip("link", "set", "vrx", "down", rx=True)
            time.sleep(0.3)
            lab.ip("link", "set", "vrx", "up", rx=True)
            wait_until(lambda: not engine.snapshot().inflight_descs)
            send(engine, SIGNED, rate="1kpps", count=100)
            wait_until(lambda: sink.snapshot().arrivals.packets >= 190)
        sink.raise_failure()


def test_a_device_that_goes(wire, method):
    with another_lab(LabOptions()) as lab, sink_of(lab, method=method) as sink:
        lab.ip("link", "delete", "vrx", rx=True)
        wait_until(lambda: says_gone(sink))
    assert not sink.snapshot().arrivals.packets


def test_open_and_close_again_and_again(wire, method):
    for i in range(20):
        with sink_of(wire, method=method) as sink, xsk_engine.open("vtx") as engine:
            send(engine, SIGNED, rate="20kpps", count=100)
            assert settled(sink, 100).received_packets == 100
        sink.close()
        assert sink.snapshot().arrivals.received_packets == 100, i
    with pytest.raises(ClosedError):
        Sink(SinkConfig("vrx")).snapshot()


def test_packets_into_a_file(wire, method, tmp_path):
    from scapy.utils import rdpcap

    with (
        open(tmp_path / "seen.pcap", "wb", buffering=0) as file,
        sink_of(wire, method=method, capture=True) as sink,
        xsk_engine.open("vtx") as engine,
    ):
        writer = PcapWriter(file, [sink.capture])
        before = time.time()
        send(engine, f"{SIGNED} ; size=66,300", rate="10kpps", count=500)
        settled(sink, 500)
        sink.stop()
        writer.close()
    frames = rdpcap(str(tmp_path / "seen.pcap"))
    assert [len(frame) for frame in frames] == [66, 300] * 250
    assert [struct.unpack("!Q", bytes(frame)[-16:-8])[0] for frame in frames] == list(range(500))
    assert abs(float(frames[0].time) - before) < 30


# ---- the command --------------------------------------------------------------------------------------


@contextlib.contextmanager
def command(wire, *arguments):
    """`sink vrx` that receives; ended when the block is left."""
    with wire.in_rx():
        process = start("sink", "vrx", *arguments)
    with process:
        try:
            line = ""
            while not line.startswith("receiving on vrx"):
                line = first_line(process, of="stderr")
                assert line, process.wait(5)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(10)


def sent(count):
    where = ("vtx", "--dst-ip", topology.RX_IPV4)
    done = cli("send", *where, "--signature", "--rate", "20kpps", "--count", str(count))
    assert done.returncode == 0, done.stderr


def test_the_command(wire, method, tmp_path):
    table, lines = tmp_path / "t.csv", tmp_path / "l.jsonl"
    arguments = (
        "--json",
        "--csv",
        str(table),
        "--jsonl",
        str(lines),
        "--interval",
        "100ms",
        "--expect",
        "lossless",
    )
    with command(wire, *arguments, "--method", method, "--count", "5000", "--duration", "30s") as process:
        sent(5000)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["method"] == method
    assert (report["received_packets"], report["lost_packets"], report["lossless"]) == (5000, 0, True)
    assert report["latency"]["count"] == 5000
    assert report["flows"][0]["received_packets"] == 5000
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [one["kind"] for one in records] == ["interval"] * (len(records) - 1) + ["final"]
    assert sum(one["received_packets"] for one in records[:-1]) == records[-1]["received_packets"] == 5000
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert sum(int(row["received_packets"]) for row in rows) == 5000
    assert len(rows) == len(records) - 1


def test_a_forked_child_stops_nothing(wire, method):
    with sink_of(wire, method=method) as sink:
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                sink.stop()
                sink.close()
                code = 0
            os._exit(code)
        assert exit_code_of(child) == 0
        told = "".join(path.read_text() for path in Path("/proc/self/fdinfo").iterdir() if path.exists())
        assert set(re.findall("eventfd-count: +([0-9a-f]+)", told)) <= {"0"}, "a loop that is told to stop"
        with xsk_engine.open("vtx") as engine:
            send(engine, SIGNED, count=100)
            settled(sink, 100)


def test_it_is_scraped(wire):
    with wire.in_rx(), socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with wire.in_rx():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with command(wire, "--metrics", str(port)):
        sent(500)
        with wire.in_rx():
            page = subprocess.run(
                ["curl", "-sf", f"http://127.0.0.1:{port}/metrics"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
    assert 'xsk_engine_sink_received_packets_total{interface="vrx"} 500.0' in page
    assert 'xsk_engine_sink_lost_packets_total{interface="vrx"} 0.0' in page
    assert 'xsk_engine_sink_latency_seconds{interface="vrx",quantile="0.99"}' in page


def test_lossless_is_judged(wire):
    with command(wire, "--expect", "lossless", "--duration", "30s") as process:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for sequence in (0, 1, 1, 5):
                sock.sendto(struct.pack("!IIQQ", 0x78736B65, 0, sequence, 0), (topology.RX_IPV4, PORT))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "--expect lossless: 3 lost, 1 duplicate" in err
    with command(wire, "--expect", "lossless", "--duration", "300ms") as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "nothing received" in err


def test_ctrl_c_is_a_good_end(wire):
    with command(wire) as process:
        sent(100)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "100 received, 0 lost" in err


def test_what_it_refuses(wire):
    with wire.in_rx():
        for arguments, code, says in (
            (("nosuch0",), 3, "no such interface"),
            (("vrx", "--json", "--csv", "-"), 2, "only one of them can go to stdout"),
            (("vrx", "--ring", "100"), 2, "power of two"),
            (("vrx", "--queue", "9", "--method", "xdp"), 2, "queues: "),
            (("vrx", "--jsonl", "same", "--csv", "same"), 2, "the same file"),
        ):
            if "xdp" in arguments and not is_real_root():
                continue
            done = cli("sink", *arguments)
            assert (done.returncode, says in done.stderr) == (code, True), done.stderr
            assert len(done.stderr.splitlines()) == 1

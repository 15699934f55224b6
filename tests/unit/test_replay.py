"""Capture files as scapy and editcap write them, and what is said about those that cannot be sent."""

import bz2
import gzip
import lzma
import os
import random
import shutil
import subprocess
import sys
import threading
from fractions import Fraction

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from xsk_engine import trace as trace_module
from xsk_engine._ffi.native import native
from xsk_engine.edits import parse_edit
from xsk_engine.errors import BrokenError, UnavailableError
from xsk_engine.mixprogram import PaceProgram
from xsk_engine.plan import plan_replay
from xsk_engine.replay import Replay, TraceSummary, program
from xsk_engine.trace import Trace, survey
from xsk_engine.umem import Umem
from xsk_engine.units import parse_rate

MTU = 1514
START = 1_700_000_000


def packets(count=50):
    rng = random.Random(count)
    made = []
    for i in range(count):
        packet = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / IP(dst="10.0.0.1") / UDP(dport=i)
        packet /= rng.randbytes(rng.randrange(1400))
        packet.time = START + Fraction(i * i, 10**6) + Fraction(i, 10**9)
        made.append(packet)
    return made


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.pcap"
    wrpcap(str(path), packets(), nano=True)
    return path


def summary_of(path, **replay):
    return survey(Replay(str(path), **replay), MTU)


def compress(path, opener, suffix):
    there = path.with_suffix(suffix)
    with opener(there, "wb") as out:
        out.write(path.read_bytes())
    return there


def test_a_file_is_what_scapy_wrote(file):
    made = packets()
    found = summary_of(file)
    assert found.packets == 50
    assert found.bytes == sum(len(packet) for packet in made)
    assert found.longest_bytes == max(len(packet) for packet in made)
    assert found.first_ns == START * 10**9
    assert found.gaps_ns == 49 * 49 * 1000 + 49
    assert not found.damage


@pytest.mark.parametrize("kind", ["pcap", "pcapng", "nsecpcap"])
def test_every_format_and_precision(file, tmp_path, kind):
    other = tmp_path / "other"
    subprocess.run([shutil.which("editcap"), "-F", kind, file, other], check=True, timeout=30)
    found = summary_of(other)
    assert (found.packets, found.bytes) == (50, summary_of(file).bytes)
    # microseconds cut the rest off
    assert found.gaps_ns == 49 * 49 * 1000 + (0 if kind == "pcap" else 49)


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
def test_compressed_files(file, opener):
    assert summary_of(compress(file, opener, ".z")) == summary_of(file)


def test_a_limit_and_a_pipe(file):
    """Also a compressed one."""
    assert summary_of(file, limit=7).packets == 7
    assert summary_of(compress(file, gzip.open, ".gz"), limit=7).packets == 7
    reading, writing = os.pipe()

    def write():
        with open(writing, "wb") as pipe:
            pipe.write(gzip.compress(file.read_bytes()))

    thread = threading.Thread(target=write)
    thread.start()
    assert summary_of(f"/proc/self/fd/{reading}").packets == 50
    thread.join()
    os.close(reading)


def test_a_file_that_ends_early_gives_what_it_has(file, tmp_path):
    whole = file.read_bytes()
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(whole[:-100])
    found = summary_of(cut)
    assert found.packets == 49
    assert "truncated" in found.damage
    for opener, reason in ((gzip.open, "Compressed file ended"), (lzma.open, "Compressed file ended")):
        compressed = compress(file, opener, ".z")
        compressed.write_bytes(compressed.read_bytes()[: compressed.stat().st_size // 2])
        found = summary_of(compressed)
        assert found.packets < 50
        assert reason in found.damage


def test_what_is_no_capture_of_ethernet(file, tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        summary_of(tmp_path / "none")
    text = tmp_path / "text"
    text.write_text("this is no capture file, whatever its name says")
    with pytest.raises(ValueError, match="unknown file format"):
        summary_of(text)
    raw_ip = tmp_path / "raw.pcap"
    wrpcap(str(raw_ip), [IP(dst="10.0.0.1") / UDP()])
    with pytest.raises(ValueError, match="not Ethernet"):
        summary_of(raw_ip)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="truncated"):
        summary_of(tmp_path / "empty")


@pytest.mark.parametrize("oversize", ["refuse", "skip", "truncate"])
def test_packets_longer_than_the_interface_takes(file, oversize):
    found = survey(Replay(str(file), oversize=oversize), 700)
    longer = sum(len(packet) > 700 for packet in packets())
    assert found.oversize_packets == longer > 0
    assert found.packets == (50 if oversize == "truncate" else 50 - longer)
    assert bool(found.refused) == (oversize == "refuse")
    assert found.longest_bytes == max(len(packet) for packet in packets())


class EndsAtOnce:
    """Native code whose loop has seen a stream's end, and closed it, before its reader goes on."""

    def __init__(self):
        self.ended = threading.Event()

    def __getattr__(self, name):
        return getattr(native, name)

    def trace_finish(self, handle, again):
        native.trace_finish(handle, again)
        if not again:
            native.trace_close(handle)
            self.ended.set()


@pytest.mark.parametrize(
    ("longest", "error", "said"),
    [(MTU, BrokenError, "no packet in it"), (20, UnavailableError, "longer than the interface takes")],
)
def test_a_stream_that_fails_has_said_so_before_its_loop_ends(tmp_path, monkeypatch, longest, error, said):
    path = tmp_path / "some.pcap"
    wrpcap(str(path), packets() if longest < MTU else [], linktype=1)
    loop = EndsAtOnce()
    monkeypatch.setattr(trace_module, "native", loop)
    umem = Umem(1 << 20, 4096)
    trace = Trace(umem, Replay(str(path), stream=True), longest, 0)
    try:
        trace.start_stream()
        assert loop.ended.wait(10)
        trace.finish()
        with pytest.raises(error, match=said):
            trace.raise_failure()
    finally:
        native.trace_destroy(trace.handle)
        trace.release()
        umem.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ip.dst", "FIELD=VALUE"),
        ("ip.dest=10.0.0.1", "did you mean ip.dst"),
        ("udp.dport=4", "did you mean port.dst"),
        ("ipv6.src=::1", "did you mean ip.src"),
        ("ip.dst=10.0.0.256", "no address"),
        ("port.dst=65536", "0 to 65535"),
        ("eth.dst=zz", "MAC address"),
        ("vlan=4096", "0 to 4095"),
        ("ip.dscp=64", "0 to 63"),
    ],
)
def test_edits_that_cannot_be(text, said):
    with pytest.raises(ValueError, match=said):
        parse_edit(text)


def test_how_fast(file):
    found = summary_of(file)
    real = 49 / (found.gaps_ns / 1e9)
    assert plan_replay(Replay("x"), found).asked_pps == pytest.approx(real)
    assert plan_replay(Replay("x", speed=Fraction(2)), found).asked_pps == pytest.approx(2 * real)
    assert plan_replay(Replay("x", speed=None), found).asked_pps is None
    assert plan_replay(Replay("x", speed=None, rate=parse_rate("5kpps"), loops=3), found).packets == 150
    on_wire = plan_replay(Replay("x", speed=None, rate=parse_rate("1Mbps_l1")), found)
    wire = sum(max(len(packet), 60) + 24 for packet in packets())
    assert on_wire.asked_pps == pytest.approx(1e6 / 8 / (wire / 50))
    short = summary_of(file, max_gap_s=Fraction(10, 10**6))
    assert short.long_gaps == 44
    assert plan_replay(Replay("x"), short).asked_pps == pytest.approx(49e9 / short.gaps_ns)
    in_bits = plan_replay(Replay("x", speed=None, rate=parse_rate("1Mbps")), found)
    assert in_bits.asked_pps == pytest.approx(1e6 / 8 / (found.bytes / 50))
    assert program(Replay("x", speed=Fraction(3, 2))).pace == PaceProgram(3, 2, recorded=True)
    assert program(Replay("x", speed=None)).pace == PaceProgram()
    assert plan_replay(Replay("x"), TraceSummary()).asked_pps is None
    with pytest.raises(ValueError, match="not both"):
        Replay("x", rate=parse_rate("5kpps"))
    with pytest.raises(ValueError, match="rounder"):
        Replay("x", speed=Fraction(1, 3) + Fraction(1, 10**10))
    with pytest.raises(ValueError, match="loop"):
        Replay("x", loops=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lo", "/nonexistent"], "No such file"),
        (["lo"], "Missing argument 'FILE'"),
        (["lo", "FILE", "--speed", "fast"], "neither max nor a number"),
        (["lo", "FILE", "--speed", "0"], "sends nothing"),
        (["lo", "FILE", "--speed", "1e99999999"], "neither max nor a number"),
        (["lo", "FILE", "--speed", "0.77777777777777"], "neither max nor a number"),
        (["lo", "FILE", "--csv", "FILE"], "this is the file of FILE"),
        (["lo", "FILE", "--pcap-out", "x", "--jsonl", "./x"], "this is the file of"),
        (["lo", "/tmp"], "a directory"),
        (["lo", "FILE", "--neighbour", "224.0.0.1"], "is a group"),
        (["lo", "FILE", "--speed", "2", "--rate", "1kpps"], "one or the other"),
        (["lo", "FILE", "--edit", "ip.dst"], "FIELD=VALUE"),
        (["lo", "FILE", "--queue", "0-1"], "one queue"),
        (["lo", "FILE", "--loop", "-1"], "number of passes"),
        (["lo", "FILE", "--neighbour", "x"], "no IP address"),
        (["lo", "FILE", "--speed", "max", "--strict-rate"], "which rate"),
        (["lo", "-", "--loop", "2"], "only once"),
        (["lo", "FILE", "--json", "--csv", "-"], "only one of them"),
        (["lo", "FILE", "--ovrsize", "skip"], "--oversize"),
    ],
)
def test_what_the_command_refuses(file, arguments, said):
    result = subprocess.run(
        [sys.executable, "-m", "xsk_engine", "replay", *(str(file) if a == "FILE" else a for a in arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert file.stat().st_size > 10_000
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1

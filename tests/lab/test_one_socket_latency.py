"""From the post to the kernel's tx timestamp, beside what the sink says of the same packets."""

import errno
import json

import pytest
from wire import PORT, cli, first_line, start

from xsk_engine._ffi import libc, sockopt, uapi
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import UnavailableError
from xsk_engine.lab import topology
from xsk_engine.report import as_text
from xsk_engine.stats import Gaps, Histogram

COUNT = 5000
SEND = ("send", "vtx", "--dst-ip", topology.RX_IPV4, "--dst-port", str(PORT), "--rate", "10kpps", "--json")


def test_it_is_a_part_of_the_sinks_figure(wire, real_root):
    """The kernel stamps when the packet leaves its sender's memory, before the sink can have it."""
    with wire.in_rx():
        sink = start("sink", "vrx", "--method", "xdp", "--json", "--count", str(COUNT), "--duration", "30s")
    with sink:
        line = first_line(sink, of="stderr")
        assert line.startswith("receiving on vrx"), line
        done = cli(*SEND, "--count", str(COUNT), "--signature", "--timestamps")
        assert done.returncode == 0, done.stderr
        out, err = sink.communicate(timeout=30)
    assert sink.returncode == 0, err
    sent, arrived = json.loads(done.stdout), json.loads(out)
    one, whole = sent["latency"], arrived["latency"]
    assert sent["latency_reason"] is None
    assert one["count"] == whole["count"] == COUNT
    assert sum(n for _, n in one["buckets"]) == COUNT
    assert not one["negative_packets"]
    # Packet by packet it is less; sums and extremes are exact, the median is to a bucket's width.
    assert 0 < one["min_ns"] < whole["min_ns"]
    assert 0 < one["mean_ns"] < whole["mean_ns"]
    assert one["max_ns"] < whole["max_ns"]
    assert 0 < one["p50_ns"] <= whole["p50_ns"]
    assert one["p50_ns"] <= one["p90_ns"] <= one["p99_ns"] <= one["p99_9_ns"] <= one["max_ns"]
    assert "post to tx timestamp: min " in as_text(sent)


@pytest.mark.parametrize("more", [(), ("--checksum", "offload"), ("--size", "66,1514")])
def test_every_packet_has_one(wire, more):
    done = cli(*SEND, "--count", "300", "--timestamps", *more)
    assert done.returncode == 0, done.stderr
    latency = json.loads(done.stdout)["latency"]
    assert latency["count"] == 300
    assert latency["min_ns"] > 0
    assert not latency["negative_packets"]


def test_it_is_not_there_when_nobody_asks(wire):
    done = cli(*SEND, "--count", "10")
    report = json.loads(done.stdout)
    assert (report["latency"], report["latency_reason"]) == (None, None)
    assert "latency" not in as_text(report)


def test_the_clock_of_a_nic_is_not_compared_with_ours():
    from xsk_engine.report import _latency

    taken = Histogram(1, 5, 5, 5, (0,) * 5 + (1,))
    gaps = Gaps(Histogram(), Histogram(), taken, latency=taken)
    assert _latency(gaps, "copy", True)["latency"]["p50_ns"] == 5
    said = _latency(gaps, "zerocopy", True)
    assert said["latency"] is None
    assert "NIC's own clock" in said["latency_reason"]


def test_a_kernel_without_tx_metadata(wire, monkeypatch):
    """What it says of a umem flag that it does not know: net/xdp/xdp_umem.c, xdp_umem_reg."""

    def set_option(fd, option, value, level=uapi.SOL_XDP):
        if option == uapi.XDP_UMEM_REG and level == uapi.SOL_XDP:
            raise OSError(errno.EINVAL, "Invalid argument")
        libc.set_option(fd, option, value, level)

    monkeypatch.setattr(sockopt, "set_option", set_option)
    config = EngineConfig("vtx", tx_metadata_len=24, tx_metadata=frozenset({"timestamp"}))
    with pytest.raises(UnavailableError, match=r"EINVAL.*no tx metadata \(Linux 6\.11\)"):
        Engine(config).open()

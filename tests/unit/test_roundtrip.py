"""What round trips are made of: matches, sources, counts and words."""

import socket
import struct
from fractions import Fraction

import pytest
from scapy.utils import checksum

from xsk_engine import measureplot, measurereport, report, roundtrip, steering
from xsk_engine.arrivals import Arrivals, FlowArrivals, Latency, Reflected, bucket_top
from xsk_engine.payload import MAGIC, REFLECTED_MAGIC
from xsk_engine.receiver import ReceiveStats
from xsk_engine.sink import SinkConfig, SinkSnapshot
from xsk_engine.sinkreport import SinkFigures, as_json, as_text, interval, rows
from xsk_engine.spec import parse_flow
from xsk_engine.steering import Match
from xsk_engine.trials import MeasureConfig

V4 = "eth dst=02:00:00:00:00:02 / ip src=10.0.0.1 dst=10.0.0.2"


@pytest.mark.parametrize("before", range(4))
def test_the_magic_changes_and_no_sum_does(before):
    """By scapy's checksum, wherever it begins."""
    head, tail = b"\x12\x34\x56\x78"[:before], b"\x9a" * 21
    one, other = (head + number.to_bytes(4, "big") + tail for number in (MAGIC, REFLECTED_MAGIC))
    assert one != other
    assert checksum(one) == checksum(other)


def test_matches():
    assert Match().rules == steering.BY_SIGNATURE
    assert Match(reflected=True).rules == steering.BY_REFLECTED
    assert Match(signature=False, ports=(9,), reflected=True).rules == steering.BY_PORT
    assert hex(REFLECTED_MAGIC) in Match(reflected=True).expression
    assert hex(MAGIC) not in Match(reflected=True).expression
    assert str(Match(reflected=True, ports=(9,))) == "the signature, sent back and UDP port 9"


def test_counters_of_all_cpus():
    cpus = [(3, 300, 1, 50, 70), (0, 0, 0, 0, 0), (2, 200, 0, 40, 60)]
    total = steering._sum_up([struct.pack("=5Q", *one) for one in cpus])
    assert total == Reflected(5, 500, 1, 40, 70)
    assert steering._sum_up([struct.pack("=5Q", 0, 0, 0, 0, 0)]) == Reflected()


@pytest.mark.parametrize("wrong", [{"capture": True}, {"queues": (0,)}, {"match": Match(ports=(9,))}])
def test_a_reflector_receives_nothing(wrong):
    with pytest.raises(ValueError, match="reflect"):
        SinkConfig("vrx", reflect=True, **wrong)


def test_where_udp_comes_from():
    flows = [
        parse_flow(f"{V4} / udp src=1000-1002 ; signature"),
        parse_flow(f"{V4} / udp ; signature"),
        parse_flow(f"{V4} / tcp src=5 ; signature"),
        parse_flow("eth dst=02:00:00:00:00:02 / ip src=fd00::1 dst=fd00::2 / udp src=7,8 ; signature"),
        parse_flow("eth dst=02:00:00:00:00:02 type=0x88b5 ; signature"),
    ]
    expected = [("10.0.0.1", port) for port in (1000, 1001, 1002, 9)] + [("fd00::1", port) for port in (7, 8)]
    assert roundtrip.udp_sources(flows) == expected
    many = [parse_flow(f"{V4} / udp src=1-60000 ; signature")]
    assert len(roundtrip.udp_sources(many * 2)) == 64


def test_ports_that_are_taken_are_somebody_elses():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with roundtrip.unanswered([("127.0.0.1", port), ("127.0.0.1", 0), ("192.0.2.1", 9)]) as ports:
            assert (ports[0], ports[2]) == (port, 9)
            assert ports[1] not in (0, port)


def snapshot(**values):
    flows = (FlowArrivals(0, 3, jitter_ns=100), FlowArrivals(1, 1, jitter_ns=500))
    bucket = next(i for i in range(200) if bucket_top(i) >= 4000)
    one = Arrivals(
        received_packets=4, flows=flows, latency=Latency(4, 16000, 4000, 4000, ((bucket, 4),)), **values
    )
    return SinkSnapshot(one, ReceiveStats(4, 0, 0, 0, 0, 0, 0), 1, None, 0)


def test_what_is_told_of_round_trips():
    told = roundtrip.as_dict(snapshot(corrupt_packets=2), 10)
    assert (told["lost_packets"], told["corrupt_packets"], told["overrun_packets"]) == (6, 2, 1)
    assert told["jitter_ns"] == 200
    told["notes"] = ["a note"]
    lines = dict(report._rtt_lines(told))
    assert lines["returned"] == "4 of 10 came back, 6 lost, 2 corrupt, 1 overrun"
    assert lines["round trip"].startswith("min 4 us, p50 4 us")
    assert lines["round trip"].endswith("jitter 200 ns")
    nothing = roundtrip.as_dict(SinkSnapshot(Arrivals(), ReceiveStats(0, 0, 0, 0, 0, 0, 0), 0, None, 0), 10)
    assert dict(report._rtt_lines(nothing | {"notes": ["a note"]}))["note"] == "a note"
    assert report._rtt_lines(None) == []


def figures(*reflected):
    back = Reflected(*reflected) if reflected else None
    return SinkFigures("vrx", "xdp", "driver", "", "the signature", Arrivals(), 0, 0, reflected=back)


def test_a_reflectors_report():
    told = as_json(figures(1000, 66_000, 2, 10**9, 3 * 10**9), None)
    assert (told["reflected_packets"], told["pps"], told["bps_l2"], told["duration_s"]) == (
        1000,
        500,
        264_000,
        2,
    )
    assert (told["lossless"], told["latency_kind"]) == (None, None)
    assert "1,000 reflected, 66,000 bytes, 2 refused" in as_text(told)
    assert as_json(figures(), None)["latency_kind"] == "one-way"
    assert as_json(figures(), None)["reflected_packets"] == 0
    record = interval(figures(30, 3000, 0, 0, 9), figures(10, 1000, 0, 0, 5), 2.0)
    assert (record["reflected_packets"], record["reflected_bytes"], record["pps"]) == (20, 2000, 10)
    (row,) = rows({"kind": "interval", "time_s": 1.0, "unix_s": 1.0, **record})
    assert row["reflected_packets"] == 20


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"rx": "vrx", "reflector": "10.0.0.2"},
        {"reflector": "10.0.0.2", "method": "xdp"},
        {"reflector": "10.0.0.2", "dst_ip": "10.0.0.3"},
    ],
)
def test_one_other_end_and_not_two(wrong):
    with pytest.raises(ValueError, match="reflector"):
        MeasureConfig("vtx", **wrong)
    assert MeasureConfig("vtx", reflector="10.0.0.2", loads=(1,), allowed_loss=Fraction(0)).rx is None


def test_the_far_end_in_words():
    there, back = ({"topology": {"rx": rx}} for rx in ({"interface": "vrx"}, {"reflector": "10.0.0.2"}))
    assert [measurereport.far_end(one) for one in (there, back)] == ["vrx", "10.0.0.2 and back"]
    assert measureplot.far_end is measurereport.far_end

"""What the TCP commands read and write, without a connection."""

import json
import struct
import subprocess
import sys

import pytest
from test_cli import run

from xsk_engine import iperf3protocol as protocol
from xsk_engine import iperf3report as report
from xsk_engine import tcpreport
from xsk_engine.iperf3protocol import Iperf3Test, Results, StreamResult
from xsk_engine.iperf3report import Ends, Moment
from xsk_engine.tcpinfo import TcpInfo

# What iperf3 3.12's client and server have sent to each other, as strace saw it (one second on lo).
CLIENT_PARAMETERS = (
    b'{"tcp":true,"omit":0,"time":1,"num":0,"blockcount":0,"parallel":1,"len":131072,"pacing_timer":1000,'
    b'"client_version":"3.12"}'
)
CLIENT_RESULTS = (
    b'{"cpu_util_total":35.2648991778218,"cpu_util_user":0.43723980047758659,"cpu_util_system":'
    b'34.831943112003721,"sender_has_retransmits":1,"congestion_used":"bbr","streams":[{"id":1,"bytes":'
    b'830996480,"retransmits":1,"jitter":0,"errors":0,"packets":0,"start_time":0,"end_time":1.002353}]}'
)
SERVER_RESULTS = (
    b'{"cpu_util_total":12.779701127128131,"cpu_util_user":1.1859417505923726,"cpu_util_system":'
    b'11.593859060636841,"sender_has_retransmits":18446744073709551615,"congestion_used":"bbr","streams":'
    b'[{"id":1,"bytes":830996480,"retransmits":18446744073709551615,"jitter":0,"errors":0,"packets":0,'
    b'"start_time":0,"end_time":1.003169}]}'
)
# The lines of iperf3's own client of two streams.
REAL_LINES = """\
[  5]   0.00-1.00   sec  1.20 GBytes  10.3 Gbits/sec    0    767 KBytes       
[  7]   0.00-1.00   sec  1.18 GBytes  10.1 Gbits/sec    7   2.37 MBytes       
[SUM]   0.00-1.00   sec  2.39 GBytes  20.5 Gbits/sec    7             """  # noqa: W291
REAL_END = """\
[  5]   0.00-2.00   sec  2.37 GBytes  10.2 Gbits/sec    2             sender
[  5]   0.00-2.02   sec  2.37 GBytes  10.1 Gbits/sec                  receiver"""


# ---- what iperf3 says -----------------------------------------------------------------------------------


def test_parameters_are_those_of_the_real_client():
    real = json.loads(CLIENT_PARAMETERS)
    del real["client_version"]
    assert protocol.parameters(Iperf3Test(duration_s=1)) == real


def test_a_count_is_instead_of_a_time():
    asked = protocol.parameters(Iperf3Test(count_bytes=1000, streams=3, block_bytes=10, nodelay=True))
    assert (asked["time"], asked["num"], asked["parallel"], asked["len"]) == (0, 1000, 3, 10)
    assert asked["nodelay"] is True


def test_results_are_those_of_the_real_client():
    real = json.loads(CLIENT_RESULTS)
    cpu = (real["cpu_util_total"], real["cpu_util_user"], real["cpu_util_system"])
    assert Results(*cpu, [StreamResult(830996480, 1, 1.002353)], "bbr").as_message() == real


def test_the_servers_results_are_read():
    found = protocol.parse_results(SERVER_RESULTS, 1)
    assert found.streams == [StreamResult(830996480, 0, 1.003169)]
    assert (round(found.cpu_total, 2), found.congestion) == (12.78, "bbr")


@pytest.mark.parametrize(
    "message", [b"", b"{}", b"[]", b'{"streams":[]}', b'{"streams":[{"id":1}]}', b"\xff", SERVER_RESULTS]
)
def test_results_that_are_none(message):
    with pytest.raises(ValueError):  # noqa: PT011
        protocol.parse_results(message, 2)


def _results(**figures):
    """As text, so that figures may be what json does not write."""
    figures = {"bytes": "1", "end_time": "1", "cpu": "1", **figures}
    stream = f'{{"id":1,"bytes":{figures["bytes"]},"end_time":{figures["end_time"]}}}'
    cpu = ",".join(f'"cpu_util_{name}":{figures["cpu"]}' for name in ("total", "user", "system"))
    return f'{{{cpu},"streams":[{stream}]}}'.encode()


@pytest.mark.parametrize("figure", ["1e999", "-1e999", "NaN", "9" * 400, "1e300", '"1"', "[]"])
@pytest.mark.parametrize("name", ["bytes", "end_time", "cpu"])
def test_figures_that_cannot_be(name, figure):
    assert protocol.parse_results(_results(), 1).streams[0].transferred_bytes == 1
    with pytest.raises(ValueError, match="the server's results"):
        protocol.parse_results(_results(**{name: figure}), 1)


def test_results_that_are_nested_without_end():
    with pytest.raises(ValueError, match="nested too deep"):
        protocol.parse_results(b"[" * 100_000, 1)


def test_streams_are_numbered_without_a_two():
    assert protocol.stream_ids(1) == [1]
    assert protocol.stream_ids(4) == [1, 3, 4, 5]


def test_json_has_its_length_in_front():
    framed = protocol.frame_json({"a": 1})
    assert framed == b'\x00\x00\x00\x07{"a":1}'
    assert protocol.json_length(framed[:4]) == 7
    for header in (b"\0\0\0\0", b"HTTP"):
        with pytest.raises(ValueError, match="is this iperf3"):
            protocol.json_length(header)


def test_the_cookie_is_text_and_ends_with_nul():
    cookie = protocol.make_cookie(bytes(range(220, 256)))
    assert len(cookie) == protocol.COOKIE_BYTES
    assert cookie[-1] == 0
    assert cookie[:-1].isalnum()


@pytest.mark.parametrize("state", [protocol.ACCESS_DENIED, protocol.SERVER_ERROR, protocol.TEST_END])
def test_states_are_signed_bytes(state):
    assert protocol.read_state(protocol.state_byte(state)) == state
    assert len(protocol.state_byte(state)) == 1


@pytest.mark.parametrize(
    ("state", "detail", "said"),
    [
        (protocol.ACCESS_DENIED, b"", "busy"),
        (protocol.SERVER_TERMINATE, b"", "stopped"),
        (protocol.SERVER_ERROR, struct.pack("!ii", 142, 13), "its error 142, errno 13"),
        (protocol.SERVER_ERROR, struct.pack("!ii", 142, 0), "its error 142"),
        (ord("H") - 128, b"", "is this iperf3"),
    ],
)
def test_why_a_server_does_not_want(state, detail, said):
    assert said in protocol.why_not(state, protocol.PARAM_EXCHANGE, detail)


@pytest.mark.parametrize(
    ("text", "n"), [("1", 1), ("64K", 65536), ("1.5m", 3 << 19), ("2G", 2 << 30), ("1KB", 1024)]
)
def test_bytes_are_iperf3s(text, n):
    assert protocol.parse_bytes(text) == n


@pytest.mark.parametrize("text", ["", "0", "-1", "1 k", "1X", "0.1", "9999999T", "9" * 400])
def test_what_no_bytes_are(text):
    with pytest.raises(ValueError, match="bytes"):
        protocol.parse_bytes(text)


@pytest.mark.parametrize(("count", "blocks"), [(1, 1), (128 << 10, 1), ((128 << 10) + 1, 2)])
def test_whole_blocks(count, blocks):
    assert Iperf3Test(count_bytes=count).count_blocks == blocks


# ---- what iperf3 tells ----------------------------------------------------------------------------------


def moment(acked, retransmits, cwnd):
    return Moment(acked, retransmits, cwnd, 1 << 20, 28, 9, 1500)


def test_lines_are_those_of_the_real_client():
    gib = 1 << 30
    before = [moment(0, 0, 1), moment(0, 0, 1)]
    after = [moment(int(1.2048 * gib), 0, 767 << 10), moment(int(1.1816 * gib), 7, int(2.37 * (1 << 20)))]
    lines = report.interval_lines(report.interval(0.0, 1.0, before, after), first=True)
    assert "\n".join(lines) == REAL_LINES
    again = report.interval_lines(report.interval(0.0, 1.0, before, after), first=False)
    assert again == [report.RULE, *lines]
    ours = Results(1, 1, 0, [StreamResult(int(2.37 * gib), 2, 2.0)], "cubic")
    theirs = Results(1, 1, 0, [StreamResult(int(2.37 * gib), 0, 2.02)], "bbr")
    assert "\n".join(report.end_lines(report.end([], ours, theirs))[2:]) == REAL_END


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (0, 1000, "0.00 "),
        (9.994, 1000, "9.99 "),
        (9.996, 1000, "10.0 "),
        (999, 1000, " 999 "),
        (1023, 1024, "1023 "),
        (1024, 1024, "1.00 K"),
        (7.2e9, 1000, "7.20 G"),
        (5e15, 1000, "5000 T"),
    ],
)
def test_figures_have_four_characters(value, step, text):
    assert report.scaled(value, step) == text


def test_intervals_add_up():
    moments = [[moment(0, 0, 10), moment(0, 0, 10)], [moment(100, 1, 20), moment(50, 0, 5)]]
    moments.append([moment(300, 1, 15), moment(70, 4, 6)])
    intervals = [report.interval(i, i + 1, moments[i], moments[i + 1]) for i in range(2)]
    assert [one["sum"]["bytes"] for one in intervals] == [150, 220]
    assert [one["sum"]["retransmits"] for one in intervals] == [1, 4]
    assert intervals[1]["sum"]["bits_per_second"] == 220 * 8
    ours = Results(1, 1, 0, [StreamResult(300, 1, 2.0), StreamResult(70, 4, 2.0)], "reno")
    found = report.end(intervals, ours, Results(0, 0, 0, [StreamResult(300, 0, 2.0)] * 2, None))
    assert found["sum_sent"]["bytes"] == 370
    assert found["sum_sent"]["retransmits"] == 5
    assert found["streams"][0]["sender"]["max_snd_cwnd"] == 20
    assert "receiver_tcp_congestion" not in found


def test_what_came_before_the_test_does_not_count():
    info = TcpInfo(**{**dict.fromkeys(TcpInfo.__dataclass_fields__, 0), "state": "ESTABLISHED"})
    assert Moment.of(info, 37).acked_bytes == 0
    facts = {**info.__dict__, "acked_bytes": 137, "srtt_ns": 28_999}
    assert Moment.of(TcpInfo(**facts), 37) == Moment(100, 0, 0, 0, 28, 0, 0)


def test_the_start_names_every_stream():
    ends = [Ends(("10.0.0.1", 1000 + i), ("10.0.0.2", 5201)) for i in range(2)]
    found = report.start(
        Iperf3Test(streams=2, count_bytes=1 << 20),
        "peer",
        5201,
        ends,
        cookie=b"abc\0",
        unix_s=1795638803,
        control_mss=1448,
        send_buffer_bytes=1,
        receive_buffer_bytes=2,
        version="x",
        system="y",
    )
    assert [one["socket"] for one in found["connected"]] == [5, 7]
    assert found["timestamp"]["time"] == "Wed, 25 Nov 2026 20:33:23 GMT"  # as the real client wrote it
    assert (found["cookie"], found["test_start"]["duration"]) == ("abc", 0)
    assert report.start_lines(found)[2] == "[  7] local 10.0.0.1 port 1001 connected to 10.0.0.2 port 5201"


# ---- tcp ------------------------------------------------------------------------------------------------


def figures(**changes):
    info = TcpInfo(**{**dict.fromkeys(TcpInfo.__dataclass_fields__, 0), "state": "CLOSED"})
    facts = {**info.__dict__, "acked_bytes": changes.pop("acked", 1000)}
    plain = {
        "interface": "eth1",
        "mode": "copy",
        "mode_reason": "as asked",
        "local": ("10.0.0.1", 1),
        "remote": ("fd00::2", 2),
        "duration_s": 3.0,
        "sending_s": 2.0,
        "written_bytes": 1000,
        "info": TcpInfo(**facts),
        "end": "done",
        "error": None,
    }
    return tcpreport.TcpFigures(**{**plain, **changes})


def test_the_summary_has_its_fields():
    found = tcpreport.as_json(figures())
    assert set(found) == set(tcpreport.FIELDS)
    assert json.loads(json.dumps(found)) == found
    assert found["goodput_bps"] == 4000


@pytest.mark.parametrize("end", tcpreport.ENDS)
def test_the_summary_says_why_it_ended(end):
    text = tcpreport.as_text(tcpreport.as_json(figures(end=end, sending_s=0.0)))
    assert tcpreport.ENDS[end] in text
    assert "10.0.0.1:1 to [fd00::2]:2" in text
    assert "1,000 bytes, all acknowledged" in text


def test_what_was_not_acknowledged_is_said():
    assert "600 of them not acknowledged" in tcpreport.as_text(tcpreport.as_json(figures(acked=400)))


# ---- the command lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tcp", "127.0.0.1"], 2, "PORT"),
        (["tcp", "127.0.0.1", "0"], 2, "1<=x<=65535"),
        (["tcp", "127.0.0.1", "9", "--source", "here"], 2, "not an IP address"),
        (["tcp", "127.0.0.1", "9", "-C", "vegas"], 2, "cubic"),
        (["tcp", "127.0.0.1", "9", "--wait", "0"], 2, "time"),
        (["tcp", "127.0.0.1", "9"], 3, "this machine itself"),
        (["tcp", "nobody.invalid", "9"], 3, "nobody.invalid"),
        (["tcp", "a..b", "9"], 2, "no name"),
        (["tcp", "127.0.0.1", "9", "-i", "nosuchif0"], 3, "no such interface"),
        (["iperf3"], 2, "HOST"),
        (["iperf3", "127.0.0.1", "-R"], 2, "the engine sends"),
        (["iperf3", "127.0.0.1", "-P", "0"], 2, "1<=x<=128"),
        (["iperf3", "127.0.0.1", "-l", "2M"], 2, "at most 1048576"),
        (["iperf3", "127.0.0.1", "-n", "some"], 2, "bytes"),
        (["iperf3", "127.0.0.1", "-t", "0"], 2, "1<=x"),
        (["iperf3", "127.0.0.1"], 3, "this machine itself"),
    ],
)
def test_refusals(arguments, code, said):
    result = run(*arguments)
    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


@pytest.mark.parametrize(("fd", "code", "said"), [(0, 2, "stdin is closed"), (1, 1, "stdout is closed")])
def test_a_descriptor_that_is_closed_is_not_somebody_elses(fd, code, said):
    command = f"exec {sys.executable} -m xsk_engine tcp 127.0.0.1 9 {fd}<&-"
    result = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert result.returncode == code
    assert said in result.stderr

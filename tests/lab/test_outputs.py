"""What a run tells while it runs: JSON lines, CSV, metrics, the live view; and when nobody can be told."""

import contextlib
import csv
import fcntl
import http.client
import itertools
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from tcppeer import ADDRESS, echo, peer
from wire import cli, start, wait_until

from xsk_engine import metrics
from xsk_engine.figures import FIGURES, FLOW, QUEUE, TOTAL, names
from xsk_engine.report import FIELDS

WITHOUT_STDERR = ("sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "xsk_engine")
EXAMPLE = Path(__file__).parents[2] / "examples/three-flows.yaml"
SEND = ("send", "vtx", "--dst-ip", "10.77.0.2", "--dst-port", "9000")
PORT = 9123
URL = f"http://127.0.0.1:{PORT}/metrics"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture(scope="module", autouse=True)
def loopback(wire):
    wire.ip("link", "set", "lo", "up")


def scrape(timeout=5):
    with urllib.request.urlopen(urllib.request.Request(URL, headers=OPENMETRICS), timeout=timeout) as answer:
        return answer.read().decode()


def listens():
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", PORT)) == 0


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, figure, **labels):
    return found[(f"xsk_engine_{figure}", *sorted({"interface": "vtx", **labels}.items()))]


def listeners(port):
    """Addresses that this network namespace listens at, as /proc has them."""
    files = [Path(f"/proc/thread-self/net/{name}") for name in ("tcp", "tcp6")]
    lines = [line.split() for file in files for line in file.read_text().splitlines()[1:]]
    local = [line[1].split(":") for line in lines if line[3] == "0A"]
    return {address for address, at in local if at == f"{port:04X}"}


LOOPBACK = {4: "0100007F", 6: "00000000000000000000000001000000"}
ANY = {4: "00000000", 6: "0" * 32}


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ("{}", LOOPBACK[4]),
        ("127.0.0.1:{}", LOOPBACK[4]),
        ("[::1]:{}", LOOPBACK[6]),
        ("0.0.0.0:{}", ANY[4]),
        ("[::]:{}", ANY[6]),
    ],
)
@pytest.mark.parametrize("command", [(*SEND, "--rate", "1kpps"), ("sink", "vtx")], ids=lambda one: one[0])
def test_metrics_are_for_this_machine_unless_told_otherwise(wire, command, given, where):
    process = start(*command, "--metrics", given.format(PORT))
    try:
        wait_until(lambda: listeners(PORT), 20)
        assert listeners(PORT) == {where}
    finally:
        process.terminate()
        process.communicate(timeout=20)


def number(text):
    return float(text) if text else None


def test_three_flows_of_a_file_are_told_the_same_everywhere(wire, tmp_path):
    """The YAML example: scraped by curl's kind, its CSV and JSONL agree with the JSON at the end."""
    files = {name: tmp_path / name for name in ("jsonl", "csv")}
    process = start("send", "vtx", "--config", str(EXAMPLE), "--duration", "3s", "--queue", "0-1", "--json",
                    "--jsonl", str(files["jsonl"]), "--csv", str(files["csv"]), "--interval", "500ms",
                    "--metrics", str(PORT))  # fmt: skip
    wait_until(listens)
    time.sleep(0.5)
    curl = ["curl", "-s", "-H", f"Accept: {OPENMETRICS['Accept']}", URL]
    by_curl = subprocess.run(curl, capture_output=True, text=True, timeout=10, check=True).stdout
    first, second = samples(by_curl), samples(scrape())
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    report = json.loads(out)

    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["interval"] * (len(lines) - 1) + ["final"]
    assert 4 <= len(lines) <= 8
    assert [line["time_s"] for line in lines] == sorted(line["time_s"] for line in lines)
    assert lines[-2]["submitted_packets"] == lines[-1]["submitted_packets"], "the rest of the last interval"
    final = lines[-1]
    for name in (*names(TOTAL), "per_queue", "flows"):
        assert final[name] == report[name], name
    for earlier, later in itertools.pairwise(lines):
        for name in (figure.name for figure in FIGURES if figure.kind == "counter"):
            assert later[name] >= earlier[name]
    for line in lines:
        assert line["submitted_packets"] == sum(one["submitted_packets"] for one in line["per_queue"])
    flows = report["flows"]
    assert [flow["name"] for flow in flows] == ["voice", "bulk", "tunnel"]
    assert sum(flow["submitted_packets"] for flow in flows) == report["submitted_packets"]
    assert sum(flow["submitted_bytes"] for flow in flows) == report["submitted_bytes"]
    assert [flow["asked_pps"] for flow in flows] == [20000, 10000, 10000]
    assert flows[0]["submitted_packets"] == pytest.approx(2 * flows[1]["submitted_packets"], abs=4)

    with open(files["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) * (1 + 2 + 3)
    by_scope = {(row["scope"], row["id"]): row for row in rows if row["kind"] == "final"}
    for name in names(TOTAL):
        assert number(by_scope[TOTAL, ""][name]) == report[name]
    for queue in report["per_queue"]:
        for name in names(QUEUE):
            assert number(by_scope[QUEUE, str(queue["queue"])][name]) == queue[name]
    for flow in flows:
        assert by_scope[FLOW, str(flow["flow"])]["name"] == flow["name"]
        for name in names(FLOW):
            assert number(by_scope[FLOW, str(flow["flow"])][name]) == flow[name]

    for name in (figure.name for figure in FIGURES if figure.kind == "counter" and QUEUE in figure.scopes):
        for queue in report["per_queue"]:
            labels = {"queue": str(queue["queue"])}
            values = [value(found, f"{name}_total", **labels) for found in (first, second)]
            assert values[0] <= values[1] <= queue[name], name
    for flow in flows:
        labels = {"flow": str(flow["flow"]), "name": flow["name"]}
        values = [value(found, "flow_submitted_packets_total", **labels) for found in (first, second)]
        assert 0 < values[0] <= values[1] <= flow["submitted_packets"]
        assert value(first, "flow_asked_pps", **labels) == flow["asked_pps"]


def paths(report):
    """Each value's, as the table has them; the replay, which may be missing, also as a whole."""
    apart = ("kernel", "kicks", "allocator", "drain", "cpu", "umem", "gaps", "replay")
    nested = [f"{name}.{key}" for name in apart for key in report[name]]
    return {"replay", *nested, *(set(report) - set(apart))}


def test_the_table_of_the_docs_has_every_value_of_the_summary_and_no_other(wire, tmp_path):
    pcap = tmp_path / "some.pcap"
    what = ("--dry-run", "--dst-ip", "10.77.0.2", "--pcap-out", str(pcap))
    assert cli("send", *what).returncode == 0
    report = json.loads(cli("replay", "vtx", str(pcap), "--speed", "max", "--json").stdout)
    assert report["rtt"] is None
    assert paths(report) == {*(f for f in FIELDS if not f.startswith("rtt.")), *names(TOTAL)}
    assert all(set(one) == {"queue", *names(QUEUE)} for one in report["per_queue"])
    assert all(set(one) == {"flow", "name", *names(FLOW)} for one in report["flows"])


def test_a_replay_is_told_like_a_flow(wire, tmp_path):
    pcap = tmp_path / "some.pcap"
    assert cli("send", "--dry-run", "--dst-ip", "10.77.0.2", "--count", "50", "--rate", "1kpps",
               "--pcap-out", str(pcap)).returncode == 0  # fmt: skip
    result = cli("replay", "vtx", str(pcap), "--loop", "4", "--jsonl", "-", "--interval", "50ms", "--map-mac")
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[-1]["submitted_packets"] == 200
    assert lines[-1]["flows"][0] | {"posted_pps": 0} == {
        "flow": 0, "name": "some.pcap", "submitted_packets": 200, "submitted_bytes": 12000,
        "asked_pps": pytest.approx(1000), "posted_pps": 0,
    }  # fmt: skip
    assert any(0 < line["submitted_packets"] < 200 for line in lines)


# ---- when it cannot be told -----------------------------------------------------------------------------


def finished(process, seconds=5):
    asked = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - asked < seconds
    assert "Traceback" not in (err or "")
    return err


@pytest.mark.parametrize("option", ["--jsonl", "--csv", "--pcap-out"])
def test_a_full_disk_ends_it_with_an_error(wire, option):
    result = cli(*SEND, "--rate", "1kpps", "--duration", "1s", option, "/dev/full", "--interval", "100ms")
    assert result.returncode == 1
    assert "ENOSPC: the file is not complete" in result.stderr
    assert "submitted" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("option", ["--jsonl", "--csv"])
def test_a_reader_that_goes_away_ends_it(wire, option):
    process = start(*SEND, "--rate", "1kpps", option, "-", "--interval", "50ms")
    assert process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=5)
    assert process.returncode == 1
    assert "EPIPE" in process.stderr.read()
    process.stderr.close()


def test_a_reader_that_does_not_read_holds_nobody_up(wire):
    process = start(*SEND, "--rate", "1kpps", "--jsonl", "-", "--interval", "1ms")
    with wire.counted() as arrived:
        wait_until(lambda: arrived() > 1000)  # the pipe has been full for long
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    process.wait(timeout=10)
    assert time.monotonic() - asked < 4
    err = process.stderr.read()
    assert process.returncode == 130
    assert "the file is not complete" in err
    assert "submitted" in err
    process.stdout.close()
    process.stderr.close()


def test_files_and_ports_that_cannot_be_are_said_first(wire, tmp_path):
    assert "No such file" in cli(*SEND, "--jsonl", "/nonexistent/x").stderr
    assert "Is a directory" in cli(*SEND, "--csv", str(tmp_path)).stderr
    assert "only one of them" in cli(*SEND, "--jsonl", "-", "--csv", "-").stderr
    with socket.create_server(("127.0.0.1", PORT)):
        result = cli(*SEND, "--metrics", str(PORT), "--rate", "1kpps")
        assert result.returncode == 3
        assert "EADDRINUSE" in result.stderr


def test_scrapes_all_the_time_while_it_ends(wire):
    for how in ("done", "signal", "abort"):
        ends = ["--duration", "1s"] if how == "done" else []
        process = start(*SEND, "--rate", "1kpps", "--metrics", str(PORT), *ends)
        wait_until(listens)
        stop, answers = threading.Event(), []

        def ask(stop=stop, answers=answers):
            while not stop.is_set():
                try:
                    answers.append(scrape())
                except (OSError, http.client.HTTPException):
                    time.sleep(0.001)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        # and one that has begun to ask and does not go on
        half = socket.create_connection(("127.0.0.1", PORT))
        half.sendall(b"GET /metrics HTTP/1.1\r\n")
        for thread in threads:
            thread.start()
        wait_until(lambda answers=answers: len(answers) > 20)
        if how != "done":
            process.send_signal(signal.SIGINT)
        if how == "abort":
            process.send_signal(signal.SIGINT)
        err = finished(process)
        stop.set()
        for thread in threads:
            thread.join(10)
        half.close()
        assert process.returncode == (0 if how == "done" else 130), err
        whole = [answer for answer in answers if answer.endswith("# EOF\n")]
        assert len(whole) >= len(answers) - len(threads), "only the last ones can be cut off, and show it"
        assert all(samples(answer) or answer == "# EOF\n" for answer in whole)


@pytest.fixture
def served(monkeypatch, request):
    """A server in this process, impatient, whose answers have so many figures."""

    class Long(Collector):
        def collect(self):
            for i in range(request.param):
                yield GaugeMetricFamily(f"figure_{i}", "of many " * 200, value=i)

    monkeypatch.setattr(metrics, "_WHOLE_REQUEST_S", 0.5)
    server = metrics.MetricsServer(("127.0.0.1", PORT), Long())
    yield
    server.close()


def test_no_name_server_is_asked_for_the_name_of_the_address(wire, monkeypatch):
    """Whose answer may take minutes."""
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("a name server was asked"))
    server = metrics.MetricsServer(("127.0.0.1", PORT))
    try:
        assert scrape().endswith("# EOF\n")
    finally:
        server.close()


@pytest.mark.parametrize("served", [100], indirect=True)
def test_who_asks_byte_by_byte_takes_neither_descriptors_nor_threads(wire, served):
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.socket()) for _ in range(100)]
        for one in slow:  # not all find room in the queue of connections
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", PORT))
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            for one in slow:
                with contextlib.suppress(OSError):
                    one.send(b"G")
            time.sleep(0.05)
            assert threading.active_count() - before[1] <= 16
        assert len(os.listdir("/proc/self/fd")) - before[0] <= 100 + 16
        wait_until(lambda: threading.active_count() == before[1], 3)
        assert "figure_99 99.0" in scrape()


@pytest.mark.parametrize("served", [8000], indirect=True)
def test_who_does_not_read_his_answer_is_let_go(wire, served, capfd):
    before = threading.active_count()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", PORT))
        deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        wait_until(lambda: threading.active_count() > before)
        wait_until(lambda: threading.active_count() == before, 5)
    assert capfd.readouterr().err == ""


def test_a_second_signal_does_not_wait_for_the_drain(wire):
    process = start(*SEND, "--rate", "1kpps", "--json")
    with wire.counted() as arrived:
        wait_until(lambda: arrived() > 10)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    finished(process, 2)
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("pause", [0.02, 0.1, 0.2])
def test_a_second_signal_while_it_closes_leaves_the_summary(wire, tmp_path, number, pause):
    """Metrics take up to half a second to close."""
    process = start(
        *SEND, "--rate", "1kpps", "--json", "--metrics", str(PORT), "--csv", str(tmp_path / "csv")
    )
    wait_until(listens)
    with wire.counted() as arrived:
        wait_until(lambda: arrived() > 10)
    process.send_signal(number)
    time.sleep(pause)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 128 + number, err
    assert json.loads(out)["submitted_packets"] > 10
    assert "final," in (tmp_path / "csv").read_text()


def test_names_that_are_no_text_can_be_told(wire, tmp_path):
    file = os.fsencode(tmp_path) + b"/bad\xff.pcap"
    assert cli("send", "--dry-run", "--dst-ip", "10.77.0.2", "--count", "900", "--rate", "1kpps",
               "--pcap-out", os.fsdecode(file)).returncode == 0  # fmt: skip
    process = start(
        "replay", "vtx", os.fsdecode(file), "--csv", "-", "--metrics", str(PORT), "--interval", "50ms"
    )
    wait_until(listens)
    time.sleep(0.3)
    found = samples(scrape())
    assert value(found, "flow_submitted_packets_total", flow="0", name="bad\\xff.pcap") > 0
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "bad\\xff.pcap" in out


# ---- the live view --------------------------------------------------------------------------------------


def on_a_terminal(*arguments, seconds=20, columns=120):
    """What a command writes to a terminal, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "xsk_engine", *arguments],
        stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, env=os.environ | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    return process.wait(timeout=5), seen.decode(errors="replace")


def test_a_terminal_shows_what_is_going_on(wire):
    code, seen = on_a_terminal("send", "vtx", "--config", str(EXAMPLE), "--duration", "2s", "--queue", "0-1")
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    for word in ("voice", "bulk", "tunnel", "20,000", "asked pps", "queue", "dropped", "completed,"):
        assert word in plain, word
    assert re.search("[▁▂▃▄▅▆▇█]{3}", plain)
    shares = [int(share) for share in re.findall(r"(\d+)%", plain)]
    assert shares == sorted(shares)
    assert 5 <= len(shares) <= 9, "four times a second for two seconds"
    assert shares[-1] > 70


def test_the_summary_has_a_line_for_each_queue_and_flow(wire):
    result = cli("send", "vtx", "--config", str(EXAMPLE), "--duration", "300ms", "--queue", "0-1")
    lines = result.stderr.splitlines()
    for begins in ("queue 0", "queue 1", "flow 0     voice: ", "flow 1     bulk: ", "flow 2     tunnel: "):
        assert any(line.startswith(begins) for line in lines), (begins, lines)
    result = cli(*SEND, "--count", "1")
    assert "flow 0" not in result.stderr


def test_a_narrow_terminal_gets_whole_words(wire):
    code, seen = on_a_terminal(*SEND, "--count", "50", "--rate", "1kpps", "--no-live", columns=60)
    assert code == 0
    lines = seen.replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 60
    assert any(line.startswith(" " * 11) for line in lines)


def test_without_a_terminal_it_is_quiet(wire):
    result = cli(*SEND, "--count", "500", "--rate", "1kpps")
    assert "▁" not in result.stderr
    assert result.stderr.startswith("interface")
    code, seen = on_a_terminal(*SEND, "--count", "500", "--rate", "1kpps", "--no-live")
    assert code == 0
    assert "asked pps" not in seen


# ---- without stderr ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        (*SEND, "--count", "10", "--json"),
        ("sink", "vtx", "--duration", "0.1s", "--json"),
        ("measure", "vtx", "vtx", "--help"),
        ("demo", "--seconds", "1"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_whose_stderr_is_closed(wire, command):
    done = subprocess.run(
        [*WITHOUT_STDERR, *command], stdout=subprocess.PIPE, timeout=30, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0
    assert "--json" not in command or json.loads(done.stdout)


@pytest.mark.parametrize("how", [("--json",), ("--no-live",)])
def test_tcp_whose_stderr_is_closed(wire, real_root, how):
    """Its summary goes nowhere, and never into what was received."""
    with peer(wire, echo) as one:
        done = subprocess.run(
            [*WITHOUT_STDERR, "tcp", ADDRESS[4], str(one.port), *how],
            input=b"and back", stdout=subprocess.PIPE, timeout=30, check=False,
        )  # fmt: skip
        assert one.result() == 8
    assert (done.returncode, done.stdout) == (0, b"and back")


# ---- files that others have open, too ----------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--pcap-out", "--jsonl"])
def test_a_pipe_is_left_as_it_was(wire, option):
    """O_NONBLOCK would be everybody's who has it."""
    reader, writer = os.pipe()
    with open(reader, "rb") as read, open(writer, "wb") as write:
        done = subprocess.run(
            [sys.executable, "-m", "xsk_engine", *SEND, "--count", "3", option, "-"],
            stdout=write, stderr=subprocess.PIPE, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert os.get_blocking(write.fileno())
        write.close()
        assert read.read()


def started_into(stdout, *command):
    return subprocess.Popen(
        [sys.executable, "-m", "xsk_engine", *command],
        stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["send", "sink", "tcp"])
def test_a_terminal_that_takes_nothing_holds_nobody_up(wire, real_root, mortal, command):
    """Nobody reads at its other end: it ends as late as it would, and says what it could not write."""
    ours, its = pty.openpty()
    try:
        with peer(wire, lambda connection: connection.sendall(bytes(1 << 20))) as one:
            arguments = {
                "send": (*SEND, "--rate", "1kpps", "--duration", "1s", "--jsonl", "-", "--interval", "5ms"),
                "sink": ("sink", "vtx", "--duration", "1s", "--jsonl", "-", "--interval", "5ms"),
                "tcp": ("tcp", ADDRESS[4], str(one.port), "--no-live"),
            }
            process = mortal(started_into(its, *arguments[command]))
            if command == "tcp":
                time.sleep(1)
                process.terminate()
            _, err = process.communicate(timeout=10)
        assert process.returncode == (143 if command == "tcp" else 1), err
        assert "Traceback" not in err
    finally:
        os.close(ours)
        os.close(its)


@pytest.mark.parametrize("limit", [4096, 20480])
def test_packets_that_do_not_fit_are_an_error(wire, tmp_path, limit):
    """Also where the file takes a part of the last ones."""
    command = (*SEND, "--dry-run", "--size", "1000", "--count", "21", "--pcap-out", "some.pcap")
    done = subprocess.run(
        [sys.executable, "-m", "xsk_engine", *command], capture_output=True, text=True, cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)), check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "EFBIG" in done.stderr or "File too large" in done.stderr


@pytest.mark.parametrize("command", ["send", "sink"])
def test_a_socket_that_takes_nothing_holds_nobody_up(wire, mortal, command):
    """It cannot be opened again, and stays blocking for others."""
    ours, its = socket.socketpair()
    arguments = {
        "send": (*SEND, "--rate", "50kpps", "--size", "1000", "--duration", "1s", "--pcap-out", "-"),
        "sink": ("sink", "vrx", "--duration", "2s", "--pcap", "-"),
    }
    with ours, its:
        with wire.in_rx() if command == "sink" else contextlib.nullcontext():
            process = mortal(started_into(its, *arguments[command]))
        if command == "sink":
            process.stderr.readline()
            cli(*SEND, "--rate", "20kpps", "--size", "1000", "--duration", "1s", "--signature")
        _, err = process.communicate(timeout=15)
        assert os.get_blocking(its.fileno())
    assert (process.returncode, "the file is not complete" in err) == (1, True), err


def test_a_summary_into_a_pipe_that_somebody_else_has_made_non_blocking(wire):
    """It is whole."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    packets = [word for i in range(100) for word in ("--packet", f"ip dst=10.77.0.2 / udp dst={1000 + i}")]
    command = [sys.executable, "-m", "xsk_engine", "send", "vtx", *packets, "--count", "100", "--json"]
    with (
        subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE) as process,
        open(reader, "rb") as read,
    ):
        assert not os.get_blocking(writer)
        os.close(writer)
        time.sleep(2)  # until it waits for us
        text = read.read()
    assert process.returncode == 0
    assert len(text) > 4096
    assert json.loads(text)["completed_packets"] == 100

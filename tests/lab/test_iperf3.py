"""``xsk-engine iperf3`` against an unmodified ``iperf3 -s``. The oracles are the server's own JSON, and what
iperf3's own client says of the same test."""

import contextlib
import fcntl
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tcppeer import ADDRESS, peer
from wire import cli, start, wait_until

from xsk_engine.lab import topology

pytestmark = pytest.mark.usefixtures("real_root")

ROOT = Path(__file__).parents[2]
PORT = 5201
MIB = 1 << 20
ESTABLISHED, LISTEN = "01", "0A"  # include/net/tcp_states.h
# What later versions than 3.12 say besides.
NEWER = {"bidir", "fqrate", "fq_rate", "interval", "reorder", "target_bitrate", "gso", "gro"}


def kernel_sockets(state, port):
    """Of this thread's network namespace, with this local or remote port."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
    ]
    ports = [{int(end.rpartition(":")[2], 16) for end in line[1:3]} for line in lines if line[3] == state]
    return sum(port in two for two in ports)


@contextlib.contextmanager
def server(wire, *arguments):
    """One that serves once; yields its process when it listens."""
    with wire.in_rx():
        process = subprocess.Popen(
            ["iperf3", "-s", "-1", "-p", str(PORT), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def listens():
        assert process.poll() is None, process.stderr.read()
        with wire.in_rx():
            return kernel_sockets(LISTEN, PORT)

    try:
        wait_until(listens)
        yield process
    finally:
        process.kill()
        process.communicate()


def measured(wire, *arguments, address=ADDRESS[4], tries=4):
    """Our JSON and the server's, both of which must be satisfied. A server that is not scheduled misses what
    it has not read when the test ends; one of some tries it is."""
    for _ in range(tries):
        ours, theirs = measured_once(wire, *arguments, address=address)
        if theirs["end"]["sum_received"]["bytes"] == ours["end"]["sum_sent"]["bytes"]:
            break
    return ours, theirs


def measured_once(wire, *arguments, address):
    with server(wire, "-J") as process:
        result = cli("iperf3", address, "-p", str(PORT), "-J", *arguments)
        assert result.returncode == 0, result.stderr
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
    ours, theirs = json.loads(result.stdout), json.loads(out)
    for one in (ours, theirs):
        assert "error" not in one
    return ours, theirs


def check(ours, theirs, streams=1):
    """The two agree, and every sum is one."""
    sent, received = ours["end"]["sum_sent"], ours["end"]["sum_received"]
    assert received["bytes"] == theirs["end"]["sum_received"]["bytes"] == sent["bytes"]
    assert len(ours["end"]["streams"]) == len(ours["start"]["connected"]) == streams
    assert sum(one["sender"]["bytes"] for one in ours["end"]["streams"]) == sent["bytes"]
    by_port = {
        one["remote_port"]: stream["receiver"]["bytes"]
        for one, stream in zip(theirs["start"]["connected"], theirs["end"]["streams"], strict=True)
    }
    for one, stream in zip(ours["start"]["connected"], ours["end"]["streams"], strict=True):
        if streams == 1:  # with several the server says the first one's ports for each
            assert one["local_port"] in by_port
        assert stream["receiver"]["bytes"] == stream["sender"]["bytes"]
    assert sum(one["sum"]["bytes"] for one in ours["intervals"]) == sent["bytes"]
    assert ours["start"]["cookie"] == theirs["start"]["cookie"]
    assert ours["end"]["cpu_utilization_percent"]["remote_total"] == pytest.approx(
        theirs["end"]["cpu_utilization_percent"]["host_total"]
    )


# ---- tests that the server is satisfied with ------------------------------------------------------------


def test_who_does_not_read_the_lines_does_not_hold_the_test_up(wire):
    """The server's is over, and then they can still be read."""
    with server(wire) as process:
        client = start("iperf3", ADDRESS[4], "-p", str(PORT), "-t", "1", "-i", "0.1", "-P", "8")
        with client:
            fcntl.fcntl(client.stdout, fcntl.F_SETPIPE_SZ, 4096)
            assert process.wait(10) == 0
            out, err = client.communicate(timeout=10)
    assert client.returncode == 0, err
    assert len(out) > 4096
    assert out.splitlines()[-1] == "iperf Done."


def test_a_second(wire):
    ours, theirs = measured(wire, "-t", "1")
    check(ours, theirs)
    assert ours["end"]["sum_sent"]["bytes"] > MIB
    assert ours["end"]["sum_sent"]["seconds"] >= 1
    assert theirs["start"]["test_start"]["duration"] == 1
    assert len(ours["intervals"]) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_so_many_bytes(wire, version):
    ours, theirs = measured(wire, "-n", "10M", address=ADDRESS[version])
    check(ours, theirs)
    assert ours["end"]["sum_received"]["bytes"] == 10 * MIB
    assert theirs["start"]["test_start"]["bytes"] == 10 * MIB


@pytest.mark.parametrize("streams", [2, 4, 16])
def test_parallel_streams(wire, streams):
    ours, theirs = measured(wire, "-n", "32M", "-P", str(streams))
    check(ours, theirs, streams)
    assert ours["end"]["sum_received"]["bytes"] == 32 * MIB
    assert theirs["start"]["test_start"]["num_streams"] == streams


@pytest.mark.parametrize(("length", "n"), [("1000", 1_000_000), ("1M", 8 * MIB)])
def test_blocks(wire, length, n):
    """Whole ones, also where the bytes asked for end within one."""
    ours, theirs = measured(wire, "-n", str(n - 1), "-l", length, "-C", "reno", "-P", "2")
    check(ours, theirs, 2)
    assert ours["end"]["sum_received"]["bytes"] == n
    assert ours["end"]["sender_tcp_congestion"] == "reno"


def test_intervals(wire):
    ours, theirs = measured(wire, "-t", "1", "-i", "0.25", "-P", "2")
    check(ours, theirs, 2)
    times = [one["sum"]["start"] for one in ours["intervals"]] + [ours["intervals"][-1]["sum"]["end"]]
    assert len(ours["intervals"]) == 4
    assert [one["sum"]["end"] for one in ours["intervals"]] == times[1:]
    ours, _ = measured(wire, "-n", "1M", "-i", "0")
    assert len(ours["intervals"]) == 1


def test_only_the_control_connection_is_the_kernels(wire, mortal):
    with server(wire) as process:
        client = mortal(start("iperf3", ADDRESS[4], "-t", "2", "-P", "4"))
        with wire.in_rx():
            wait_until(lambda: kernel_sockets(ESTABLISHED, PORT) == 5, 20)
        assert kernel_sockets(ESTABLISHED, PORT) == 1
        out, err = client.communicate(timeout=30)
        assert client.returncode == 0, err
        assert process.wait(20) == 0


# ---- as iperf3's own client -----------------------------------------------------------------------------


def shape(value):
    """Names and kinds of values; of a list those of its first member."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items() if name not in NEWER}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return (
        "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
    )


def by_the_real_client(wire, *arguments):
    with server(wire):
        result = subprocess.run(
            ["iperf3", "-c", ADDRESS[4], "-p", str(PORT), *arguments],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    return result.stdout


@pytest.mark.parametrize("arguments", [("-t", "1", "-P", "2", "-i", "0.5"), ("-n", "4M", "-l", "10000")])
def test_json_has_the_real_clients_names(wire, arguments):
    real = json.loads(by_the_real_client(wire, "-J", *arguments))
    ours, _ = measured(wire, *arguments)
    assert shape(ours) == shape(real)
    for name in ("protocol", "num_streams", "blksize", "omit", "duration", "bytes", "blocks", "reverse"):
        assert ours["start"]["test_start"][name] == real["start"]["test_start"][name]
    assert list(ours) == [name for name in real if name in ours]


def layout(text):
    """Lines without their figures: what stands in which column."""
    lines = [re.sub(r"\[ *\d+\]", "[ID]", line) for line in text.splitlines() if "local" not in line]
    lines = [re.sub(r"(?<=sec) +\d.*?/sec", " SIZE RATE", line) for line in lines]
    lines = [re.sub(r" [ .\d]{4} [KMGT]?Bytes", " SIZE", line) for line in lines]
    return [re.sub(r"(?<=RATE) +\d+(?= )", " RETR", re.sub(r"\d\.\d\d", "T", line)) for line in lines]


@pytest.mark.parametrize("streams", ["1", "3"])
def test_lines_are_laid_out_as_the_real_clients(wire, streams):
    arguments = ("-t", "2", "-P", streams)
    real = by_the_real_client(wire, *arguments)
    with server(wire):
        result = cli("iperf3", ADDRESS[4], "-p", str(PORT), *arguments)
    assert result.returncode == 0, result.stderr
    assert layout(result.stdout) == layout(real)
    columns = {line.index("Transfer") for line in result.stdout.splitlines() if "Transfer" in line}
    assert columns == {line.index("Transfer") for line in real.splitlines() if "Transfer" in line}


def test_the_readmes_line(wire):
    """A laboratory in ours; it stands there with sudo."""
    line = re.search(r"^sudo (.*xsk-engine iperf3 .*)$", (ROOT / "README.md").read_text(), re.M)[1]
    line = line.replace(".venv/bin/xsk-engine", f"{sys.executable} -m xsk_engine").replace("-t 3", "-t 1")
    result = subprocess.run(
        line, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "iperf Done.\n" in result.stdout


# ---- what goes wrong ------------------------------------------------------------------------------------


def failed(result, code, said):
    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nobody_listens(wire):
    failed(cli("iperf3", ADDRESS[4], "-p", "1"), 1, "no iperf3 server listens there")
    result = cli("iperf3", ADDRESS[4], "-p", "1", "-J")
    assert result.returncode == 1
    assert "ECONNREFUSED" in json.loads(result.stdout)["error"]


def test_a_server_that_is_busy(wire):
    with server(wire):
        other = subprocess.Popen(
            ["iperf3", "-c", ADDRESS[4], "-p", str(PORT), "-t", "30"], stdout=subprocess.DEVNULL
        )
        try:
            with wire.in_rx():
                wait_until(lambda: kernel_sockets(ESTABLISHED, PORT) == 2, 20)
            failed(cli("iperf3", ADDRESS[4], "-p", str(PORT)), 1, "busy")
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()


def established(wire, n):
    with wire.in_rx():
        wait_until(lambda: kernel_sockets(ESTABLISHED, PORT) == n, 20)


def test_a_server_that_is_stopped(wire, mortal):
    with server(wire) as process:
        client = mortal(start("iperf3", ADDRESS[4], "-t", "30"))
        established(wire, 2)
        wait_until(lambda: "sec" in client.stdout.readline(), 20)
        process.terminate()
        out, err = client.communicate(timeout=20)
    assert client.returncode == 1
    assert "the server was stopped" in err
    assert "iperf Done" not in out


def test_a_server_that_is_killed(wire, mortal):
    with server(wire) as process:
        client = mortal(start("iperf3", ADDRESS[4], "-t", "30", "-J"))
        established(wire, 2)
        process.kill()
        out, err = client.communicate(timeout=20)
    assert client.returncode == 1
    assert len(err.splitlines()) == 1
    assert "error" in json.loads(out)


def test_a_server_that_reads_no_more(wire, mortal):
    with server(wire) as process:
        client = mortal(start("iperf3", ADDRESS[4], "-t", "30", "--timeout", "500ms"))
        established(wire, 2)
        process.send_signal(signal.SIGSTOP)
        out, err = client.communicate(timeout=20)
    assert client.returncode == 1
    assert "the server has taken nothing for so long" in err


def test_no_iperf3_server(wire):
    def junk(connection):
        connection.recv(37)
        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    with peer(wire, junk) as one:
        failed(cli("iperf3", ADDRESS[4], "-p", str(one.port)), 1, "is this iperf3?")

    def silent(connection):
        connection.recv(37)

    with peer(wire, silent) as one:
        failed(
            cli("iperf3", ADDRESS[4], "-p", str(one.port)), 1, "closed the connection before the parameters"
        )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals(wire, mortal, number, code):
    with server(wire) as process:
        client = mortal(start("iperf3", ADDRESS[4], "-t", "30", "-i", "0.1", "-J"))
        established(wire, 2)
        time.sleep(0.3)
        client.send_signal(number)
        out, err = client.communicate(timeout=20)
        said = process.communicate(timeout=20)
        assert "the client has terminated" in "".join(said)
    assert client.returncode == code, err
    report = json.loads(out)
    assert report["error"] == "interrupt - the client has terminated"
    assert report["end"]["sum_sent"]["bytes"] == sum(one["sum"]["bytes"] for one in report["intervals"])


def test_a_signal_while_it_waits_for_the_server(wire, mortal):
    with wire.in_rx():
        listener = socket.create_server((topology.RX_IPV4, 0))
    with listener:
        client = mortal(start("iperf3", ADDRESS[4], "-p", str(listener.getsockname()[1])))
        connection, _ = listener.accept()
        with connection:
            assert len(connection.recv(37)) == 37
            client.send_signal(signal.SIGINT)
            out, err = client.communicate(timeout=20)
    assert client.returncode == 130
    assert "Traceback" not in err


def test_without_capabilities(wire):
    with server(wire):
        result = subprocess.run(
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "xsk_engine",
             "iperf3", ADDRESS[4]],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    failed(result, 3, "CAP_")

"""What a person is shown on stderr while a command runs: nobody who does not read it holds the run up, and
nobody who goes away costs its summary."""

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import time

import pytest
from test_measure import QUICK, measured_lab
from wire import cli, wait_until

SEND = ("send", "vtx", "--dst-ip", "10.77.0.2", "--dst-port", "9000", "--rate", "1kpps")
SINK = ("sink", "vtx", "--method", "packet", "--interval", "10ms")
MEASURE = ("measure", "vtx", "vrx", "--size", "64", "--tests", "loss", *QUICK)
COMMANDS = {
    "send": (*SEND, "--duration", "1s"),
    "sink": (*SINK, "--duration", "1s"),
    "measure": MEASURE,
}


def started(stderr, *command, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "xsk_engine", *command],
        stdin=subprocess.DEVNULL, stderr=stderr, **{"stdout": subprocess.PIPE} | options,
    )  # fmt: skip


def ended(process):
    """Its exit code and its summary."""
    out, _ = process.communicate(timeout=15)
    return process.returncode, json.loads(out)


@pytest.fixture
def full_pipe():
    """The end to write to of a pipe that nobody reads, and in which there is little room."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, bytes(4000))
    yield writer
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_that_nobody_reads_holds_up_no_run(wire, mortal, full_pipe, command):
    with measured_lab() as (_, options):
        process = mortal(started(full_pipe, *COMMANDS[command], "--live", "--json", **options))
        code, report = ended(process)
    assert (code, report["schema"]) == (0, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_is_stopped_does_not_keep_signals_out(wire, mortal, number):
    """Ctrl-S, and then Ctrl-C."""
    ours, its = pty.openpty()
    try:
        process = mortal(started(its, *SEND, "--live", "--json"))
        with wire.counted() as arrived:
            wait_until(lambda: arrived() > 10)
            termios.tcflow(its, termios.TCOOFF)
            time.sleep(1)  # four pictures
            process.send_signal(number)
            code, report = ended(process)
        assert code == 128 + number
        assert report["completed_packets"] > 10
    finally:
        os.close(ours)
        os.close(its)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_goes_away_costs_nobody_his_summary(wire, mortal, command):
    reader, writer = os.pipe()
    with measured_lab() as (_, options):
        process = mortal(started(writer, *COMMANDS[command], "--live", "--json", **options))
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        code, report = ended(process)
    assert (code, report["schema"]) == (0, 1)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_fifo_whose_reader_is_away_is_not_waited_for(tmp_path, mortal, is_blocking):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    os.close(reader)
    os.set_blocking(writer, is_blocking)
    process = mortal(started(writer, "--version"))
    os.close(writer)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out.split()[0]) == (0, b"xsk-engine")


def test_a_summary_into_a_socket_that_is_not_blocking_is_whole(wire, mortal):
    packets = [word for i in range(300) for word in ("--packet", f"ip dst=10.77.0.2 / udp dst={1000 + i}")]
    ours, its = socket.socketpair()
    with ours:
        with its:
            its.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            its.setblocking(False)
            command = ("send", "vtx", *packets, "--count", "300", "--json")
            process = mortal(started(subprocess.PIPE, *command, stdout=its))
        time.sleep(2)  # until it waits for us
        text = b"".join(iter(lambda: ours.recv(1 << 16), b""))
        _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert len(json.loads(text)["flows"]) == 300


@pytest.mark.parametrize("command", [(*SEND, "--count", "10"), (*SINK, "--duration", "0.3s")])
@pytest.mark.parametrize("options", [("--jsonl", "--csv"), ("--csv", "--jsonl")])
def test_an_output_that_fails_takes_no_other_with_it(wire, tmp_path, command, options):
    """Nor the summary, which names it."""
    failing, good = options
    done = cli(*command, "--json", failing, "/dev/full", good, str(tmp_path / "good"))
    assert (done.returncode, "the file is not complete" in done.stderr) == (1, True), done.stderr
    assert json.loads(done.stdout)["error"]["errno"] == "ENOSPC"
    lines = (tmp_path / "good").read_text().splitlines()
    assert '"kind": "final"' in lines[-1] if good == "--jsonl" else len(lines) > 1


def test_an_output_that_cannot_be_finished_does_not_take_the_summary(wire, full_pipe):
    command = (*SINK, "--duration", "0.3s", "--json", "--jsonl", f"/dev/fd/{full_pipe}")
    process = started(subprocess.PIPE, *command, pass_fds=[full_pipe])
    out, err = process.communicate(timeout=15)
    assert (process.returncode, b"the file is not complete" in err) == (1, True), err
    assert json.loads(out)["error"]["errno"] == "ETIMEDOUT"


@pytest.mark.parametrize("limit", [8, 12, 16])
@pytest.mark.parametrize("more", [(), ("--metrics", "9123", "--jsonl", "/dev/null")])
def test_too_few_descriptors_are_said(wire, limit, more):
    """Not by libuv, which would abort."""
    command = [sys.executable, "-m", "xsk_engine", *SEND, "--count", "1", "--no-live", *more]
    done = subprocess.run(
        ["sh", "-c", f'ulimit -c 0; ulimit -n {limit}; exec "$@"', "sh", *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False, pass_fds=(),
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
    assert "EMFILE" in done.stderr
    assert "ulimit -n" in done.stderr

"""Signals, and terminals and readers that go: a summary and an exit code, or it goes on."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tcppeer import ADDRESS, digest_of, peer
from wire import PORT, another_lab, first_line, is_real_root, start, wait_until

from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions

COMMAND = (sys.executable, "-m", "xsk_engine")
SEND = ("send", "vtx", "--dst-ip", topology.RX_IPV4, "--dst-port", str(PORT), "--rate", "1kpps")


def ended(process, code, seconds=3.0):
    """Within so long; what it has written."""
    asked = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - asked < seconds
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


# ---- SIGHUP ------------------------------------------------------------------------------------------------


def test_a_hangup_ends_a_command_in_a_laboratory(wire, mortal):
    process = mortal(start("lab", "run", "--wire", "clean", "--", *COMMAND, *SEND, "--json", "--jsonl",
                           "/dev/stderr", "--interval", "50ms"))  # fmt: skip
    assert '"interval"' in first_line(process, of="stderr")
    process.send_signal(signal.SIGHUP)
    out, _ = ended(process, 129)
    report = json.loads(out)
    assert report["submitted_packets"] == report["completed_packets"] > 0


def test_a_hangup_ends_a_replay(wire, mortal, tmp_path):
    file = tmp_path / "some.pcap"
    subprocess.run([*COMMAND, *SEND, "--dry-run", "--count", "100", "--pcap-out", str(file)], check=True)
    process = mortal(start("replay", "vtx", str(file), "--loop", "0", "--json"))
    with wire.counted() as arrived:
        wait_until(lambda: arrived() > 10)
    process.send_signal(signal.SIGHUP)
    out, _ = ended(process, 129)
    assert json.loads(out)["submitted_packets"] > 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_sink_that_is_told_to_end_has_a_good_end(wire, mortal, number):
    with wire.in_rx():
        process = mortal(start("sink", "vrx", "--json"))
    assert first_line(process, of="stderr").startswith("receiving on vrx")
    process.send_signal(number)
    out, _ = ended(process, 0)
    assert json.loads(out)["received_packets"] == 0


def test_nohup_keeps_it_running(wire, mortal):
    process = mortal(
        subprocess.Popen(
            ["nohup", *COMMAND, *SEND, "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
    )  # fmt: skip
    with wire.counted() as arrived:
        wait_until(lambda: arrived() > 10)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        before = arrived()
        wait_until(lambda: arrived() > before + 200)
    process.send_signal(signal.SIGTERM)
    out, _ = ended(process, 143)
    assert json.loads(out)["submitted_packets"] > 200


def test_a_terminal_that_goes(wire, mortal, tmp_path):
    """It takes stdin, stdout and stderr along; what is written into files is whole."""
    file, ours, theirs = tmp_path / "jsonl", *pty.openpty()
    process = mortal(
        subprocess.Popen(
            ["setsid", "--ctty", *COMMAND, *SEND, "--jsonl", str(file), "--interval", "50ms"],
            stdin=theirs, stdout=theirs, stderr=theirs,
        )
    )  # fmt: skip
    os.close(theirs)
    with wire.counted() as arrived:
        wait_until(lambda: arrived() > 10)
    os.close(ours)
    assert process.wait(5) == 1  # as stdout takes no more
    last = json.loads(file.read_text().splitlines()[-1])
    assert last["kind"] == "final"
    assert last["submitted_packets"] == last["completed_packets"] > 10


# ---- Ctrl-C before anything is there -----------------------------------------------------------------------

AT_AN_IMPORT = """
import os, signal, sys
import xsk_engine
when = sys.argv.pop(1)
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == when:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
from xsk_engine.cli import main
main()
"""


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("click", -signal.SIGINT),  # Python is not asked yet
        ("xsk_engine.errors", -signal.SIGINT),
        ("xsk_engine.cli.send", 130),
        ("xsk_engine.session", 130),
        ("uvloop", 130),
        ("xsk_engine.engine", 130),
        ("ctypes", 130),
        ("pyroute2", 130),
    ],
)
def test_ctrl_c_while_python_imports(wire, name, code):
    result = subprocess.run(
        [sys.executable, "-c", AT_AN_IMPORT, name, *SEND, "--count", "1"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    assert not result.stderr.strip()


# ---- between the last packet and the summary ---------------------------------------------------------------

AFTER_THE_EVENT_LOOP = """
import os, signal
import uvloop
class Loop(uvloop.Loop):
    def close(self):
        super().close()
        os.kill(os.getpid(), signal.SIGTERM)
uvloop.new_event_loop = Loop
from xsk_engine.cli import main
main()
"""
AFTER_THE_RUN = """
import contextlib, os, signal
from xsk_engine import signals
real = signals.handled
@contextlib.contextmanager
def handled(handler):
    with real(handler) as numbers:
        yield numbers
    os.kill(os.getpid(), signal.SIGTERM)
signals.handled = handled
from xsk_engine.cli import main
main()
"""
RUNS = {
    "send": (*SEND, "--count", "1"),
    "sink": ("sink", "vtx", "--duration", "0.1s"),
    "measure": ("measure", "vtx", "vrx", "--tests", "throughput", "--size", "64", "--trial", "0.1s"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_signal_when_the_run_is_just_over(wire, name):
    """There is nothing left to end, and the summary is still told."""
    result = subprocess.run(
        [sys.executable, "-c", AFTER_THE_RUN, *RUNS[name], "--json"],
        capture_output=True, text=True, timeout=30, check=False, close_fds=False,
    )  # fmt: skip
    assert result.returncode in (0, 1), result.stderr
    assert json.loads(result.stdout)


def test_a_signal_when_the_event_loop_has_just_closed(wire):
    result = subprocess.run(
        [sys.executable, "-c", AFTER_THE_EVENT_LOOP, *SEND, "--count", "1", "--json"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert result.returncode == 143, result.stderr
    assert json.loads(result.stdout)["completed_packets"] == 1


@pytest.mark.parametrize("script", [AFTER_THE_EVENT_LOOP, AFTER_THE_RUN], ids=["loop", "run"])
def test_a_signal_when_a_connection_has_just_closed(wire, real_root, script):
    with peer(wire, digest_of) as one:
        result = subprocess.run(
            [sys.executable, "-c", script, "tcp", ADDRESS[4], str(one.port), "--json"],
            input="hello", capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert one.result()[0] == 5
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stderr)["written_bytes"] == 5


def test_the_second_signal_ends_who_cannot_tell(wire, mortal):
    """Nobody reads the summary: the first is ignored, as the run is over."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, bytes(4096))
    flows = [
        part for i in range(50) for part in ("--packet", f"ip dst={topology.RX_IPV4} / udp dst={1000 + i}")
    ]
    process = mortal(
        subprocess.Popen([*COMMAND, "send", "vtx", *flows, "--count", "50", "--json"], stdout=writer)
    )
    os.close(writer)
    wait_until(lambda: "pipe_write" in Path(f"/proc/{process.pid}/wchan").read_text(), 10)
    process.terminate()
    time.sleep(0.2)
    assert process.poll() is None
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM
    os.close(reader)


@pytest.mark.parametrize("gap_s", [0.0, 0.02, 0.05])
def test_a_sink_that_is_told_twice_has_its_summary(wire, mortal, gap_s):
    with wire.in_rx():
        process = mortal(start("sink", "vrx", "--json"))
    first_line(process, of="stderr")
    process.send_signal(signal.SIGINT)
    time.sleep(gap_s)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert "received_packets" in json.loads(out)
    assert process.returncode in (0, -signal.SIGTERM), err  # Python's own end may be all that is left to end


# ---- readers that go ---------------------------------------------------------------------------------------


def test_a_reader_of_stderr_that_goes(wire, mortal):
    process = mortal(start(*SEND, "--live", "--json", "--interval", "50ms"))
    with wire.counted() as arrived:
        wait_until(lambda: arrived() > 10)
        process.stderr.close()
        before = arrived()
        wait_until(lambda: arrived() > before + 200)
    process.send_signal(signal.SIGINT)
    out = process.stdout.read()
    assert process.wait(5) == 130
    assert json.loads(out)["submitted_packets"] > 200


def test_a_reader_of_the_summary_that_goes(wire, mortal):
    process = mortal(start(*SEND, "--json"))
    with wire.counted() as arrived:
        wait_until(lambda: arrived() > 10)
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    assert process.wait(5) == 1
    assert "Traceback" not in err


# ---- SIGSTOP -----------------------------------------------------------------------------------------------

STOPPED_S = 5.0


@contextlib.contextmanager
def datagrams(wire, port):
    """Yields the times at which they came."""
    with wire.listening(port) as sock:
        sock.settimeout(0.05)
        times, over = [], threading.Event()

        def read():
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    sock.recv(2000)
                    times.append(time.monotonic())

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield times
        finally:
            over.set()
            thread.join()


def test_stopped_for_five_seconds(wire, mortal):
    """A sender with a pace, one without, and a TCP connection (root): they go on as if nothing had been."""
    with contextlib.ExitStack() as stack:
        times = stack.enter_context(datagrams(wire, PORT + 1))
        arrived = stack.enter_context(wire.counted())
        small = ("--umem-mb", "1", "--json")  # two of them within an ordinary user's locked-memory limit
        paced = mortal(start(*SEND, "--dst-port", str(PORT + 1), "--count", "4000", *small))
        flood = mortal(start(*SEND, "--rate", "20kpps", "--queue", "1", *small))
        processes, stream = [paced, flood], None
        if is_real_root():
            lab = stack.enter_context(another_lab(LabOptions()))  # TCP takes all queues
            one = stack.enter_context(peer(lab, digest_of))
            stream = mortal(start("tcp", ADDRESS[4], str(one.port), "--file", "/dev/zero", "--json",
                                  stdin=subprocess.DEVNULL))  # fmt: skip
            processes.append(stream)
            wait_until(lambda: one.connections, 20)
        wait_until(lambda: arrived() > 100 and len(times) > 100, 20)
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        before, then = len(times), arrived()
        time.sleep(STOPPED_S - 0.2)
        assert (before, then) == (len(times), arrived())
        continued = time.monotonic()
        for process in processes:
            process.send_signal(signal.SIGCONT)
        wait_until(lambda: arrived() > then)
        reports = []
        for process in processes[1:]:
            process.send_signal(signal.SIGINT)
            out, err = ended(process, 130)
            reports.append(json.loads(out or err))
        out, _ = ended(paced, 0, seconds=10)
        reports.append(json.loads(out))
        if is_real_root():  # the socket of others loses a part of the burst
            wait_until(lambda: len(times) == 4000)
    # What it was late for it catches up on: a second of it at most.
    burst = sum(continued <= at < continued + 0.5 for at in times)
    assert (500 if is_real_root() else 200) < burst <= 1000 + 500 + 300
    for report in reports:
        assert report["error"] is None
    assert reports[-1]["submitted_packets"] == reports[-1]["completed_packets"] == 4000
    assert reports[-1]["duration_s"] > 3.5 + STOPPED_S - 1
    if stream is not None:
        assert one.result()[0] == reports[1]["written_bytes"] == reports[1]["tcp"]["acked_bytes"] > 0

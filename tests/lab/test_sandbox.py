"""--sandbox: what the threads that handle packets may not do, and that everything else is as ever."""

import contextlib
import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from privileged import privileges_of, tasks
from tcppeer import ADDRESS, peer
from wire import cli, first_line, frame, start, wait_until

import xsk_engine
from xsk_engine._ffi import seccomp
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.receiver import Receiver
from xsk_engine.sink import Sink, SinkConfig
from xsk_engine.worker import Worker

FLOW = f"ip dst={ADDRESS[4]} / udp dst=9000 ; signature"
SEND = ("send", "vtx", "--dst-ip", ADDRESS[4], "--dst-port", "9000", "--rate", "1kpps")
_libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {name: both[os.uname().machine == "aarch64"] for name, both in seccomp.REFUSED.items()}
# Would do something if it were not refused: whatever its arguments, or with these.
DANGEROUS = {"fork", "vfork", "reboot"}


def call(name):
    """errno of the system call with arguments that it cannot take."""
    ctypes.set_errno(0)
    result = _libc.syscall(ctypes.c_long(NUMBERS[name]), *[ctypes.c_long(-1)] * 5)
    return ctypes.get_errno() if result == -1 else 0


def attempts():
    """What this thread may do: what came of each."""
    harmless = [name for name, number in NUMBERS.items() if number is not None and name not in DANGEROUS]
    found = {name: call(name) for name in harmless}
    for name, act in {
        "a file": lambda: Path("/proc/self/status").read_text(),
        "a socket": lambda: socket.socket().close(),
        "a process": lambda: os.waitpid(os.fork() or os._exit(0), 0),
        "a program": lambda: subprocess.run(["true"], check=True),
    }.items():
        try:
            act()
        except OSError as error:
            found[name] = error.errno
        else:
            found[name] = 0
    thread = threading.Thread(target=found.__setitem__, args=("a thread", 0))
    thread.start()
    thread.join()
    return found


@pytest.fixture
def tried(monkeypatch):
    """What came of the attempts of each worker's thread, made just before it enters its loop."""
    results = []
    real = Worker._run_loop

    def run(self):
        results.append(attempts())
        real(self)

    monkeypatch.setattr(Worker, "_run_loop", run)
    return results


def test_a_worker_may_do_little_and_who_opened_it_everything(wire, tried):
    with xsk_engine.open("vtx", queues=(0, 1), sandbox=True) as engine, wire.listening() as sock:
        for queue in (0, 1):
            engine.udp((ADDRESS[4], 9000), queue=queue).send(b"as ever")
            assert sock.recv(100) == b"as ever"
        wait_until(lambda: len(tried) == 2)
        assert call("openat") == errno.EFAULT
        assert call("execve") == errno.EFAULT
        assert attempts()["a file"] == attempts()["a socket"] == attempts()["a program"] == 0
        modes = [task["Seccomp"] for task in tasks(os.getpid())]
        assert (modes.count("2"), modes[0]) == (2, "0")
        for task in tasks(os.getpid()):
            if task["Seccomp"] == "2":
                assert not privileges_of(task)
    for found in tried:
        assert found.pop("a thread") == 0
        assert set(found.values()) == {errno.EPERM}, found


def test_without_it_a_worker_may(wire, tried):
    with xsk_engine.open("vtx"):
        wait_until(lambda: tried)
    assert tried[0]["a file"] == tried[0]["a socket"] == tried[0]["a program"] == 0


def test_a_sinks_thread(wire, monkeypatch):
    found, real = [], Receiver._run

    def run(self):
        start = self._at_start
        self._at_start = lambda: (start(), found.append(attempts()))
        real(self)

    monkeypatch.setattr(Receiver, "_run", run)
    with contextlib.ExitStack() as stack:
        with wire.in_rx():
            sink = stack.enter_context(Sink(SinkConfig("vrx", method="packet", sandbox=True)))
        wait_until(lambda: found)
        with Engine(EngineConfig("vtx")) as engine:
            engine.start(xsk_engine.parse_flow(FLOW), count=10).wait(5)
        wait_until(lambda: sink.receive_stats().packets == 10)
    assert found[0].pop("a thread") == 0
    assert set(found[0].values()) == {errno.EPERM}


@pytest.mark.parametrize("queues", ["0", "0-1"])
def test_send(wire, queues):
    with wire.counted() as arrived, wire.listening():
        done = cli(*SEND, "--queue", queues, "--count", "500", "--sandbox", "--json")
        assert done.returncode == 0, done.stderr
        assert arrived() == 500
    report = json.loads(done.stdout)
    assert report["submitted_packets"] == report["completed_packets"] == 500


def sandboxed(process):
    return [task["Seccomp"] for task in tasks(process.pid)].count("2")


def test_only_the_workers(wire):
    with wire.counted() as arrived, wire.listening():
        process = start(*SEND, "--queue", "0-1", "--sandbox", "--metrics", "9179", "--json")
        try:
            wait_until(lambda: sandboxed(process) == 2, 30)
            assert tasks(process.pid)[0]["Seccomp"] == "0"
            wait_until(lambda: not any(map(privileges_of, tasks(process.pid))))
            wait_until(arrived)
        finally:
            process.terminate()
            out, err = process.communicate(timeout=20)
    assert process.returncode == 143, err
    assert json.loads(out)["completed_packets"]


@pytest.mark.usefixtures("real_root")
def test_tcp(wire):
    def echo(connection):
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    with peer(wire, echo) as one:
        done = subprocess.run(
            [sys.executable, "-m", "xsk_engine", "tcp", ADDRESS[4], str(one.port), "--sandbox"],
            input=b"x" * 100_000, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, len(done.stdout)) == (0, 100_000), done.stderr


def test_what_else_has_workers(wire, real_root, tmp_path):
    """A replay out of a compressed file, a sink, and round trips."""
    from scapy.all import Ether, wrpcap

    file = tmp_path / "some.pcap.gz"
    wrpcap(str(file), [Ether(frame(60))] * 500, gz=True)
    done = cli("replay", "vtx", str(file), "--sandbox", "--json")
    assert (done.returncode, json.loads(done.stdout)["completed_packets"]) == (0, 500), done.stderr
    done = cli("sink", "vtx", "--sandbox", "--duration", "100ms", "--json")
    assert done.returncode == 0, done.stderr
    with wire.in_rx():
        reflector = start("sink", "vrx", "--reflect", "--duration", "20s")
    try:
        first_line(reflector, of="stderr")
        done = cli(*SEND, "--signature", "--rtt", "--count", "100", "--rate", "1kpps", "--sandbox", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rtt"]["received_packets"] == 100
    finally:
        reflector.kill()
        reflector.communicate()


def test_measure(wire):
    done = cli("measure", "vtx", "vrx", "--size", "124", "--tests", "throughput", "--trial", "20ms",
               "--sandbox", pass_fds=(wire.lab.rx_fd,))  # fmt: skip
    assert done.returncode == 0, done.stderr


# A process in which no filter can be set: one that is there already refuses prctl(PR_SET_SECCOMP).
NO_FILTERS = """
import runpy, struct, sys
from xsk_engine._ffi import libc, seccomp, uapi
line = seccomp._instruction
libc.set_no_new_privs()
libc.set_seccomp_filter(b"".join([
    line(seccomp._LOAD, 0), line(seccomp._IF_EQUAL, {prctl}, 0, 2), line(seccomp._LOAD, 16),
    line(seccomp._IF_EQUAL, uapi.PR_SET_SECCOMP, 1, 0), line(seccomp._RETURN, uapi.SECCOMP_RET_ALLOW),
    line(seccomp._RETURN, uapi.SECCOMP_RET_ERRNO | {errno}),
]))
sys.argv = ["xsk-engine", *{arguments}]
runpy.run_module("xsk_engine", run_name="__main__")
"""


@pytest.mark.parametrize(("number", "said"), [(errno.EINVAL, "no seccomp filters"), (errno.EPERM, "forbids")])
@pytest.mark.parametrize("command", [SEND, ("sink", "vtx")], ids=lambda one: one[0])
def test_where_there_are_no_filters(wire, command, number, said):
    prctl = {"x86_64": 157, "aarch64": 167}[os.uname().machine]
    program = NO_FILTERS.format(prctl=prctl, errno=number, arguments=[*command, "--sandbox"])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3, done.stderr
    assert said in done.stderr
    assert "leave --sandbox out" in done.stderr
    assert len(done.stderr.splitlines()) == 1

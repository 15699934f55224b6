"""What the commands need, that it is enough, and that they give it up. The oracle is the kernel: setpriv
before, /proc/PID/task/*/status afterwards."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from privileged import SOMEBODY, privileges_of, run, tasks, with_only
from tcppeer import ADDRESS, peer
from wire import another_lab, first_line, frame, is_real_root, need_real_root, wait_until

import xsk_engine
from xsk_engine import privileges
from xsk_engine._ffi.libbpf import BpfObject
from xsk_engine.capture import HEADER
from xsk_engine.lab.topology import LabOptions
from xsk_engine.sink import Sink, SinkConfig

SEND = ("send", "vtx", "--dst-ip", ADDRESS[4], "--dst-port", "9000")
# No more than what anybody may lock in memory.
SMALL_SINK = ("--ring", "64", "--duration", "100ms")
PROGRAM = ("net_raw", "net_admin", "bpf")
METRICS = 9178
IPERF3 = 5203


def pcap(path, packets=3, size=60):
    record = HEADER
    for i in range(packets):
        record += b"".join(n.to_bytes(4, "little") for n in (i, 0, size, size)) + frame(size)
    path.write_bytes(record)
    return path


def by_somebody():
    """As root, and as a user who is not: only root outside user namespaces may become one."""
    return [None, SOMEBODY] if is_real_root() else [None]


def reads_all(connection):
    while connection.recv(1 << 16):
        pass
    connection.sendall(b"thanks")


# ---- what is enough -------------------------------------------------------------------------------------


def test_sending_takes_one_capability(wire, tmp_path):
    file = pcap(tmp_path / "three.pcap")
    tmp_path.chmod(0o755)
    for uid in by_somebody():
        for command in ((*SEND, "--count", "3"), ("replay", "vtx", str(file), "--speed", "max")):
            with wire.counted() as arrived, wire.listening():
                done = run(["net_raw"], *command, uid=uid)
                assert done.returncode == 0, done.stderr
                assert arrived() == 3


def test_receiving_beside_the_kernel_takes_one_capability(wire):
    for uid in by_somebody():
        for method in ("packet", "auto"):
            done = run(["net_raw"], "sink", "vtx", "--method", method, *SMALL_SINK, uid=uid)
            assert done.returncode == 0, done.stderr
            assert " packet " in done.stderr


def test_measuring_takes_one_capability(wire):
    """Between two interfaces of one network namespace."""
    with another_lab(LabOptions()) as lab:
        with lab.in_rx():
            lab.ip("link", "add", "one", "type", "veth", "peer", "name", "two")
            for name in ("one", "two"):
                lab.ip("link", "set", name, "up")
        asked = ("one", "two", "--size", "64", "--tests", "throughput", "--trial", "20ms")
        for uid in by_somebody():
            with lab.in_rx():
                done = run(["net_raw"], "measure", *asked, uid=uid)
            assert done.returncode == 0, done.stderr


def test_a_dry_run_takes_none(wire):
    for uid in by_somebody():
        done = run([], *SEND, "--dry-run", "--count", "3", uid=uid)
        assert (done.returncode, done.stdout.count(" 60 bytes ")) == (0, 3), done.stderr


def test_looking_takes_none(wire):
    done = run([], "doctor", "vtx", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["CAP_NET_RAW"]["status"] == "warn"
    assert "docs/privileges.md" in found["CAP_NET_RAW"]["remedy"]
    assert found["XDP program"]["detail"] == "none attached"


def test_a_program_takes_three(wire, real_root):
    for uid in by_somebody():
        done = run(PROGRAM, "sink", "vtx", "--method", "xdp", *SMALL_SINK, uid=uid)
        assert done.returncode == 0, done.stderr
        assert " xdp " in done.stderr
        done = run(PROGRAM[1:], "sink", "vtx", "--reflect", "--duration", "100ms", uid=uid)
        assert done.returncode == 0, done.stderr


def test_tcp_takes_three(wire, real_root):
    for uid in by_somebody():
        with peer(wire, reads_all) as one:
            done = run(PROGRAM, "tcp", ADDRESS[4], str(one.port), "--umem-mb", "1", uid=uid)
            assert (done.returncode, done.stdout) == (0, "thanks"), done.stderr


@contextlib.contextmanager
def iperf3_server(wire):
    with wire.in_rx():
        process = subprocess.Popen(
            ["iperf3", "-s", "-1", "--forceflush", "-p", str(IPERF3)], stdout=subprocess.PIPE, text=True
        )
    try:
        assert first_line(process).startswith("---")
        yield
    finally:
        process.kill()
        process.communicate()


def test_iperf3_takes_three(wire, real_root):
    for uid in by_somebody():
        with iperf3_server(wire):
            asked = ("iperf3", ADDRESS[4], "-p", str(IPERF3), "-n", "1M", "--umem-mb", "1")
            done = run(PROGRAM, *asked, uid=uid)
            assert done.returncode == 0, done.stderr


# ---- what is not ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "takes", "lacks"),
    [
        (SEND, ("net_raw",), "net_raw"),
        (("replay", "vtx", "FILE"), ("net_raw",), "net_raw"),
        (("measure", "vtx", "vtx", "--tests", "throughput"), ("net_raw",), "net_raw"),
        ((*SEND, "--signature", "--rtt"), ("net_raw",), "net_raw"),
        (("sink", "vtx", "--method", "packet"), ("net_raw",), "net_raw"),
        *[(("sink", "vtx", "--method", "xdp", *SMALL_SINK), PROGRAM, one) for one in PROGRAM],
        *[(("sink", "vtx", "--reflect"), PROGRAM[1:], one) for one in PROGRAM[1:]],
        *[(("tcp", ADDRESS[4], "9", "--umem-mb", "1"), PROGRAM, one) for one in PROGRAM],
    ],
    ids=lambda one: one if isinstance(one, str) else one[0],
)
def test_the_one_that_is_missing_is_named(wire, tmp_path, command, takes, lacks):
    if takes != ("net_raw",):
        need_real_root()
    file = str(pcap(tmp_path / "three.pcap"))
    command = [file if word == "FILE" else word for word in command]
    done = run([one for one in takes if one != lacks], *command)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1, done.stderr
    said = done.stderr.split("needs ")[1]
    others = [f"CAP_{one.upper()}" for one in takes if one != lacks]
    missing = said.split(", of which ")[-1] if others else said
    assert f"CAP_{lacks.upper()}" in missing
    assert not [one for one in others if one in missing]
    assert "docs/privileges.md" in missing


def test_iperf3_without_one(wire, real_root):
    with iperf3_server(wire):
        done = run(PROGRAM[:2], "iperf3", ADDRESS[4], "-p", str(IPERF3), "--umem-mb", "1")
    assert done.returncode == 3
    assert "of which CAP_BPF is missing" in done.stderr


# ---- what is given up -----------------------------------------------------------------------------------


@contextlib.contextmanager
def running(wire, capabilities, *command, uid=None, stdin=subprocess.DEVNULL, **options):
    """A command, once its main thread has no new privileges; killed in the end."""
    command = with_only(capabilities, *command, uid=uid) if capabilities else [
        sys.executable, "-m", "xsk_engine", *command
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )

    def dropped():
        assert process.poll() is None, process.stderr.read()
        return tasks(process.pid)[0]["NoNewPrivs"] == "1"

    try:
        wait_until(dropped, 30)
        yield process
    finally:
        process.kill()
        process.communicate()


def ends_as(process, code, number=signal.SIGINT):
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def has_nothing(process):
    """No thread has any privilege; looked at twice, for who starts late."""
    wait_until(lambda: not any(map(privileges_of, tasks(process.pid))), 5)
    time.sleep(0.3)
    found = tasks(process.pid)
    assert len(found) > 1
    assert not [left for left in map(privileges_of, found) if left]


@pytest.mark.parametrize("who", ["root", "somebody"])
def test_send_has_nothing_left(wire, tmp_path, who):
    tmp_path.chmod(0o777)
    uid = None if who == "root" else SOMEBODY
    if uid:
        need_real_root()
    files = {name: str(tmp_path / name) for name in ("pcap", "csv", "jsonl")}
    asked = (*SEND, "--rate", "1kpps", "--json", "--queue", "0-1", "--metrics", str(METRICS), "--live",
             "--pcap-out", files["pcap"], "--csv", files["csv"], "--jsonl", files["jsonl"],
             "--interval", "100ms")  # fmt: skip
    with running(wire, ["net_raw"] if uid else None, *asked, uid=uid, umask=0o027) as process:
        has_nothing(process)
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=10) as answer:
            assert b"xsk_engine_submitted_packets" in answer.read()
        has_nothing(process)
        out, _ = ends_as(process, 130)
    report = json.loads(out)
    assert report["submitted_packets"] == report["completed_packets"] > 0
    assert os.path.getsize(files["pcap"]) > len(HEADER)
    assert json.loads((tmp_path / "jsonl").read_text().splitlines()[-1])["kind"] == "final"
    assert (tmp_path / "csv").read_text().count("\n") > 2
    assert {os.stat(file).st_mode & 0o777 for file in files.values()} == {0o640}


def test_replay_reads_on_what_it_may_not_open(wire, tmp_path, real_root):
    """A file that only root may read, by somebody who may while he opens it: loaded, and streamed."""
    file = pcap(tmp_path / "kept.pcap", 800, 1400)
    file.chmod(0o600)
    tmp_path.chmod(0o700)
    asked = ("replay", "vtx", str(file), "--loop", "3", "--rate", "4kpps", "--umem-mb")
    for umem_mb in ("4", "1"):
        with running(wire, ["net_raw"], *asked, umem_mb, "--json", uid=SOMEBODY) as process:
            has_nothing(process)
            out, err = process.communicate(timeout=20)
            assert process.returncode == 0, err
        report = json.loads(out)
        assert report["submitted_packets"] == 2400
        assert report["replay"]["streamed"] == (umem_mb == "1")


@pytest.mark.parametrize("method", ["packet", "xdp"])
def test_sink_has_nothing_left(wire, method, tmp_path):
    if method == "xdp":
        need_real_root()
    asked = ("sink", "vrx", "--method", method, "--json", "--pcap", str(tmp_path / "pcap"), "--ring", "64")
    with wire.in_rx(), running(wire, None, *asked) as process:
        has_nothing(process)
        out, _ = ends_as(process, 0)
    assert json.loads(out)["method"] == method


def test_tcp_has_nothing_left(wire, real_root):
    for uid in by_somebody():
        with peer(wire, reads_all) as one:
            asked = ("tcp", ADDRESS[4], str(one.port), "--umem-mb", "1", "--json")
            stdin = subprocess.PIPE
            with running(wire, PROGRAM if uid else None, *asked, uid=uid, stdin=stdin) as process:
                wait_until(lambda one=one: one.connections)
                has_nothing(process)
                out, err = process.communicate("some bytes", timeout=20)
            assert (process.returncode, out) == (0, "thanks"), err


def test_tcp_from_a_low_port(wire, real_root):
    """It needs a capability for that later than for the sockets."""
    with peer(wire, reads_all) as one:
        asked = ("tcp", ADDRESS[4], str(one.port), "--source-port", "999")
        with running(wire, None, *asked, stdin=subprocess.PIPE) as process:
            wait_until(lambda: one.connections)
            has_nothing(process)
            out, err = process.communicate("", timeout=20)
        assert (process.returncode, out) == (0, "thanks"), err


def test_iperf3_has_nothing_left(wire, real_root):
    with iperf3_server(wire), running(wire, None, "iperf3", ADDRESS[4], "-p", str(IPERF3)) as process:
        has_nothing(process)
        ends_as(process, 130)


def test_measure_has_nothing_left(wire):
    """The sink at the other end is opened before the engine, and its thread with it."""
    asked = ("measure", "vtx", "vrx", "--size", "124", "--warm-up", "20ms", "--trial", "2s", "--json")
    with running(wire, None, *asked, pass_fds=(wire.lab.rx_fd,)) as process:
        has_nothing(process)
        out, _ = ends_as(process, 130)
    assert json.loads(out)["trials"]


def test_round_trips_have_nothing_left(wire):
    with running(wire, None, *SEND, "--rate", "1kpps", "--signature", "--rtt", "--json") as process:
        has_nothing(process)
        out, _ = ends_as(process, 130)
    assert json.loads(out)["rtt"]["sent_packets"]


def test_a_kernel_that_wants_a_capability_for_open_maps(wire, real_root, monkeypatch):
    """As older ones do: it is kept. This one does not, and nothing is."""
    with xsk_engine.open("vtx", tcp=True) as engine:
        assert engine.keeps == ()
    for name in ("lookup_on_cpus", "update", "delete"):
        monkeypatch.setattr(BpfObject, name, older(getattr(BpfObject, name)))
    before = tasks(os.getpid())[0]["CapEff"]
    with xsk_engine.open("vtx", tcp=True) as engine:
        assert engine.keeps == ("CAP_BPF",)
        assert tasks(os.getpid())[0]["CapEff"] == before
    with wire.in_rx(), Sink(SinkConfig("vrx", method="xdp")) as sink:
        assert sink.way.keeps == ("CAP_BPF",)
    with wire.in_rx(), Sink(SinkConfig("vrx", reflect=True)) as sink:
        assert sink.way.keeps == ("CAP_BPF",)


def older(call):
    def checked(self, *arguments):
        if not privileges.has("CAP_BPF"):
            raise PermissionError(errno.EPERM, "bpf")
        return call(self, *arguments)

    return checked


def test_an_interface_that_goes_ends_the_run_as_ever(wire):
    with another_lab(LabOptions()) as lab, running(wire, None, *SEND, "--rate", "1kpps") as process:
        has_nothing(process)
        lab.ip("link", "delete", "vtx")
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "the device is gone" in err


def test_a_link_that_goes_is_still_waited_for(wire):
    with another_lab(LabOptions()) as lab, running(wire, None, *SEND, "--rate", "1kpps", "--json") as process:
        has_nothing(process)
        lab.ip("link", "set", "vrx", "down", rx=True)
        time.sleep(0.3)
        lab.ip("link", "set", "vrx", "up", rx=True)
        with lab.counted() as arrived:
            wait_until(lambda: arrived() > 100)
        ends_as(process, 130)


def test_who_uses_the_library_keeps_what_he_has(wire):
    before = tasks(os.getpid())[0]
    with xsk_engine.open("vtx"):
        assert {one["CapEff"] for one in tasks(os.getpid())} == {before["CapEff"]}
        assert {one["NoNewPrivs"] for one in tasks(os.getpid())} == {before["NoNewPrivs"]}


# ---- whose code runs ---------------------------------------------------------------------------------------

FOREIGN = (
    "json",
    "mmap",
    "signal",
    "socket",
    "runpy",
    "ctypes",
    "click",
    "numpy",
    "xsk_engine",
    "sitecustomize",
)


@pytest.mark.parametrize(
    "command",
    [("demo", "--seconds", "0.1"), ("doctor",), ("lab", "run", "--wire", "clean", "--", "true")],
    ids=lambda command: command[0],
)
def test_no_module_is_taken_from_the_current_directory(real_root, tmp_path, command):
    """Which may be anybody's, and who is in it root."""
    for name in FOREIGN:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__)\n")
    program = [str(Path(sys.executable).parent / "xsk-engine"), *command]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
    assert done.returncode == 0, done.stderr

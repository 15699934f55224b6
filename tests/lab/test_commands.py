"""The commands as processes."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from wire import cli, frame, is_real_root, start, wait_until

from xsk_engine._ffi import libbpf
from xsk_engine.figures import TOTAL, names
from xsk_engine.report import FIELDS

SEND = ("send", "vtx", "--dst-ip", "10.77.0.2", "--dst-port", "9000")
TOP = {name.split(".")[0] for name in (*FIELDS, *names(TOTAL))}


def test_send_says_what_it_did(wire):
    with wire.counted() as arrived, wire.listening():
        result = cli(*SEND, "--size", "100", "--count", "1k", "--rate", "20kpps", "--queue", "0-1", "--json")
        assert result.returncode == 0, result.stderr
        assert arrived() == 1000
    report = json.loads(result.stdout)
    assert set(report) == TOP
    assert len(result.stdout.splitlines()) == 1
    assert report["queues"] == [0, 1]
    assert (report["mode"], report["mode_requested"]) == ("copy", "auto")
    assert "veth" in report["mode_reason"]
    assert report["submitted_packets"] == report["completed_packets"] == 1000
    assert report["submitted_bytes"] == 100_000
    assert report["kernel"]["tx_invalid_descs"] == 0
    assert report["drain"] == {"inflight_descs": 0}
    assert report["umem"]["bytes"] == 4 << 20
    assert report["error"] is None
    seconds = report["duration_s"]
    assert report["bps_l2"] == pytest.approx(800_000 / seconds, rel=1e-3)
    assert report["bps_l1"] == pytest.approx(992_000 / seconds, rel=1e-3)


def test_send_over_ipv6_with_the_kernels_addresses(wire):
    with wire.capture() as frames:
        result = cli("send", "vtx", "--dst-ip", "fd77::2", "--dst-port", "9000", "--src-port", "1234",
                     "--size", "100", "--count", "3", "--rate", "1kpps")  # fmt: skip
        assert result.returncode == 0, result.stderr
    assert [f[:54] for f in frames] == [frame(100, version=6)[:54]] * 3


def test_twenty_in_a_row(wire):
    for _ in range(20):
        result = cli(*SEND, "--count", "1", "--json")
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_stop_it_with_a_summary(wire, number, code):
    with wire.counted() as arrived, wire.listening():
        process = start(*SEND, "--json", "--rate", "10kpps")
        wait_until(lambda: arrived() > 100)
        process.send_signal(number)
        asked = time.monotonic()
        out, err = process.communicate(timeout=10)
        assert time.monotonic() - asked < 3
        assert process.returncode == code
        report = json.loads(out)
        assert report["submitted_packets"] == report["completed_packets"] == arrived()
        assert "Traceback" not in err


def test_a_failure_while_running_exits_1_with_json(wire):
    process = start(*SEND, "--json", "--rate", "1kpps", "--link-timeout", "200ms")
    try:
        with wire.counted() as arrived:
            wait_until(lambda: arrived() > 10)
        wire.ip("link", "set", "vtx", "down")
        out, err = process.communicate(timeout=10)
    finally:
        wire.ip("link", "set", "vtx", "up")
        wire.ip("-6", "addr", "replace", "fd77::1/64", "dev", "vtx", "nodad")
        wire.ip(
            "neigh", "replace", "10.77.0.2", "lladdr", "02:77:00:00:00:02", "dev", "vtx", "nud", "permanent"
        )
        wire.ip("-6", "neigh", "replace", "fd77::2", "lladdr", "02:77:00:00:00:02", "dev", "vtx",
                "nud", "permanent")  # fmt: skip
    assert process.returncode == 1
    report = json.loads(out)
    assert report["error"]["errno"] == "ENETDOWN"
    assert report["error"]["operation"] == "sendto"
    assert len(err.splitlines()) == 1


def test_lab_run_gives_the_words_as_they_are(tmp_path):
    """There is no shell in between."""
    words = ["$(touch shell)", "`id`", "a b", "x; touch shell", "*", "> shell"]
    outer = {name: text for name, text in os.environ.items() if not name.startswith("XSK_LAB_")}
    done = cli("lab", "run", "--", "printf", r"%s\n", *words, env=outer, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == words
    assert cli("lab", "run", "--", "true; touch shell", env=outer, cwd=tmp_path).returncode != 0
    assert not list(tmp_path.iterdir())


def test_a_closed_stdout_exits_1(wire):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "xsk_engine", *SEND, "--count", "1", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--size", "1515"), 2, "1514"),
        (("--dst-ip", "10.99.0.1"), 3, "ENETUNREACH"),
        (("--dst-ip", "127.0.0.1"), 3, "this machine itself"),
        (("--size", "60.5"), 2, "60-1514"),
        (("--umem-mb", "65536"), 3, "smaller --umem-mb"),
        (("--queue", "5"), 3, "ethtool"),
        (("--mode", "zerocopy"), 3, "--mode copy"),
        (("--cpu", "4000"), 2, "cpus"),
    ],
)
def test_refusals(wire, arguments, code, said):
    result = cli(*SEND, "--count", "1", *arguments)
    assert result.returncode == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unresolved_neighbour_is_waited_for_and_named(wire):
    result = cli("send", "vtx", "--dst-ip", "10.77.0.9", "--count", "1")
    assert result.returncode == 3
    assert "10.77.0.9" in result.stderr
    assert "--dst-mac" in result.stderr


def test_the_default_route_is_refused(wire):
    wire.ip("route", "add", "default", "via", "10.77.0.2")
    try:
        refused = cli(*SEND, "--count", "1")
        allowed = cli(*SEND, "--count", "1", "--allow-default-route")
        beyond = cli("send", "vtx", "--dst-ip", "192.0.2.1", "--count", "1", "--allow-default-route")
    finally:
        wire.ip("route", "del", "default")
    assert refused.returncode == 3
    assert "--allow-default-route" in refused.stderr
    assert (allowed.returncode, beyond.returncode) == (0, 0)


def test_doctor_knows_the_interface_and_a_taken_queue(wire):
    process = start(*SEND, "--rate", "100pps")
    try:
        with wire.counted() as arrived:
            wait_until(lambda: arrived() > 2)
        result = cli("doctor", "vtx", "--json")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    found = {f["check"]: f for f in json.loads(result.stdout)["findings"]}
    assert found["driver"]["detail"] == "veth"
    assert found["link"]["status"] == "ok"
    assert found["queue 0"]["detail"] == "taken by another process"
    assert found["queue 1"]["detail"] == "free"
    assert "copy mode only" in found["zero-copy"]["detail"]
    assert found["libxdp"]["status"] == "ok"
    missing = cli("doctor", "nosuchif")
    assert missing.returncode == 3


def test_a_pass_program_lives_as_long_as_its_link(wire, real_root):
    index = socket.if_nametoindex("vtx")
    program = libbpf.load_pass_program()
    link = libbpf.attach(program, index)
    try:
        assert libbpf.attached_program(index)[1] == "driver"
        findings = {f["check"]: f for f in json.loads(cli("doctor", "vtx", "--json").stdout)["findings"]}
        assert findings["XDP program"]["status"] == "warn"
    finally:
        os.close(link)
        os.close(program)
    assert libbpf.attached_program(index)[0] == 0


# ---- demo ------------------------------------------------------------------------------------------------


def check_the_demo(result, picture):
    """Of half a second; the sink it had."""
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert set(report) > TOP
    assert report["delivered_packets"] == report["submitted_packets"] == report["latency"]["count"] == 50_000
    for name in ("duplicate_packets", "reordered_packets", "corrupt_packets", "unverified_packets"):
        assert report[name] == 0, name
    assert not any(report["lost_packets"].values())
    latency = report["latency"]
    assert sum(n for _, n in latency["buckets"]) == 50_000
    assert 0 < latency["min_ns"] <= latency["p50_ns"] <= latency["p99_9_ns"] <= latency["max_ns"]
    maximum = report["maximum"]
    assert maximum["completed_packets"] == maximum["delivered_packets"] + sum(
        maximum["lost_packets"].values()
    )
    assert maximum["delivered_packets"] > 0
    assert maximum["corrupt_packets"] == 0
    assert report["picture"] == str(picture)
    bars = ElementTree.parse(picture).findall(".//{*}rect[@data-packets]")
    assert sum(int(bar.get("data-packets")) for bar in bars) == 50_000
    return report["sink"]["method"]


def test_demo(wire, tmp_path):
    picture = tmp_path / "latency.svg"
    result = cli("demo", "--seconds", "0.5", "--json", "--picture", picture, timeout=60)
    assert check_the_demo(result, picture) == ("xdp" if is_real_root() else "packet")


def test_demo_in_a_user_namespace(wire, real_root, tmp_path):
    picture = tmp_path / "latency.svg"
    words = (sys.executable, "-m", "xsk_engine", "demo", "--seconds", "0.5", "--json", "--picture", picture)
    result = subprocess.run(
        ["unshare", "-Ur", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert check_the_demo(result, picture) == "packet"


def test_the_demo_for_a_person(wire, tmp_path):
    result = cli("demo", "--seconds", "0.2", "--picture", tmp_path / "nothing" / "latency.svg", timeout=60)
    assert result.returncode == 1
    assert "nothing/latency.svg: No such file" in result.stderr
    for name in ("lost", "duplicate", "reordered", "corrupt"):
        assert re.search(rf"^ +{name} +0 +[\d,]+ *$", result.stdout, re.M), result.stdout
    assert "latency p99.9" in result.stdout
    assert re.search(r"^ +[\d.]+ [um]s +[\d.]+% #+$", result.stdout, re.M)
    assert "arrived once, in order and intact" in result.stdout
    assert "picture" not in result.stdout


DAMAGED = """
import dataclasses, sys
from xsk_engine import demophases

whole = demophases._traffic

def damaged(phase):
    traffic = whole(phase)
    return dataclasses.replace(traffic, flows=dataclasses.replace(traffic.flows, checksum="none"))

demophases._traffic = damaged
sys.exit(demophases.run(0.05, as_json=True, picture=None))
"""


def test_a_demo_whose_packets_are_not_intact_fails(wire):
    result = subprocess.run(
        [sys.executable, "-c", DAMAGED], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    # The checksum is the template's, which is right for one in 65,536.
    assert report["corrupt_packets"] > 4900
    assert report["corrupt_packets"] + report["delivered_packets"] == 5000
    assert f"{report['corrupt_packets']:,} corrupt (lost: nothing)" in result.stderr


def processes_of_the_demo():
    found = subprocess.run(["pgrep", "-f", "xsk_engine[.]demo"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def has_sent(pid):
    """Packets through vtx of that process' own laboratory; 0 while it is still in ours."""
    with contextlib.suppress(OSError):  # it has ended
        if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/thread-self/ns/net"):
            for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
                name, _, figures = line.partition(":")
                if name.strip() == "vtx":
                    return int(figures.split()[9])
    return 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_of_a_demo_that_is_killed(wire, number):
    before = processes_of_the_demo()
    process = start("demo", "--seconds", "30")
    wait_until(lambda: len(processes_of_the_demo()) > len(before), 30)
    (helper,) = set(processes_of_the_demo()) - set(before)
    wait_until(lambda: has_sent(helper) > 1000, 30)
    process.send_signal(number)
    out, err = process.communicate(timeout=15)
    # Its namespaces were anonymous: with its processes they are gone.
    wait_until(lambda: processes_of_the_demo() == before)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "submitted" in out, err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_stopped_at_once(wire, number):
    before = processes_of_the_demo()
    process = start("demo", "--seconds", "30")
    wait_until(lambda: processes_of_the_demo() != before, 30)
    process.send_signal(number)
    process.communicate(timeout=15)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    wait_until(lambda: processes_of_the_demo() == before)


# ---- lab -------------------------------------------------------------------------------------------------


def test_lab_run_is_private_and_has_the_options_asked_for(wire):
    result = cli("lab", "run", "--mtu", "9000", "--queues", "3", "--", "ip", "-d", "addr")
    assert result.returncode == 0, result.stderr
    for part in ("mtu 9000", "numtxqueues 3", "10.77.0.1/24", "fd77::1/64", "02:77:00:00:00:01"):
        assert part in result.stdout
    assert "fe80" not in result.stdout
    assert cli("lab", "run", "--", "sh", "-c", "exit 7").returncode == 7
    assert cli("lab", "run", "--", "no-such-program").returncode == 127
    assert cli("lab", "run", "--mtu", "5", "--", "true").returncode == 2


def test_the_other_end_of_a_laboratory(wire):
    inside = f"{sys.executable} -m xsk_engine lab peer -- ip -br link"
    result = cli(
        "lab", "run", "--", "sh", "-c", f"{inside}; {sys.executable} -m xsk_engine lab peer -- no-such"
    )
    assert "vrx" in result.stdout
    assert "vtx" not in result.stdout.replace("vrx@", "")
    assert result.returncode == 127
    outside = {k: v for k, v in os.environ.items() if not k.startswith("XSK_LAB")}
    result = cli("lab", "peer", "--", "true", env=outside)
    assert result.returncode == 3
    assert "no laboratory of lab run" in result.stderr


def test_named_laboratories(wire, real_root):
    name = f"t{os.getpid()}"
    try:
        assert cli("lab", "up", name, "--queues", "2").returncode == 0
        assert cli("lab", "up", name, "--queues", "2").returncode == 0
        assert cli("lab", "up", name, "--queues", "3").returncode == 2
        assert re.search(rf"^{name} +mtu 1500 +queues 2$", cli("lab", "list").stdout, re.M)
        inside = cli("lab", "exec", name, "rx", "--", "ls", "/sys/class/net")
        assert inside.stdout.split() == ["lo", "vrx"]
        sent = cli("lab", "exec", name, "tx", "--", sys.executable, "-m", "xsk_engine", *SEND, "--count", "5")
        assert sent.returncode == 0, sent.stderr
        # What somebody does in it is his.
        subprocess.run(["ip", "-n", f"{name}-tx", "link", "set", "vtx", "down"], check=True)
        before = os.stat(f"/run/netns/{name}-tx").st_ino
        assert cli("lab", "up", name, "--queues", "2").returncode == 0
        assert os.stat(f"/run/netns/{name}-tx").st_ino == before
        # Half of one is repaired.
        subprocess.run(["ip", "-n", f"{name}-tx", "link", "del", "vtx"], check=True)
        assert cli("lab", "up", name, "--queues", "2").returncode == 0
    finally:
        cli("lab", "down", name)
    assert name not in cli("lab", "list").stdout
    assert not os.path.exists(f"/run/netns/{name}-tx")
    assert cli("lab", "down", name).returncode == 3


@pytest.mark.parametrize("command", [("lab", "up"), ("lab", "down")])
def test_somebody_elses_namespace_is_no_laboratory(wire, real_root, command):
    """Whatever it is called."""
    name = f"f{os.getpid()}"
    subprocess.run(["ip", "netns", "add", f"{name}-tx"], check=True)
    try:
        inside = ["ip", "-n", f"{name}-tx", "link"]
        subprocess.run([*inside, "add", "theirs", "up", "type", "veth", "peer", "other"], check=True)
        done = cli(*command, name)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert f"{name}-tx, with theirs, is no laboratory's" in done.stderr
        assert (
            subprocess.run([*inside, "show", "theirs"], check=False, stdout=subprocess.DEVNULL).returncode
            == 0
        )
    finally:
        subprocess.run(["ip", "netns", "delete", f"{name}-tx"], check=True)
    assert not list(Path("/run/netns").glob(f"{name}*"))


@pytest.mark.parametrize("command", [("lab", "up", "refused"), ("lab", "run", "--", "true")])
def test_a_laboratory_that_the_kernel_refuses(wire, real_root, command):
    less = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run(
        [*less, sys.executable, "-m", "xsk_engine", *command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
    assert "EPERM" in done.stderr
    assert not list(Path("/run/netns").glob("refused*"))


def test_the_laboratory_is_quiet(wire):
    """Two seconds without anything but what tests send: no discovery, no solicitation."""
    with wire.in_rx():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind(("vrx", 0))
    sock.settimeout(2)
    with sock, pytest.raises(TimeoutError):
        raise AssertionError(sock.recv(2000).hex())

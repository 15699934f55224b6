"""The emulated machine from outside: its own manners, and the guest's tests, one boot for many of them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.lab import tcpcapture
from tests.machine import packages, qemu
from tests.machine.packages import CHECKOUT, MachineUnavailable
from tests.machine.qemu import Machine, MachineConfig, MachineFailed

RESULTS = CHECKOUT / "build/machine"
GUEST = "tests/machine/guest"
ADOPT = ("-m", "tests.machine.guest.adopt", "--")


def boot(config):
    """A machine, or a skip that XSK_REQUIRE_MACHINE=1 turns into a failure."""
    missing = None
    try:
        packages.get()
    except MachineUnavailable as error:
        missing = str(error)
    if missing and os.environ.get("XSK_REQUIRE_MACHINE") == "1":
        pytest.fail(f"XSK_REQUIRE_MACHINE=1 forbids to skip: {missing}", pytrace=False)
    if missing:
        pytest.skip(missing)
    return Machine(config)


@pytest.fixture(scope="module")
def machines():
    """Machines by their NICs; the last one asked for stays up."""
    running = {}

    def get(nics):
        config = MachineConfig(nics)
        if config not in running:
            for other in list(running):
                running.pop(other).__exit__()
            running[config] = boot(config).__enter__()
        return running[config]

    yield get
    for machine in running.values():
        machine.__exit__()


def run_tests(machine, name, *arguments, timeout_s):
    """pytest in the guest; its JUnit report goes to build/machine and says what failed."""
    report = machine.shared / "junit.xml"
    report.unlink(missing_ok=True)
    done = machine.python(
        *(*ADOPT, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        # Its root is the host's user, who may not look into /tmp/pytest-of-root.
        *("-o", "faulthandler_timeout=60", "--basetemp=/run/pytest", "--junitxml=/run/shared/junit.xml"),
        *arguments,
        timeout_s=timeout_s,
    )
    assert report.exists(), f"no report; pytest in the guest said:\n{done.output}"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.xml").write_bytes(report.read_bytes())
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    bad = [case.get("name") for case in cases if {e.tag for e in case} & {"failure", "error"}]
    ran = [case for case in cases if case.find("skipped") is None]
    assert not bad, f"failed in the guest: {', '.join(map(str, bad))}\n{done.output}"
    assert done.exit == 0, done.output
    assert ran, f"nothing ran:\n{done.output}"
    print(f"{name}: {len(ran)} passed in the guest, {len(cases) - len(ran)} not for this NIC")


def test_igb_in_zerocopy(machines):
    names = ("test_zerocopy", "test_sink", "test_latency", "test_tcp")
    tests = [f"{GUEST}/{name}.py" for name in names]
    run_tests(machines("igb"), "igb", "-m", "not slow", *tests, timeout_s=400)


@pytest.mark.slow
def test_igb_sends_long_by_tcp(machines, tmp_path):
    """Every byte arrives, and Wireshark sees nothing but what a receiver that is slower makes of it."""
    machine = machines("igb")
    run_tests(machine, "igb-tcp", "-m", "slow", f"{GUEST}/test_tcp.py", timeout_s=400)
    remarks = tcpcapture.seen(machine.shared / "tcp.pcapng", tmp_path)
    print(f"Wireshark's remarks: {remarks}")
    assert set(remarks) <= {*tcpcapture.SLOWER, *tcpcapture.IN_VAIN, tcpcapture.RETRANSMISSION}, remarks


@pytest.mark.slow
def test_igb_in_trouble(machines):
    run_tests(machines("igb"), "igb-trouble", f"{GUEST}/test_trouble.py", timeout_s=500)


FLAPPING = """
import asyncio
from fractions import Fraction
from pathlib import Path
from tests.lab.wire import frame
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.flow import Traffic
with Engine(EngineConfig("vtx", mode="zerocopy", link_timeout_s=20)) as engine:
    lost = Path("/sys/class/net/vtx/carrier_down_count")
    before = int(lost.read_text())
    print("sending", flush=True)
    asyncio.run(engine.run(Traffic(frame(60), duration_s=4, rate=Fraction(1000))))
    assert int(lost.read_text()) == before + 1
s = engine.snapshot()
assert s.completed_packets == s.submitted_packets > 1000, s
print("survived", flush=True)
"""


@pytest.mark.slow
def test_igb_loses_its_carrier_while_sending(machines):
    machine = machines("igb")

    def flap():
        time.sleep(1)
        machine.set_carrier(0, False)
        time.sleep(2)
        machine.set_carrier(0, True)

    thread = threading.Thread(target=flap)

    def watch(text):
        if "sending" in text:
            thread.start()

    done = machine.python(*ADOPT, sys.executable, "-c", FLAPPING, timeout_s=90, watch=watch)
    thread.join(30)
    assert done.exit == 0, done.output
    assert "survived" in done.output


@pytest.mark.slow
def test_virtio_in_zerocopy(machines):
    run_tests(machines("virtio"), "virtio", f"{GUEST}/test_zerocopy.py", timeout_s=400)


@pytest.mark.slow
def test_virtio_in_trouble(machines):
    run_tests(machines("virtio"), "virtio-trouble", f"{GUEST}/test_trouble.py", timeout_s=500)


@pytest.mark.slow
def test_virtio_without_iommu_platform(machines):
    """Zero-copy is EINVAL there: doctor and both modes say why."""
    machine = machines("virtio-no-iommu")
    send = ("xsk-engine", "send", "vtx", "--dst-ip", "10.77.0.2", "--count", "10")

    def said(*command):
        done = machine.python(*ADOPT, *command, timeout_s=60)
        return done.exit, done.output

    code, text = said("xsk-engine", "doctor", "vtx")
    assert "no iommu_platform" in text
    code, text = said(*send, "--mode", "zerocopy")
    assert code == 3
    assert "EINVAL" in text
    assert "no iommu_platform" in text
    code, text = said(*send)
    assert code == 0
    assert "copy (this virtio NIC has no iommu_platform" in text


# ---- the machine's own manners -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shell_has_the_tools_and_leaves_nothing():
    boot(MachineConfig())
    before = set(Path(tempfile.gettempdir()).glob("xske-machine-*"))
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tests.machine", "shell"]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=CHECKOUT) as process:
        os.close(slave)
        said = ""

        def read_until(text):
            nonlocal said
            while text not in said:
                ready, _, _ = select.select([master], [], [], 60)
                assert ready, said
                said += os.read(master, 4096).decode(errors="replace")

        try:
            read_until("Leave with exit")
            os.write(master, b"xsk-engine --version && rx ip -br addr show vrx && exit\n")
            read_until("10.77.0.2/24")
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(master)
    assert "xsk-engine" in said
    assert set(Path(tempfile.gettempdir()).glob("xske-machine-*")) <= before


def test_a_command_that_does_not_end_is_killed(machines):
    machine = machines("igb")
    done = machine.run("sh", "-c", "echo before; sleep 60", timeout_s=2)
    assert done.exit == 124
    assert done.output.startswith("before")
    assert machine.run("true").exit == 0


def test_a_hang_is_reported_within_its_deadline(monkeypatch):
    monkeypatch.setattr(qemu, "ANSWER_GRACE_S", 2)
    with boot(MachineConfig()) as machine:
        started = time.monotonic()
        with pytest.raises(MachineFailed, match="hangs"):
            machine.run("sh", "-c", "kill -STOP $PPID", timeout_s=1)
        assert time.monotonic() - started < 30
        process = machine._process
    assert process.poll() is not None


def test_a_crash_is_reported_with_what_the_kernel_said():
    with boot(MachineConfig()) as machine, pytest.raises(MachineFailed, match=r"(?s)gone.*sysrq"):
        machine.run("sh", "-c", "sleep 0.5; echo c >/proc/sysrq-trigger", timeout_s=30)


def test_without_packages_it_says_so_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "CACHE", tmp_path)
    monkeypatch.setenv(packages.MIRROR_VARIABLE, "http://127.0.0.1:1/debian")
    with pytest.raises(MachineUnavailable, match=r"apt-get.*127.0.0.1") as raised:
        packages.get()
    assert "\n" not in str(raised.value)
    assert packages.MIRROR_VARIABLE in str(raised.value)
    assert not Path(tmp_path, "release").exists()

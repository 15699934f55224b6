"""Zero-copy when things go wrong: links, programs, capabilities, drivers that do nothing or go away."""

import asyncio
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from tests.lab.wire import cli, deafen_zerocopy, frame, wait_until
from tests.machine.guest.adopt import adopt_tx
from xsk_engine import netdev
from xsk_engine._ffi import libbpf
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import BrokenError, UnavailableError
from xsk_engine.flow import Flow, Traffic
from xsk_engine.values import Sequence

SEQUENCE = {"@42/8": Sequence()}


def run_with(actions, traffic, **config):
    """Runs traffic while commands run at their seconds; the engine and its error."""

    async def act(engine):
        task = asyncio.ensure_future(engine.run(traffic))
        for seconds, command in actions:
            await asyncio.sleep(seconds)
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0
        await task

    error = None
    with Engine(EngineConfig("vtx", **({"link_timeout_s": 20} | config))) as engine:
        assert engine.binding.mode == "zerocopy"
        try:
            asyncio.run(act(engine))
        except BrokenError as failure:
            error = failure
    return engine, error


DOWN, UP = ("ip", "link", "set", "vtx", "down"), ("ip", "link", "set", "vtx", "up")


def test_the_interface_goes_down_and_up_while_sending(wire, nic):
    traffic = Traffic(frame(60), duration_s=2, rate=Fraction(2000))
    engine, error = run_with([(0.5, DOWN), (0.5, UP)], traffic)
    assert error is None
    snapshot = engine.snapshot()
    assert snapshot.completed_packets == snapshot.submitted_packets
    assert snapshot.submitted_packets in (4000, 4001), "and one, not by the rate, that asks for the link"
    assert snapshot.link_down_ns > 4e8
    assert libbpf.attached_program(nic.ifindex)[0] == 0


def test_the_interface_stays_down(wire, nic):
    traffic = Traffic(frame(60), duration_s=30, rate=Fraction(2000))
    engine, error = run_with([(0.5, DOWN)], traffic, link_timeout_s=3)
    assert isinstance(error, BrokenError)
    assert "--link-timeout" in str(error)
    subprocess.run(UP, check=True)
    netdev.wait_for_link("vtx", 20)


def test_the_nic_is_reset_while_sending(wire, igb):
    lost = Path("/sys/class/net/vtx/carrier_down_count")
    seen = []

    async def watch(engine):
        seen.append(int(lost.read_text()))
        await asyncio.sleep(0.5)
        subprocess.run(["ethtool", "-r", "vtx"], check=True, timeout=10)
        await asyncio.sleep(1)
        seen.append(int(lost.read_text()))

    with Engine(EngineConfig("vtx", mode="zerocopy", link_timeout_s=20)) as engine:

        async def both():
            await asyncio.gather(
                engine.run(Traffic(frame(60), duration_s=2, rate=Fraction(2000))), watch(engine)
            )

        asyncio.run(both())
    assert seen[1] == seen[0] + 1
    snapshot = engine.snapshot()
    assert snapshot.completed_packets == snapshot.submitted_packets > 1000


@pytest.mark.parametrize("queues", [(0,), (0, 1)])
@pytest.mark.parametrize("count", [10, 3000])
def test_a_driver_that_completes_nothing(wire, nic, monkeypatch, queues, count):
    """It binds and never looks at the ring: copy mode takes over, and nothing is lost."""
    if max(queues) >= nic.queues:
        pytest.skip(f"{nic.driver} has one queue here")
    deafen_zerocopy(monkeypatch)
    traffic = Traffic(Flow(frame(200), SEQUENCE), count=count, rate=Fraction(2000))
    with wire.capture() as frames:
        engine, error = run_with([], traffic, queues=queues, progress_timeout_s=0.3)
        assert error is None
        wait_until(lambda: len(frames) >= count)
    assert engine.binding.mode == "copy"
    assert "completed nothing" in engine.binding.reason
    assert engine.snapshot().completed_packets == count
    assert sorted(int.from_bytes(f[42:50], "big") for f in frames) == list(range(count))
    assert libbpf.attached_program(nic.ifindex)[0] == 0
    netdev.wait_for_link("vtx", 20)


# ---- programs and capabilities -------------------------------------------------------------------------


def test_a_program_of_somebody_else_is_used_and_left_alone(wire, igb):
    program = libbpf.load_pass_program()
    link = libbpf.attach(program, igb.ifindex)
    try:
        netdev.wait_for_link("vtx", 20)
        theirs = libbpf.attached_program(igb.ifindex)
        with Engine(EngineConfig("vtx", mode="zerocopy", link_timeout_s=20)) as engine:
            asyncio.run(engine.run(Traffic(frame(60), count=10)))
        assert libbpf.attached_program(igb.ifindex) == theirs
        assert engine.snapshot().completed_packets == 10
    finally:
        os.close(link)
        os.close(program)
    netdev.wait_for_link("vtx", 20)


def test_a_generic_program_is_in_the_way_and_named(wire, igb, monkeypatch):
    monkeypatch.setattr(libbpf, "XDP_FLAGS_DRV_MODE", 1 << 1)  # XDP_FLAGS_SKB_MODE
    program = libbpf.load_pass_program()
    link = libbpf.attach(program, igb.ifindex)
    monkeypatch.undo()
    try:
        number, mode = libbpf.attached_program(igb.ifindex)
        assert mode == "generic"
        with pytest.raises(UnavailableError, match=rf"program id {number} is attached \(generic\).*copy"):
            Engine(EngineConfig("vtx", mode="zerocopy", link_timeout_s=20)).open()
        with Engine(EngineConfig("vtx", link_timeout_s=20)) as engine:
            assert engine.binding.mode == "copy"
        assert libbpf.attached_program(igb.ifindex) == (number, "generic")
    finally:
        os.close(link)
        os.close(program)


def test_without_the_capabilities_for_a_program(wire, igb):
    arguments = ("send", "vtx", "--dst-ip", "10.77.0.2", "--count", "10")
    command = [sys.executable, "-m", "xsk_engine", *arguments]
    drop = ["setpriv", "--bounding-set=-bpf,-net_admin,-sys_admin", "--inh-caps=-bpf,-net_admin,-sys_admin"]

    def run(*mode):
        return subprocess.run(
            [*drop, *command, *mode], capture_output=True, text=True, timeout=60, check=False
        )

    refused = run("--mode", "zerocopy")
    assert refused.returncode == 3
    assert "CAP_BPF and CAP_NET_ADMIN" in refused.stderr
    auto = run()
    assert auto.returncode == 0
    assert "copy (driver igb sends in zero-copy only with an XDP program" in auto.stderr


def test_doctor_says_what_there_is(wire, nic):
    said = cli("doctor", "vtx").stdout
    assert f"yes, driver {nic.driver}" in said


def test_the_driver_is_unbound_while_sending(wire, nic):
    device = Path("/sys/class/net/vtx/device").resolve()
    driver = device.joinpath("driver").resolve()
    traffic = Traffic(frame(60), duration_s=10, rate=Fraction(2000))
    unbind = ("sh", "-c", f"echo {device.name} > {driver}/unbind")
    try:
        engine, error = run_with([(0.5, unbind)], traffic)
        assert isinstance(error, BrokenError)
        assert "ENXIO" in str(error)
        assert "the device is gone" in str(error)
        assert engine.snapshot().completed_packets > 500
    finally:
        driver.joinpath("bind").write_text(device.name)
        adopt_tx()

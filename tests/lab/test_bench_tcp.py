"""The arms of the TCP experiments, over a few megabytes: that they bring what they say they bring."""

import os
import shutil

import pytest
from wire import need_real_root

from bench.arms import tcp
from bench.scene import BUILD, Scene, stand_aside

MEGABYTES = 4
IDLE = dict.fromkeys(("cpu_user_s", "cpu_system_s", "cpu_softirq_s"), 0.0)
PROGRAMS = ("tcp_reader", "kernel_sender", "libtcp_writer.so")


@pytest.fixture
def scene(wire, tmp_path):
    if missing := [name for name in PROGRAMS if not (BUILD / name).exists()]:
        pytest.skip(f"{missing[0]} is not built; run make build/native and meson compile -C build/native")
    return Scene(wire.lab, tmp_path)


def arms(scene, connections):
    wire = tcp.Wire(1500, True, (MEGABYTES, MEGABYTES))
    transfers = tcp.Transfers(scene, wire, IDLE, connections=connections, pinned=connections == 1)
    others = transfers.others() if connections == 1 else []
    return {arm.name: arm for arm in transfers.arms() + others}


@pytest.mark.parametrize("name", [tcp.ENGINE, tcp.KERNEL, tcp.KERNEL_LENT])
def test_all_bytes_come(scene, name):
    if name == tcp.ENGINE:
        need_real_root()
    arm = arms(scene, 1)[name]
    arm.run()
    sample = arm.sample()
    assert sample["bytes"] == MEGABYTES << 20
    assert sample["seconds"] > 0
    assert min(sample[kind] for kind in IDLE) >= 0


@pytest.mark.parametrize("name", [tcp.ENGINE, tcp.KERNEL])
def test_over_several_connections(scene, name):
    if name == tcp.ENGINE:
        need_real_root()
    arm = arms(scene, 4)[name]
    arm.run()
    assert arm.sample()["bytes"] == MEGABYTES << 20


def test_iperf3_counts_at_its_server(scene):
    if shutil.which("iperf3") is None:
        pytest.skip("iperf3 is not installed; .ci/setup test does it")
    arm = arms(scene, 1)[tcp.IPERF3]
    arm.run()
    assert 0 < arm.sample()["bytes"] <= MEGABYTES << 20


def test_it_stands_aside_again(scene):
    """A transfer runs on both CPUs; what follows it does not."""
    before = os.sched_getaffinity(0)
    try:
        stand_aside()
        aside = os.sched_getaffinity(0)
        arms(scene, 1)[tcp.KERNEL].run()
        assert os.sched_getaffinity(0) == aside
    finally:
        os.sched_setaffinity(0, before)

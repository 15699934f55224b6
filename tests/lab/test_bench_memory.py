"""The memory experiment's arms, once, in this laboratory."""

import pytest

from bench.arms import holding
from bench.scene import Scene
from xsk_engine.lab import topology


def test_the_engine_holds_chunks(wire, real_root, tmp_path):
    scene = Scene.here(tmp_path)
    for arm, least in (
        (holding.FragsArm("frags", 1500), 1500),
        (holding.EngineTcpArm("tcp", 1500, scene), 1500),
    ):
        try:
            arm.setup()
            arm.run()
        finally:
            arm.teardown()
        sample = arm.sample()
        assert sample["held_bytes"] % 4096 == 0
        assert sample["held_bytes"] / sample["packets"] >= least


@pytest.mark.parametrize("send", [holding.kernel_udp, holding.af_packet])
def test_a_dam_holds_the_kernels(wire, real_root, tmp_path, send):
    with Scene.here(tmp_path).bound_port():
        sample = send(512)
    # What fits into the burst passes.
    assert holding.PACKETS - holding.Dam.BURST_BYTES // 512 - 2 <= sample["packets"] <= holding.PACKETS
    assert sample["held_bytes"] / sample["packets"] > 512
    assert "tbf" not in holding._tc("qdisc", "show", "dev", topology.TX_INTERFACE)


def test_kernel_tcp(wire, tmp_path):
    sample = holding.kernel_tcp(Scene.here(tmp_path), 1500)
    assert sample["held_bytes"] >= sample["payload_bytes"] > 0

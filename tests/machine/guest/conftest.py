import asyncio
import os
import subprocess

import pytest

from tests.lab.wire import Wire
from xsk_engine import netdev
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.lab.private import PrivateLab

REASON = "not inside the emulated machine; run make test-machine"


def ethtool(*arguments):
    return subprocess.run(["ethtool", *arguments], check=True, timeout=30, capture_output=True, text=True)


@pytest.fixture(scope="session")
def wire():
    if "XSK_MACHINE" not in os.environ:
        pytest.skip(REASON)
    wire = Wire(PrivateLab.from_environment())
    with wire.in_rx():
        if netdev.get("vrx").driver == "igb":
            ethtool("-G", "vrx", "rx", "4096")  # zero-copy outruns an emulated receiver
    netdev.wait_for_link("vtx", 20)
    return wire


@pytest.fixture(scope="session")
def nic(wire):
    """vtx as it is between the tests."""
    return netdev.get("vtx")


@pytest.fixture
def igb(nic):
    if nic.driver != "igb":
        pytest.skip(f"for igb; this is {nic.driver}")
    return nic


@pytest.fixture
def send(wire):
    """Runs traffic in zero-copy through an engine of its own; returns the closed engine. Closing audits."""

    def run(traffic, mode="zerocopy", **config):
        with Engine(EngineConfig("vtx", mode=mode, link_timeout_s=20, **config)) as engine:
            asyncio.run(engine.run(traffic))
        assert engine.binding.mode == "zerocopy"
        return engine

    return run

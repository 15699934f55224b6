import asyncio
import contextlib
import gc
import os
import threading

import pytest
from wire import Wire, holdings, lacks, need_real_root, wait_until

from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.lab.private import PrivateLab


@pytest.fixture(scope="session")
def wire():
    if "XSK_LAB_RX_FD" not in os.environ:
        lacks("not inside a laboratory; run make test-lab")
    return Wire(PrivateLab.from_environment())


@pytest.fixture
def send(wire):
    """Runs traffic through an engine of its own; returns the closed engine. Closing audits it."""

    def run(traffic, interface="vtx", **config):
        with Engine(EngineConfig(interface, **config)) as engine:
            asyncio.run(engine.run(traffic))
        return engine

    return run


@pytest.fixture(autouse=True)
def _no_thread_of_an_engine_is_left():
    yield
    wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("xsk-")], 5)


@pytest.fixture
def leaves_nothing():
    """No fd, mapping of a socket or thread more than before."""
    gc.collect()
    before = holdings()
    yield
    gc.collect()
    with contextlib.suppress(AssertionError):  # that says what there is
        wait_until(lambda: holdings() == before, 5)
    assert holdings() == before


@pytest.fixture
def real_root(wire):
    need_real_root()


@pytest.fixture
def mortal():
    """Takes processes, and gives them back: they do not outlive their test."""
    made = []

    def keep(process):
        made.append(process)
        return process

    yield keep
    for process in made:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was not written never will be
                    pipe.close()

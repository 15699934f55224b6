"""Clocks that are set while the engine runs: of the test's own processes, not the machine's."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tcppeer import ADDRESS, digest_of, peer
from wire import PORT, cli

from xsk_engine.lab import topology

SEND = ("send", "vtx", "--dst-ip", topology.RX_IPV4, "--dst-port", str(PORT), "--json")


@pytest.fixture(scope="module")
def clocks(tmp_path_factory):
    """The environment of a process whose clocks are set: see clocks.c."""
    library = tmp_path_factory.mktemp("clocks") / "clocks.so"
    source = Path(__file__).parent / "clocks.c"
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        str(library),
        str(source),
    ]
    subprocess.run(command, check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def test_the_clocks_are_set(wire, clocks):
    """Or the other tests show nothing."""
    code = """
import threading, time
seen = []
def look():
    for _ in range(200000):
        seen.append((time.time(), time.clock_gettime(time.CLOCK_TAI), time.monotonic()))
        if seen[-1][2] - seen[0][2] > 0.3:
            break
thread = threading.Thread(target=look); thread.start(); thread.join()
print(*(max(one) - min(one) > 3000 for one in zip(*seen)))
"""
    for more, jumps in (({}, "True True False"), ({"CLOCKS_JUMP_MS": "150"}, "True True True")):
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],
            env=clocks | more, capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
        assert done.stdout.split() == jumps.split()


def test_nothing_that_paces_or_waits_heeds_the_wall_clock(wire, clocks):
    """A rate, a duration, deadlines, an interval of the statistics."""
    with wire.counted() as arrived:
        began = time.monotonic()
        done = cli(*SEND, "--rate", "1kpps", "--duration", "1s", "--signature", env=clocks)
        assert time.monotonic() - began < 1 + 4
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert 0.9 < report["duration_s"] < 1.1
        assert 950 <= report["completed_packets"] == arrived() <= 1001
    assert report["error"] is None


WAITS = """
import sys, time
import wire, xsk_engine

def lasts(seconds, call, error):
    began = time.monotonic()
    try:
        call()
    except error:
        pass
    else:
        raise SystemExit("it did not raise")
    took = time.monotonic() - began
    assert seconds - 0.05 < took < seconds + 1, (seconds, took)

flow = xsk_engine.parse_flow("ip dst=10.77.0.2 / udp dst=9000")
with xsk_engine.open("vtx") as engine:
    running = engine.start(flow, rate="100pps")
    lasts(0.3, lambda: running.wait(0.3), xsk_engine.DeadlineError)
    raw = engine.raw(quota_chunks=1, timeout=0.3)
    held = raw.alloc(2, 1500)
    lasts(0.3, lambda: raw.alloc(2, 1500), xsk_engine.WouldBlockError)
    held.release()
    lasts(3, lambda: engine.udp(("10.77.0.9", 9)), xsk_engine.UnavailableError)
"""


def test_what_is_waited_for_takes_its_time(wire, clocks):
    env = clocks | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", WAITS], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_a_connection_heeds_no_wall_clock(wire, real_root, clocks, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1 << 22))
    with peer(wire, digest_of) as one:
        done = cli("tcp", ADDRESS[4], str(one.port), "--file", str(file), "--json", env=clocks)
        assert done.returncode == 0, done.stderr
        assert one.result()[0] == 1 << 22
    assert json.loads(done.stderr)["tcp"]["timeouts"] == 0


def test_an_hour_is_missing(wire, clocks):
    """CLOCK_MONOTONIC itself goes forward, as for a process that was frozen and moved: nothing has timed out,
    and a pace catches up on one second."""
    with wire.counted() as arrived:
        began = time.monotonic()
        count = ("--rate", "1kpps", "--count", "4000", "--queue", "0-1")
        done = cli(*SEND, *count, env=clocks | {"CLOCKS_JUMP_MS": "2000"})
        took = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        assert arrived() == 4000
    report = json.loads(done.stdout)
    assert report["error"] is None
    assert report["completed_packets"] == 4000
    assert took > 3  # not all of the hour at once

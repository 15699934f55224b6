"""A benchmark between two interfaces that were there before: afterwards they are as they were. The pair is
made here, in a namespace of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from bench import places
from bench.experiment import Laboratory
from bench.scene import ROOT
from xsk_engine.errors import BrokenError, UnavailableError
from xsk_engine.lab import namespaces, topology

NAMES = ("left", "right")
SHOWS = "import json, os, subprocess, sys; from bench.scene import Scene; from pathlib import Path; " \
    "facts = Scene.here(Path('.')).facts(); " \
    "Path(sys.argv[1]).write_text(json.dumps(facts))"  # fmt: skip


def state():
    """What `ip` says of both, without what may change: counters, the index, what the carrier does."""
    done = subprocess.run(["ip", "-j", "-d", "addr"], capture_output=True, check=True, timeout=30)
    found = {}
    for link in json.loads(done.stdout):
        if link["ifname"] != "lo":
            of = {key: link[key] for key in ("mtu", "address", "flags")}
            of["mode"] = Path(f"/proc/sys/net/ipv6/conf/{link['ifname']}/addr_gen_mode").read_text()
            found[link["ifname"]] = of | {"addresses": sorted(json.dumps(a) for a in link["addr_info"])}
    return found


@pytest.fixture
def pair(wire):
    """Two interfaces with an MTU, MACs and addresses of their own, one of them down."""
    fd = namespaces.new_network()
    with contextlib.closing(os.fdopen(fd)), namespaces.entered(fd):
        with IPRoute() as ipr:
            numbers = {"num_tx_queues": 2, "num_rx_queues": 2}
            peer = {"ifname": NAMES[1], "address": "02:55:00:00:00:02", **numbers}
            ipr.link("add", kind="veth", ifname=NAMES[0], address="02:55:00:00:00:01", peer=peer, **numbers)
            left, right = (ipr.link_lookup(ifname=name)[0] for name in NAMES)
            for index, mtu in ((left, 1400), (right, 1600)):
                ipr.link("set", index=index, mtu=mtu)
            ipr.link("set", index=left, state="up")
            ipr.addr("add", index=left, address="192.0.2.1", prefixlen=24, broadcast="192.0.2.255")
            ipr.addr("add", index=left, address="2001:db8::1", prefixlen=64, flags=0x02)  # no DAD
            Path("/proc/sys/net/ipv6/conf/right/addr_gen_mode").write_text("1")
            ipr.addr("add", index=right, address="198.51.100.7", prefixlen=31)
        yield
    # the namespace, and the pair with it, go with the last fd


def test_given_back_after_every_end(pair, tmp_path):
    before = state()
    out = tmp_path / "out"
    with places.interfaces(*NAMES, None) as place:
        assert state() == {}
        place.run(Laboratory(mtu=1500), [sys.executable, "-c", SHOWS], out)
        facts = json.loads(out.read_text())
        assert facts["place"] == "interfaces left and right"
        assert (facts["tx"]["interface"], facts["tx"]["mac"]) == ("vtx", topology.TX_MAC)
        assert (facts["rx"]["interface"], facts["rx"]["mac"]) == ("vrx", topology.RX_MAC)
        assert facts["tx"]["mtu"] == facts["rx"]["mtu"] == 1500
        with pytest.raises(UnavailableError, match="MTU 65536"):
            place.run(Laboratory(mtu=65536), [sys.executable, "-c", SHOWS], out)
        with pytest.raises(subprocess.CalledProcessError):
            place.run(Laboratory(mtu=9000), [sys.executable, "-c", "raise SystemExit(3)"], out)
    assert state() == before
    with pytest.raises(ZeroDivisionError), places.interfaces(*NAMES, None):
        raise ZeroDivisionError
    assert state() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_given_back_after_a_signal(pair, number, tmp_path):
    before = state()
    killer = threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, number))

    def interrupted():
        with places.interfaces(*NAMES, None) as place:
            killer.start()
            place.run(Laboratory(), [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "out")

    with pytest.raises(SystemExit):
        interrupted()
    killer.join()
    assert state() == before
    assert signal.getsignal(number) not in (signal.SIG_IGN, None)


def bench(*names):
    command = [sys.executable, "-m", "bench", "run", "latency", "--interfaces", *names, "--out", "/nowhere"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_refused_before_anything_is_touched(pair):
    before = state()
    done = bench("left", "wrong")
    assert done.returncode == 3
    assert "adopt(wrong): ENODEV: there is no such interface" in done.stderr
    with IPRoute() as ipr:
        ipr.route("add", dst="default", gateway="192.0.2.254")
    done = bench(*NAMES)
    assert done.returncode == 3
    assert "it carries the default route" in done.stderr
    assert "two interfaces are needed" in bench("right", "right").stderr
    with IPRoute() as ipr:  # a route goes with an interface that is moved: nothing was
        assert ipr.get_default_routes()
    assert state() == before


def test_what_cannot_be_given_back_is_told(pair):
    def removed():
        with (
            places.interfaces(*NAMES, None) as place,
            namespaces.entered(place.ends.lab.tx_fd),
            IPRoute() as ipr,
        ):
            ipr.link("del", index=ipr.link_lookup(ifname="vtx")[0])

    with pytest.raises(BrokenError, match=r"left.*it is gone"):
        removed()

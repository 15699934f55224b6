"""Limits of the process: what is refused has its name and its remedy, and nothing is left."""

import contextlib
import errno
import gc
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tcppeer import digest_of, peer
from wire import PORT, frame, holdings, lacks, wait_until

import xsk_engine
from xsk_engine._ffi import memory
from xsk_engine.config import MIB, EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import UnavailableError
from xsk_engine.lab import topology
from xsk_engine.sink import Sink, SinkConfig

REMOTE = (topology.RX_IPV4, PORT)

# ---- file descriptors --------------------------------------------------------------------------------------


@contextlib.contextmanager
def room_for(count):
    """So many file descriptors more, and no others."""
    with os.scandir("/proc/self/fd") as listed:
        used = {int(one.name) for one in listed}
    used = {fd for fd in used if os.path.lexists(f"/proc/self/fd/{fd}")}  # but that of the list itself
    limit, free = 0, 0
    while free < count or limit in used or limit <= max(used):
        free += limit not in used
        limit += 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = []
    try:
        for _ in range(free - count):  # the holes below
            fillers.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


def refused_until_there_is_room(make, around=contextlib.nullcontext):
    """With 0, 1, 2, ... descriptors more than `around` has: a named error each, and nothing is left, until
    make(what around() gives) returns something to close; how many that takes."""
    with around() as given:
        make(given).close()  # imports and caches
    gc.collect()
    before = holdings()
    for count in range(64):
        with around() as given, room_for(count):
            try:
                made = make(given)
            except UnavailableError as error:
                assert error.errno == errno.EMFILE, error
                assert "ulimit -n" in str(error)
                made = None
        if made is not None:
            made.close()
            return count
        gc.collect()
        wait_until(lambda: holdings() == before, 5)
    raise AssertionError("64 descriptors are not enough")


TCP = {"tcp": True, "umem_bytes": 8 * MIB}


@pytest.mark.parametrize(
    "options",
    [{"queues": (0, 1)}, {"mode": "copy", "tx_metadata_len": 16}, TCP],
    ids=["libxdp", "sockopt", "tcp"],
)
def test_too_few_descriptors_to_open(wire, request, options):
    if "tcp" in options:
        request.getfixturevalue("real_root")
    config = EngineConfig("vtx", **options)
    assert refused_until_there_is_room(lambda _: Engine(config).open()) > 1


@pytest.mark.parametrize("method", ["packet", "xdp"])
def test_too_few_descriptors_for_a_sink(wire, request, method):
    if method == "xdp":
        request.getfixturevalue("real_root")
    config = SinkConfig("vrx", method=method, ring_size=2048)
    with wire.in_rx():
        assert refused_until_there_is_room(lambda _: Sink(config).open()) > 1


def udp(engine):
    return engine.udp((topology.RX_IPV4, PORT))


def start(engine):
    running = engine.start(xsk_engine.parse_flow(f"ip dst={topology.RX_IPV4} / udp dst={PORT}"), count=5)
    running.wait(5)
    return running


@pytest.mark.parametrize("make", [udp, start])
def test_too_few_descriptors_to_find_a_neighbour(wire, make):
    """And the engine goes on."""

    @contextlib.contextmanager
    def around():
        with Engine(EngineConfig("vtx")) as engine:
            yield engine
            engine.raw().send(frame(60))
        assert engine.snapshot().completed_packets > 0

    assert refused_until_there_is_room(make, around) > 1


def test_too_few_descriptors_for_a_connection(wire, real_root):
    with peer(wire, digest_of) as one:

        @contextlib.contextmanager
        def around():
            with Engine(EngineConfig("vtx", **TCP)) as engine:
                yield engine

        def make(engine):
            connection = engine.tcp(topology.RX_IPV4, one.port)
            connection.sendall(b"hello")
            return connection

        assert refused_until_there_is_room(make, around) > 1


# ---- threads and memory ------------------------------------------------------------------------------------


def in_a_process(code):
    """Of its own: its limits do not come back. `code` after what all of it needs, and one engine."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMMON + code],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr + result.stdout
    assert not result.stderr
    return result.stdout.split()


COMMON = """
import errno, gc, os, resource, socket, sys, threading, time
from pathlib import Path
import wire, xsk_engine
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import UnavailableError

def refused(make, number, remedy):
    before = wire.holdings()
    try:
        make()
    except UnavailableError as error:
        assert error.errno == number and remedy in str(error), error
        print(error.operation)
    else:
        raise SystemExit("not refused")
    gc.collect()
    wire.wait_until(lambda: wire.holdings() == before)

def vm_bytes():
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

with Engine(EngineConfig("vtx", queues=(0, 1))) as engine:
    engine.udp(("10.77.0.2", 9000)).send(b"hello")
"""


def test_no_thread_may_be_started(wire, real_root):
    """The user has as many as he may: none for the first queue, for the second, for neighbours."""
    code = """
fds = [tuple(socket.socket(44, socket.SOCK_RAW).detach() for _ in range(2)) for _ in range(3)]  # AF_XDP
os.setresuid(54321, 54321, 54321)

def engine():
    return Engine(EngineConfig("vtx", queues=(0, 1), fds=fds[-1]))

for may in (1, 2):
    resource.setrlimit(resource.RLIMIT_NPROC, (may, 3))
    refused(lambda: engine().open(), errno.EAGAIN, "ulimit -u")
    for fd in fds.pop():  # which hold their queues
        os.close(fd)
resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))
with engine() as engine:
    refused(lambda: engine.udp(("10.77.0.2", 9000)), errno.EAGAIN, "ulimit -u")
    engine.raw().send(wire.frame(60))
assert engine.snapshot().completed_packets == 1
"""
    assert in_a_process(code) == ["open", "open", "resolve"]


def test_no_memory_for_a_threads_stack(wire):
    code = """
threading.stack_size(256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (vm_bytes() + (64 << 20), -1))
refused(lambda: Engine(EngineConfig("vtx", queues=(0, 1))).open(), errno.EAGAIN, "no memory for its stack")
"""
    assert in_a_process(code) == ["open"]


def test_no_memory_for_the_umem(wire):
    code = """
resource.setrlimit(resource.RLIMIT_AS, (vm_bytes() + (32 << 20), -1))
refused(lambda: Engine(EngineConfig("vtx", umem_bytes=64 << 20)).open(), errno.ENOMEM, "smaller --umem-mb")
with Engine(EngineConfig("vtx", umem_bytes=1 << 20)):
    pass
"""
    assert in_a_process(code) == ["mmap"]


def test_an_open_engine_needs_no_more_memory(wire):
    """It has what it needs: with no more to be had it sends on, and closes clean."""
    code = """
flow = xsk_engine.parse_flow("ip dst=10.77.0.2 / udp dst=9000")
with Engine(EngineConfig("vtx", queues=(0, 1))) as engine:
    endpoint = engine.udp(("10.77.0.2", 9000))
    running = engine.start(flow, count=100)
    running.wait(5)
    running = engine.start(flow, count=20000)
    resource.setrlimit(resource.RLIMIT_AS, (vm_bytes(), -1))
    for _ in range(1000):
        endpoint.send(b"hello")
    running.wait(20)
snapshot = engine.snapshot()
assert snapshot.completed_packets == snapshot.submitted_packets == 21101 - 1, snapshot
"""
    in_a_process(code)


# ---- huge pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [0, 1000], ids=["none", "somebody was faster"])
def test_no_huge_pages(wire, monkeypatch, said):
    """The umem is made of ordinary ones, and its facts say so."""
    real = mmap.mmap

    def refuse(fileno, length, flags=0, **options):
        if flags & memory._MAP_HUGETLB:
            raise OSError(errno.ENOMEM, "no huge page")
        return real(fileno, length, flags=flags, **options)

    monkeypatch.setattr(memory, "_free_huge_pages", lambda: said)
    monkeypatch.setattr(memory.mmap, "mmap", refuse)
    with Engine(EngineConfig("vtx", umem_bytes=4 * MIB)) as engine:
        assert engine.umem.area.page_size == mmap.PAGESIZE
        engine.raw().send(frame(60))
    assert engine.snapshot().completed_packets == 1


WITHOUT_A_THREAD = """
import sys, threading
real, name = threading.Thread.start, sys.argv.pop(1)
def start(thread):
    if thread.name.startswith(name):
        raise RuntimeError("can't start new thread")
    real(thread)
threading.Thread.start = start
from xsk_engine.cli import main
main()
"""
SEND = ("send", "vtx", "--dst-ip", topology.RX_IPV4, "--count", "10")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("metrics", (*SEND, "--metrics", "9321")),
        ("pcap-out", (*SEND, "--pcap-out", "sent.pcap")),
        ("pcap-out", ("sink", "vtx", "--pcap", "got.pcap", "--duration", "1s")),
        ("pump", ("replay", "vtx", "some.pcap.gz")),
        ("replay", ("replay", "vtx", "some.pcap", "--umem-mb", "1")),
    ],
)
def test_no_thread_for_a_command(wire, tmp_path, name, command):
    from scapy.all import Ether, wrpcap

    for file in ("some.pcap", "some.pcap.gz"):
        wrpcap(str(tmp_path / file), [Ether(frame(1500))] * 2000, gz=file.endswith("gz"))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_THREAD, name, *command],
        capture_output=True, text=True, cwd=tmp_path, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 3), done.stderr
    assert "no thread can be started" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def confined(real_root):
    """A function: the command line of a program that has so much memory, in a cgroup of its own."""
    root = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers == "memory":
            folder, limit = root / "memory" / own.lstrip("/"), "memory.limit_in_bytes"
            break
    else:
        folder, limit = root / own.lstrip("/"), "memory.max"
    mine = folder / f"xsk-test-{os.getpid()}"
    try:
        mine.mkdir()
    except OSError as error:
        lacks(f"no cgroup can be made here: {error}")
    try:
        if not (mine / limit).exists():
            lacks(f"{folder} gives its cgroups no memory controller")

        def words(most, *command):
            (mine / limit).write_text(str(most))
            return ["sh", "-c", 'echo 0 > "$0" && exec "$@"', str(mine / "cgroup.procs"), *command]

        yield words
    finally:
        mine.rmdir()


def test_a_memory_cgroup_that_is_too_small_leaves_nothing(wire, confined):
    """The kernel kills while the umem is pinned, not later, and the queue is free again."""

    def send(umem_mb):
        command = confined(
            192 << 20, sys.executable, "-m", "xsk_engine", *SEND, "--umem-mb", str(umem_mb), "--json"
        )
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    with wire.listening():
        for _ in range(2):
            too_much = send(256)
            assert (too_much.returncode, too_much.stdout) == (-signal.SIGKILL, ""), too_much.stderr
            enough = send(16)
            assert enough.returncode == 0, enough.stderr
            assert json.loads(enough.stdout)["completed_packets"] == 10

"""What examples/ shows runs as it stands, and arrives."""

import ast
import asyncio
import contextlib
import re
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from wire import enlarge

import xsk_engine
from xsk_engine.lab import topology

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(name, *arguments, stdin=None):
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(EXAMPLES / name), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@contextlib.contextmanager
def receiver(wire, port, *groups):
    with wire.in_rx():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", port))
        index = socket.if_nametoindex(topology.RX_INTERFACE)
    for group in groups:
        with wire.in_rx():
            sock.setsockopt(
                socket.IPPROTO_IP,
                socket.IP_ADD_MEMBERSHIP,
                struct.pack("4s4si", socket.inet_aton(group), bytes(4), index),
            )
    enlarge(sock)
    with sock:
        yield sock


def blocks(page):
    """The Python code of a page of the docs."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)


def test_the_readmes_program(wire, tmp_path):
    program = next(code for code in blocks("README.md") if code.startswith("# example.py"))
    (tmp_path / "example.py").write_text(program)
    with wire.listening():
        assert run(tmp_path / "example.py") == "1068\n"


@pytest.mark.parametrize("code", blocks("docs/library.md"))
def test_the_guides_pieces(wire, code):
    """Each with what it does not make itself."""

    async def main():
        names = {
            "xsk_engine": xsk_engine,
            "asyncio": asyncio,
            "loop": asyncio.get_running_loop(),
            "MyProtocol": asyncio.DatagramProtocol,
        }
        async with contextlib.AsyncExitStack() as stack:
            if '"vtx"' not in code:
                names["engine"] = await stack.enter_async_context(xsk_engine.aopen("vtx"))
            piece = eval(compile(code, "library.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            endless = "async for" in code
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(piece, 2.5 if endless else 10)
                assert not endless
        for one in ("transport", "receiving", "acknowledgements"):
            if one in names:
                names[one].close()

    with wire.listening():
        if "await" in code:
            asyncio.run(main())
        elif "open(" in code.split("\n")[2]:
            exec(code, {})
        else:
            with xsk_engine.open("vtx") as engine:
                pixels = numpy.zeros((64, 1400), numpy.uint8)
                endpoint = engine.udp((topology.RX_IPV4, 9000))
                exec(
                    code, {"xsk_engine": xsk_engine, "engine": engine, "endpoint": endpoint, "pixels": pixels}
                )


def everything(sock):
    datagrams = []
    while select.select([sock], [], [], 0.2)[0]:
        datagrams.append(sock.recv(1 << 16))
    return datagrams


def test_market_data_goes_to_a_hundred_groups(wire):
    with wire.in_rx():
        limit = Path("/proc/sys/net/ipv4/igmp_max_memberships")
        limit.write_text("200")
    groups = 100 if wire.roomy else 10
    ticks = 20 if wire.roomy else 10
    with receiver(wire, 9000, *(f"239.77.0.{i + 1}" for i in range(groups))) as sock:
        said = run("fan_out.py", "vtx", "--groups", str(groups), "--seconds", str(ticks / 100))
        got = [struct.unpack("!QId", data) for data in everything(sock)]
    assert said == f"{groups} groups, {groups * ticks} ticks\n"
    for instrument in range(groups):
        assert [number for number, which, _ in got if which == instrument] == list(range(ticks))


def test_video_at_a_gigabit(wire):
    with receiver(wire, 9000) as sock:
        said = run("video.py", "vtx", topology.RX_IPV4, "--seconds", "0.1" if wire.roomy else "0.02")
        got = everything(sock)
    packets = int(said.split()[0])
    frames = 5 if wire.roomy else 1
    assert packets == frames * round(1e9 / 8 / 50 / 1408)
    if wire.roomy:
        assert len(got) == packets
    for data in got:
        frame, number = struct.unpack("!II", data[:8])
        assert data[8:] == bytes([(frame + number) & 0xFF]) * 1400


def test_log_lines_become_syslog(wire):
    with receiver(wire, 514) as sock:
        said = run(
            "log_shipper.py", "vtx", topology.RX_IPV4, stdin="".join(f"line {i}\n" for i in range(100))
        )
        got = everything(sock)
    assert said == "100 lines\n"
    assert [data.split(b" - - - ")[1] for data in got] == [b"line %d" % i for i in range(100)]
    assert all(data.startswith(b"<14>1 20") for data in got)


def test_two_threads_with_an_endpoint_each(wire):
    count = 20_000 if wire.roomy else 50
    with receiver(wire, 9000) as sock:
        said = run("two_producers.py", "vtx", topology.RX_IPV4, "--count", str(count))
        got = everything(sock)
    assert said == f"{2 * count} datagrams of two threads\n"
    for name in (b"left", b"right"):
        mine = [int(data.split()[1]) for data in got if data.startswith(name)]
        assert mine == list(range(count))


def test_a_flow_beside_requests(wire):
    with receiver(wire, 9000) as sock, wire.counted(9001) as background:
        said = run("flow_beside.py", "vtx", topology.RX_IPV4)
        got = everything(sock)
        arrived = background()
    assert got == [b"request %d" % i for i in range(100)]
    assert said == f"100 requests beside {arrived} packets of background\n"
    assert arrived > 1000


@pytest.fixture(autouse=True)
def _memberships(wire):
    """A namespace's own setting goes back."""
    with wire.in_rx():
        limit = Path("/proc/sys/net/ipv4/igmp_max_memberships")
        before = limit.read_text()
    yield
    with wire.in_rx(), contextlib.suppress(OSError):
        limit.write_text(before)

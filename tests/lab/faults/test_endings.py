"""Interpreters that end while an engine is open: at once, without a crash, with a ResourceWarning."""

import os
import subprocess
import sys
import time

import pytest
from tcppeer import digest_of, peer
from wire import PORT

from xsk_engine.lab import topology

PRELUDE = f"""
import asyncio, atexit, contextlib, os, sys, threading, time

late = []  # registered first, called last
atexit.register(lambda: [one() for one in late])
import wire, xsk_engine

PORT = int(sys.argv[1])
REMOTE = ("{topology.RX_IPV4}", {PORT})
FLOW = xsk_engine.parse_flow("ip dst={topology.RX_IPV4} / udp dst={PORT}")

def opened(**options):
    global engine
    engine = xsk_engine.open("vtx", **options)
    return engine

def forever(call):
    def run():
        try:
            while True:
                call()
        except xsk_engine.ClosedError:
            print("closed", flush=True)
    threading.Thread(target=run, daemon=True).start()
    time.sleep(0.05)
"""
NEVER_CLOSED = "engine on vtx was never closed"
# What is left at the end: the code, its exit code, and what it says.
ENDINGS = {
    "open": ("opened()", 0, NEVER_CLOSED),
    "traffic": ("opened().start(FLOW)", 0, NEVER_CLOSED),
    "frags": ("opened(); frags = engine.raw().alloc(4, 100); view = frags[0].payload", 0, NEVER_CLOSED),
    "views": ("opened(); view = engine.umem.array(); page = engine.counter_pages()", 0, NEVER_CLOSED),
    "sys.exit": ("opened().start(FLOW); sys.exit(7)", 7, NEVER_CLOSED),
    "an exception": ("opened().start(FLOW); raise KeyError('mine')", 1, "KeyError: 'mine'"),
    "os._exit": ("opened().start(FLOW); os._exit(5)", 5, ""),
    "os._exit in a thread": (
        "opened().start(FLOW); t = threading.Thread(target=lambda: os._exit(6)); t.start(); t.join()",
        6,
        "",
    ),
    "sys.exit in a thread": (
        "opened().start(FLOW); t = threading.Thread(target=lambda: sys.exit(6)); t.start(); t.join()",
        0,
        NEVER_CLOSED,
    ),
    "closed by atexit": ("opened(); atexit.register(lambda: engine.close())", 0, ""),
    "closed by atexit, too late": ("late.append(lambda: engine.close()); opened()", 0, NEVER_CLOSED),
    "sends in atexit": (
        "opened(); atexit.register(lambda: engine.raw().send(wire.frame(60)))",
        0,
        NEVER_CLOSED,
    ),
    "opens in atexit, too late": (
        "def open_now():\n"
        "    try: opened()\n"
        "    except xsk_engine.ClosedError as error: print(error, file=sys.stderr)\n"
        "late.append(open_now); import xsk_engine.engine",
        0,
        "the interpreter is ending",
    ),
    "a thread that sends": ("e = opened().raw(); forever(lambda: e.send(wire.frame(60)))", 0, NEVER_CLOSED),
    "a thread that waits for room": (
        "e = opened().raw(quota_chunks=1); f = e.alloc(2, 1500); forever(lambda: e.alloc(2, 1500))",
        0,
        NEVER_CLOSED,
    ),
    "a thread that waits for traffic": (
        "r = opened().start(FLOW); forever(lambda: r.wait())",
        0,
        NEVER_CLOSED,
    ),
    "a thread that waits for a neighbour": (
        "opened(); forever(lambda: engine.udp(('10.77.0.9', 9)))",
        0,
        NEVER_CLOSED,
    ),
    "a thread that closes": ("opened().start(FLOW); forever(lambda: engine.close())", 0, ""),
    "an object that raises": (
        "class Raises:\n"
        "    def __del__(self): raise KeyError('mine')\n"
        "it = Raises(); it.me = it; it.engine = opened()",
        0,
        "KeyError: 'mine'",
    ),
    "asyncio": (
        "async def main():\n"
        "    global e; e = await xsk_engine.aopen('vtx'); await e.start(FLOW)\n"
        "asyncio.run(main())",
        0,
        NEVER_CLOSED,
    ),
    "sys.exit in asyncio": (
        "async def main():\n"
        "    async with xsk_engine.aopen('vtx') as e:\n"
        "        await e.start(FLOW); sys.exit(4)\n"
        "asyncio.run(main())",
        4,
        "",
    ),
    "an event loop that stands still": (
        "async def main():\n"
        "    global e; e = await xsk_engine.aopen('vtx'); await e.udp(REMOTE).send(b'hello')\n"
        "loop = asyncio.new_event_loop(); loop.run_until_complete(main())",
        0,
        NEVER_CLOSED,
    ),
    "a transport": (
        "async def main():\n"
        "    global t\n"
        "    t, _ = await xsk_engine.create_datagram_endpoint(\n"
        "        asyncio.DatagramProtocol, remote_addr=REMOTE, interface='vtx')\n"
        "    t.sendto(b'hello')\n"
        "asyncio.run(main())",
        0,
        "unclosed transport",
    ),
}
TCP_ENDINGS = {
    "a connection": ("c.sendall(bytes(100_000))", NEVER_CLOSED),
    "a thread that writes": ("forever(lambda: c.sendall(bytes(100_000)))", NEVER_CLOSED),
    "a thread that reads": ("forever(lambda: c.recv(10))", NEVER_CLOSED),
}
TCP = "opened(tcp=True, umem_mb=8); c = engine.tcp(REMOTE[0], PORT)\n"
AT_THE_END = "\nprint(f'end {time.monotonic()}', flush=True)\n"
# Beside what it waits for: Python's own ending, on a machine that has other things to do.
AT_ONCE_S = 1.5


def ended(code, exit_code, says, port=0):
    """`says`: on stderr; None: whatever it says of what it has left."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", PRELUDE + code + AT_THE_END, str(port)],
        capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    over = time.monotonic()
    assert done.returncode == exit_code, done.stderr
    assert (says or "") in done.stderr
    if says == "":
        assert not done.stderr
    for line in done.stdout.splitlines():
        if line.startswith("end "):
            began = float(line.split()[1])
    if exit_code == 0:
        assert over - began < AT_ONCE_S
    assert done.stderr.count("Traceback") == (says or "").count("KeyError")


@pytest.mark.parametrize("name", ENDINGS)
def test_an_interpreter_ends_with_an_engine_open(wire, name):
    code, exit_code, says = ENDINGS[name]
    ended(code, exit_code, says)


@pytest.mark.parametrize("name", TCP_ENDINGS)
def test_an_interpreter_ends_with_a_connection_open(wire, real_root, name):
    code, says = TCP_ENDINGS[name]
    with peer(wire, digest_of) as one:
        ended(TCP + code, 0, says, one.port)
        if "thread" not in name:
            assert one.result()[0] == 100_000  # what was written was sent off before


@pytest.mark.parametrize("pause_ms", [0, 3, 30])
def test_an_interpreter_ends_while_a_thread_opens(wire, pause_ms):
    code = f"""
def run():
    with contextlib.suppress(xsk_engine.ClosedError):
        opened()
threading.Thread(target=run, daemon=True).start()
time.sleep({pause_ms / 1000})
"""
    ended(code, 0, None)

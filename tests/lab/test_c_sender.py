"""libxske without Python: installed, found by pkg-config, linked, and its datagrams arrive."""

import os
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from wire import PORT, wait_until

from xsk_engine.lab import topology

ROOT = Path(__file__).parents[2]
COUNT = 2000
PAYLOAD_BYTES = 200
_TOOLS = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(*command, **environment):
    """A tool that must not fail; what it says."""
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=_TOOLS | environment, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def prefix(wire, tmp_path_factory):
    """Where libxske is installed for C programs."""
    folder = tmp_path_factory.mktemp("c")
    prefix, build = folder / "prefix", folder / "build"
    run("meson", "setup", str(build), "-Dlibrary_only=true", f"--prefix={prefix}", "--libdir=lib")
    run("meson", "install", "-C", str(build))
    return prefix


@pytest.fixture(scope="module")
def c_sender(prefix):
    """A function that runs the example."""
    program = prefix / "c_sender"
    options = run(
        "pkg-config", "--cflags", "--libs", "xske", "libxdp", PKG_CONFIG_PATH=f"{prefix}/lib/pkgconfig"
    )
    warnings = ("-std=c11", "-Wall", "-Wextra", "-Werror")
    rpath = f"-Wl,-rpath,{prefix}/lib"
    run("cc", *warnings, "-pthread", "examples/c_sender.c", *options.split(), rpath, "-o", str(program))

    def send(interface="vtx", count=COUNT):
        macs = topology.TX_MAC, topology.RX_MAC
        addresses = topology.TX_IPV4, topology.RX_IPV4
        return subprocess.run(
            [program, interface, *macs, *addresses, str(PORT), str(count)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return send


def test_nothing_of_python_is_installed(prefix):
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()}
    header = (ROOT / "native/xske.h").read_text()
    version = header.split("#define XSKE_ABI_VERSION ")[1].split("u")[0]
    library = {"lib/libxske.so", f"lib/libxske.so.{version}"}
    rest = {"include/xske.h", "lib/pkgconfig/xske.pc", "bin/xsk-engine-open"}
    assert files - {"c_sender"} == rest | library
    dynamic = run("readelf", "-d", str(prefix / "lib/libxske.so"))
    assert f"[libxske.so.{version}]" in dynamic


@pytest.mark.parametrize("language", [("-xc", "-std=c11"), ("-xc++", "-std=c++17")])
def test_the_header_stands_alone(prefix, language):
    if not shutil.which("c++") and "-xc++" in language:
        pytest.skip("no C++ compiler")
    header = str(prefix / "include/xske.h")
    run("cc", *language, "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", header)


def payload(sequence):
    return struct.pack("!Q", sequence) + bytes((sequence + i) & 0xFF for i in range(8, PAYLOAD_BYTES))


def test_every_payload_arrives_once_in_order_and_intact(wire, c_sender):
    arrived, ended = [], threading.Event()

    def drain(sock):
        while not ended.is_set():
            try:
                arrived.append(sock.recv(2048))
            except TimeoutError:
                continue

    with wire.listening() as sock:
        sock.settimeout(0.05)
        thread = threading.Thread(target=drain, args=(sock,))
        thread.start()
        try:
            count = COUNT if wire.roomy else 150  # what an ordinary user's socket holds
            result = c_sender(count=count)
            assert result.returncode == 0, result.stderr
            wait_until(lambda: len(arrived) >= count)
        finally:
            ended.set()
            thread.join()
    assert arrived == [payload(sequence) for sequence in range(count)]
    assert result.stdout == f"{count} submitted, {count} completed\n"
    assert not result.stderr


def test_no_such_interface(c_sender):
    result = c_sender(interface="nosuch0")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.endswith("xsk_socket__create nosuch0 queue 0: No such device\n")
    assert result.stderr.count("\n") == 1


def test_a_count_that_is_none(c_sender):
    result = c_sender(count="many")
    assert result.returncode == 1
    assert result.stderr.endswith("COUNT many: Invalid argument\n")

"""``xsk-engine tcp`` as a process, against the kernel's sockets: every byte arrives in both directions, and
every end has its exit status."""

import fcntl
import hashlib
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading

import pytest
from tcppeer import ADDRESS, digest_of, echo, is_tcp, peer, reset
from wire import cli, wait_until

from xsk_engine import tcpreport
from xsk_engine.lab import topology

pytestmark = pytest.mark.usefixtures("real_root")

NOBODY = "1"  # tcpmux: nobody listens
MIB = 1 << 20


def blob(size, seed=1):
    """Bytes that are nowhere the same as their neighbours'."""
    return hashlib.shake_128(bytes([seed])).digest(size)


def digest(data):
    return len(data), hashlib.sha256(data).hexdigest()


def tcp(port, *arguments, address=ADDRESS[4], data=b"", **options):
    """The command with `data` as its input; bytes come out."""
    return subprocess.run(
        [sys.executable, "-m", "xsk_engine", "tcp", address, str(port), *arguments],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )


def started(port, *arguments, address=ADDRESS[4], **options):
    return subprocess.Popen(
        [sys.executable, "-m", "xsk_engine", "tcp", address, str(port), *arguments],
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def answer(connection):
    """Says what has come, after its end."""
    length, found = digest_of(connection)
    connection.sendall(f"{length} {found}\n".encode())
    return length, found


# ---- every byte -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_a_file(wire, tmp_path, version):
    data = blob(20 * MIB + 1)
    (tmp_path / "data").write_bytes(data)
    with peer(wire, answer, version=version) as one:
        result = tcp(
            one.port, "--file", str(tmp_path / "data"), "--json", address=ADDRESS[version], data=b"not this"
        )
        assert one.result() == digest(data)
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode().split() == list(map(str, digest(data)))
    report = json.loads(result.stderr)
    assert set(report) == set(tcpreport.FIELDS)
    assert (report["interface"], report["mode"], report["end"]) == ("vtx", "copy", "done")
    assert report["error"] is None
    assert report["written_bytes"] == report["tcp"]["acked_bytes"] == len(data)
    assert report["tcp"]["received_bytes"] == len(result.stdout)
    assert report["remote"] == [ADDRESS[version], one.port]
    assert report["goodput_bps"] == pytest.approx(len(data) * 8 / report["sending_s"], rel=1e-3)


@pytest.mark.parametrize("size", [0, 1, 100_000, 5 * MIB])
def test_a_pipe(wire, size):
    data = blob(size)
    with peer(wire, answer) as one:
        result = tcp(one.port, data=data)
        assert one.result() == digest(data)
    assert result.returncode == 0, result.stderr
    assert f"{size:,} bytes, all acknowledged" in result.stderr.decode()
    assert tcpreport.ENDS["done"] in result.stderr.decode()


def test_both_directions_at_once(wire):
    data = blob(5 * MIB)
    with peer(wire, echo) as one:
        result = tcp(one.port, data=data)
        assert one.result() == len(data)
    assert result.returncode == 0, result.stderr
    assert digest(result.stdout) == digest(data)


def test_a_dialogue_through_pipes(wire, mortal):
    """Each line goes out when it is written, not when a buffer is full, and its answer comes back at once."""
    with peer(wire, echo) as one:
        process = mortal(started(one.port))
        for i in range(20):
            line = b"line %d\n" % i
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, b""), err


# ---- how it ends ----------------------------------------------------------------------------------------


def test_the_peer_ends_first_and_still_gets_everything(wire, mortal):
    data = blob(MIB)

    def close_half(connection):
        connection.sendall(b"enough from me")
        connection.shutdown(socket.SHUT_WR)
        return digest_of(connection)

    with peer(wire, close_half) as one:
        process = mortal(started(one.port))
        out, err = process.communicate(data, timeout=20)
        assert one.result() == digest(data)
    assert (process.returncode, out) == (0, b"enough from me"), err


def test_the_peer_goes_on_after_our_end(wire):
    data = blob(3 * MIB, 2)

    def answer_at_length(connection):
        found = digest_of(connection)
        connection.sendall(data)
        return found

    with peer(wire, answer_at_length) as one:
        result = tcp(one.port, data=b"question")
        assert one.result() == digest(b"question")
    assert result.returncode == 0, result.stderr
    assert digest(result.stdout) == digest(data)


def test_a_peer_that_never_ends(wire):
    over = threading.Event()

    def hold(connection):
        found = digest_of(connection)
        over.wait(30)
        return found

    with peer(wire, hold) as one:
        result = tcp(one.port, "--wait", "300ms", "--json", data=b"hello")
        over.set()
        assert one.result() == digest(b"hello")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stderr)
    assert (report["end"], report["tcp"]["acked_bytes"]) == ("wait", 5)


def test_nobody_listens(wire):
    result = tcp(NOBODY)
    assert result.returncode == 1
    assert b"ECONNREFUSED: nobody listens there" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nobody_answers(wire):
    wire.ip("neigh", "replace", "10.77.0.99", "lladdr", topology.RX_MAC, "dev", "vtx", "nud", "permanent")
    try:
        result = tcp(9, "--connect-timeout", "300ms", address="10.77.0.99")
    finally:
        wire.ip("neigh", "del", "10.77.0.99", "dev", "vtx")
    assert result.returncode == 1
    assert b"no answer within 0.3 s" in result.stderr


def test_no_route_and_no_neighbour(wire):
    for address, said in (("192.0.2.1", b"ENETUNREACH"), ("10.77.0.200", b"nobody answered within 3 s")):
        result = tcp(9, address=address)
        assert result.returncode == 3
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_reset(wire):
    with peer(wire, reset) as one:
        result = tcp(one.port, "--json", data=blob(5 * MIB))
    assert result.returncode == 1
    report = json.loads(result.stderr)
    assert (report["end"], report["error"]["errno"]) == ("error", "ECONNRESET")
    assert report["tcp"]["acked_bytes"] < 5 * MIB


def test_a_reset_while_there_is_nothing_to_send(wire, mortal):
    with peer(wire, reset) as one:
        process = mortal(started(one.port))
        process.stdin.write(b"x")
        process.stdin.flush()
        code = process.wait(20)
        assert (code, b"ECONNRESET" in process.stderr.read()) == (1, True)
        process.communicate()


RECEIVER = """
import socket
listener = socket.create_server(("10.77.0.2", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.recv(1 << 20)
print("begun", flush=True)
while connection.recv(1 << 20): pass
"""


def test_a_receiver_that_is_killed(wire, mortal):
    with wire.in_rx():
        receiver = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True)
    try:
        process = mortal(started(int(receiver.stdout.readline()), "--file", "/dev/zero"))
        assert receiver.stdout.readline() == "begun\n"
        receiver.kill()
        out, err = process.communicate(timeout=20)
    finally:
        receiver.kill()
        receiver.communicate()
    assert process.returncode == 1
    assert b"ECONNRESET" in err
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_stop_it_with_a_summary(wire, mortal, number, code):
    arrived = threading.Event()

    def receive(connection):
        first = connection.recv(1)
        arrived.set()
        length, _ = digest_of(connection)
        return len(first) + length

    with peer(wire, receive) as one:
        process = mortal(started(one.port, "--file", "/dev/zero", "--json"))
        assert arrived.wait(20)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        report = json.loads(err)
        assert one.result() == report["written_bytes"] == report["tcp"]["acked_bytes"] > 0
    assert process.returncode == code
    assert report["end"] == "signal"


def test_a_signal_while_it_waits_for_input(wire, mortal):
    with peer(wire, digest_of) as one:
        process = mortal(started(one.port))
        wait_until(lambda: one.connections)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        process.communicate()
        assert one.result() == digest(b"")


def test_a_signal_while_it_connects(wire, mortal):
    wire.ip("neigh", "replace", "10.77.0.99", "lladdr", topology.RX_MAC, "dev", "vtx", "nud", "permanent")
    try:
        with wire.capture(is_tcp) as syns:
            process = mortal(started(9, address="10.77.0.99"))
            wait_until(lambda: syns)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        assert b"Traceback" not in process.stderr.read()
    finally:
        wire.ip("neigh", "del", "10.77.0.99", "dev", "vtx")


def test_an_output_that_takes_no_more(wire):
    with open("/dev/full", "wb") as full, peer(wire, echo) as one:
        result = subprocess.run(
            [sys.executable, "-m", "xsk_engine", "tcp", ADDRESS[4], str(one.port)],
            input=b"hello", stdout=full, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert b"write(the output): ENOSPC" in result.stderr
    assert b"Traceback" not in result.stderr


def unread_bytes(pipe):
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


def test_a_reader_that_is_slow(wire, mortal):
    """Who does not read our stdout holds up the peer, and nothing is lost."""
    data = blob(8 * MIB, 3)

    def pour(connection):
        connection.sendall(data)
        return digest_of(connection)

    with peer(wire, pour) as one:
        process = mortal(started(one.port))
        process.stdin.write(b"question")
        process.stdin.close()
        process.stdin = None
        wait_until(lambda: unread_bytes(process.stdout) > 16384)  # of the 64 KiB of a pipe
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert digest(out) == digest(data)


# ---- terminals ------------------------------------------------------------------------------------------


def read_all(fd):
    found = b""
    try:
        while piece := os.read(fd, 65536):
            found += piece
    except OSError:  # EIO: the other side is closed
        pass
    return found.decode()


def test_progress_on_a_terminal(wire, mortal, tmp_path):
    (tmp_path / "data").write_bytes(blob(MIB))
    go_on = threading.Event()

    def slowly(connection):
        connection.recv(1)
        go_on.wait(20)
        return digest_of(connection)

    ours, theirs = pty.openpty()
    with peer(wire, slowly, receive_buffer=65536) as one:
        process = mortal(
            started(one.port, "--file", str(tmp_path / "data"), stderr=theirs, stdin=subprocess.DEVNULL)
        )
        os.close(theirs)
        shown = os.read(ours, 65536).decode()
        while "bytes acknowledged" not in shown:
            shown += os.read(ours, 65536).decode()
        go_on.set()
        shown += read_all(ours)
        os.close(ours)
        assert process.wait(20) == 0
        process.communicate()
    assert re.search(r"\d+%", shown)
    assert "all acknowledged" in shown


def test_a_terminal_as_input_ends_with_the_peer(wire, mortal):
    def greet(connection):
        connection.sendall(b"bye")

    ours, theirs = pty.openpty()
    with peer(wire, greet) as one:
        process = mortal(started(one.port, "--json", stdin=theirs))
        out, err = process.communicate(timeout=20)
    os.close(theirs)
    os.close(ours)
    assert (process.returncode, out) == (0, b"bye"), err
    assert json.loads(err)["end"] == "peer"


# ---- options --------------------------------------------------------------------------------------------


def test_where_from(wire):
    with peer(wire, digest_of) as one:
        result = tcp(
            one.port, "-i", "vtx", "--source", "10.77.0.1", "--source-port", "40321", "--json", "-C", "reno",
            "--nodelay", "--pacing", data=b"hello",
        )  # fmt: skip
        assert one.result() == digest(b"hello")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stderr)["local"] == ["10.77.0.1", 40321]


def test_a_port_that_is_taken(wire):
    with socket.socket() as sock:
        sock.bind(("10.77.0.1", 40322))
        sock.listen()
        result = tcp(9, "--source-port", "40322")
    assert result.returncode == 3
    assert b"another socket has this port" in result.stderr


def test_the_default_route_is_refused(wire):
    wire.ip("route", "add", "default", "via", "10.77.0.2")
    try:
        refused = tcp(NOBODY)
        allowed = tcp(NOBODY, "--allow-default-route")
    finally:
        wire.ip("route", "del", "default")
    assert refused.returncode == 3
    assert b"--allow-default-route" in refused.stderr
    assert allowed.returncode == 1
    assert b"ECONNREFUSED" in allowed.stderr


def test_a_file_that_is_not_there(wire):
    result = tcp(9, "--file", "/nonexistent")
    assert result.returncode == 2
    assert b"No such file" in result.stderr


def test_without_capabilities(wire):
    result = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "xsk_engine", "tcp",
         ADDRESS[4], "9"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 3
    assert "CAP_" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_commands_are_listed():
    assert {"tcp", "iperf3"} <= set(re.findall(r"^  (\w+) ", cli("--help").stdout, re.M))

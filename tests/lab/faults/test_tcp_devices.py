"""The device goes or changes under TCP connections: who waits hears of it at once and by its name, whatever
it waits for; what only changes does no harm."""

import asyncio
import contextlib
import errno
import hashlib
import os
import threading
import time
from fractions import Fraction

import pytest
from tcppeer import ADDRESS, digest_of, echo, peer
from wire import another_lab, frame, wait_until

import xsk_engine
from xsk_engine.lab import namespaces
from xsk_engine.lab.topology import LabOptions

pytestmark = pytest.mark.usefixtures("real_root", "leaves_nothing")

PATIENCE_S = 60.0
"""of the connections: no error here may be theirs"""


def delete_peer(lab):
    lab.ip("link", "delete", "vrx", rx=True)


def delete_own(lab):
    lab.ip("link", "delete", "vtx")


def move_away(lab):
    with contextlib.closing(_Elsewhere()) as there:
        lab.ip("link", "set", "vtx", "netns", there.path)


class _Elsewhere:
    """A network namespace as a file."""

    def __init__(self):
        self._fd = namespaces.new_network()
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self):
        os.close(self._fd)


WAYS = pytest.mark.parametrize("go", [delete_peer, delete_own, move_away])


@contextlib.contextmanager
def connected(handler, **options):
    with (
        another_lab(LabOptions()) as lab,
        peer(lab, handler) as one,
        xsk_engine.open("vtx", tcp=True) as engine,
    ):
        options = {"user_timeout_s": PATIENCE_S, "timeout_s": PATIENCE_S} | options
        with engine.tcp(ADDRESS[4], one.port, **options) as connection:
            yield lab, engine, connection, one


def answer_of(call):
    """What a call that never ends by itself raises, after how long."""
    started = time.monotonic()
    while True:
        try:
            call()
        except xsk_engine.XskError as error:
            return error, time.monotonic() - started


@WAYS
def test_a_writer_hears_of_it(go):
    with connected(digest_of) as (lab, engine, connection, one):
        connection.sendall(b"x" * (1 << 20))
        connection.flush(10)
        go(lab)
        error, took = answer_of(lambda: connection.sendall(b"x" * (1 << 16)))
        assert took < 1.5
        assert isinstance(error, xsk_engine.TcpAbortedError)
        assert error.errno == errno.ECONNABORTED
        assert "the device is gone" in str(error)
        assert connection.state == "CLOSED"
        with pytest.raises(xsk_engine.XskError, match=r"no route to it|the device is gone"):
            engine.tcp(ADDRESS[4], one.port)


@WAYS
@pytest.mark.parametrize("waits", ["recv", "flush", "connect"])
def test_a_waiting_thread_hears_of_it(go, waits):
    """Nothing would come of itself: the peer says nothing, or does not answer."""
    with connected(echo) as (lab, engine, connection, _):
        calls = {
            "recv": lambda: connection.recv(100),
            "flush": lambda: connection.flush(PATIENCE_S),
            "connect": lambda: engine.tcp("10.77.0.99", 80, dst_mac="02:77:00:00:00:02"),
        }
        answers = []
        if waits == "flush":
            lab.ip("addr", "flush", "dev", "vrx", rx=True)  # nobody acknowledges any more
            connection.sendall(b"x")
        thread = threading.Thread(target=lambda: answers.append(answer_of(calls[waits])[0]))
        thread.start()
        time.sleep(0.2)
        assert thread.is_alive()
        go(lab)
        thread.join(2)
        assert not thread.is_alive()
        assert isinstance(answers[0], xsk_engine.TcpAbortedError)
        assert answers[0].errno == errno.ECONNABORTED
        assert "the device is gone" in str(answers[0])


@WAYS
def test_an_event_loop_hears_of_it(go):
    async def main(lab, port):
        reader, writer = await xsk_engine.open_connection(ADDRESS[4], port, interface="vtx")
        reading = asyncio.ensure_future(reader.read(100))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(go, lab) if go is not move_away else go(lab)
        with pytest.raises(OSError, match="the device is gone"):
            await asyncio.wait_for(reading, 3)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    with another_lab(LabOptions()) as lab, peer(lab, echo) as one:
        asyncio.run(main(lab, one.port))


def test_the_peers_mtu_is_lowered_below_a_segment():
    """The peer drops them: nobody answers, for as long as the connection has patience."""
    with connected(digest_of, user_timeout_s=1.0) as (lab, _, connection, _):
        lab.ip("link", "set", "vrx", "mtu", "600", rx=True)
        error, took = answer_of(lambda: connection.sendall(b"x" * (1 << 16)))
        assert isinstance(error, xsk_engine.TcpTimeoutError)
        assert took < 1 + 1


CHANGES = {
    "another name": [("link", "set", "vtx", "name", "other")],
    "another MAC and back": [
        ("link", "set", "vtx", "address", "02:77:00:00:00:55"),
        ("link", "set", "vtx", "address", "02:77:00:00:00:01"),
    ],
    "a lower MTU": [("link", "set", "vtx", "mtu", "1000")],
    "a link that flaps": [("link", "set", "vtx", state) for _ in range(5) for state in ("down", "up")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_goes_on(change):
    """All bytes arrive."""
    piece = bytes(range(256)) * (1 << 12)
    with connected(digest_of) as (lab, _, connection, one):
        for words in CHANGES[change]:
            if words[-1] != "up":  # nothing has room while it is down
                connection.sendall(piece)
            lab.ip(*words)
        connection.sendall(piece)
        connection.close(20)
        data = piece * (1 + sum(words[-1] != "up" for words in CHANGES[change]))
        assert one.result() == (len(data), hashlib.sha256(data).hexdigest())


def test_other_traffic_of_the_engine_ends_with_it():
    """One loop, one reason: what a flow and an endpoint are told."""
    with connected(digest_of) as (lab, engine, connection, _):
        running = engine.start(xsk_engine.Flow(frame(60)), rate=Fraction(1000))
        endpoint = engine.raw()
        endpoint.send(frame(60))
        delete_peer(lab)
        with pytest.raises(xsk_engine.BrokenError, match="the device is gone"):
            running.wait(3)
        error, _ = answer_of(lambda: endpoint.send(frame(60)))
        assert "the device is gone" in str(error)
        error, _ = answer_of(lambda: connection.recv(10))
        assert "the device is gone" in str(error)
        wait_until(lambda: connection.state == "CLOSED")

"""What the soak does at once: each of these is a thread that goes on until it is told to stop, as its own
random numbers say, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field

import numpy

import xsk_engine
from tests.soak.pattern import (
    DATAGRAM_PORT,
    FLOW_PORT,
    FLOW_TEXT,
    LONGEST,
    SHORTEST,
    datagram,
    is_whole,
    stream,
)
from xsk_engine import packet
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

PEER = (topology.RX_IPV4, DATAGRAM_PORT)
_FLOW = f"ip dst={topology.RX_IPV4} / udp src={{}} dst={FLOW_PORT} ; size={{}} ; payload=text:{FLOW_TEXT}"
FLOWS = [
    xsk_engine.parse_flow(_FLOW.format(source, size))
    for i in range(250)
    for source, size in (
        (1024 + i, 60),
        ("random", "60,590,1514"),
        (f"{2000 + i}-{40000 + i}", "256-260"),
        ("random", 60 + 5 * i),
    )
]
_RATES = (None, "1kpps", "20kpps", "100kpps", "10Mbps")
# Without a link there is no room; without an address no route.
_WHILE_DOWN = (xsk_engine.WouldBlockError, xsk_engine.DeadlineError, xsk_engine.UnavailableError)
CHILD_S = 10.0


@dataclass
class Scene:
    """Of one round."""

    engine: xsk_engine.Engine
    lab: PrivateLab
    beside: PrivateLab
    """another laboratory, for engines that come and go"""
    beside_ears: socket.socket
    tcp_port: int
    seed: str
    done: collections.Counter[str] = field(default_factory=collections.Counter)
    """how often, by what; each thread has its own"""
    stop: threading.Event = field(default_factory=threading.Event)

    def pause(self, rng: random.Random, longest_s: float) -> None:
        self.stop.wait(rng.uniform(0, longest_s))


def everything(engine: xsk_engine.Engine) -> dict[str, object]:
    """By name; several of a kind where they are in each other's way."""
    work = {f"sender {i}": send for i in range(3)} | {"flows": flows, "forks": fork, "beside": run_beside}
    if engine.tcp_stack is not None:
        work |= {f"tcp {i}": talk for i in range(2)}
    return work | {"links": flap}


# ---- flows ----------------------------------------------------------------------------------------------


def flows(scene: Scene, rng: random.Random) -> None:
    """One as fast as it goes, all the time; others come, go and change their rate."""
    full = scene.engine.start(FLOWS[0])
    others: list[xsk_engine.RunningTraffic] = []
    try:
        while not scene.stop.is_set():
            draw = rng.random()
            if len(others) < 3 and draw < 0.5:
                some = rng.sample(FLOWS, rng.choice([1, 1, 2, 10, 100, 1000]))
                count = rng.choice([None, 1, 1000, 100_000])
                with contextlib.suppress(xsk_engine.UnavailableError):  # no route while the link is down
                    others.append(scene.engine.start(some, rate=rng.choice(_RATES), count=count))
                    scene.done["flows started"] += len(some)
            elif others and draw < 0.75:
                with contextlib.suppress(xsk_engine.ClosedError):  # it has ended by itself
                    rng.choice(others).set_rate(rng.choice(_RATES))
                scene.done["rates changed"] += 1
            elif others:
                one = others.pop(rng.randrange(len(others)))
                one.counts()
                if not one.done:  # what nobody holds goes on
                    _stop(one)
            scene.pause(rng, 0.3)
    finally:
        for one in [full, *others]:
            _stop(one)


def _stop(running: xsk_engine.RunningTraffic) -> None:
    running.stop()
    running.wait(20)


# ---- endpoints ------------------------------------------------------------------------------------------


def send(scene: Scene, rng: random.Random) -> None:
    """Endpoints of either kind, used in all ways, closed at any moment or only let go."""
    while not scene.stop.is_set():
        try:
            _one_endpoint(scene, rng)
        except _WHILE_DOWN:
            scene.done["had to wait too long"] += 1


def _one_endpoint(scene: Scene, rng: random.Random) -> None:
    options = {
        "queue": rng.randrange(2),
        "quota_chunks": rng.choice([4, 16, 64]),
        "timeout": rng.choice([0, 0.01, 2.0]),
    }
    raw = rng.random() < 0.2
    endpoint = scene.engine.raw(**options) if raw else scene.engine.udp(PEER, **options)
    make = _frame if raw else datagram
    scene.done["endpoints"] += 1
    held: list[object] = []
    try:
        for _ in range(rng.randrange(40)):
            if scene.stop.is_set():
                break
            try:
                rng.choice([_send, _send_many, _send_frags])(scene, rng, endpoint, make, held)
            except xsk_engine.WouldBlockError:
                scene.done["no room"] += 1
        how = rng.random()
        if how < 0.3:
            endpoint.drain(5)
        elif how < 0.5:
            endpoint.flush(5)
    finally:
        scene.done["datagrams"] += endpoint.stats().submitted_packets
        if rng.random() < 0.9:  # or nobody closes it
            endpoint.close()
        for frags in held:
            frags.release()


def _frame(rng: random.Random, size: int | None = None) -> bytes:
    """A whole one around a datagram."""
    return packet.udp_frame(
        packet.parse_mac(topology.RX_MAC),
        packet.parse_mac(topology.TX_MAC),
        packet.ipaddress.ip_address(topology.TX_IPV4),
        packet.ipaddress.ip_address(topology.RX_IPV4),
        rng.randint(1024, 65535),
        DATAGRAM_PORT,
        datagram(rng, size),
    )


def _send(scene, rng, endpoint, make, held):
    endpoint.send(make(rng))


def _send_many(scene, rng, endpoint, make, held):
    size, n = rng.randint(SHORTEST, LONGEST), rng.randint(1, 200)
    one = make(rng, size)
    if rng.random() < 0.5:
        many = numpy.broadcast_to(numpy.frombuffer(one, dtype=numpy.uint8), (n, len(one))).copy()
    else:
        many = [one, make(rng)] * n
    endpoint.send_many(many)


def _send_frags(scene, rng, endpoint, make, held):
    one = make(rng)
    frags = endpoint.alloc(rng.randint(1, 8), len(one))
    frags.array[:] = numpy.frombuffer(one, dtype=numpy.uint8)
    draw = rng.random()
    if draw < 0.1:
        held.append(frags)
        return
    if draw < 0.2:
        frags.release()
        return
    posted = [*(frags[i].clone() for i in range(len(frags))), frags[0]] if draw < 0.5 else frags
    try:
        tracker = endpoint.post(posted, track=rng.random() < 0.5)
    finally:
        if posted is not frags:
            for frag in posted:
                frag.release()
        frags.release()
    if tracker is not None and rng.random() < 0.5:
        tracker.wait(5)
        scene.done["trackers waited for"] += 1


# ---- TCP ------------------------------------------------------------------------------------------------


def talk(scene: Scene, rng: random.Random) -> None:
    """Connections that send a stream and end it in one of several ways."""
    while not scene.stop.is_set():
        try:
            _one_connection(scene, rng)
        except (*_WHILE_DOWN, xsk_engine.TcpError):
            scene.done["connections lost"] += 1


def _one_connection(scene: Scene, rng: random.Random) -> None:
    options = {
        "time_wait_s": 0.1,
        "congestion": rng.choice(["cubic", "reno"]),
        "nodelay": rng.random() < 0.5,
        "pacing": rng.random() < 0.3,
        "send_buffer_bytes": rng.choice([64 << 10, 1 << 20]),
    }
    connection = scene.engine.tcp(topology.RX_IPV4, scene.tcp_port, **options)
    scene.done["connections"] += 1
    try:
        sent = _write(scene, rng, connection)
        how = rng.random()
        if how < 0.6:
            connection.shutdown()
            answer = connection.makefile().read(8)
            if answer != struct.pack("!Q", sent):
                raise AssertionError(f"sent {sent} bytes of a stream, the peer says {answer.hex()}")
            connection.close()
            scene.done["connections closed"] += 1
        elif how < 0.8:
            connection.close(0)
    finally:
        connection.abort()


def _write(scene: Scene, rng: random.Random, connection: xsk_engine.TcpConnection) -> int:
    sent = 0
    for _ in range(rng.randrange(20)):
        if scene.stop.is_set():
            break
        piece = stream(sent, int(2 ** rng.uniform(0, 18)))
        if rng.random() < 0.3:
            view = connection.alloc()
            n = min(len(piece), len(view))
            view[:n] = piece[:n]
            connection.submit(n)
            sent += n
        else:
            connection.sendall(piece)
            sent += len(piece)
    return sent


# ---- engines beside -------------------------------------------------------------------------------------


def run_beside(scene: Scene, rng: random.Random) -> None:
    """Engines that open, send and close on another interface, blocking and with asyncio."""
    with namespaces.entered(scene.beside.tx_fd):
        while not scene.stop.is_set():
            try:
                if rng.random() < 0.5:
                    _one_engine(scene, rng)
                else:
                    asyncio.run(_with_asyncio(scene, rng))
                scene.done["engines beside"] += 1
            except xsk_engine.UnavailableError as error:
                if error.errno != errno.ENOBUFS:  # an ordinary user's locked memory, which others use, too
                    raise
                scene.done["engines without memory"] += 1
            _look(scene)


def _one_engine(scene: Scene, rng: random.Random) -> None:
    with xsk_engine.open("vtx", umem_mb=1) as engine:
        engine.start(FLOWS[1], rate="10kpps")
        endpoint = engine.udp(PEER)
        scene.done["datagrams beside"] += endpoint.send_many([datagram(rng) for _ in range(50)])
        scene.pause(rng, 0.5)


async def _with_asyncio(scene: Scene, rng: random.Random) -> None:
    async with xsk_engine.aopen("vtx", umem_mb=1) as engine:
        transport, _ = await xsk_engine.create_datagram_endpoint(
            asyncio.DatagramProtocol, engine=engine, remote_addr=PEER
        )
        endpoint = engine.udp(PEER, quota_chunks=4)
        tasks = [asyncio.ensure_future(_send_for_ever(endpoint, rng))]
        tasks.append(asyncio.ensure_future(engine.start(FLOWS[2], rate="1kpps", count=20)))
        for _ in range(rng.randrange(60)):
            transport.sendto(datagram(rng))
            scene.done["datagrams beside"] += 1
            await asyncio.sleep(0.001)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        if rng.random() < 0.5:
            transport.close()
        else:
            transport.abort()


async def _send_for_ever(endpoint: xsk_engine.AsyncUdpEndpoint, rng: random.Random) -> None:
    while True:
        await endpoint.send_many([datagram(rng) for _ in range(20)])
        await endpoint.drain()


def _look(scene: Scene) -> None:
    """What has come from there."""
    with contextlib.suppress(BlockingIOError):
        while True:
            if not is_whole(scene.beside_ears.recv(65536)):
                raise AssertionError("a wrong datagram beside")
            scene.done["datagrams received beside"] += 1


# ---- what happens to it ---------------------------------------------------------------------------------


def fork(scene: Scene, rng: random.Random) -> None:
    """Children, whose engine is broken while the parent's goes on."""
    while not scene.stop.is_set():
        child = os.fork()
        if not child:
            code = 1
            try:
                scene.engine.raw()
            except xsk_engine.BrokenError:
                code = 0
            finally:
                os._exit(code)
        _wait_for(child)
        scene.done["children"] += 1
        scene.pause(rng, 4)


def _wait_for(child: int) -> None:
    deadline = time.monotonic() + CHILD_S
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("a forked child does not end")
        time.sleep(0.01)
    if ended[1]:
        raise AssertionError(f"a forked child ended with {os.waitstatus_to_exitcode(ended[1])}")


def flap(scene: Scene, rng: random.Random) -> None:
    """Once in a round, at most: either end of the link goes down for less than the engine's patience. And
    another engine on the same queue is refused."""
    scene.pause(rng, 4)
    with contextlib.suppress(xsk_engine.UnavailableError):
        xsk_engine.open("vtx", umem_mb=1)
        raise AssertionError("two engines have the same queue")
    scene.done["engines refused"] += 1
    if scene.stop.is_set() or rng.random() < 0.3:
        return
    here = rng.random() < 0.5
    interface = topology.TX_INTERFACE if here else topology.RX_INTERFACE
    with contextlib.nullcontext() if here else namespaces.entered(scene.lab.rx_fd):
        _ip("link", "set", interface, "down")
        time.sleep(rng.uniform(0, 0.5))
        _ip("link", "set", interface, "up")
    scene.done["links down"] += 1


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=10)

"""Threads that die, callbacks that raise, interpreters that end, and objects that outlive their engine."""

import _thread
import asyncio
import contextlib
import functools
import gc
import os
import signal
import threading
import time
import warnings
import weakref

import pytest
from tcppeer import digest_of, peer
from wire import PORT, closed_beside, frame, holdings, wait_until

import xsk_engine
from xsk_engine import lifetimes
from xsk_engine._ffi import native
from xsk_engine.config import MIB, EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import BrokenError, BusyError, ClosedError, XskError
from xsk_engine.lab import topology
from xsk_engine.neighbours import Neighbours
from xsk_engine.sink import Sink, SinkConfig

REMOTE = (topology.RX_IPV4, PORT)
FLOW = xsk_engine.parse_flow(f"ip dst={REMOTE[0]} / udp dst={REMOTE[1]}")


@contextlib.contextmanager
def within(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.fixture
def nothing_is_left():
    """Of what the test has made, once it is over."""
    gc.collect()
    before = holdings()
    yield
    gc.collect()
    wait_until(lambda: holdings() == before, 5)


# ---- a thread dies -----------------------------------------------------------------------------------------


@pytest.fixture
def kill(monkeypatch):
    """A function: makes a worker's thread come back from the native call by `end`."""
    real, ends = native.native.loop_run, {}

    def loop_run(loop):
        state = real(loop)
        return ends[loop.value]() if loop.value in ends else state

    def arm(worker, end):
        ends[worker.loop.value] = end
        worker.command(native.PAUSE)

    monkeypatch.setattr(native.native, "loop_run", loop_run)
    return arm


def by_an_error():
    raise RuntimeError("injected")


def by_nonsense():
    return 99


def by_an_errno():
    raise OSError(12, "injected")


@pytest.mark.parametrize("end", [by_an_error, by_nonsense, by_an_errno])
def test_a_workers_thread_dies(wire, nothing_is_left, kill, end):
    """Whoever waits hears of it at once, the other queue goes on, and closing audits."""
    with Engine(EngineConfig("vtx", queues=(0, 1))) as engine:
        dead, alive = engine.raw(queue=0), engine.raw(queue=1)
        dead.send(frame(60))
        running = engine.start(FLOW, rate="1kpps")
        kill(engine.workers[0], end)
        with within(1), pytest.raises(BrokenError, match=r"queue 0.*its thread has died"):
            running.wait(5)
        for use in (
            lambda: dead.send(frame(60)),
            lambda: engine.raise_failure(),
            lambda: engine.start(FLOW, count=1),
        ):
            with within(1), pytest.raises(BrokenError, match="its thread has died"):
                use()
        alive.send(frame(60))
        alive.drain()
    died, went_on = engine.queue_snapshots()
    assert went_on.completed_packets == went_on.submitted_packets
    assert died.completed_packets + died.inflight_descs == died.submitted_packets


def test_a_workers_thread_dies_under_asyncio(wire, nothing_is_left, kill):
    async def main():
        async with xsk_engine.aopen("vtx") as engine:
            endpoint = engine.udp(REMOTE)
            await endpoint.send(b"hello")
            running = await engine.start(FLOW, rate="1kpps")
            kill(engine.engine.workers[0], by_an_error)
            with within(1), pytest.raises(BrokenError, match="its thread has died"):
                await running
            with within(1), pytest.raises(BrokenError, match="its thread has died"):
                await endpoint.send(b"hello")

    asyncio.run(main())


def test_a_workers_thread_dies_under_a_connection(wire, real_root, nothing_is_left, kill):
    with peer(wire, digest_of) as one, Engine(EngineConfig("vtx", tcp=True, umem_bytes=8 * MIB)) as engine:
        connection = engine.tcp(topology.RX_IPV4, one.port)
        connection.sendall(b"hello")
        kill(engine.workers[0], by_an_error)
        for use in (lambda: connection.recv(1), lambda: connection.sendall(bytes(MIB))):
            with within(1), pytest.raises(xsk_engine.TcpAbortedError):
                use()
        with pytest.raises(BrokenError, match="its thread has died"):
            engine.tcp(topology.RX_IPV4, one.port)


@pytest.mark.parametrize("error", [RuntimeError("injected"), MemoryError()], ids=repr)
def test_a_receivers_thread_dies(wire, nothing_is_left, monkeypatch, error):
    real = native.native.receiver_run

    def receiver_run(handle):
        real(handle)
        raise error

    monkeypatch.setattr(native.native, "receiver_run", receiver_run)
    with wire.in_rx(), Sink(SinkConfig("vrx", method="packet")) as sink:
        native.native.receiver_stop(sink.way.receiver._handle)
        wait_until(lambda: sink.way.receiver.failure() is not None, 1)
        with pytest.raises(BrokenError, match="its thread has died"):
            sink.raise_failure()


# ---- callbacks ---------------------------------------------------------------------------------------------


class Raises(asyncio.DatagramProtocol):
    """What it is asked to, in the callback it is asked to."""

    def __init__(self, where, error):
        self.error = error
        setattr(self, where, self.fail)

    def fail(self, *_):
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "where", ["connection_made", "datagram_received", "pause_writing", "connection_lost"]
)
def test_a_protocol_ends_the_program(wire, nothing_is_left, where, error):
    """Ctrl-C, or sys.exit(), in the middle of a callback: the event loop ends, and leaves nothing."""
    remote = ("10.77.0.9", 9) if where == "pause_writing" else REMOTE  # who waits for a neighbour has no room

    async def main():
        transport, _ = await xsk_engine.create_datagram_endpoint(
            lambda: Raises(where, error), remote_addr=remote, interface="vtx"
        )
        transport.set_write_buffer_limits(high=0)
        with wire.listening() as sock:
            transport.sendto(b"hello")
            if where == "datagram_received":
                _, address = await asyncio.to_thread(sock.recvfrom, 100)
                sock.sendto(b"back", address)
                await asyncio.sleep(5)
        transport.abort()
        await asyncio.sleep(5)

    with within(5), pytest.raises(error):
        asyncio.run(main())
    gc.collect()


def test_a_done_callback_that_raises_stops_nobody_else(wire, nothing_is_left):
    heard, said = [], []

    def fail(_):
        heard.append("first")
        raise RuntimeError("injected")

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        async with xsk_engine.aopen("vtx") as engine:
            for callback in (fail, lambda _: heard.append("second")):
                waits = engine.bell.wait(5)
                waits.add_done_callback(callback)
            running = await engine.start(FLOW, count=100)
            running.at_end = None
            await running
            await asyncio.sleep(0)
            endpoint = engine.udp(REMOTE)
            await endpoint.send(b"hello")

    asyncio.run(main())
    assert sorted(heard) == ["first", "second"]
    assert [repr(one["exception"]) for one in said] == ["RuntimeError('injected')"]


class Interrupted(Exception):
    """By a signal's handler."""


@pytest.mark.parametrize("what", ["wait", "alloc", "udp", "recv"])
def test_a_handler_that_raises_while_something_is_waited_for(wire, request, nothing_is_left, what):
    """It comes out of the call, at once, and the engine is as good as before."""
    options = {}
    if what == "recv":
        request.getfixturevalue("real_root")
        options = {"tcp": True, "umem_bytes": 8 * MIB}

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with peer(wire, digest_of) as one, Engine(EngineConfig("vtx", **options)) as engine:
            running = engine.start(FLOW, rate="1kpps")
            raw = engine.raw(quota_chunks=1)
            held = raw.alloc(2, 1500)
            calls = {
                "wait": lambda: running.wait(),
                "alloc": lambda: raw.alloc(2, 1500),
                "udp": lambda: engine.udp(("10.77.0.9", 9)),
                "recv": lambda: engine.tcp(topology.RX_IPV4, one.port).recv(1),
            }
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with within(1.5), pytest.raises(Interrupted):
                calls[what]()
            held.release()
            raw.send(frame(60))
            running.stop()
            running.wait(5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_closes_what_is_closing(wire, nothing_is_left):
    """It finds the door locked, and does not wait for itself."""
    engine = Engine(EngineConfig("vtx", drain_timeout_s=0.5)).open()
    engine.start(FLOW)
    entered = []

    def close(*_):
        entered.append(engine.workers[0].alive)
        engine.close()

    before = signal.signal(signal.SIGALRM, close)
    real = engine.stop

    def stop():
        os.kill(os.getpid(), signal.SIGALRM)
        real()

    engine.stop = stop
    try:
        with within(2):
            engine.close()
    finally:
        signal.signal(signal.SIGALRM, before)
        del engine.stop
    assert entered == [True]
    assert engine.final is not None
    assert not engine.workers


# ---- garbage -----------------------------------------------------------------------------------------------


def just_an_engine():
    return xsk_engine.open("vtx")


def a_cycle():
    engine = xsk_engine.open("vtx")
    engine.me = engine
    return engine


def an_endpoint_with_frags():
    endpoint = xsk_engine.open("vtx").raw()
    endpoint.send(frame(60))
    return endpoint.alloc(4, 100), endpoint


def traffic():
    return xsk_engine.open("vtx").start(FLOW, rate="1kpps")


@pytest.mark.filterwarnings("default::ResourceWarning")
@pytest.mark.parametrize("make", [just_an_engine, a_cycle, an_endpoint_with_frags, traffic])
def test_what_nobody_holds_is_closed(wire, nothing_is_left, make):
    """And not before: what an application has of an engine keeps it."""
    held = make()
    gc.collect()
    assert any(one.name == "xsk-0" for one in threading.enumerate())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del held
        gc.collect()
    assert "engine on vtx was never closed" in [str(one.message) for one in said]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "starter", [(threading.Thread, "start"), (_thread, "start_new_thread")], ids=lambda starter: starter[1]
)
def test_what_nobody_holds_and_no_thread_can_close_waits_for_the_end(
    wire, nothing_is_left, monkeypatch, starter
):
    """Whoever collects it does not close it: that may be one of its own threads."""

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    held = a_cycle()
    monkeypatch.setattr(*starter, refuse)
    del held
    gc.collect()
    wait_until(lambda: len(lifetimes._left) == 1)
    monkeypatch.undo()
    (left,) = [engine for engine in lifetimes._engines if engine.workers]
    assert left.workers[0].alive
    left.close()
    lifetimes._left.clear()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_who_collects_what_nobody_holds_waits_for_no_thread(wire, nothing_is_left, monkeypatch):
    """It may hold a lock that a Thread takes when it starts."""
    real, starters = threading.Thread.start, []

    def start(thread):
        starters.append(threading.get_ident())
        real(thread)

    held = a_cycle()
    monkeypatch.setattr(threading.Thread, "start", start)
    del held
    gc.collect()
    wait_until(lambda: starters)
    assert starters != [threading.get_ident()]


@pytest.fixture
def away(monkeypatch):
    """A function: an engine's loop does not answer within the block, and nobody waits for it for long."""
    monkeypatch.setattr("xsk_engine.endpoint._REMOVE_DEADLINE_S", 0.3)

    @contextlib.contextmanager
    def paused(engine):
        assert engine.workers[0].pause(2)
        try:
            yield
        finally:
            engine.workers[0].resume()

    return paused


def test_an_endpoint_that_nobody_holds_waits_for_a_loop_that_is_away(wire, nothing_is_left, away):
    """Who makes another does not wait for it."""
    with xsk_engine.open("vtx") as engine:
        engine.raw().send(frame())
        wait_until(lambda: engine.snapshot().completed_packets == 1)
        with away(engine):
            kept = engine.raw()
            assert engine.umem.audit(strict=False).arenas == 3, "the loop's own, and two"
        kept.close()
        engine.raw().close()
        assert engine.umem.audit(strict=False).arenas == 1


def fill_command_ring(worker):
    with contextlib.suppress(BusyError):
        for _ in range(100_000):
            worker.command(native.PARK)
    with pytest.raises(BusyError, match="command ring is full"):
        worker.command(native.PARK)


def test_an_endpoint_that_cannot_be_closed_holds_up_no_engine(wire, nothing_is_left, away):
    with xsk_engine.open("vtx") as engine:
        lost = engine.raw()
        with away(engine), pytest.raises(BrokenError, match="does not answer; the endpoint leaks"):
            lost.close()
        with within(1):
            engine.close()


def test_an_endpoint_whose_loop_takes_no_command_stays_open(wire, nothing_is_left, away):
    """And can be closed later."""
    with xsk_engine.open("vtx") as engine:
        raw = engine.raw()
        with away(engine):
            fill_command_ring(engine.workers[0])
            with pytest.raises(BusyError, match="command ring is full"):
                raw.close()
            assert not raw.closed
        wait_until(lambda: raw.send(frame()) is None)
        raw.drain()
        raw.close()
        assert engine.umem.audit(strict=False).arenas == 1


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_an_engine_whose_loop_takes_no_command_closes(wire, nothing_is_left, seconds):
    """All is sent when there is room for its command in time; without, it ends all the same."""
    engine = xsk_engine.open("vtx", queues=(0, 1))
    raw = engine.raw(queue=0)
    first = engine.workers[0]
    assert first.pause(2)
    raw.send_many([frame()] * 100)
    fill_command_ring(first)
    back = threading.Timer(seconds, first.resume)
    back.start()
    with within(seconds + 1):
        engine.close()
    back.join()
    assert engine.final.queues[0].completed_packets == (100 if seconds < 1 else 0)


CALLS = {
    "send_many": lambda endpoint: endpoint.send_many([bytes(200)] * 200),
    "alloc": lambda endpoint: endpoint.alloc(16, 800).release(),
    "send": lambda endpoint: endpoint.send(b"x"),
}


@pytest.mark.parametrize("call", CALLS)
def test_who_calls_again_and_again_keeps_no_engine_from_closing(wire, nothing_is_left, call):
    for _ in range(3):
        engine, stop = xsk_engine.open("vtx"), threading.Event()
        endpoint = engine.udp(REMOTE)

        def go_on(endpoint=endpoint, stop=stop):
            while not stop.is_set():
                with contextlib.suppress(XskError):
                    CALLS[call](endpoint)

        thread = threading.Thread(target=go_on)
        thread.start()
        time.sleep(0.1)
        try:
            with within(1.5):
                engine.close()
        finally:
            stop.set()
            thread.join(5)


def test_who_connects_while_the_engine_closes(wire, real_root, nothing_is_left):
    with peer(wire, digest_of) as one:
        for _ in range(10):
            engine = xsk_engine.open("vtx", tcp=True)
            to = functools.partial(engine.tcp, topology.RX_IPV4, one.port, dst_mac=topology.RX_MAC)
            closed_beside(engine, 3, lambda to=to: to().abort())


def test_makers_and_who_closes_their_engine(wire, nothing_is_left):
    """Each of them closes what others have dropped."""
    for _ in range(20):
        engine = xsk_engine.open("vtx")
        ends = closed_beside(engine, 4, engine.raw, 0.02)
        assert {type(end) for end in ends} == {ClosedError}


def test_who_asks_for_a_neighbour_hears_that_nobody_can_answer(wire, monkeypatch):
    monkeypatch.setattr(Neighbours, "_answer", lambda _: 1 // 0)
    with xsk_engine.open("vtx") as engine:
        for _ in range(2):
            with pytest.raises(ClosedError, match="the thread that asks has died: ZeroDivisionError"):
                engine.udp(REMOTE)
    wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("xsk-")], 2)
    with Engine(EngineConfig("vtx")) as engine:  # nor is the queue taken
        engine.raw().send(frame(60))


# ---- after close() -----------------------------------------------------------------------------------------

CLOSED = {
    "engine": {
        "mode": lambda engine: engine.mode,
        "raw": lambda engine: engine.raw(),
        "udp": lambda engine: engine.udp(REMOTE),
        "tcp": lambda engine: engine.tcp(*REMOTE),
        "start": lambda engine: engine.start(FLOW),
        "open": lambda engine: engine.open(),
        "run": lambda engine: asyncio.run(engine.run(FLOW)),
        "audit": lambda engine: engine.audit(),
        "counter_pages": lambda engine: engine.counter_pages(),
    },
    "endpoint": {
        "send": lambda endpoint: endpoint.send(frame(60)),
        "send_many": lambda endpoint: endpoint.send_many([frame(60)]),
        "alloc": lambda endpoint: endpoint.alloc(1, 100),
        "flush": lambda endpoint: endpoint.flush(),
        "drain": lambda endpoint: endpoint.drain(),
        "stats": lambda endpoint: endpoint.stats(),
    },
    "frags": {
        "array": lambda frags: frags.array,
        "payload": lambda frags: frags[0].payload,
        "frame": lambda frags: frags[0].frame,
        "length": lambda frags: frags[0].length,
        "clone": lambda frags: frags[0].clone(),
    },
    "running": {"set_rate": lambda running: running.set_rate("1kpps")},
}
GOOD = {
    "engine": lambda engine: (engine.close(), engine.stop(), engine.gaps(), engine.kernel_stats()),
    "endpoint": lambda endpoint: endpoint.close(),
    "frags": lambda frags: frags.release(),
    "running": lambda running: (running.stop(), running.wait(1), running.counts()),
    "tracker": lambda tracker: tracker.wait(1),
}


def test_everything_says_that_it_is_closed(wire, nothing_is_left):
    with Engine(EngineConfig("vtx")) as engine:
        endpoint = engine.raw()
        things = {
            "engine": engine,
            "endpoint": endpoint,
            "frags": endpoint.alloc(4, 100),
            "running": engine.start(FLOW, rate="1kpps"),
            "tracker": endpoint.post(endpoint.alloc(2, 100), track=True),
        }
        frags = endpoint.alloc(1, 100)
    for name, uses in CLOSED.items():
        for what, use in uses.items():
            print(name, what)
            with within(0.5), pytest.raises(ClosedError):
                use(things[name])
    with pytest.raises(ClosedError):
        endpoint.post(frags)
    for name, use in GOOD.items():  # what ends is idempotent, and what has been counted stays
        with within(0.5):
            use(things[name])
    frags.release()
    assert engine.snapshot().completed_packets >= 2


def test_a_connection_says_that_it_is_closed(wire, real_root, nothing_is_left):
    with peer(wire, digest_of) as one:
        with Engine(EngineConfig("vtx", tcp=True, umem_bytes=8 * MIB)) as engine:
            connection = engine.tcp(topology.RX_IPV4, one.port)
            connection.sendall(b"hello")
        for use in (
            lambda: connection.send(b"x"),
            lambda: connection.sendall(b"x"),
            lambda: connection.recv(1),
            lambda: connection.recv_into(bytearray(1)),
            lambda: connection.alloc(1),
            lambda: connection.shutdown(),
        ):
            with within(0.5), pytest.raises(ClosedError):
                use()
        connection.close()
        connection.abort()
        assert connection.info().acked_bytes == 5
        assert one.result()[0] == 5


def test_views_outlive_their_engine(wire, nothing_is_left):
    """What numpy was given stays there, with what stood in it, until the last view goes."""
    with Engine(EngineConfig("vtx")) as engine:
        frags = engine.raw().alloc(2, 100)
        payload, part, whole = frags[0].payload, frags[1].payload[:50], engine.umem.array()
        array, page = frags.array, engine.counter_pages()[0]
        array[0] = 7
        kept = weakref.ref(engine.umem.area)
    frags.release()
    with pytest.raises(ValueError, match="released"):  # the one that is only ours
        payload[0]
    assert bytes(part) == bytes(50)
    assert bytes(array[0]) == bytes([7]) * 100
    assert whole.shape == (1024, 4096)
    whole[:] = 9
    assert int(array.sum()) == 9 * 200
    assert page["submitted_packets"] == 0
    del engine
    gc.collect()
    assert int(whole[-1, -1]) == 9
    del part, array, whole, frags, payload, page
    gc.collect()
    assert kept() is None

"""What an attacker and a newcomer have tried: nothing of it may crash, hang, or send what it should not."""

import asyncio
import contextlib
import copy
import errno
import gc
import itertools
import pickle
import subprocess
import sys
import threading
import time

import numpy
import pytest
from wire import PORT, another_lab, close_between, wait_until

import xsk_engine
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions

PEER = (topology.RX_IPV4, PORT)
FRAME = bytes.fromhex("027700000002 027700000001 88b5") + bytes(46)


@pytest.fixture
def engine(wire):
    with xsk_engine.open("vtx") as one:
        yield one


def run(main, **options):
    async def with_engine():
        async with xsk_engine.aopen("vtx", **options) as engine:
            return await asyncio.wait_for(main(engine), 30)

    return asyncio.run(with_engine())


# ---- memory -----------------------------------------------------------------------------------------------


def test_commands_for_traffic_that_has_just_ended(engine):
    """The loop reads what they name later; by then it may have ended, and its caller has seen that."""
    flow, stop = xsk_engine.Flow(FRAME), time.monotonic() + 2

    def storm(running):
        while not running.done:
            with contextlib.suppress(xsk_engine.BusyError):  # a loop that is slow to read them
                running.set_mac([0], b"\2" * 6)

    for number in itertools.count(1):
        if time.monotonic() > stop:
            break
        running = engine.start(flow, count=1)
        if number % 3 == 0:
            thread = threading.Thread(target=storm, args=(running,))
            thread.start()
            thread.join(10)
        else:
            wait_until(lambda n=number: engine.snapshot().finished_flows >= n)
        running.stop()
        running.wait(2)
    assert number > 100


def test_an_engine_closes_while_threads_are_inside(wire):
    for _ in range(10):
        engine = xsk_engine.open("vtx")
        block, answers = numpy.zeros((3000, 64), numpy.uint8), []

        def work(engine=engine, block=block, answers=answers):
            try:
                endpoint = engine.udp(PEER)
                while True:
                    endpoint.send_many(block)
                    endpoint.stats()
            except xsk_engine.XskError as error:
                answers.append(type(error))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        engine.close()
        for thread in threads:
            thread.join(5)
        assert set(answers) <= {xsk_engine.ClosedError, xsk_engine.BusyError}
        assert len(answers) == 3


def test_figures_while_another_thread_closes(engine):
    """The handle that a thread has in hand must not be memory that is gone."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            endpoint, over = engine.udp(PEER), []

            def look(endpoint=endpoint, over=over):
                while not over:
                    try:
                        endpoint.stats()
                        endpoint.send(b"x")
                    except xsk_engine.XskError as error:
                        over.append(error)

            thread = threading.Thread(target=look)
            thread.start()
            time.sleep(0.001)
            close_between(endpoint)
            thread.join(5)
            assert isinstance(over[0], (xsk_engine.ClosedError, xsk_engine.BusyError))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("n", [0, -1, 2**32 - 1, 2**32, 2**32 + 1, 2**64])
def test_numbers_that_are_no_number_of_frags(engine, n):
    endpoint = engine.udp(PEER)
    endpoint.alloc(4, 10).release()
    for call in (lambda: endpoint.alloc(n, 10), lambda: endpoint.alloc(1, n)):
        with pytest.raises(ValueError, match="alloc: "):
            call()
    for call in (lambda: endpoint.alloc(1.5, 10), lambda: endpoint.alloc(1, "10")):
        with pytest.raises(TypeError):
            call()
    endpoint.flush()
    assert engine.umem.audit(strict=False).referenced == 0


def test_a_header_that_lies_about_its_version_harms_nobody_else(engine):
    endpoint, other = engine.udp(PEER, vlan=7), engine.raw()
    frags, neighbour = endpoint.alloc(64, 1), other.alloc(1, 60)
    frags[63].frame[18] = 0x65
    neighbour[0].payload[:] = bytes(60)
    before = engine.umem.array().copy()
    endpoint.post(frags[63])
    assert bytes(neighbour[0].payload) == bytes(60)
    first = frags[63].addr
    changed = numpy.flatnonzero(engine.umem.array().reshape(-1) != before.reshape(-1))
    assert ((changed >= first) & (changed < first + 64)).all()
    frags.release()
    neighbour.release()


def test_lengths_that_change_during_the_call(wire):
    big = numpy.full((3000, 64), 0x41, numpy.uint8)
    rows = big[:2000]
    big[2000:] = 0x53
    lengths = numpy.full(2000, 64, numpy.uint32)

    async def main(engine):
        async def change():
            lengths[:] = 1472

        changing = asyncio.ensure_future(change())
        endpoint = engine.udp(PEER)
        await endpoint.send_many(rows, lengths)
        await endpoint.drain()
        await changing
        return endpoint.stats().submitted_bytes

    assert run(main) == 2000 * (42 + 64)


def test_bytes_that_lie_about_their_length(engine):
    class Liar(bytes):
        def __len__(self):
            return 1400

    endpoint = engine.udp(PEER)
    endpoint.send(Liar(b"a"))
    endpoint.send_many([Liar(b"a"), numpy.arange(3, dtype="<u2")])
    endpoint.drain()
    assert endpoint.stats().submitted_bytes == 3 * 60


def test_frags_that_two_threads_post(engine):
    endpoint, before = engine.udp(PEER), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for n in range(1, 300):
            frags = endpoint.alloc(16, 20)

            def post(frags=frags):
                with contextlib.suppress(xsk_engine.BusyError, xsk_engine.ClosedError):
                    endpoint.post(frags)

            threads = [threading.Thread(target=post) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(5)
            if frags.held.any():
                endpoint.post(frags)
            assert endpoint.stats().submitted_packets == 16 * n
    finally:
        sys.setswitchinterval(before)


# ---- arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, -1, -0.5, float("nan"), float("inf"), "0pps", "-1kpps"])
def test_no_rate_is_none(engine, rate):
    running = engine.start(xsk_engine.Flow(FRAME), rate=100)
    with pytest.raises(ValueError, match="rate"):
        engine.start(xsk_engine.Flow(FRAME), rate=rate)
    with pytest.raises(ValueError, match="rate"):
        running.set_rate(rate)
    running.stop()
    assert engine.snapshot().submitted_packets < 1000


@pytest.mark.parametrize(
    "what", [{"count": 0}, {"count": -1}, {"duration": -1}, {"duration": 0}, {"count": 2**64}]
)
def test_what_is_no_number_of_packets_or_time(engine, what):
    with pytest.raises(ValueError, match=r"count|duration"):
        engine.start(xsk_engine.Flow(FRAME), **what)


@pytest.mark.parametrize(
    "options",
    [
        {"queues": (0, 0)},
        {"queues": (-1,)},
        {"queues": ()},
        {"fd": -1},
        {"umem_mb": 0},
        {"link_timeout": -1},
        {"link_timeout": float("nan")},
    ],
)
def test_what_no_engine_can_be(wire, options):
    with pytest.raises(ValueError, match=r"queues|fds|umem|link_timeout"):
        xsk_engine.open("vtx", **options)


def test_what_is_no_option_or_address(engine):
    with pytest.raises(TypeError, match="no option 'quota_chunk'"):
        engine.udp(PEER, quota_chunk=3)
    for wrong in (("10.77.0.2",), "10.77.0.2:9000", (1, 9000), ("10.77.0.2", "9000")):
        with pytest.raises(TypeError):
            engine.udp(wrong)
    with pytest.raises(ValueError, match="opened with timestamps"):
        engine.start(xsk_engine.Traffic(xsk_engine.Flow(FRAME), timestamps=True))


# ---- event loops ------------------------------------------------------------------------------------------


def test_an_engine_may_be_opened_where_an_event_loop_runs(wire):
    async def main():
        with xsk_engine.open("vtx") as engine:
            flow = xsk_engine.parse_flow(f"ip dst={topology.RX_IPV4} / udp dst=9")
            engine.start(flow, count=5).wait(2)
            engine.udp(PEER).send(b"x")

    asyncio.run(main())


def test_a_cancelled_opening_leaves_nothing(wire):
    async def use():
        async with xsk_engine.aopen("vtx"):
            await asyncio.sleep(10)

    async def main(seconds):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(use(), seconds)

    for seconds in (0.0005, 0.002, 0.01, 0.05):
        asyncio.run(main(seconds))
        xsk_engine.open("vtx").close()


def test_more_destinations_than_chunks(wire):
    async def main(engine):
        transport, _ = await xsk_engine.create_datagram_endpoint(asyncio.DatagramProtocol, engine=engine)
        for i in range(1500):
            transport.sendto(b"x", (topology.RX_IPV4, 10_000 + i))
            if i % 10 == 0:
                await asyncio.sleep(0)
        deadline = time.monotonic() + 10
        while engine.snapshot().completed_packets < 1500:
            assert time.monotonic() < deadline, (engine.snapshot(), transport.get_write_buffer_size())
            await asyncio.sleep(0.01)
        assert not transport.get_write_buffer_size()
        assert transport.dropped_datagrams == 0
        transport.close()
        await asyncio.wait_for(transport._life, 10)

    run(main, umem_mb=1)


class Faulty(asyncio.DatagramProtocol):
    """Everything it is told it answers with an error."""

    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()

    def error_received(self, error):
        raise RuntimeError("error_received")

    def pause_writing(self):
        raise RuntimeError("pause_writing")

    resume_writing = pause_writing

    def connection_lost(self, error):
        self.lost.set_result(error)
        raise RuntimeError("connection_lost")


def test_a_protocol_that_raises_stops_nothing(wire):
    told = []

    async def main(engine):
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        transport, protocol = await xsk_engine.create_datagram_endpoint(
            Faulty, engine=engine, remote_addr=PEER
        )
        transport.sendto(bytes(5000))
        for _ in range(3000):
            transport.sendto(b"x" * 64)
        transport.close()
        await asyncio.wait_for(protocol.lost, 5)

    run(main)
    assert "error_received() failed" in told
    assert "connection_lost() failed" in told


class Noting(asyncio.DatagramProtocol):
    def __init__(self):
        self.events = []
        self.lost = asyncio.get_running_loop().create_future()

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, error):
        self.lost.set_result(error)


@pytest.mark.parametrize("paused", [True, False])
def test_a_transport_says_why_it_ends_by_itself(wire, paused):
    """Also when nobody sends any more: who waits for an answer must hear of it."""

    async def main(lab):
        async with xsk_engine.aopen("vtx") as engine:
            transport, protocol = await xsk_engine.create_datagram_endpoint(
                Noting, engine=engine, remote_addr=PEER
            )
            transport.sendto(b"x")
            await asyncio.sleep(0.1)
            await asyncio.to_thread(lab.ip, "link", "delete", "vtx")
            for _ in range(5000 if paused else 3):
                transport.sendto(b"x" * 64)
            error = await asyncio.wait_for(protocol.lost, 5)
            assert isinstance(error, xsk_engine.BrokenError)
            assert error.errno == errno.ENXIO
            assert transport.is_closing()
            assert "resume" not in protocol.events

    with another_lab(LabOptions()) as lab:
        asyncio.run(main(lab))


def test_a_transport_whose_engine_is_closed(wire):
    async def main(lab):
        engine = xsk_engine.aopen("vtx", link_timeout=None)
        await engine.open()
        transport, protocol = await xsk_engine.create_datagram_endpoint(
            Noting, engine=engine, remote_addr=PEER
        )
        await asyncio.to_thread(lab.ip, "link", "set", "vtx", "down")
        for _ in range(1000):
            transport.sendto(bytes(1400))
        assert transport.get_write_buffer_size() > 5000
        await asyncio.sleep(0.1)
        await engine.close()
        transport.sendto(b"x")
        assert isinstance(await asyncio.wait_for(protocol.lost, 5), xsk_engine.ClosedError)
        transport.sendto(b"x")

    with another_lab(LabOptions()) as lab:
        asyncio.run(main(lab))


def test_a_transport_and_its_engine_close_the_same_endpoint(wire):
    async def main():
        async with xsk_engine.aopen("vtx") as engine:
            transport, protocol = await xsk_engine.create_datagram_endpoint(
                Noting, engine=engine, remote_addr=PEER
            )
            transport.sendto(b"x")
            (peer,) = transport._all_peers()
            with peer.endpoint.using("close"):  # as the engine's close() in its own thread
                transport.abort()
                assert await asyncio.wait_for(protocol.lost, 5) is None
            assert transport.get_extra_info("socket").fileno() == -1

    asyncio.run(main())


def test_a_cancelled_send_has_sent_nothing(wire):
    async def main(engine):
        endpoint, returned = engine.udp(PEER), 0

        async def send_on():
            nonlocal returned
            while True:
                await endpoint.send(b"x")
                returned += 1

        for _ in range(30):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(send_on(), 0.005)
        await endpoint.drain()
        return endpoint.stats().submitted_packets - returned

    assert run(main) == 0


@pytest.mark.parametrize("remote", [PEER, ("10.77.0.99", 9)], ids=["known", "silent"])
def test_a_cancelled_transport_leaves_nothing(wire, remote):
    """Wherever it is cancelled: while its engine opens, or while its neighbour is asked for."""
    told = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        for milliseconds in (0, 1, 3, 6, 10, 20, 40, 100):
            opening = xsk_engine.create_datagram_endpoint(
                asyncio.DatagramProtocol, interface="vtx", remote_addr=remote
            )
            with contextlib.suppress(asyncio.TimeoutError):
                transport, _ = await asyncio.wait_for(opening, milliseconds / 1000)
                transport.abort()
        transport, _ = await xsk_engine.create_datagram_endpoint(
            asyncio.DatagramProtocol, interface="vtx", remote_addr=PEER
        )
        transport.sendto(b"x")
        transport.close()

    asyncio.run(main())
    gc.collect()
    assert not told
    xsk_engine.open("vtx").close()


def test_who_waits_for_a_neighbour_hears_of_the_end(wire):
    """Never a CancelledError: nobody has cancelled, and a task group would think all is well."""

    async def use(kept):
        async with xsk_engine.aopen("vtx") as engine:
            kept.append(engine.udp(PEER))
            waiting = engine.udp(("10.77.0.99", 9))
            alone = asyncio.ensure_future(waiting.send(b"x"))
            with_the_engine = asyncio.ensure_future(engine.udp(("10.77.0.98", 9)).send(b"x"))
            await asyncio.sleep(0.05)
            waiting.close()
            with pytest.raises(xsk_engine.ClosedError, match="endpoint is closed"):
                await asyncio.wait_for(alone, 1)
        with pytest.raises(xsk_engine.ClosedError):
            await asyncio.wait_for(with_the_engine, 1)
        for call in (kept[0].send(b"x"), kept[0].send_many([b"x"]), kept[0].alloc(1, 1)):
            with pytest.raises(xsk_engine.ClosedError):
                await call

    asyncio.run(use([]))


def test_how_many_were_sent_before(engine):
    endpoint = engine.udp(PEER)
    for payloads, error, sent in (
        ([b"a"] * 3000 + ["b"], TypeError, 0),
        ([b"a"] * 3000 + [bytes(3000)], ValueError, 3000),
    ):
        with pytest.raises(error) as failed:
            endpoint.send_many(payloads)
        assert failed.value.sent == sent


def test_a_cancelled_send_many_says_how_many(wire):
    async def main(engine):
        endpoint = engine.udp(PEER)
        await endpoint.send(b"x")
        with pytest.raises(asyncio.TimeoutError) as late:
            await asyncio.wait_for(endpoint.send_many(numpy.zeros((10**7, 1), numpy.uint8)), 0.1)
        await endpoint.drain()
        assert endpoint.stats().submitted_packets == 1 + late.value.__cause__.sent
        silent = asyncio.ensure_future(engine.udp(("10.77.0.99", 9)).send_many([b"x"]))
        await asyncio.sleep(0.01)
        silent.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await silent
        assert cancelled.value.sent == 0

    run(main)


@pytest.mark.parametrize("wrong", [float("nan"), -1, -float("inf")])
def test_what_is_no_time(engine, wrong):
    endpoint = engine.udp(PEER)
    tracker = endpoint.post(endpoint.alloc(1, 1), track=True)
    running = engine.start(xsk_engine.Flow(FRAME), count=1)
    for call in (
        lambda: endpoint.drain(wrong),
        lambda: endpoint.flush(wrong),
        lambda: tracker.wait(wrong),
        lambda: running.wait(wrong),
        lambda: setattr(endpoint, "timeout", wrong),
    ):
        with pytest.raises(ValueError, match="timeout: "):
            call()
    for none in (None, "x"):
        with pytest.raises(TypeError):
            endpoint.timeout = none


def test_nothing_that_owns_something_is_copied(engine):
    endpoint = engine.udp(PEER)
    tracker = endpoint.post(endpoint.alloc(1, 1), track=True)
    frags = endpoint.alloc(1, 1)
    running = engine.start(xsk_engine.Flow(FRAME), count=1)
    for one in (engine, endpoint, tracker, running):
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied"):
                copied(one)
    frags.release()


def test_an_engine_opens_once(wire):
    engine = xsk_engine.open("vtx")
    with pytest.raises(xsk_engine.ClosedError, match="opened before"):
        engine.open()
    engine.close()
    with pytest.raises(xsk_engine.ClosedError, match="opened before"):
        engine.open()


def test_an_engine_may_be_awaited(wire):
    async def main():
        engine = await xsk_engine.aopen("vtx")
        await engine.udp(PEER).send(b"x")
        await engine.close()
        with pytest.raises(xsk_engine.ClosedError):
            await engine.open()

    asyncio.run(main())


def test_addresses_and_options_of_a_transport(wire):
    async def main(engine):
        make = xsk_engine.create_datagram_endpoint
        with pytest.raises(TypeError, match="no option 'reuse_port'"):
            await make(asyncio.DatagramProtocol, engine=engine, reuse_port=True)
        with pytest.raises(ValueError, match="different IP versions"):
            await make(
                asyncio.DatagramProtocol, engine=engine, remote_addr=PEER, local_addr=(topology.TX_IPV6, 0)
            )
        transport, _ = await make(asyncio.DatagramProtocol, engine=engine)
        for wrong in (("10.77.0.2",), "10.77.0.2:9"):
            with pytest.raises(TypeError, match="addr: "):
                transport.sendto(b"x", wrong)
        with pytest.raises(ValueError, match="IP version"):
            transport.sendto(b"x", (topology.RX_IPV6, 9))
        transport.abort()

    run(main)


def test_the_first_error_has_no_others_behind_it(wire):
    with pytest.raises(xsk_engine.UnavailableError) as refused:
        xsk_engine.open("nosuch0")
    assert refused.value.__context__ is None


FORKED = """
import os, threading, xsk_engine
frame = bytes.fromhex("0277000000020277000000010800") + bytes(46)
with xsk_engine.open("vtx") as engine:
    running = engine.start(xsk_engine.Flow(frame), rate=100)
    is_held, go_on = threading.Event(), threading.Event()

    def hold():
        with running._lock:
            is_held.set()
            go_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    if os.fork() == 0:
        answers = []
        for use in (running.stop, running.counts, lambda: running.set_rate(5), lambda: running.done):
            try:
                use()
            except xsk_engine.BrokenError:
                answers.append(1)
        try:
            engine.umem.audit()
        except xsk_engine.ClosedError:
            answers.append(1)
        os._exit(0 if len(answers) == 5 and "another process" in repr(running) else 1)
    go_on.set()
    thread.join()
    print(os.waitstatus_to_exitcode(os.wait()[1]), running.done)
    running.stop()
    running.wait(1)
"""


def test_running_traffic_in_a_forked_child(wire):
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout.split() == ["0", "False"], done.stderr

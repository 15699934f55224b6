"""Endpoints and transports in event loops, asyncio's own and uvloop."""

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import socket
import struct
import time

import numpy
import pytest
import uvloop
from wire import PORT, another_lab, enlarge, holdings

import xsk_engine
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions

PEER = (topology.RX_IPV4, PORT)
SILENT = ("10.77.0.200", PORT)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request, wire):
    """Runs a coroutine function with an open engine; nothing is left behind."""

    def run(main, **options):
        async def with_engine():
            async with xsk_engine.aopen("vtx", **options) as engine:
                return await asyncio.wait_for(main(engine), 30)

        return (uvloop if request.param == "uvloop" else asyncio).run(with_engine())

    return run


class Recorder(asyncio.DatagramProtocol):
    """Notes what the transport tells it."""

    def __init__(self):
        self.events, self.errors, self.datagrams = [], [], []
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def datagram_received(self, data, address):
        self.datagrams.append((data, address))

    def error_received(self, error):
        self.errors.append(error)

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, error):
        self.events.append("lost")
        self.lost.set_result(error)


def received(sock, n, seconds=5.0):
    sock.settimeout(seconds)
    return [sock.recv(1 << 16) for _ in range(n)]


async def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


# ---- endpoints ------------------------------------------------------------------------------------------


def test_every_way_to_send(wire, run):
    async def main(engine):
        endpoint = engine.udp(PEER)
        await endpoint.send(b"one")
        assert await endpoint.send_many([b"two", b"three"]) == 2
        assert await endpoint.send_many(numpy.full((2, 4), 65, numpy.uint8), [4, 2]) == 2
        frags = await endpoint.alloc(2, 5)
        frags.array[:] = 66
        tracker = await endpoint.post(frags, track=True)
        await tracker
        assert tracker.done
        await endpoint.flush()
        await endpoint.drain()
        assert endpoint.stats().completed_descs == 7
        assert endpoint.source[0] == topology.TX_IPV4

    with wire.listening() as sock:
        run(main)
        assert received(sock, 7) == [b"one", b"two", b"three", b"AAAA", b"AA", b"BBBBB", b"BBBBB"]


def test_send_waits_at_the_quota_and_others_run(wire, run):
    async def main(engine):
        endpoint = engine.udp(PEER, quota_chunks=1, entries=16)
        ticks = itertools.count()

        async def tick():
            while True:
                next(ticks)
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(tick())
        for i in range(5000):
            await endpoint.send(b"%d" % i)
        ticking.cancel()
        await endpoint.drain()
        assert next(ticks) >= 5000 // 256, "every 256 sends at least, also when there is always room"
        assert endpoint.stats().completed_descs == 5000

    run(main)


def test_many_tasks_share_an_endpoint(wire, run):
    async def main(engine):
        endpoint = engine.udp(PEER, quota_chunks=2, entries=32)

        async def work(i):
            for k in range(200):
                await endpoint.send(b"%d %d" % (i, k))

        await asyncio.gather(*(work(i) for i in range(20)))
        await endpoint.drain()
        assert endpoint.stats().completed_descs == 4000

    with wire.counted() as arrived, wire.listening():
        run(main)
        assert arrived() == 4000


def test_would_block_broken_and_closed(run):
    async def main(engine):
        endpoint = engine.udp(PEER, timeout=0.05, quota_chunks=1)
        await endpoint.send(b"x")
        await endpoint.drain()
        frags = await endpoint.alloc(2, 1400)
        start = time.monotonic()
        with pytest.raises(xsk_engine.WouldBlockError):
            await endpoint.send(b"x")
        assert time.monotonic() - start < 1
        frags.release()
        await endpoint.send(b"x")
        endpoint.close()
        with pytest.raises(xsk_engine.ClosedError, match="endpoint is closed"):
            await endpoint.send(b"x")
        nobody = engine.udp(SILENT)
        for _ in range(2):
            with pytest.raises(xsk_engine.UnavailableError, match="nobody answered"):
                await nobody.send(b"x")
        with pytest.raises(xsk_engine.UnavailableError, match="no route"):
            await engine.udp(("192.0.2.1", 5)).send(b"x")

    run(main)


def test_a_device_that_goes_breaks_those_who_wait(wire):
    async def main(lab):
        async with xsk_engine.aopen("vtx") as engine:
            endpoint = engine.udp(PEER)
            await endpoint.send(b"x")
            stats = engine.stats(0.02)
            assert (await anext(stats)).submitted_packets == 1
            await asyncio.to_thread(lab.ip, "link", "delete", "vtx")

            async def send_on():
                while True:
                    await endpoint.send(b"x")
                    await asyncio.sleep(0.001)

            with pytest.raises(xsk_engine.BrokenError, match="vtx") as gone:
                await send_on()
            assert gone.value.errno == errno.ENXIO
            with pytest.raises(xsk_engine.BrokenError):
                async for _ in stats:
                    pass

    with another_lab(LabOptions()) as lab:
        asyncio.run(main(lab))


def test_statistics_come_in_intervals_and_end_with_the_engine(run):
    async def main(engine):
        endpoint = engine.udp(PEER)
        taken = []

        async def watch():
            async for snapshot in engine.stats(0.05):
                taken.append(snapshot)

        watching = asyncio.ensure_future(watch())
        for _ in range(30):
            await endpoint.send(b"x")
            await asyncio.sleep(0.01)
        await engine.close()
        await asyncio.wait_for(watching, 1)
        assert 3 <= len(taken) <= 7
        records = xsk_engine.history(taken)
        gaps = numpy.diff(records["time_ns"].astype(numpy.int64))
        assert gaps.min() > 0
        assert taken[-1].submitted_packets > 0

    run(main)


def test_running_traffic_is_awaited(run):
    async def main(engine):
        flow = xsk_engine.parse_flow(f"ip dst={topology.RX_IPV4} / udp dst={PORT}")
        running = await engine.start(flow, rate="10kpps", count=100)
        await running
        assert running.counts() == {0: (100, 6000)}
        endless = await engine.start(flow, rate="1kpps")
        await asyncio.sleep(0.05)
        endless.stop()
        await endless

    run(main)


def test_the_event_loop_goes_on_while_everything_is_sent(wire, run):
    """Not a limit on time, which belongs into the benchmark: only that it is nowhere near blocked."""

    async def main(engine):
        endpoint, lags = engine.udp(PEER), []

        async def watch():
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.001)
                lags.append(time.monotonic() - before - 0.001)

        watching = asyncio.ensure_future(watch())
        stop = time.monotonic() + 0.5
        block = numpy.zeros((5000, 64), numpy.uint8)
        while time.monotonic() < stop:
            await endpoint.send_many(block)
        watching.cancel()
        assert len(lags) > 20

    run(main)


def test_nothing_is_left_of_many_engines(wire):
    async def once():
        async with xsk_engine.aopen("vtx") as engine:
            endpoint = engine.udp(PEER)
            await endpoint.send(b"x")
            await endpoint.drain()

    asyncio.run(once())
    gc.collect()
    before = holdings()
    for _ in range(10):
        asyncio.run(once())
    gc.collect()
    assert holdings() == before


# ---- the transport --------------------------------------------------------------------------------------


def test_a_transport_sends_and_receives_on_one_port(wire, run):
    async def main(engine):
        transport, protocol = await xsk_engine.create_datagram_endpoint(
            Recorder, engine=engine, remote_addr=PEER
        )
        assert isinstance(transport, asyncio.DatagramTransport)
        transport.sendto(b"question")
        transport.sendto(bytearray(b"and"), PEER)
        transport.sendto(memoryview(b"more"))
        await asyncio.sleep(0.1)
        data, address = await asyncio.to_thread(sock.recvfrom, 100)
        assert (data, received(sock, 2)) == (b"question", [b"and", b"more"])
        assert address == transport.get_extra_info("sockname")
        assert transport.get_extra_info("peername") == PEER
        assert transport.get_extra_info("socket").family == socket.AF_INET
        assert transport.get_extra_info("nothing", 7) == 7
        sock.sendto(b"answer", address)
        await until(lambda: protocol.datagrams)
        assert protocol.datagrams == [(b"answer", PEER)]
        with pytest.raises(ValueError, match="sends to"):
            transport.sendto(b"x", ("10.77.0.3", 9))
        with pytest.raises(TypeError):
            transport.sendto("text")
        transport.close()
        transport.close()
        assert transport.is_closing()
        transport.sendto(b"too late")
        assert await protocol.lost is None
        assert protocol.events == ["made", "lost"]

    with wire.listening() as sock:
        sock.settimeout(5)
        run(main)
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(100)


def test_ipv6_and_any_address(wire, run):
    with wire.in_rx():
        six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        six.bind((topology.RX_IPV6, PORT))

    async def main(engine):
        transport, protocol = await xsk_engine.create_datagram_endpoint(
            Recorder, engine=engine, local_addr=(topology.TX_IPV6, 7777)
        )
        transport.sendto(b"to six", (topology.RX_IPV6, PORT))
        await asyncio.sleep(0.2)
        six.settimeout(5)
        data, address = six.recvfrom(100)
        assert (data, address[:2]) == (b"to six", (topology.TX_IPV6, 7777))
        six.sendto(b"back", address)
        await until(lambda: protocol.datagrams)
        with pytest.raises(ValueError, match="needs an address"):
            transport.sendto(b"x")
        transport.abort()
        await protocol.lost

    with six:
        run(main)


def test_too_long_is_an_error_of_the_protocol_and_nothing_is_fragmented(wire, run):
    async def main(engine):
        transport, protocol = await xsk_engine.create_datagram_endpoint(
            Recorder, engine=engine, remote_addr=PEER
        )
        await until(lambda: transport.get_write_buffer_size() == 0)
        transport.sendto(b"first")
        await asyncio.sleep(0.1)
        transport.sendto(bytes(1473))
        transport.sendto(bytes(1472))
        assert [error.errno for error in protocol.errors] == [errno.EMSGSIZE]
        transport.close()
        await protocol.lost

    with wire.listening() as sock:
        run(main)
        assert [len(data) for data in received(sock, 2)] == [5, 1472]


def test_sixty_four_wait_for_a_neighbour(wire, run):
    async def main(engine):
        transport, protocol = await xsk_engine.create_datagram_endpoint(Recorder, engine=engine)
        before = time.monotonic()
        for i in range(100):
            transport.sendto(b"%d" % i, ("10.77.0.50", PORT))
        assert time.monotonic() - before < 0.5, "the event loop is not held up"
        assert transport.dropped_datagrams == 36
        await asyncio.sleep(0.1)
        # It answers now.
        await asyncio.to_thread(wire.ip, "addr", "add", "10.77.0.50/32", "dev", "vrx", rx=True)
        try:
            await until(lambda: transport.get_write_buffer_size() == 0)
            sock.settimeout(5)
            got = [sock.recv(100) for _ in range(64)]
            assert got == [b"%d" % i for i in range(36, 100)]
        finally:
            await asyncio.to_thread(wire.ip, "addr", "del", "10.77.0.50/32", "dev", "vrx", rx=True)
            await asyncio.to_thread(wire.ip, "neigh", "flush", "to", "10.77.0.50", "dev", "vtx")
        assert not protocol.errors
        transport.close()
        await protocol.lost

    with wire.in_rx():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", PORT))
    with sock:
        run(main)


def test_nobody_answers_is_an_error_of_the_protocol(run):
    async def main(engine):
        transport, protocol = await xsk_engine.create_datagram_endpoint(
            Recorder, engine=engine, remote_addr=SILENT
        )
        transport.sendto(b"x")
        await until(lambda: protocol.errors)
        assert protocol.errors[0].errno == errno.EHOSTUNREACH
        assert transport.get_write_buffer_size() == 0
        transport.close()
        await asyncio.wait_for(protocol.lost, 1)

    run(main)


def test_flow_control_follows_the_limits(wire, run):
    async def main(engine):
        transport, protocol = await xsk_engine.create_datagram_endpoint(
            Recorder, engine=engine, remote_addr=PEER
        )
        await asyncio.sleep(0.2)
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.set_write_buffer_limits(high=10_000)
        assert transport.get_write_buffer_limits() == (2500, 10_000)
        sent, worker = 0, engine.engine.workers[0]
        # Its loop stands still: otherwise it may be as fast as we are.
        assert await asyncio.to_thread(worker.pause, 5.0)
        try:
            while "pause" not in protocol.events:
                transport.sendto(b"x" * 64)
                sent += 1
                assert sent < 100_000
            assert transport.get_write_buffer_size() > 10_000
        finally:
            worker.resume()
        await until(lambda: "resume" in protocol.events)
        assert transport.get_write_buffer_size() <= 2500
        transport.close()
        await protocol.lost
        assert protocol.events == ["made", "pause", "resume", "lost"]
        await until(lambda: engine.snapshot().completed_packets == sent)
        return sent

    with wire.counted() as arrived, wire.listening():
        assert run(main) == arrived()


def test_abort_drops_what_is_buffered(wire, run):
    async def main(engine):
        transport, protocol = await xsk_engine.create_datagram_endpoint(Recorder, engine=engine)
        transport.sendto(b"x", SILENT)
        assert transport.get_write_buffer_size() == 1 + 8
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert await protocol.lost is None

    run(main)


def test_transports_share_an_engine_which_closes_with_the_last(wire):
    async def main():
        pair = [
            await xsk_engine.create_datagram_endpoint(Recorder, interface="vtx", remote_addr=PEER)
            for _ in range(2)
        ]
        engines = {transport.get_extra_info("xsk_engine") for transport, _ in pair}
        assert len(engines) == 1
        engine = engines.pop()
        for transport, protocol in pair:
            assert engine.engine.workers
            transport.sendto(b"x")
            transport.close()
            await protocol.lost
        await until(lambda: not engine.engine.workers)
        assert engine.snapshot().completed_packets == 2

    gc.collect()
    asyncio.run(main())
    before = holdings()
    asyncio.run(main())
    assert holdings() == before
    with pytest.raises(ValueError, match="give an interface, or an engine"):
        asyncio.run(xsk_engine.create_datagram_endpoint(Recorder))


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("close", [True, False])
def test_nothing_is_left_when_the_event_loop_ends_first(wire, runner, close):
    """Who returns from main() right after close(), or without it, leaves no engine behind."""

    async def main():
        transport, _ = await xsk_engine.create_datagram_endpoint(Recorder, interface="vtx", remote_addr=PEER)
        transport.sendto(b"x")
        if close:
            transport.close()

    runner(main())
    gc.collect()
    before = holdings()
    for _ in range(3):
        runner(main())
    gc.collect()
    assert holdings() == before


def test_one_transport_after_the_other(wire):
    async def main():
        for _ in range(20):
            transport, protocol = await xsk_engine.create_datagram_endpoint(
                Recorder, interface="vtx", remote_addr=PEER
            )
            transport.sendto(b"x")
            transport.close()

    asyncio.run(main())


def test_an_interface_that_is_not_there(wire):
    async def main():
        for _ in range(2):
            with pytest.raises(xsk_engine.UnavailableError, match="nosuch0"):
                await xsk_engine.create_datagram_endpoint(Recorder, interface="nosuch0", remote_addr=PEER)

    asyncio.run(main())


def test_the_device_goes_under_a_transport(wire):
    async def main(lab):
        transport, protocol = await xsk_engine.create_datagram_endpoint(
            Recorder, interface="vtx", remote_addr=PEER
        )
        transport.sendto(b"x")
        await asyncio.sleep(0.1)
        await asyncio.to_thread(lab.ip, "link", "delete", "vtx")
        deadline = time.monotonic() + 5
        while not protocol.lost.done():
            assert time.monotonic() < deadline
            transport.sendto(b"x")
            await asyncio.sleep(0.005)
        error = await protocol.lost
        assert isinstance(error, xsk_engine.BrokenError)
        assert error.errno == errno.ENXIO

    with another_lab(LabOptions()) as lab:
        asyncio.run(main(lab))


MANY = 200_000


def test_none_is_lost_doubled_or_corrupt(wire):
    """A reader that checks each of them; the sender stays at the receiver's pace by its acknowledgements."""
    with wire.in_rx():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((topology.RX_IPV4, 9100))
    enlarge(sock)
    # An ordinary user's buffer holds some 90 of these.
    window, many = (2000, MANY) if wire.roomy else (40, MANY // 10)
    pattern = os.urandom(1000)

    def payload(i):
        return struct.pack("!Q", i) + pattern[: i % 900]

    class Sender(asyncio.DatagramProtocol):
        def __init__(self):
            self.seen, self.more = 0, asyncio.Event()

        def datagram_received(self, data, _):
            self.seen = max(self.seen, int.from_bytes(data, "big"))
            self.more.set()

    async def send():
        transport, sender = await xsk_engine.create_datagram_endpoint(
            Sender, interface="vtx", remote_addr=(topology.RX_IPV4, 9100)
        )
        for i in range(many):
            while i - sender.seen >= window:
                sender.more.clear()
                await asyncio.wait_for(sender.more.wait(), 10)
            transport.sendto(payload(i))
        while sender.seen < many:
            sender.more.clear()
            await asyncio.wait_for(sender.more.wait(), 10)
        transport.close()
        await asyncio.sleep(0.1)

    def receive(results):
        sock.settimeout(10)
        with contextlib.suppress(TimeoutError):
            for i in range(many):
                data, address = sock.recvfrom(2048)
                if data != payload(i):
                    results.append((i, data[:8]))
                    return
                if i % (window // 4) == window // 4 - 1 or i == many - 1:
                    sock.sendto((i + 1).to_bytes(8, "big"), address)
            results.append("all")

    import threading

    results = []
    receiver = threading.Thread(target=receive, args=(results,))
    receiver.start()
    try:
        uvloop.run(send())
    finally:
        receiver.join(15)
        sock.close()
    assert results == ["all"]

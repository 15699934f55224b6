"""Streams and transports over the engine's TCP, in asyncio's event loop and in uvloop's, do what asyncio's do
over the kernel's: the same tests for all three. uvloop's own transports are no oracle: what they do after
write_eof(), close() and with a buffer that is still the caller's is something else."""

import asyncio
import contextlib
import errno
import functools
import gc
import hashlib
import socket
import ssl
import struct
import subprocess
import sys
import threading
import traceback
import warnings

import pytest
import uvloop
from tcppeer import ADDRESS, digest_of, echo, peer, reset
from wire import wait_until

import xsk_engine

pytestmark = pytest.mark.usefixtures("real_root")

NOBODY = 1  # tcpmux: nobody listens
MIB = 1 << 20
BULK = 8 * MIB
"""more than the buffers of both sides hold together, where one of them is bounded"""
WINDOW = 64 << 10
"""of a peer that is to be slow"""


class Way:
    """How a connection is opened: by asyncio with the kernel's sockets, or by the engine."""

    def __init__(self, is_ours, loop):
        self.is_ours = is_ours
        self.loop = loop

    async def open(self, port, host=ADDRESS[4], **options):
        if self.is_ours:
            return await xsk_engine.open_connection(host, port, interface="vtx", **options)
        return await asyncio.open_connection(host, port, **options)

    async def create(self, factory, port, host=ADDRESS[4], **options):
        if self.is_ours:
            return await xsk_engine.create_connection(factory, host, port, interface="vtx", **options)
        return await asyncio.get_running_loop().create_connection(factory, host, port, **options)

    def run(self, main):
        async def bounded():
            return await asyncio.wait_for(main, 60)

        return (uvloop if self.loop == "uvloop" else asyncio).run(bounded())


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request):
    return request.param


@pytest.fixture(params=["kernel-asyncio", "engine-asyncio", "engine-uvloop"])
def way(request, wire, real_root):
    what, loop = request.param.split("-")
    return Way(what == "engine", loop)


@pytest.fixture
def ours(loop, wire, real_root):
    return Way(True, loop)


def blob(size, seed=1):
    """Bytes that are nowhere the same as their neighbours'."""
    return hashlib.shake_128(bytes([seed])).digest(size)


async def until(condition, seconds=10.0):
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


class Slow:
    """A handler that reads nothing before it may."""

    def __init__(self):
        self.may_read = threading.Event()

    def __call__(self, connection):
        assert self.may_read.wait(60)
        return digest_of(connection)


# ---- streams --------------------------------------------------------------------------------------------


def test_all_ways_to_read(way, wire):
    async def main():
        reader, writer = await way.open(one.port)
        assert writer.get_extra_info("peername") == (ADDRESS[4], one.port)
        assert writer.get_extra_info("sockname")[0] == "10.77.0.1"
        assert writer.get_extra_info("nosuch", 5) == 5
        writer.write(b"line\nexactly until;rest")
        writer.writelines([b"+", bytearray(b"more"), memoryview(b"!!")[:1]])
        await writer.drain()
        assert await reader.readline() == b"line\n"
        assert await reader.readexactly(7) == b"exactly"
        assert await reader.readuntil(b";") == b" until;"
        assert not reader.at_eof()
        assert writer.can_write_eof()
        writer.write_eof()
        assert await reader.read() == b"rest+more!"
        assert reader.at_eof()
        assert await reader.read() == b""
        with pytest.raises(asyncio.IncompleteReadError) as incomplete:
            await reader.readexactly(1)
        assert incomplete.value.partial == b""
        assert not writer.is_closing()
        writer.close()
        assert writer.is_closing()
        await writer.wait_closed()

    with peer(wire, echo) as one:
        way.run(main())
        assert one.result() == 29


def test_ipv6(way, wire):
    async def main():
        reader, writer = await way.open(one.port, ADDRESS[6])
        assert writer.get_extra_info("peername") == (ADDRESS[6], one.port, 0, 0)
        writer.write(b"six")
        assert await reader.readexactly(3) == b"six"
        writer.close()
        await writer.wait_closed()

    with peer(wire, echo, version=6) as one:
        way.run(main())


@pytest.mark.parametrize("size", [1, 1447, 100_000])
def test_writes_of_any_size_arrive_in_order(way, wire, size):
    data = blob(min(200 * size, 4 * MIB))

    async def main():
        _, writer = await way.open(one.port)
        for at in range(0, len(data), size):
            piece = bytearray(data[at : at + size])
            writer.write(piece)
            if way.is_ours or sys.version_info < (3, 12):  # it is the caller's again; asyncio keeps it since
                piece[:] = bytes(len(piece))
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    with peer(wire, digest_of) as one:
        way.run(main())
        assert one.result() == (len(data), hashlib.sha256(data).hexdigest())


def test_one_large_write_and_close(way, wire):
    """What close() finds in the buffer arrives, too."""
    data = blob(BULK)

    async def main():
        _, writer = await way.open(one.port)
        writer.write(data)
        writer.close()
        await writer.wait_closed()

    with peer(wire, digest_of) as one:
        way.run(main())
        assert one.result() == (len(data), hashlib.sha256(data).hexdigest())


def test_both_directions_at_once(way, wire):
    data = blob(BULK)

    async def main():
        reader, writer = await way.open(one.port)

        async def write():
            for at in range(0, len(data), 50_000):
                writer.write(data[at : at + 50_000])
                await writer.drain()
            writer.write_eof()

        writing = asyncio.ensure_future(write())
        assert await reader.read() == data
        await writing
        writer.close()
        await writer.wait_closed()

    with peer(wire, echo) as one:
        way.run(main())


def test_after_the_end_nothing_is_written(way, wire):
    async def main():
        reader, writer = await way.open(one.port)
        writer.write(b"x")
        writer.write_eof()
        writer.write_eof()
        with pytest.raises(RuntimeError, match=r"write_eof\(\)"):
            writer.write(b"y")
        with pytest.raises(TypeError):
            writer.write("text")
        assert await reader.read() == b"x"
        writer.close()
        writer.close()
        await writer.wait_closed()
        await writer.wait_closed()

    with peer(wire, echo) as one:
        way.run(main())
        assert one.result() == 1


def test_a_peer_that_ends_first(way, wire):
    """Its end is no end of ours."""

    def half(connection):
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        return digest_of(connection)

    async def main():
        reader, writer = await way.open(one.port)
        assert await reader.read() == b"bye"
        assert reader.at_eof()
        for _ in range(100):
            writer.write(bytes(10_000))
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    with peer(wire, half) as one:
        way.run(main())
        assert one.result()[0] == 1_000_000


def test_a_peer_that_resets(way, wire):
    async def main():
        reader, writer = await way.open(one.port)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionError):
            await until_drain_raises(writer)
        assert writer.is_closing()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()

    with peer(wire, reset) as one:
        way.run(main())


async def until_drain_raises(writer):
    for _ in range(100):
        writer.write(bytes(10_000))
        await writer.drain()
        await asyncio.sleep(0.01)


def test_nobody_listens(way, wire):
    with pytest.raises(ConnectionRefusedError):
        way.run(way.open(NOBODY))


def test_no_way_there(way, wire):
    with pytest.raises(OSError, match=r".") as unreachable:
        way.run(way.open(9, "192.0.2.1"))
    assert unreachable.value.errno == errno.ENETUNREACH


def test_nobody_has_the_address(way, wire):
    with pytest.raises(OSError, match=r".") as unreachable:
        way.run(way.open(9, "10.77.0.201"))
    assert unreachable.value.errno == errno.EHOSTUNREACH


def test_drain_waits_for_a_peer_that_does_not_read(way, wire):
    data, slow = blob(BULK), Slow()

    async def main():
        _, writer = await way.open(one.port)
        writer.write(data)
        draining = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0.3)
        assert not draining.done()
        low, high = writer.transport.get_write_buffer_limits()
        assert 0 < low < high < writer.transport.get_write_buffer_size()
        slow.may_read.set()
        await draining
        assert writer.transport.get_write_buffer_size() <= low
        writer.close()
        await writer.wait_closed()

    with peer(wire, slow, receive_buffer=WINDOW) as one:
        way.run(main())
        assert one.result() == (len(data), hashlib.sha256(data).hexdigest())


def test_a_reader_that_does_not_read_holds_the_peer_up(way, wire):
    data, sent = blob(BULK), []

    def pour(connection):
        for at in range(0, len(data), 65536):
            connection.sendall(data[at : at + 65536])
            sent.append(at)
        return len(data)

    async def main():
        reader, writer = await way.open(one.port, limit=16384)
        await until(lambda: sent)
        for _ in range(20):
            before = len(sent)
            await asyncio.sleep(0.1)
            if len(sent) == before:
                break
        assert sent[-1] < len(data) - 65536
        assert hashlib.sha256(await reader.read()).digest() == hashlib.sha256(data).digest()
        writer.close()
        await writer.wait_closed()

    with peer(wire, pour) as one:
        way.run(main())
        assert one.result() == len(data)


def test_a_line_beyond_the_limit(way, wire):
    async def main():
        reader, writer = await way.open(one.port, limit=1000)
        writer.write(bytes(3000) + b"\n")
        with pytest.raises(asyncio.LimitOverrunError):
            await reader.readuntil(b"\n")
        assert len(await reader.readexactly(3001)) == 3001
        writer.close()
        await writer.wait_closed()

    with peer(wire, echo) as one:
        way.run(main())


def test_what_is_cancelled_loses_nothing(way, wire):
    async def main():
        reader, writer = await way.open(one.port)
        for i in range(20):
            reading = asyncio.ensure_future(reader.readline())
            await asyncio.sleep(0)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            writer.write(b"%d\n" % i)
            assert await reader.readline() == b"%d\n" % i
        writer.close()
        await writer.wait_closed()

    with peer(wire, echo) as one:
        way.run(main())


def test_a_drain_that_is_cancelled_loses_nothing(way, wire):
    data, slow = blob(BULK), Slow()

    async def main():
        _, writer = await way.open(one.port)
        writer.write(data)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.05)
        slow.may_read.set()
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    with peer(wire, slow, receive_buffer=WINDOW) as one:
        way.run(main())
        assert one.result() == (len(data), hashlib.sha256(data).hexdigest())


def test_a_connecting_that_is_cancelled_leaves_nothing(way, wire):
    async def main():
        for seconds in (0, 0.01, 0.05, 0.2):
            opening = asyncio.ensure_future(way.open(9, "10.77.0.202"))
            await asyncio.sleep(seconds)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        reader, writer = await way.open(one.port)  # and the interface is free
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        await writer.wait_closed()

    with peer(wire, echo) as one:
        way.run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="StreamWriter does not notice it")
def test_a_forgotten_writer(way, wire):
    async def main():
        reader, writer = await way.open(one.port)
        writer.write(b"x")
        await reader.readexactly(1)
        del reader, writer
        gc.collect()
        await asyncio.sleep(0.05)

    with peer(wire, echo) as one, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        way.run(main())
        gc.collect()
        assert one.result() == 1
    assert "unclosed" in str([str(w.message) for w in seen if w.category is ResourceWarning])


def test_an_event_loop_that_ends_closes_it(way, wire):
    kept = []

    async def main():
        kept.append(await way.open(one.port))
        kept[0][1].write(b"abc")

    with peer(wire, digest_of) as one, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        way.run(main())
        if not way.is_ours:  # the kernel's socket lives as long as somebody has it
            kept.clear()
            gc.collect()
        assert one.result()[0] == 3
        kept.clear()
        gc.collect()


def test_a_hundred_at_once(way, wire):
    async def talk(number):
        reader, writer = await way.open(one.port)
        data = blob(20_000, number)

        async def write():
            for at in range(0, len(data), 1000):
                writer.write(data[at : at + 1000])
                await writer.drain()
            writer.write_eof()

        writing = asyncio.ensure_future(write())
        assert await reader.read() == data
        await writing
        writer.close()
        await writer.wait_closed()

    async def main():
        await asyncio.gather(*(talk(number) for number in range(100)))

    with peer(wire, echo) as one:
        way.run(main())
        assert sum(one.result(n + 1) for n in range(100)) == 100 * 20_000


# ---- transports -----------------------------------------------------------------------------------------


class Recorder(asyncio.Protocol):
    """Notes what the transport tells it."""

    def __init__(self, keep_open=False):
        self.keep_open = keep_open
        self.events, self.data = [], b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def data_received(self, data):
        if self.events[-1] != "data":
            self.events.append("data")
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, error):
        self.events.append("lost")
        self.lost.set_result(error)


class Filled(asyncio.BufferedProtocol):
    """Has seven bytes of room at a time."""

    def __init__(self):
        self.buffer, self.data = bytearray(7), b""
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, hint):
        return self.buffer

    def buffer_updated(self, count):
        self.data += self.buffer[:count]

    def eof_received(self):
        return False

    def connection_lost(self, error):
        self.lost.set_result(error)


def greet(connection):
    connection.sendall(b"hello")
    connection.shutdown(socket.SHUT_WR)
    return digest_of(connection)


@pytest.mark.parametrize("keep_open", [False, True])
def test_what_a_protocol_is_told(way, wire, keep_open):
    async def main():
        transport, protocol = await way.create(functools.partial(Recorder, keep_open), one.port)
        assert transport.get_protocol() is protocol
        await until(lambda: "eof" in protocol.events)
        if keep_open:
            await asyncio.sleep(0.05)
            assert not transport.is_closing()
            transport.write(b"answer")
            transport.close()
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert transport.is_closing()
        transport.write(b"too late")
        return protocol

    with peer(wire, greet) as one:
        protocol = way.run(main())
        assert (protocol.events, protocol.data) == (["made", "data", "eof", "lost"], b"hello")
        assert one.result()[0] == (6 if keep_open else 0)


def test_a_buffered_protocol(way, wire):
    async def main():
        transport, protocol = await way.create(Filled, one.port)
        transport.write(bytes(range(256)) * 10)
        transport.write_eof()
        assert await asyncio.wait_for(protocol.lost, 10) is None
        return protocol

    with peer(wire, echo) as one:
        assert way.run(main()).data == bytes(range(256)) * 10


def test_reading_is_paused(way, wire):
    async def main():
        transport, protocol = await way.create(Recorder, one.port)
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport.write(b"abc")
        await asyncio.sleep(0.2)
        assert protocol.events == ["made"]
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        await until(lambda: protocol.data == b"abc")
        transport.close()
        assert not transport.is_reading()
        await asyncio.wait_for(protocol.lost, 10)

    with peer(wire, echo) as one:
        way.run(main())


def test_a_protocol_that_is_changed(way, wire):
    async def main():
        transport, first = await way.create(Recorder, one.port)
        transport.write(b"one")
        await until(lambda: first.data == b"one")
        second = Recorder()
        second.events.append("set")
        transport.set_protocol(second)
        transport.write(b"two")
        await until(lambda: second.data == b"two")
        transport.close()
        assert await asyncio.wait_for(second.lost, 10) is None
        assert "lost" not in first.events

    with peer(wire, echo) as one:
        way.run(main())


def test_water_marks(way, wire):
    slow = Slow()

    async def main():
        transport, protocol = await way.create(Recorder, one.port)
        transport.set_write_buffer_limits(high=1000, low=100)
        assert transport.get_write_buffer_limits() == (100, 1000)
        with pytest.raises(ValueError, match="high"):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.write(bytes(BULK))
        assert protocol.events == ["made", "pause"]
        assert transport.get_write_buffer_size() > 1000
        slow.may_read.set()
        await until(lambda: "resume" in protocol.events, 30)
        transport.close()
        assert await asyncio.wait_for(protocol.lost, 20) is None
        return protocol

    with peer(wire, slow, receive_buffer=WINDOW) as one:
        assert way.run(main()).events == ["made", "pause", "resume", "lost"]
        assert one.result()[0] == BULK


def test_abort_resets(way, wire):
    def until_reset(connection):
        try:
            return digest_of(connection)
        except ConnectionResetError:
            return "reset"

    async def main():
        transport, protocol = await way.create(Recorder, one.port)
        transport.write(b"x")
        await until(lambda: one.connections)
        transport.write(bytes(BULK))
        transport.abort()
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert await asyncio.wait_for(protocol.lost, 10) is None

    with peer(wire, until_reset, receive_buffer=WINDOW) as one:
        way.run(main())
        # The kernel's abort() closes the socket: what it has taken, it sends.
        assert one.result() == "reset" if way.is_ours else one.result()


def test_a_protocol_that_raises(way, wire):
    class Faulty(Recorder):
        def data_received(self, data):
            raise RuntimeError("of the protocol")

    async def main():
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        transport, protocol = await way.create(Faulty, one.port)
        transport.write(b"x")
        error = await asyncio.wait_for(protocol.lost, 10)
        assert (type(error), str(error)) == (RuntimeError, "of the protocol")
        assert told[0]["exception"] is error

    with peer(wire, echo) as one:
        way.run(main())


# ---- TLS ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=peer.test -addext subjectAltName=DNS:peer.test,IP:10.77.0.2 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=path, check=True, capture_output=True, timeout=60)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    server.load_cert_chain(path / "cert.pem", path / "key.pem")
    client.load_verify_locations(path / "cert.pem")
    return server, client


def over_tls(context, handler):
    def handle(connection):
        try:
            wrapped = context.wrap_socket(connection, server_side=True)
        except OSError as error:
            # Of a connection that has just been reset, SSLSocket._create() leaves its descriptor to the
            # collector (Python 3.11), which says so in whatever test comes then.
            for frame, _ in traceback.walk_tb(error.__traceback__):
                if isinstance(frame.f_locals.get("self"), ssl.SSLSocket):
                    frame.f_locals["self"].close()
            raise
        with wrapped:
            return handler(wrapped)

    return handle


@pytest.mark.parametrize("name", [None, "peer.test"])
def test_tls(way, wire, certificate, name):
    server, client = certificate
    data = blob(2 * MIB)

    async def main():
        reader, writer = await way.open(one.port, ssl=client, server_hostname=name)
        assert writer.get_extra_info("ssl_object").version().startswith("TLS")
        assert writer.get_extra_info("peername") == (ADDRESS[4], one.port)
        if way.is_ours:
            assert writer.get_extra_info("xsk_connection").state == "ESTABLISHED"

        async def write():
            for at in range(0, len(data), 100_000):
                writer.write(data[at : at + 100_000])
                await writer.drain()

        writing = asyncio.ensure_future(write())
        assert await reader.readexactly(len(data)) == data
        await writing
        writer.close()
        await writer.wait_closed()

    with peer(wire, over_tls(server, echo)) as one:
        way.run(main())


def test_tls_with_another_name(way, wire, certificate):
    server, client = certificate
    with (
        peer(wire, over_tls(server, echo)) as one,
        pytest.raises(ssl.SSLCertVerificationError, match=r"another\.test"),
    ):
        way.run(way.open(one.port, ssl=client, server_hostname="another.test"))


def test_a_server_that_speaks_no_tls(way, wire, certificate):
    def plain(connection):
        connection.recv(1)
        connection.sendall(b"no TLS here\r\n")

    with peer(wire, plain) as one, pytest.raises((ssl.SSLError, ConnectionError)):
        way.run(way.open(one.port, ssl=certificate[1]))


def test_server_hostname_without_ssl(way, wire):
    with pytest.raises(ValueError, match="server_hostname"):
        way.run(way.create(Recorder, 9, server_hostname="peer.test"))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="StreamWriter.start_tls came with 3.11")
def test_tls_later(way, wire, certificate):
    """uvloop's own start_tls() takes its own transports only, and says so."""
    server, client = certificate

    def then_tls(connection):
        assert connection.recv(8) == b"STARTTLS"
        connection.sendall(b"go")
        return over_tls(server, echo)(connection)

    async def main():
        reader, writer = await way.open(one.port)
        writer.write(b"STARTTLS")
        assert await reader.readexactly(2) == b"go"
        if way.is_ours and way.loop == "uvloop":
            with pytest.raises(TypeError, match=r"XskTcpTransport.* is not supported by start_tls"):
                await writer.start_tls(client, server_hostname="peer.test")
            writer.transport.abort()
            return
        await writer.start_tls(client, server_hostname="peer.test")
        writer.write(b"secret")
        assert await reader.readexactly(6) == b"secret"
        writer.close()
        await writer.wait_closed()

    with peer(wire, then_tls) as one:
        way.run(main())


# ---- what only the engine's have ------------------------------------------------------------------------


def test_frags_and_writes_in_order(ours, wire):
    """What write() holds goes first."""
    first, slow = blob(BULK), Slow()

    async def main():
        _, writer = await ours.open(one.port)
        connection = writer.get_extra_info("xsk_connection")
        block = await connection.alloc()
        block[:5] = b"frag1"
        writer.write(first)
        assert writer.transport.get_write_buffer_size() > 0
        submitting = asyncio.ensure_future(connection.submit(5))
        with pytest.raises(xsk_engine.WouldBlockError):
            await connection.send(b"not before", 0.05)
        assert not submitting.done()
        slow.may_read.set()
        await submitting
        writer.write(b" and then")
        (await connection.alloc())[:5] = b"frag2"
        await connection.submit(5)
        await connection.flush()
        assert connection.info().acked_bytes == len(first) + 19
        writer.close()
        await writer.wait_closed()

    with peer(wire, slow, receive_buffer=WINDOW) as one:
        ours.run(main())
        assert one.result() == (
            len(first) + 19,
            hashlib.sha256(first + b"frag1 and thenfrag2").hexdigest(),
        )


KERNEL_TCP_INFO = """
8B state ca_state retransmits probes backoff options wscale flags
12I rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent last_data_recv
12I last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space again
4Q pacing_rate max_pacing_rate bytes_acked bytes_received
2I segs_out segs_in
"""
"""the beginning of struct tcp_info (include/uapi/linux/tcp.h)"""


def kernel_tcp_info(connection):
    """Of a socket, by name."""
    lines = [line.split() for line in KERNEL_TCP_INFO.strip().splitlines()]
    raw = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    values = struct.unpack_from("=" + "".join(line[0] for line in lines), raw)
    return dict(zip((name for line in lines for name in line[1:]), values, strict=True))


def test_tcp_info_beside_the_peers(ours, wire):
    """What one side has sent the other has received; both have agreed on options, sizes and scales."""
    gone = threading.Event()

    def wait(connection):
        total = 0
        while total < 1_000_000:
            total += len(connection.recv(1 << 16))
        connection.sendall(bytes(3000))
        assert gone.wait(60)
        return kernel_tcp_info(connection)

    async def main():
        reader, writer = await ours.open(one.port)
        writer.write(bytes(1_000_000))
        await reader.readexactly(3000)
        connection = writer.get_extra_info("xsk_connection")
        await connection.flush()
        await asyncio.sleep(0.1)  # the last ACK
        info = writer.get_extra_info("tcp_info")
        gone.set()
        await until(lambda: one.results or one.errors)
        writer.close()
        await writer.wait_closed()
        return info

    with peer(wire, wait) as one:
        mine, theirs = ours.run(main()), one.result()
    assert (mine.tcpi_state, theirs["state"]) == (1, 1)
    assert mine.tcpi_bytes_acked == 1_000_000 == theirs["bytes_received"]
    assert mine.tcpi_bytes_sent - mine.tcpi_bytes_retrans >= 1_000_000
    assert mine.tcpi_bytes_received == 3000
    assert theirs["bytes_acked"] in (3000, 3001)  # the kernel counts its SYN
    assert mine.tcpi_snd_mss == theirs["snd_mss"] == 1448
    assert mine.tcpi_pmtu == theirs["pmtu"] == 1500
    assert mine.tcpi_options == theirs["options"] & 7 == 7
    assert (mine.tcpi_snd_wscale, mine.tcpi_rcv_wscale) == (theirs["wscale"] >> 4, theirs["wscale"] & 15)
    assert mine.tcpi_segs_out >= 1_000_000 // 1448
    assert abs(mine.tcpi_segs_in - theirs["segs_out"]) <= 1  # its answer to what came while we looked
    assert mine.tcpi_unacked == mine.tcpi_notsent_bytes == 0
    assert 0 < mine.tcpi_min_rtt <= mine.tcpi_rtt < 10_000_000
    assert mine.tcpi_rto >= 200_000
    assert mine.tcpi_snd_cwnd >= 10
    assert mine.tcpi_ca_state == 0


def test_an_engine_is_shared_and_closed_with_the_last(ours, wire):
    async def main():
        (_, first), (_, second) = await asyncio.gather(ours.open(one.port), ours.open(one.port))
        engine = first.get_extra_info("xsk_engine")
        assert second.get_extra_info("xsk_engine") is engine
        first.close()
        await first.wait_closed()
        datagrams, _ = await xsk_engine.create_datagram_endpoint(
            asyncio.DatagramProtocol, interface="vtx", remote_addr=(ADDRESS[4], 9000)
        )
        assert datagrams.get_extra_info("xsk_engine") is engine
        second.close()
        await second.wait_closed()
        assert engine.engine.workers
        datagrams.close()
        await until(lambda: not engine.engine.workers)
        _, third = await ours.open(one.port)
        assert third.get_extra_info("xsk_engine") is not engine
        third.close()
        await third.wait_closed()

    with peer(wire, digest_of) as one, wire.listening():
        ours.run(main())


def test_an_engine_without_tcp_is_not_shared(ours, wire):
    async def main():
        datagrams, _ = await xsk_engine.create_datagram_endpoint(
            asyncio.DatagramProtocol, interface="vtx", remote_addr=(ADDRESS[4], 9000)
        )
        with pytest.raises(xsk_engine.QueueTakenError):
            await ours.open(one.port)
        datagrams.sendto(b"it goes on")
        engine = datagrams.get_extra_info("xsk_engine").engine
        datagrams.close()
        await until(lambda: not engine.workers)
        _, writer = await ours.open(one.port)
        writer.close()
        await writer.wait_closed()

    with peer(wire, digest_of) as one, wire.listening():
        ours.run(main())


def test_an_engine_of_the_callers(ours, wire):
    async def main():
        async with xsk_engine.aopen("vtx", tcp=True) as engine:
            for _ in range(2):
                reader, writer = await xsk_engine.open_connection(ADDRESS[4], one.port, engine=engine)
                writer.write(b"abc")
                assert await reader.readexactly(3) == b"abc"
                writer.close()
                await writer.wait_closed()
                assert engine.engine.workers
            with pytest.raises(ValueError, match="not both"):
                await xsk_engine.open_connection(ADDRESS[4], one.port, engine=engine, interface="vtx")
            reader, writer = await xsk_engine.open_connection(ADDRESS[4], one.port, engine=engine)
        with pytest.raises(ConnectionAbortedError, match="closed"):
            await reader.read()
        with pytest.raises(OSError, match="closed"):
            await writer.wait_closed()

    with peer(wire, echo) as one:
        ours.run(main())


def test_the_route_names_the_interface(ours, wire):
    async def main():
        _, writer = await xsk_engine.open_connection(ADDRESS[4], one.port)
        assert writer.get_extra_info("xsk_engine").engine.config.interface == "vtx"
        writer.close()
        await writer.wait_closed()

    with peer(wire, digest_of) as one:
        ours.run(main())
        wire.ip("route", "add", "default", "via", ADDRESS[4], "dev", "vtx")
        try:
            with pytest.raises(xsk_engine.UnavailableError, match=r'carries the default.*interface="vtx"'):
                ours.run(main())
            with pytest.raises(xsk_engine.UnavailableError, match=r'carries the default.*interface="vtx"'):
                xsk_engine.connect(ADDRESS[4], one.port)
            ours.run(named(one.port))
        finally:
            wire.ip("route", "del", "default", "dev", "vtx")


async def named(port):
    _, writer = await xsk_engine.open_connection(ADDRESS[4], port, interface="vtx")
    writer.close()
    await writer.wait_closed()


def test_a_name_with_several_addresses(wire, real_root, monkeypatch):
    """They are tried in turn: at the first nobody listens."""
    asked = []

    def getaddrinfo(host, port, *_, **__):
        asked.append(host)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (ADDRESS[6], port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ADDRESS[4], port)),
        ]

    async def main():
        _, writer = await xsk_engine.open_connection("peer.test", one.port, interface="vtx")
        assert writer.get_extra_info("peername") == (ADDRESS[4], one.port)
        writer.close()
        await writer.wait_closed()
        with pytest.raises(OSError, match="Multiple exceptions") as both:
            await xsk_engine.open_connection("peer.test", NOBODY, interface="vtx")
        assert str(both.value).count("nobody listens") == 2

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with peer(wire, digest_of) as one:
        asyncio.run(main())
        with xsk_engine.connect("peer.test", one.port, interface="vtx") as connection:
            assert connection.remote == (ADDRESS[4], one.port)
    assert asked == ["peer.test"] * 3


@pytest.mark.parametrize("size", [30_000, BULK])
def test_a_close_that_the_peer_does_not_let_end(ours, wire, size):
    """What is left is in the send buffer, or in the transport's."""
    slow = Slow()

    async def main():
        _, writer = await ours.open(one.port, user_timeout_s=0.5)
        writer.write(bytes(size))
        assert (writer.transport.get_write_buffer_size() > 0) == (size == BULK)
        writer.close()
        with pytest.raises(TimeoutError):
            await writer.wait_closed()

    with peer(wire, slow, receive_buffer=4096) as one:
        ours.run(main())
        slow.may_read.set()
        with pytest.raises(ConnectionResetError):
            one.result()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"speed": 3}, TypeError, "no option 'speed'; there are dst_mac"),
        ({"congestion": "vegas"}, ValueError, "cubic, reno"),
        ({"local_addr": ("nowhere", 0)}, ValueError, "nowhere"),
        ({"local_addr": ("fd77::1", 0)}, OSError, "no address of the IP version"),
        ({"ssl": "yes"}, TypeError, "SSLContext"),
    ],
)
def test_options_that_cannot_be(ours, wire, options, error, says):
    with pytest.raises(error, match=says):
        ours.run(ours.open(9, **options))


def test_options(ours, wire):
    async def main():
        _, writer = await ours.open(one.port, local_addr=(None, 40124), congestion="reno", dscp=8)
        connection = writer.get_extra_info("xsk_connection")
        assert (connection.options.congestion, connection.options.nodelay) == ("reno", True)
        assert writer.get_extra_info("sockname") == ("10.77.0.1", 40124)
        writer.close()
        await writer.wait_closed()

    with peer(wire, digest_of) as one:
        ours.run(main())


# ---- without an event loop ------------------------------------------------------------------------------


def engine_threads():
    return [one for one in threading.enumerate() if one.name.startswith("xsk-")]


def test_connect_owns_its_engine(wire, real_root):
    data = blob(MIB)
    with peer(wire, digest_of) as one:
        with xsk_engine.connect(ADDRESS[4], one.port, interface="vtx") as connection:
            connection.sendall(data)
            assert engine_threads()
        assert not engine_threads()
        assert one.result() == (MIB, hashlib.sha256(data).hexdigest())
        assert connection.info().acked_bytes == MIB
        connection.close()
        connection.abort()
    with pytest.raises(ConnectionRefusedError):
        xsk_engine.connect(ADDRESS[4], NOBODY, interface="vtx")
    assert not engine_threads()


def test_abort_closes_the_engine_too(wire, real_root):
    with peer(wire, digest_of) as one:
        connection = xsk_engine.connect(ADDRESS[4], one.port, interface="vtx")
        connection.sendall(b"x")
        wait_until(lambda: one.connections)
        connection.abort()
        assert not engine_threads()
        with pytest.raises(ConnectionResetError):
            one.result()


def test_connect_where_an_event_loop_runs(wire, real_root):
    """The loop stands still meanwhile; it works all the same."""

    async def main():
        with xsk_engine.connect(ADDRESS[4], one.port) as connection:
            connection.sendall(b"abc")

    with peer(wire, digest_of) as one:
        asyncio.run(main())
        assert one.result()[0] == 3

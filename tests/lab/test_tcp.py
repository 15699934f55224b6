"""TCP against the kernel's: every byte arrives, both directions end as they should, and what goes wrong says
so."""

import asyncio
import contextlib
import errno
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
import uvloop
from tcppeer import ADDRESS, RST, digest_of, echo, flags_of, is_tcp, peer, reset, sent_resets
from wire import another_lab, exit_code_of, holdings, wait_until

import xsk_engine
from xsk_engine.lab.topology import LabOptions

pytestmark = pytest.mark.usefixtures("real_root")

NOBODY = 1  # tcpmux: nobody listens
MIB = 1 << 20


@pytest.fixture
def engine(wire, real_root):
    with xsk_engine.open("vtx", tcp=True) as one:
        yield one


def blob(size, seed=1):
    """Bytes that are nowhere the same as their neighbours'."""
    return hashlib.shake_128(bytes([seed])).digest(size)


def owns_nothing(engine):
    """All chunks but those to receive into are in the pool."""
    audit = engine.umem.audit(strict=False)
    return audit.referenced == engine.tcp_stack.rx_chunks and audit.stacked == audit.returned == 0


# ---- opening --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_connect_and_close(wire, engine, version):
    with peer(wire, digest_of, version=version) as one:
        with engine.tcp(ADDRESS[version], one.port) as connection:
            assert connection.state == "ESTABLISHED"
            assert connection.remote == (ADDRESS[version], one.port)
            assert (connection.local, connection.remote) == (
                one.connections[0].getpeername()[:2] if one.connections else connection.local,
                connection.remote,
            )
        assert one.result() == (0, hashlib.sha256().hexdigest())
        wait_until(lambda: connection.state in ("TIME-WAIT", "CLOSED"))


def test_nobody_listens(engine):
    with pytest.raises(ConnectionRefusedError, match="nobody listens") as refused:
        engine.tcp(ADDRESS[4], NOBODY)
    assert isinstance(refused.value, xsk_engine.TcpRefusedError)
    assert (refused.value.errno, refused.value.operation) == (errno.ECONNREFUSED, "connect")
    wait_until(lambda: owns_nothing(engine))


def test_nobody_answers(wire, engine):
    """The peer's kernel drops what is for an address it does not have."""
    with pytest.raises(xsk_engine.TcpTimeoutError, match=r"no answer within 0\.5 s"):
        engine.tcp("10.77.0.99", 80, dst_mac="02:77:00:00:00:02", source="10.77.0.1", connect_timeout_s=0.5)
    with pytest.raises(xsk_engine.UnavailableError, match="nobody answered within 3 s"):
        engine.tcp("10.77.0.200", 80)
    with pytest.raises(xsk_engine.UnavailableError, match="no route"):
        engine.tcp("192.0.2.1", 80)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("localhost", 9), {}, "names are not looked up"),
        ((ADDRESS[4], 0), {}, "port 0"),
        ((ADDRESS[4], 70000), {}, "port 70000"),
        (("239.1.2.3", 9), {}, "no address of one peer"),
        ((ADDRESS[4], 9), {"source": "fd77::1"}, "different IP versions"),
        ((ADDRESS[4], 9), {"source_port": -1}, "source_port"),
        ((ADDRESS[4], 9), {"congestion": "vegas"}, "cubic, reno"),
        ((ADDRESS[4], 9), {"receive_buffer_bytes": 5000}, "power of two"),
        ((ADDRESS[4], 9), {"connect_timeout_s": 0}, "not above 0 s"),
    ],
)
def test_what_no_connection_can_be(engine, arguments, options, says):
    with pytest.raises(ValueError, match=says):
        engine.tcp(*arguments, **options)


def test_an_unknown_option(engine):
    with pytest.raises(TypeError, match=r"no option 'speed'; there are congestion"):
        engine.tcp(ADDRESS[4], 9, speed=3)


def test_an_engine_without_tcp(wire):
    with xsk_engine.open("vtx") as engine, pytest.raises(xsk_engine.ClosedError, match="open the engine"):
        engine.tcp(ADDRESS[4], 9)


def test_the_local_port_is_held(wire, engine):
    with peer(wire, digest_of) as one, engine.tcp(ADDRESS[4], one.port, source_port=40123) as connection:
        assert connection.local == ("10.77.0.1", 40123)
        with socket.socket() as sock, pytest.raises(OSError, match="in use"):
            sock.bind(("10.77.0.1", 40123))
        with pytest.raises(xsk_engine.UnavailableError, match="another socket has this port"):
            engine.tcp(ADDRESS[4], one.port, source_port=40123)
        with pytest.raises(xsk_engine.UnavailableError, match="no address of this machine"):
            engine.tcp(ADDRESS[4], one.port, source="10.77.0.77")


def test_another_program_is_left_alone(wire, real_root):
    from xsk_engine import netdev
    from xsk_engine.program import PassProgram

    program = PassProgram(netdev.get("vtx"))
    try:
        with pytest.raises(xsk_engine.UnavailableError, match=r"XDP program id \d+ is attached"):
            xsk_engine.open("vtx", tcp=True)
        assert program.is_attached()
    finally:
        program.close()


def test_how_it_is_opened(wire, real_root):
    with xsk_engine.open("vtx", tcp=True) as engine:
        assert engine.mode == "copy"
        assert engine.binding.reason == "driver veth has no zero-copy (EOPNOTSUPP)"
        assert engine.umem.tx_metadata_len, "the kernel finishes checksums"
        with pytest.raises(xsk_engine.QueueTakenError, match="queue 0, auto"):
            xsk_engine.open("vtx", queues=(1,), tcp=True)
    with pytest.raises(xsk_engine.UnavailableError, match=r"zerocopy.*driver veth has no zero-copy; use"):
        xsk_engine.open("vtx", tcp=True, mode="zerocopy")
    with pytest.raises(xsk_engine.UnavailableError, match="2 queue"):
        xsk_engine.open("vtx", tcp=True, queues=(5,))
    with (
        xsk_engine.open("vtx", queues=(1,)),
        pytest.raises(xsk_engine.QueueTakenError, match=r"queue 1.*this process"),
    ):
        xsk_engine.open("vtx", tcp=True)


@pytest.mark.parametrize(
    "options",
    [{"queues": (1,)}, {"queues": (1, 0)}, {"debug": True}, {"timestamps": True}, {"mode": "copy"}],
)
def test_whatever_else_the_engine_is(wire, real_root, options):
    data = blob(MIB)
    with peer(wire, echo) as one, xsk_engine.open("vtx", tcp=True, **options) as engine:
        with engine.tcp(ADDRESS[4], one.port) as connection:
            sending = threading.Thread(target=connection.sendall, args=(data,))
            sending.start()
            received = b""
            while len(received) < len(data):
                received += connection.recv(65536)
            sending.join()
            assert received == data
        assert engine.tcp_counters().received_packets > 0
        assert engine.tcp_counters().bad_csum_packets == engine.tcp_counters().malformed_packets == 0


@pytest.mark.parametrize(("mtu", "payload"), [(1000, 948), (600, 548)])
def test_a_route_with_an_mtu(wire, engine, mtu, payload):
    """In every segment stand 12 bytes of timestamps."""
    with peer(wire, digest_of) as one:
        wire.ip("route", "add", ADDRESS[4], "dev", "vtx", "mtu", str(mtu))
        try:
            with engine.tcp(ADDRESS[4], one.port) as connection:
                assert (connection.info().path_mtu, connection.info().mss_bytes) == (mtu, payload)
                connection.sendall(bytes(100_000))
        finally:
            wire.ip("route", "del", ADDRESS[4], "dev", "vtx")
        assert one.result()[0] == 100_000


def test_an_mtu_that_is_too_small_for_tcp(real_root):
    with (
        another_lab(LabOptions(mtu=500)),
        xsk_engine.open("vtx", tcp=True) as engine,
        pytest.raises(xsk_engine.UnavailableError, match="500 bytes at most; TCP needs 576"),
    ):
        engine.tcp(ADDRESS[4], 80)


def test_without_the_capabilities(wire, real_root):
    program = "import xsk_engine; xsk_engine.open('vtx', tcp=True)"
    caps = "-bpf,-net_admin,-sys_admin"
    done = subprocess.run(
        ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "UnavailableError" in done.stderr
    assert "needs CAP_BPF and CAP_NET_ADMIN" in done.stderr


# ---- sending --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mtu", [1500, 9000, 65535])
@pytest.mark.parametrize("way", ["copied", "in place"])
def test_ten_megabytes(real_root, mtu, way, version):
    data = blob(10 * MIB)
    with (
        another_lab(LabOptions(mtu=mtu)) as wire,
        peer(wire, digest_of, version=version) as one,
        xsk_engine.open("vtx", tcp=True, umem_mb=8) as engine,
    ):
        with engine.tcp(ADDRESS[version], one.port) as connection:
            write(connection, data, way)
            connection.flush(30)
            info = connection.info()
            assert info.acked_bytes == len(data)
            assert (info.inflight_bytes, info.unsent_bytes) == (0, 0)
            wait_until(lambda: owns_nothing(engine))
        assert one.result() == (len(data), hashlib.sha256(data).hexdigest())
        assert connection.info().acked_bytes == len(data)


def write(connection, data, way):
    if way == "copied":
        connection.sendall(data)
        return
    sent = 0
    while sent < len(data):
        view = connection.alloc()
        n = min(len(view), len(data) - sent)
        view[:n] = data[sent : sent + n]
        connection.submit(n)
        sent += n


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [1, 8192, 8193, 300_000])
def test_what_may_be_sent(wire, engine, kind, size):
    data = blob(size)
    with peer(wire, digest_of) as one, engine.tcp(ADDRESS[4], one.port) as connection:
        assert connection.send(b"") == 0
        assert 1 <= connection.send(kind(data)) <= size
        with pytest.raises(TypeError):
            connection.send("text")
        with pytest.raises(ValueError, match="recv: 0 bytes"):
            connection.recv(0)
        with pytest.raises(ValueError, match="writable"):
            connection.recv_into(b"")


def test_what_is_given_out_is_one_block(wire, engine):
    with peer(wire, digest_of) as one, engine.tcp(ADDRESS[4], one.port) as connection:
        with pytest.raises(xsk_engine.ClosedError, match="nothing is held"):
            connection.submit(1)
        view = connection.alloc()
        assert connection.alloc() is view
        with pytest.raises(ValueError, match="1 to"):
            connection.submit(len(view) + 1)
        view[:3] = b"abc"
        connection.submit(3)
        with pytest.raises(ValueError, match="released"):
            view[0]
        connection.alloc()[:3] = b"not"  # and is not sent
        connection.flush()
        connection.close()
        assert one.result() == (3, hashlib.sha256(b"abc").hexdigest())
    wait_until(lambda: owns_nothing(engine))


@pytest.mark.parametrize("congestion", ["reno", "cubic"])
@pytest.mark.parametrize("options", [{}, {"nodelay": True}, {"pacing": True}, {"keepalive": True}])
def test_requests_and_responses(wire, engine, congestion, options):
    with peer(wire, echo) as one:
        with engine.tcp(ADDRESS[4], one.port, congestion=congestion, **options) as connection:
            for i in range(200):
                request = blob(1 + i * 7, i)
                connection.sendall(request)
                answer = b""
                while len(answer) < len(request):
                    answer += connection.recv(len(request))
                assert answer == request
            assert connection.info().srtt_ns > 0
        assert one.result() == sum(1 + i * 7 for i in range(200))


def test_no_room(wire, engine):
    """The peer does not read: its window closes, the send buffer fills."""
    go = threading.Event()

    def later(connection):
        go.wait(30)
        return digest_of(connection)

    with peer(wire, later, receive_buffer=8192) as one:
        connection = engine.tcp(ADDRESS[4], one.port, send_buffer_bytes=65536)
        with pytest.raises(xsk_engine.WouldBlockError) as stopped:
            connection.sendall(bytes(10 * MIB), 0)
        sent = stopped.value.sent
        with pytest.raises(xsk_engine.DeadlineError, match="not all is acknowledged"):
            connection.flush(0.1)
        with pytest.raises(xsk_engine.WouldBlockError) as stopped:
            connection.sendall(bytes(10 * MIB), 0.1)
        sent += stopped.value.sent
        go.set()
        connection.flush(30)
        connection.close()
        assert one.result()[0] == sent


# ---- receiving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("into", [False, True])
def test_a_megabyte_for_a_slow_reader(wire, engine, into):
    """The window closes, and opens again."""
    data = blob(MIB)
    with peer(wire, lambda connection: connection.sendall(data)) as one:
        with engine.tcp(ADDRESS[4], one.port, receive_buffer_bytes=16384) as connection:
            received = bytearray()
            buffer = bytearray(5000)
            for turn in range(5000):
                if turn < 20:
                    time.sleep(0.01)
                part = buffer[: connection.recv_into(buffer)] if into else connection.recv(5000)
                if not part:
                    break
                received += part
            assert bytes(received) == data
        one.result()


def test_nothing_comes(wire, engine):
    with peer(wire, digest_of) as one, engine.tcp(ADDRESS[4], one.port) as connection:
        for seconds in (0, 0.05):
            with pytest.raises(TimeoutError, match="nothing came"):
                connection.recv(10, seconds)
        assert connection.state == "ESTABLISHED"


def test_both_directions_at_once(wire, engine):
    data = blob(4 * MIB)

    def both(connection):
        writer = threading.Thread(target=connection.sendall, args=(data,))
        writer.start()
        found = digest_of(connection)
        writer.join()
        return found

    with peer(wire, both) as one, engine.tcp(ADDRESS[4], one.port) as connection:
        found = []

        def read():
            digest, length = hashlib.sha256(), 0
            while length < len(data):
                part = connection.recv(65536, 30)
                digest.update(part)
                length += len(part)
            found.append(digest.hexdigest())

        reader = threading.Thread(target=read)
        reader.start()
        connection.sendall(data)
        connection.shutdown()
        reader.join(60)
        assert found == [hashlib.sha256(data).hexdigest()]
        assert one.result() == (len(data), found[0])


# ---- the end --------------------------------------------------------------------------------------------


def test_we_end_first(wire, engine):
    """Our stream ends, the peer's goes on."""

    def answer(connection):
        got = digest_of(connection)
        connection.sendall(b"thank you")
        return got

    with peer(wire, answer) as one, engine.tcp(ADDRESS[4], one.port) as connection:
        connection.sendall(b"that is all")
        connection.shutdown()
        connection.shutdown()
        with pytest.raises(xsk_engine.ClosedError, match=r"shutdown\(\) was called"):
            connection.send(b"more")
        assert connection.recv(100) == b"thank you"
        assert connection.recv(100) == b""
        assert one.result()[0] == 11
        assert connection.state == "TIME-WAIT"


def test_the_peer_ends_first(wire, engine):
    def end(connection):
        connection.shutdown(socket.SHUT_WR)
        return digest_of(connection)

    with peer(wire, end) as one:
        connection = engine.tcp(ADDRESS[4], one.port)
        assert connection.recv(100) == b""
        assert connection.state == "CLOSE-WAIT"
        connection.sendall(b"still there")
        connection.close()
        assert one.result()[0] == 11
        wait_until(lambda: connection.state == "CLOSED")
        connection.close()
        for call in (lambda: connection.send(b"a"), lambda: connection.recv(1), connection.alloc):
            with pytest.raises(xsk_engine.ClosedError):
                call()
        assert connection.info().acked_bytes == 11
        assert "CLOSED" in repr(connection)


def test_abort(wire, engine):
    with peer(wire, digest_of) as one:
        connection = engine.tcp(ADDRESS[4], one.port)
        connection.sendall(b"half of it")
        connection.flush()
        connection.abort()
        connection.abort()
        with pytest.raises(ConnectionResetError):
            one.result()
        wait_until(lambda: connection.state == "CLOSED")
        with pytest.raises(xsk_engine.ClosedError):
            connection.send(b"more")


def test_the_peer_resets(wire, engine):
    with peer(wire, reset) as one:
        connection = engine.tcp(ADDRESS[4], one.port)
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError, match="the peer has reset") as ended:
            connection.recv(10)
        assert isinstance(ended.value, xsk_engine.TcpError)
        assert ended.value.as_dict()["errno"] == "ECONNRESET"
        with pytest.raises(xsk_engine.TcpResetError):
            connection.send(b"more")
        connection.close()  # nothing is lost that it did not say
        assert connection.closed


def test_unread_data_is_answered_with_a_reset(wire, engine):
    def send_and_look(connection):
        connection.sendall(b"read me")
        return connection.recv(100)

    with peer(wire, send_and_look) as one:
        connection = engine.tcp(ADDRESS[4], one.port)
        wait_until(lambda: connection.info().received_bytes == 7)
        connection.close()
        with pytest.raises(ConnectionResetError):
            one.result()


def test_close_has_a_deadline(wire, engine):
    go = threading.Event()
    with peer(wire, lambda connection: go.wait(30), receive_buffer=4096) as one:
        connection = engine.tcp(ADDRESS[4], one.port)
        connection.sendall(bytes(60_000))
        with pytest.raises(xsk_engine.DeadlineError, match="not acknowledged all yet"):
            connection.close(0.1)
        assert connection.closed
        connection.abort()
        wait_until(lambda: connection.state == "CLOSED")
        go.set()


def test_time_wait_keeps_the_tuple(wire, engine):
    """The peer's FIN comes when we are closed already, and once more: the kernel must not answer."""
    before = sent_resets()
    with wire.capture(is_tcp) as frames, peer(wire, digest_of) as one:
        connection = engine.tcp(ADDRESS[4], one.port, time_wait_s=1.0)
        local = connection.local
        connection.sendall(b"bye")
        connection.close()
        one.result()
        wait_until(lambda: connection.state == "TIME-WAIT")
        with socket.socket() as sock, pytest.raises(OSError, match="in use"):
            sock.bind(local)
        wait_until(lambda: connection.state == "CLOSED")
        engine.tcp(ADDRESS[4], one.port).close()  # whoever comes along reaps
        with socket.socket() as sock:
            sock.bind(local)
    assert sent_resets() == before
    assert not [frame for frame in frames if flags_of(frame) & RST]


def test_an_engine_that_closes_ends_its_connections(wire, real_root):
    data = blob(200_000)
    with peer(wire, digest_of) as one:
        with xsk_engine.open("vtx", tcp=True) as engine:
            connection = engine.tcp(ADDRESS[4], one.port)
            connection.sendall(data)
        assert one.result() == (len(data), hashlib.sha256(data).hexdigest())
        assert (connection.closed, connection.state) == (True, "CLOSED")
        assert connection.info().acked_bytes == len(data)
        with pytest.raises(xsk_engine.ClosedError):
            engine.tcp(ADDRESS[4], one.port)


def test_an_engine_that_closes_resets_who_does_not_listen(wire, real_root):
    go = threading.Event()

    def sleep(connection):
        go.wait(30)
        return digest_of(connection)

    with peer(wire, sleep, receive_buffer=4096) as one:
        with xsk_engine.open("vtx", tcp=True) as engine:
            connection = engine.tcp(ADDRESS[4], one.port)
            connection.sendall(bytes(60_000))
        go.set()
        with pytest.raises(ConnectionResetError):
            one.result()
        assert engine.tcp_counters().connections == 0


# ---- many, and at once ----------------------------------------------------------------------------------


def test_a_hundred_connections(wire, engine):
    with peer(wire, echo) as one:
        first = engine.tcp(ADDRESS[4], one.port, time_wait_s=0)
        first.close()
        wait_until(lambda: first.state == "CLOSED")
        engine.tcp_stack.reap()
    before = holdings()  # who asks for neighbours stays
    with peer(wire, echo) as one:
        connections = [engine.tcp(ADDRESS[4], one.port, time_wait_s=0) for _ in range(100)]
        assert engine.tcp_counters().connections == 100
        for i, connection in enumerate(connections):
            connection.sendall(blob(3000, i))
        for i, connection in enumerate(connections):
            answer = b""
            while len(answer) < 3000:
                answer += connection.recv(3000)
            assert answer == blob(3000, i)
        wait_until(lambda: owns_nothing(engine))
        for connection in connections:
            connection.close()
        one.result(100)
    wait_until(lambda: all(connection.state == "CLOSED" for connection in connections))
    engine.tcp_stack.reap()
    wait_until(lambda: engine.tcp_counters().connections == 0)
    wait_until(lambda: holdings() == before)


@pytest.mark.parametrize("mtu", [1500, 65535])
def test_more_to_send_than_there_is_memory(real_root, mtu):
    """Connections whose send buffers together are larger than the umem: all get on."""
    data = blob(300_000)
    results = []

    def send(connection):
        try:
            connection.sendall(data, 30)
            connection.close(30)
            results.append(True)
        except xsk_engine.XskError as error:
            results.append(error)

    with (
        another_lab(LabOptions(mtu=mtu)) as wire,
        peer(wire, digest_of) as one,
        xsk_engine.open("vtx", tcp=True, umem_mb=1) as engine,
    ):
        connections = [engine.tcp(ADDRESS[4], one.port, time_wait_s=0) for _ in range(30)]
        threads = [threading.Thread(target=send, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert results == [True] * 30
        for n in range(30):
            assert one.result(n + 1) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("mtu", [1500, 65535])
def test_all_memory_is_written_before_the_loop_looks(real_root, mtu):
    """It has none then, and needs some for headers."""
    with (
        another_lab(LabOptions(mtu=mtu)) as wire,
        peer(wire, digest_of) as one,
        xsk_engine.open("vtx", tcp=True, umem_mb=1) as engine,
    ):
        connections = [engine.tcp(ADDRESS[4], one.port) for _ in range(30)]
        wait_until(lambda: owns_nothing(engine))
        (worker,) = engine.workers
        assert worker.pause(5.0)
        written = {}
        try:
            for connection in connections:
                with contextlib.suppress(xsk_engine.WouldBlockError):
                    written[connection] = connection.send(bytes(200_000), 0)
        finally:
            worker.resume()
        assert len(written) < 30, "and there is no more"
        for connection in written:
            connection.flush(30)
            assert connection.info().acked_bytes == written[connection]


def test_more_than_there_may_be(wire, real_root):
    from xsk_engine.config import EngineConfig
    from xsk_engine.engine import Engine

    config = EngineConfig("vtx", tcp=True, tcp_connections=2)
    with peer(wire, echo) as one, Engine(config) as engine:
        kept = [engine.tcp(ADDRESS[4], one.port) for _ in range(2)]
        with pytest.raises(xsk_engine.UnavailableError, match="as many connections as"):
            engine.tcp(ADDRESS[4], one.port)
        kept[0].sendall(b"alive")
        assert kept[0].recv(10) == b"alive"


def test_beside_datagrams_and_the_kernels_own_connections(wire, engine):
    """What is not a connection's passes."""
    with (
        peer(wire, echo) as one,
        wire.listening() as datagrams,
        engine.tcp(ADDRESS[4], one.port) as ours,
        socket.create_connection((ADDRESS[4], one.port), 10) as kernels,
    ):
        engine.udp((ADDRESS[4], 9000)).send(b"datagram")
        for sock in (ours, kernels):
            sock.sendall(b"hello")
        assert ours.recv(10) == kernels.recv(10) == b"hello"
        datagrams.settimeout(10)
        assert datagrams.recv(100) == b"datagram"


def test_a_neighbour_that_changes_its_mac(wire, engine):
    with peer(wire, echo) as one, engine.tcp(ADDRESS[4], one.port) as connection:
        other = "02:77:00:00:00:99"
        with wire.capture(is_tcp) as frames:
            try:
                wire.ip("neigh", "replace", ADDRESS[4], "lladdr", other, "dev", "vtx", "nud", "permanent")
                time.sleep(0.3)
                connection.sendall(b"to whom")
                wait_until(lambda: any(frame[:6].hex(":") == other for frame in frames))
            finally:
                was = "02:77:00:00:00:02"
                wire.ip("neigh", "replace", ADDRESS[4], "lladdr", was, "dev", "vtx", "nud", "permanent")
        assert connection.recv(100, 30) == b"to whom"


def test_two_threads_may_not_write(wire, engine):
    with peer(wire, digest_of) as one, engine.tcp(ADDRESS[4], one.port) as connection:
        with connection.using("test", connection._writing):
            with pytest.raises(xsk_engine.BusyError):
                connection.send(b"a")
            with pytest.raises(xsk_engine.BusyError):
                connection.close()
        connection.send(b"a")


@contextlib.contextmanager
def held(lock):
    """By another thread."""
    is_held, go_on = threading.Event(), threading.Event()

    def hold():
        with lock:
            is_held.set()
            go_on.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    pid = os.getpid()
    yield
    if os.getpid() == pid:
        go_on.set()
        thread.join()


def test_a_forked_child(wire, engine):
    """Also where another thread is just asking, which the child does not have."""
    with peer(wire, echo) as one, engine.tcp(ADDRESS[4], one.port) as connection:
        with held(connection._asking), held(engine.tcp_stack._lock):
            child = os.fork()
        if not child:
            code = 1
            try:
                assert connection.state == "CLOSED"
                connection.close()
                connection.send(b"child")
            except xsk_engine.BrokenError:
                code = 0
            finally:
                os._exit(code)
        assert exit_code_of(child) == 0
        connection.sendall(b"parent")
        assert connection.recv(10) == b"parent"


# ---- asyncio --------------------------------------------------------------------------------------------


LOOPS = pytest.mark.parametrize("loops", [asyncio, uvloop], ids=["asyncio", "uvloop"])


@LOOPS
def test_awaited(wire, real_root, loops):
    data = blob(2 * MIB)

    async def exchange(engine, port, seed):
        async with await engine.tcp(ADDRESS[4], port, time_wait_s=0) as connection:
            mine = blob(100_000, seed)
            sending = asyncio.create_task(connection.sendall(mine))
            answer = b""
            while len(answer) < len(mine):
                answer += await connection.recv(65536)
            await sending
            assert answer == mine
            (await connection.alloc())[:5] = b"hello"
            await connection.submit(5)
            await connection.flush()
            buffer = bytearray(5)
            assert await connection.recv_into(buffer) == 5
            assert bytes(buffer) == b"hello"
            with pytest.raises(TimeoutError):
                await connection.recv(1, 0.01)

    async def main(port, sink):
        async with xsk_engine.aopen("vtx", tcp=True) as engine:
            await asyncio.gather(*(exchange(engine, port, seed) for seed in range(10)))
            async with await engine.tcp(ADDRESS[4], sink) as connection:
                await connection.sendall(data)
            with pytest.raises(ConnectionRefusedError):
                await engine.tcp(ADDRESS[4], NOBODY)
            with pytest.raises(xsk_engine.UnavailableError):
                await engine.tcp("192.0.2.1", 80)

    with peer(wire, echo) as one, peer(wire, digest_of) as sink:
        loops.run(main(one.port, sink.port))
        assert sink.result() == (len(data), hashlib.sha256(data).hexdigest())


@LOOPS
def test_cancelled_while_connecting(wire, real_root, loops):
    async def main():
        async with xsk_engine.aopen("vtx", tcp=True) as engine:
            connecting = asyncio.create_task(
                engine.tcp("10.77.0.99", 80, dst_mac="02:77:00:00:00:02", source="10.77.0.1")
            )
            await asyncio.sleep(0.1)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            for _ in range(500):
                if engine.engine.tcp_counters().connections == 0:
                    break
                await asyncio.sleep(0.01)
            assert engine.engine.tcp_counters().connections == 0

    loops.run(main())


@LOOPS
def test_an_engine_that_closes_wakes_who_awaits(wire, real_root, loops):
    async def main(port):
        async with xsk_engine.aopen("vtx", tcp=True) as engine:
            connection = await engine.tcp(ADDRESS[4], port)
            waiting = asyncio.create_task(connection.recv(1, 30))
            await asyncio.sleep(0.05)
        with pytest.raises(xsk_engine.ClosedError):
            await waiting

    with peer(wire, echo) as one:
        loops.run(main(one.port))


def test_an_engine_that_closes_wakes_who_waits(wire, real_root):
    ended = []

    def wait(connection):
        with pytest.raises(xsk_engine.ClosedError) as error:
            connection.recv(1, 30)
        ended.append(error.value)

    with peer(wire, echo) as one:
        with xsk_engine.open("vtx", tcp=True) as engine:
            waiting = threading.Thread(target=wait, args=(engine.tcp(ADDRESS[4], one.port),))
            waiting.start()
            time.sleep(0.05)
        waiting.join(30)
        assert len(ended) == 1

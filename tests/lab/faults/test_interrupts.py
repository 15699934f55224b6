"""A signal's handler runs when a native call has returned, and before what Python does with its result. It
may raise: what the loop has is the loop's all the same. It may close the engine: what the call goes on with
stays until it has ended."""

import contextlib
import threading
import time

import numpy
import pytest
from tcppeer import ADDRESS, digest_of, peer
from wire import PORT, frame, holdings, wait_until

import xsk_engine
from xsk_engine import arena, batch, endpoint, inside, neighbours, tcphandle, worker
from xsk_engine import holdings as holdings_module
from xsk_engine._ffi import nativetcp
from xsk_engine.errors import ClosedError
from xsk_engine.lab import topology

FLOW = f"ip dst={topology.RX_IPV4} / udp dst={PORT}"


@pytest.fixture
def nothing_is_left():
    before = holdings()
    yield
    wait_until(lambda: holdings() == before, 5)


@pytest.fixture
def signalled(monkeypatch):
    """A function: within the block, a signal has come during every call of this native function, and this is
    its handler."""

    @contextlib.contextmanager
    def block(module, table, name, handler):
        real = getattr(module, table)

        def call(*arguments):
            result = getattr(real, name)(*arguments)
            handler()
            return result

        class Signalled:
            def __getattr__(self, other):
                return call if other == name else getattr(real, other)

        with monkeypatch.context() as patched:
            patched.setattr(module, table, Signalled())
            yield

    return block


@pytest.fixture(params=[KeyboardInterrupt, TimeoutError], ids=["Ctrl-C", "alarm"])
def interrupted(request, signalled):
    """Likewise; the handler raises."""

    def raises():
        raise request.param

    @contextlib.contextmanager
    def block(module, table, name):
        with signalled(module, table, name, raises), pytest.raises(request.param):
            yield

    return block


@pytest.mark.parametrize("entries", [128, 32])
def test_a_post(wire, nothing_is_left, interrupted, entries):
    """All of it, or what the submit ring had room for; while it waits, its memory is nobody else's."""
    with xsk_engine.open("vtx") as engine, wire.capture() as arrived:
        raw = engine.raw(quota_chunks=64, entries=entries)
        taken = min(64, entries)
        frags = raw.alloc(64, 60)
        frags.array[:] = numpy.frombuffer(frame(60), dtype=numpy.uint8)
        addrs = {one.addr for one in frags}
        assert engine.workers[0].pause(2)
        try:
            with interrupted(batch, "long", "endpoint_post"):
                raw.post(frags)
            assert (raw.sent_so_far(), int(frags.held.sum())) == (taken, 64 - taken)
            frags.release()
            again = raw.alloc(64, 60)
            assert len(addrs & {one.addr for one in again}) <= 64 - taken
            again.release()
        finally:
            engine.workers[0].resume()
        raw.drain()
        raw.close()
        wait_until(lambda: engine.umem.audit(strict=False).referenced == 0)
    assert arrived == [frame(60)] * taken


def test_an_endpoint_that_is_opened(wire, nothing_is_left, interrupted):
    with xsk_engine.open("vtx") as engine:
        for _ in range(3):
            with interrupted(worker, "long", "loop_command"):
                engine.raw()
        assert engine.umem.audit(strict=False).arenas == 1, "the loop's own"
        before = engine.workers[0].counters.turns
        time.sleep(0.5)
        assert engine.workers[0].counters.turns - before < 10, "it has none whose arena it could not park"
        with engine.raw() as raw:
            raw.send(frame())
            raw.drain()


def test_an_endpoint_that_was_not_given_to_the_loop(wire, nothing_is_left, monkeypatch):
    with xsk_engine.open("vtx") as engine:
        real = engine.workers[0].command

        def command(*arguments):
            monkeypatch.setattr(engine.workers[0], "command", real)
            raise KeyboardInterrupt

        monkeypatch.setattr(engine.workers[0], "command", command)
        with pytest.raises(KeyboardInterrupt):
            engine.raw()
        assert engine.umem.audit(strict=False).arenas == 1


def test_a_connection_that_is_opened(wire, real_root, nothing_is_left, interrupted):
    with xsk_engine.open("vtx", tcp=True) as engine, peer(wire, digest_of) as one:
        for _ in range(3):
            with interrupted(nativetcp, "native", "connect"):
                engine.tcp(ADDRESS[4], one.port)

        def are_gone():
            engine.tcp_stack.reap()  # as whoever comes along
            return not engine.tcp_stack._all()

        wait_until(are_gone)
        assert engine.tcp_stack.counters().connections == 0
        with engine.tcp(ADDRESS[4], one.port) as connection:
            connection.sendall(b"hello")


def test_a_block_that_is_submitted(wire, real_root, nothing_is_left, interrupted):
    with xsk_engine.open("vtx", tcp=True) as engine, peer(wire, digest_of) as one:
        with engine.tcp(ADDRESS[4], one.port) as connection:
            view = connection.alloc()
            view[:5] = b"first"
            with interrupted(nativetcp, "short", "submit"):
                connection.submit(5)
            other = connection.alloc()
            other[:6] = b"second"
            connection.submit(6)
            assert connection.info().written_bytes == 11
        assert one.result()[0] == 11


def test_a_flow_that_is_changed(wire, nothing_is_left, interrupted):
    with xsk_engine.open("vtx") as engine:
        running = engine.start(xsk_engine.parse_flow(FLOW), rate="1kpps")
        assert engine.workers[0].pause(2)
        try:
            with interrupted(worker, "long", "loop_command"):
                running.set_rate("2kpps")
            assert len(engine.workers[0]._pending) == 1, "the loop will still read it"
        finally:
            engine.workers[0].resume()
        running.set_rate("3kpps")
        running.stop()


@pytest.mark.parametrize(
    "where", [(worker, "long", "loop_command"), (endpoint, "native", "endpoint_destroy")]
)
@pytest.mark.parametrize("again", [True, False], ids=["closed again", "closed by its engine"])
def test_an_endpoint_that_is_closed(wire, nothing_is_left, interrupted, where, again):
    with xsk_engine.open("vtx") as engine:
        for _ in range(3):
            raw = engine.raw()
            raw.alloc(64, 60).release()
            with interrupted(*where):
                raw.close()
            assert raw.closed
            with pytest.raises(ClosedError):
                raw.send(frame())
            with pytest.raises(ClosedError):
                raw.stats()
            if again:
                raw.close()
                assert engine.umem.audit(strict=False).arenas == 1, "the loop's own"
    assert engine.umem.handle is None


def test_a_connection_that_is_closed(wire, real_root, nothing_is_left, interrupted):
    """Its peer gets all of it, and its place is free again."""
    with xsk_engine.open("vtx", tcp=True) as engine, peer(wire, digest_of) as there:
        one = engine.tcp(ADDRESS[4], there.port, time_wait_s=0)
        one.sendall(b"all of it")
        with interrupted(nativetcp, "short", "close"):
            one.close()
        one.close()
        assert there.result()[0] == 9

        def is_gone():
            engine.tcp_stack.reap()
            return not engine.tcp_stack._all()

        wait_until(is_gone)


def test_an_endpoint_is_freed_when_its_loop_has_forgotten_it(wire, nothing_is_left, monkeypatch):
    """Not when it hears that no command is taken any more: the loop may be just ending."""

    def refuse(*_):
        raise ClosedError("command", "vtx", "its loop has ended")

    with xsk_engine.open("vtx") as engine:
        raw = engine.raw()
        thread = threading.Thread(target=raw.close)
        with monkeypatch.context() as patched:
            patched.setattr(engine.workers[0], "command", refuse)
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
        engine.workers[0].abort()
        thread.join(5)
        assert not thread.is_alive()
        assert raw.gone


RAISING = {
    "before a lock is looked at": (endpoint.Endpoint, "using"),
    "before it is taken": (inside.Inside, "here"),
}


@pytest.mark.parametrize("where", RAISING)
def test_nothing_is_noted_of_a_call_that_did_not_begin(wire, nothing_is_left, monkeypatch, where):
    """Or a close() would leave it to a call that never ends. The traceback lives on meanwhile."""
    with xsk_engine.open("vtx") as engine:
        raw = engine.raw()
        owner, name = RAISING[where]
        real = getattr(owner, name)

        def call(*arguments):
            real(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, call)
            with pytest.raises(KeyboardInterrupt) as kept:
                raw.send_many([frame()] * 10)
        assert not engine.umem.inside.has_me
        assert raw.send_many([frame()] * 10) == 10
    assert engine.umem.handle is None
    assert kept.tb


# ---- handlers that close the engine ------------------------------------------------------------------------

PARSED = xsk_engine.parse_flow(FLOW)
IN_CALLS = {
    "send_many": (batch, "long", "endpoint_send_many", lambda engine, raw, _: raw.send_many([frame()] * 10)),
    "post": (batch, "long", "endpoint_post", lambda engine, raw, frags: raw.post(frags)),
    "alloc": (endpoint, "long", "endpoint_alloc", lambda engine, raw, _: raw.alloc(4, 60).release()),
    "flush": (arena, "long", "arena_park_if_idle", lambda engine, raw, _: raw.flush()),
    "close": (worker, "long", "loop_command", lambda engine, raw, _: raw.close()),
    "raw": (endpoint, "native", "endpoint_create", lambda engine, raw, _: engine.raw()),
    "start": (worker, "long", "loop_command", lambda engine, raw, _: engine.start(PARSED)),
    "udp": (neighbours, "os", "write", lambda engine, raw, _: engine.udp((topology.RX_IPV4, PORT))),
}


@pytest.mark.parametrize("call", IN_CALLS)
def test_a_handler_closes_the_engine_in_the_middle_of(wire, nothing_is_left, signalled, call):
    """The call ends as it would, or hears that all is closed, and then it is. Nothing hangs or leaks."""
    module, table, name, use = IN_CALLS[call]
    engine = xsk_engine.open("vtx")
    raw = engine.raw()
    frags = raw.alloc(4, 60)
    frags.array[:] = numpy.frombuffer(frame(60), dtype=numpy.uint8)
    began = time.monotonic()
    with signalled(module, table, name, engine.close), contextlib.suppress(ClosedError):
        use(engine, raw, frags)
    wait_until(lambda: engine.umem.handle is None, 2)
    engine.close()
    assert time.monotonic() - began < 2
    frags.release()


IN_TCP_CALLS = {
    "sendall": (nativetcp, "short", "write", lambda engine, one: one.sendall(b"x")),
    "recv": (nativetcp, "short", "read", lambda engine, one: one.recv(10, 0.2)),
    "alloc": (nativetcp, "short", "alloc", lambda engine, one: one.alloc()),
    "state": (tcphandle.tcp, "short", "state", lambda engine, one: one.state),
    "info": (tcphandle.tcp, "short", "info", lambda engine, one: one.info()),
    "abort": (nativetcp, "short", "abort", lambda engine, one: one.abort()),
    "close": (nativetcp, "short", "close", lambda engine, one: one.close(0)),
    "tcp": (nativetcp, "native", "connect", lambda engine, one: engine.tcp(*one.remote)),
}


@pytest.mark.parametrize("call", IN_TCP_CALLS)
def test_a_handler_closes_the_engine_in_the_middle_of_tcp(wire, real_root, nothing_is_left, signalled, call):
    module, table, name, use = IN_TCP_CALLS[call]
    with peer(wire, digest_of) as there:
        engine = xsk_engine.open("vtx", tcp=True)
        one = engine.tcp(ADDRESS[4], there.port)
        began = time.monotonic()
        with signalled(module, table, name, engine.close), contextlib.suppress(xsk_engine.XskError):
            use(engine, one)
        engine.close()
        assert time.monotonic() - began < 2
        assert (engine.umem.handle, one.state, one.closed) == (None, "CLOSED", True)


def test_a_handler_asks_what_is_just_being_asked(wire, real_root, nothing_is_left, signalled):
    with xsk_engine.open("vtx", tcp=True) as engine, peer(wire, digest_of) as there:
        one, seen = engine.tcp(ADDRESS[4], there.port), []

        def handler():
            if not seen:
                seen.append(None)
                seen.append((one.state, one.error, one.info().state))

        with signalled(nativetcp, "short", "info", handler):
            one.info()
        assert seen[1] == ("ESTABLISHED", 0, "ESTABLISHED")
        one.close()


def test_traffic_that_ends_while_its_engine_closes(wire, nothing_is_left, monkeypatch):
    """Who has found it done is let out before what it looks at is freed."""
    real, inside, go_on = worker.Worker.forget_mixes, threading.Event(), threading.Event()

    def slow(self, mixes):
        inside.set()
        assert go_on.wait(10)
        real(self, mixes)

    monkeypatch.setattr(worker.Worker, "forget_mixes", slow)
    engine = xsk_engine.open("vtx")
    running = engine.start(xsk_engine.parse_flow(FLOW), count=5)
    threads = [threading.Thread(target=running.wait, args=(5,)), threading.Thread(target=engine.close)]
    threads[0].start()
    assert inside.wait(5)
    threads[1].start()
    threads[1].join(1)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("error", [BrokenPipeError(32, "mine"), BlockingIOError(11, "mine")])
def test_a_handlers_error_is_not_the_loops(wire, nothing_is_left, signalled, error):
    """Also where it has an errno that a loop answers with: what the loop has is not freed."""

    def raises():
        raise error

    with xsk_engine.open("vtx") as engine:
        running = engine.start(PARSED, rate="1kpps")
        assert engine.workers[0].pause(2)
        try:
            with signalled(worker, "long", "loop_command", raises), pytest.raises(OSError, match="mine"):
                running.set_rate("2kpps")
            assert len(engine.workers[0]._pending) == 1
        finally:
            engine.workers[0].resume()
        with signalled(worker, "long", "loop_command", raises), pytest.raises(OSError, match="mine"):
            engine.raw()
        assert engine.umem.audit(strict=False).arenas == 1


@pytest.mark.parametrize("call", ["flush", "send_many"])
def test_a_handler_that_closes_the_engine_and_goes_on(wire, nothing_is_left, signalled, monkeypatch, call):
    """For longer than a thread has to leave its endpoint."""
    monkeypatch.setattr(holdings_module, "_CLOSE_S", 0.2)
    module, table, name, use = IN_CALLS[call]
    engine = xsk_engine.open("vtx")
    raw = engine.raw()

    def handler():
        engine.close()
        time.sleep(1)

    with signalled(module, table, name, handler), contextlib.suppress(ClosedError):
        use(engine, raw, None)
    engine.close()
    assert engine.umem.handle is None

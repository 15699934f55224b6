"""What goes wrong on real machines: each gets its error, nothing is lost, nothing is left behind."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from types import SimpleNamespace

import pytest
from wire import another_lab, close_between, during, exit_code_of, first_line, frame, holdings, wait_until

from xsk_engine._ffi import libc, libxdp, native, sockopt
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    QueueTakenError,
    UnavailableError,
    WouldBlockError,
    XskError,
)
from xsk_engine.flow import Traffic
from xsk_engine.lab.topology import LabOptions

PACED = Traffic(frame(60), duration_s=1.0, rate=Fraction(1000))


DOWN, UP = ("link", "set", "vtx", "down"), ("link", "set", "vtx", "up")


def test_the_link_goes_and_comes_back(wire):
    with another_lab(LabOptions()) as lab:
        engine, error = during(lab, PACED, (0.3, DOWN, False), (0.8, UP, False))
        assert error is None
        snapshot = engine.snapshot()
        assert snapshot.kick_enetdown > 0
        assert snapshot.link_down_ns > 3e8
        assert snapshot.completed_packets == snapshot.submitted_packets
        assert 900 <= snapshot.completed_packets <= 1000, "a duration: a machine that stands still loses some"


def test_the_link_stays_down(wire):
    with another_lab(LabOptions()) as lab:
        started = time.monotonic()
        engine, error = during(lab, PACED, (0.3, DOWN, False), link_timeout_s=0.5)
        assert isinstance(error, BrokenError)
        assert "--link-timeout" in str(error)
        assert "ENETDOWN" in str(error)
        assert time.monotonic() - started < 0.3 + 0.5 + 0.5 + 1, "until it goes, the timeout, the drain"


def test_the_peer_goes_down(wire):
    """Every packet is completed and lost; the engine notices by the run of EBUSY."""
    with another_lab(LabOptions()) as lab:
        started = time.monotonic()
        peer_down = ("link", "set", "vrx", "down")
        traffic = Traffic(frame(60), duration_s=3)
        engine, error = during(lab, traffic, (0.3, peer_down, True), link_timeout_s=0.5)
        assert isinstance(error, BrokenError)
        assert "link was down" in str(error)
        assert time.monotonic() - started < 0.3 + 0.5 + 0.5 + 1
        assert 1000 <= engine.snapshot().dropped_packets < 1200


def test_the_interface_is_deleted(wire):
    with another_lab(LabOptions()) as lab:
        started = time.monotonic()
        engine, error = during(lab, PACED, (0.3, ("link", "del", "vtx"), False))
        assert time.monotonic() - started < 0.3 + 0.5 + 1, "until it goes, and the drain"
        assert isinstance(error, BrokenError)
        assert "ENXIO" in str(error)
        assert "gone" in str(error)
        assert engine.snapshot().completed_packets == engine.snapshot().submitted_descs - (
            engine.snapshot().inflight_descs
        )


def test_a_link_that_is_down_at_the_start(wire):
    with another_lab(LabOptions()) as lab:
        lab.ip(*DOWN)
        with pytest.raises(UnavailableError, match="ip link set vtx up"):
            Engine(EngineConfig("vtx", link_timeout_s=0.1)).open()
        lab.ip(*UP)
        lab.ip("link", "set", "vrx", "down", rx=True)
        with pytest.raises(UnavailableError, match="no carrier"):
            Engine(EngineConfig("vtx", link_timeout_s=0.1)).open()


def test_a_link_that_comes_up_while_it_is_waited_for(wire):
    with another_lab(LabOptions()) as lab:
        lab.ip(*DOWN)
        # In a process: this thread's namespace is not the timer's.
        process = subprocess.Popen(["sh", "-c", "sleep 0.3; ip link set vtx up"])
        with Engine(EngineConfig("vtx", link_timeout_s=5)):
            pass
        assert process.wait(5) == 0


def test_refusals_of_the_environment(wire):
    with pytest.raises(UnavailableError, match=r"no such interface; did you mean vtx"):
        Engine(EngineConfig("vtxx")).open()
    with pytest.raises(UnavailableError, match=r"queue 7.*EINVAL.*0 to 1.*ethtool -L"):
        Engine(EngineConfig("vtx", queues=(0, 7))).open()
    with pytest.raises(UnavailableError, match=r"zerocopy\): EOPNOTSUPP.*--mode copy"):
        Engine(EngineConfig("vtx", mode="zerocopy")).open()
    with pytest.raises(ValueError, match="cpus"):
        Engine(EngineConfig("vtx", cpus=(4000,)))


def test_a_taken_queue(wire, monkeypatch):
    monkeypatch.setattr("xsk_engine.xsk.REBIND_DEADLINE_S", 0.2)
    small = EngineConfig("vtx", umem_bytes=1 << 20)  # two at a time within an ordinary user's locked memory
    with Engine(small) as engine:
        with pytest.raises(QueueTakenError, match=r"queue 0.*of this process"):
            Engine(small).open()
        assert engine.binding.mode == "copy"
    script = (
        "from xsk_engine.engine import *; import sys\n"
        "with Engine(EngineConfig('vtx', umem_bytes=1 << 20)):\n    print('up', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True)
    try:
        assert first_line(other) == "up\n"
        with pytest.raises(QueueTakenError, match=r"queue 0.*of another process"):
            Engine(small).open()
    finally:
        other.communicate(timeout=10)


def as_unprivileged(*arguments, limit=None):
    """A process without any capability, with a locked-memory limit."""
    shell = f"ulimit -l {limit}; " if limit else ""
    caps = "-all" if limit is None else "-ipc_lock"
    inner = ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", sys.executable, *arguments]
    return subprocess.run(
        ["sh", "-c", shell + 'exec "$@"', "sh", *inner],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SEND = ("-m", "xsk_engine", "send", "vtx", "--dst-ip", "10.77.0.2", "--count", "1")


def test_without_the_capability(wire):
    result = as_unprivileged(*SEND)
    assert result.returncode == 3
    assert "EPERM" in result.stderr
    assert "CAP_NET_RAW" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_umem_beyond_the_locked_memory(wire):
    result = as_unprivileged(*SEND, "--umem-mb", "64", limit=1024)
    assert result.returncode == 3
    assert "ENOBUFS" in result.stderr
    assert "ulimit -l" in result.stderr


def test_without_libxdp(wire):
    code = (
        "import ctypes, sys\n"
        "real = ctypes.CDLL.__init__\n"
        "def refuse(self, name, *a, **k):\n"
        "    if name and 'libxdp' in str(name): raise OSError('libxdp.so.1: not there')\n"
        "    return real(self, name, *a, **k)\n"
        "ctypes.CDLL.__init__ = refuse\n"
        "sys.argv = ['xsk-engine', 'send', 'vtx', '--dst-ip', '10.77.0.2', '--count', '1']\n"
        "from xsk_engine.cli import main\nmain()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 3
    assert "apt-get install libxdp1" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("backend", [{}, {"tx_metadata_len": 16}], ids=["libxdp", "sockopt"])
@pytest.mark.parametrize("times", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_open_and_close_again_and_again(wire, times, backend):
    for i in range(times + 1):
        with Engine(EngineConfig("vtx", queues=(0, 1), **backend)):
            pass
        if i == 0:
            before = holdings()
    gc.collect()
    assert holdings() == before


# ---- every step of opening fails once ----------------------------------------------------------------


def ffi_functions():
    """(namespace, name) of every foreign function that opening may call."""
    for space in (libc.libc, libxdp.libxdp, native.native):
        for name, function in vars(space).items():
            if function is not None:
                yield space, name


@pytest.fixture
def counted_calls(monkeypatch):
    """Counts foreign calls while `armed`, and fails the chosen one."""
    control = SimpleNamespace(armed=False, calls=0, fail_at=None, failed=None)
    # What undoes or only reads must work even then; so does what has no way to fail.
    exempt = ("delete", "destroy", "close", "munmap", "leave", "park", "abort", "audit", "state", "read")
    # It runs in the worker's thread: see test_a_loop_that_does_not_start.
    exempt += ("loop_run",)

    def wrap(space, name, function):
        def call(*arguments):
            if control.armed and not any(word in name for word in exempt):
                control.calls += 1
                if control.calls == control.fail_at:
                    control.failed = name
                    raise OSError(12, f"{name}: injected")
            return function(*arguments)

        monkeypatch.setattr(space, name, call)

    for space, name in list(ffi_functions()):
        wrap(space, name, getattr(space, name))
    return control


@pytest.mark.parametrize("backend", [{}, {"tx_metadata_len": 16}], ids=["libxdp", "sockopt"])
def test_every_step_of_opening_fails_once(wire, counted_calls, backend):
    control = counted_calls
    config = EngineConfig("vtx", queues=(0, 1), mode="copy", **backend)
    with Engine(config):
        pass  # imports and caches
    gc.collect()
    before = holdings()
    survived = []
    for step in range(1, 500):
        control.armed, control.calls, control.fail_at, control.failed = True, 0, step, None
        try:
            with Engine(config):
                control.armed = False
                if control.failed is None:
                    break  # opening takes fewer calls than this
                survived.append(control.failed)
        except (OSError, UnavailableError, BrokenError):
            assert control.failed is not None
        finally:
            control.armed = False
        gc.collect()
        wait_until(lambda: holdings() == before, 5)
    assert 15 < step < 499
    # Wishes that may fail: the tx budget and the send buffer; the last figures of a socket that is closed.
    assert set(survived) <= {"setsockopt", "getsockopt"}
    assert sockopt.Registration.name == "sockopt"
    with Engine(config):
        pass


@pytest.mark.parametrize("delay_s", [0, 0.1])
def test_a_loop_that_does_not_start(wire, monkeypatch, delay_s):
    def refuse(_loop):
        time.sleep(delay_s)
        raise OSError(12, "injected")

    before = holdings()
    monkeypatch.setattr(native.native, "loop_run", refuse)
    with Engine(EngineConfig("vtx")) as engine, pytest.raises(BrokenError, match="did not start"):
        asyncio.run(engine.run(PACED))
    wait_until(lambda: holdings() == before)


def test_an_engine_runs_once_and_says_so(wire):
    with Engine(EngineConfig("vtx")) as engine:
        asyncio.run(engine.run(Traffic(frame(60), count=1)))
        with pytest.raises(ClosedError, match="open a new engine"):
            asyncio.run(engine.run(Traffic(frame(60), count=1)))
        with pytest.raises(ClosedError):
            engine.raw()


def test_a_cancelled_run_stops_sending(wire):
    with Engine(EngineConfig("vtx")) as engine:

        async def cancelled():
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(engine.run(Traffic(frame(60), rate=Fraction(1000))), 0.2)

        asyncio.run(cancelled())
        wait_until(lambda: not any(w.alive for w in engine.workers))
        assert engine.snapshot().completed_packets < 1000


def test_endpoints_closed_under_a_sender(wire):
    """Another thread sends all the time; it gets an answer, never a crash."""
    for _ in range(20):
        with Engine(EngineConfig("vtx")) as engine:
            endpoint, answers = engine.raw(), []

            def sender(endpoint=endpoint, answers=answers):
                while not answers:
                    try:
                        endpoint.send(frame(60))
                    except WouldBlockError:
                        time.sleep(0)
                    except XskError as error:
                        answers.append(type(error))

            thread = threading.Thread(target=sender)
            thread.start()
            time.sleep(0.01)
            close_between(endpoint)
            thread.join(5)
            assert answers in ([ClosedError], [BusyError])


# ---- processes ----------------------------------------------------------------------------------------

ONE_SHOT = """
import asyncio, sys, time
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.flow import Traffic
with Engine(EngineConfig("vtx", queues=(int(sys.argv[2]),), umem_bytes=1 << 20)) as engine:
    print("up", flush=True)
    asyncio.run(engine.run(Traffic(bytes.fromhex(sys.argv[1]))))
"""


@pytest.mark.parametrize("times", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_kill_9_and_start_again_at_once(wire, times):
    """Two at a time, each on its queue, within an ordinary user's locked memory."""
    with wire.counted() as arrived:
        for i in range(times // 2):
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", ONE_SHOT, frame(60).hex(), str(queue)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for queue in (0, 1)
            ]
            for process in processes:
                assert first_line(process) == "up\n"
            time.sleep(0.02 * (i % 4))  # from before the first frame to the middle of the stream
            for process in processes:
                process.send_signal(signal.SIGKILL)
            for process in processes:
                process.wait(10)
                process.stdout.close()
        assert arrived() > 0


def test_fork_in_the_middle(wire):
    """The child's engine is broken, the parent's goes on."""
    with Engine(EngineConfig("vtx")) as engine:

        async def run():
            task = asyncio.ensure_future(engine.run(Traffic(frame(60), count=500, rate=Fraction(1000))))
            await asyncio.sleep(0.1)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    engine.close()
                    engine.raw()
                except BrokenError:
                    code = 0
                finally:
                    os._exit(code)
            # Its copies of the ring mappings would keep the queue taken after we close.
            assert exit_code_of(child) == 0
            await task

        asyncio.run(run())
    assert engine.snapshot().completed_packets == 500

"""From zero-copy to copy mode while packets wait, on a veth that only pretends to have zero-copy. The same on
real drivers: tests/machine."""

import asyncio
import errno
import gc
import os
import threading
import time
from fractions import Fraction

import pytest
from privileged import tasks
from test_opener import HELPER, RULE
from wire import another_lab, deafen_zerocopy, frame, holdings, wait_until

from xsk_engine import binding, netdev, privileges
from xsk_engine._ffi import libbpf
from xsk_engine.binding import Binding
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import BrokenError, UnavailableError, XskError
from xsk_engine.flow import Flow, Traffic
from xsk_engine.lab.topology import LabOptions
from xsk_engine.privileges import NUMBERS
from xsk_engine.program import PassProgram
from xsk_engine.stall import JudgeThread, StallJudge
from xsk_engine.values import Sequence
from xsk_engine.worker import Worker
from xsk_engine.xsk import Xsk

SEQUENCE = {"@42/8": Sequence()}
RATE = Fraction(10_000)


@pytest.fixture
def pretender(monkeypatch):
    """What is bound in zero-copy is bound in copy mode and says otherwise; its kicks all succeed."""
    real = binding.bind_queues

    def bind(umem, netdev, queues, mode, **options):
        xsks = real(umem, netdev, queues, "copy", **options)
        for xsk in xsks:
            xsk.mode = mode
        return xsks

    monkeypatch.setattr(binding, "bind_queues", bind)
    deafen_zerocopy(monkeypatch)
    return monkeypatch


def sequences(frames):
    return sorted(int.from_bytes(f[42:50], "big") for f in frames)


def send_through_a_fallback(traffic, queues, **options):
    with Engine(EngineConfig("vtx", queues=queues, progress_timeout_s=0.3, **options)) as engine:
        assert engine.binding.mode == "zerocopy"
        asyncio.run(engine.run(traffic))
    snapshot = engine.snapshot()
    assert snapshot.submitted_packets == snapshot.completed_packets == traffic.count
    assert engine.binding.mode == "copy"
    assert "completed nothing" in engine.binding.reason


@pytest.mark.parametrize("queues", [(0,), (0, 1)])
@pytest.mark.parametrize("count", [1, 100])
def test_every_packet_once(wire, pretender, queues, count):
    with wire.capture() as frames:
        send_through_a_fallback(Traffic(Flow(frame(100), SEQUENCE), count=count, rate=RATE), queues)
        wait_until(lambda: len(frames) >= count)
    assert sequences(frames) == list(range(count))


@pytest.mark.parametrize("confined", [{}, {"drop_privileges": True}], ids=["as it is", "without privileges"])
def test_the_opener_is_asked_once_more(wire, pretender, tmp_path, confined):
    """For the same umem."""
    pretender.chdir(tmp_path)
    (tmp_path / "xsk-engine.toml").write_text(RULE)
    (tmp_path / "xsk-engine.toml").chmod(0o644)
    with wire.capture() as frames:
        traffic = Traffic(Flow(frame(100), SEQUENCE), count=100, rate=RATE)
        send_through_a_fallback(traffic, (0, 1), opener=HELPER, **confined)
        wait_until(lambda: len(frames) >= 100)
    assert sequences(frames) == list(range(100))


@pytest.mark.parametrize("confined", ["drop_privileges", "sandbox"])
def test_by_who_may_do_nothing_any_more(wire, pretender, confined):
    """A thread opens the new sockets that has kept what that takes until it is known which mode it is."""
    seen, real = [], StallJudge.judge

    def judge(self, *arguments):
        verdict = real(self, *arguments)
        seen.append(threading.get_native_id())
        return verdict

    pretender.setattr(StallJudge, "judge", judge)
    config = EngineConfig("vtx", queues=(0, 1), progress_timeout_s=0.3, **{confined: True})
    with wire.counted() as arrived, wire.listening(), Engine(config) as engine:
        (keeper,) = [one for one in threading.enumerate() if one.name == "xsk-judge"]
        wait_until(lambda: effective(keeper) == {"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_IPC_LOCK"})
        for worker in engine.workers:
            wait_until(lambda worker=worker: not effective(worker._thread))
        asyncio.run(engine.run(Traffic(Flow(frame(100), SEQUENCE), count=100, rate=RATE)))
        assert engine.binding.mode == "copy"
        wait_until(lambda: arrived() == 100)
        assert seen
        assert not set(seen) & {worker._thread.native_id for worker in engine.workers}
        wait_until(lambda: not effective(keeper))


def test_zerocopy_that_works_ends_the_doubt(wire, pretender):
    """The same, when completions come."""
    with Engine(EngineConfig("vtx", drop_privileges=True)) as engine:
        (keeper,) = [one for one in threading.enumerate() if one.name == "xsk-judge"]
        wait_until(lambda: effective(keeper))
        time.sleep(0.3)
        assert effective(keeper)
        engine.workers[0].counters.completed_descs = 1
        wait_until(lambda: not effective(keeper))
        engine.workers[0].counters.completed_descs = 0


def test_with_an_opener_it_keeps_the_right_to_run_that_alone():
    judge = JudgeThread(lambda *_: 0, lambda: True, opener=True)
    try:
        (keeper,) = [one for one in threading.enumerate() if one.name == "xsk-judge"]
        wait_until(lambda: not effective(keeper))
        (task,) = [one for one in tasks(os.getpid()) if one["Pid"] == str(keeper.native_id)]
        assert task["NoNewPrivs"] == "0"
        assert {int(task[name], 16) for name in ("CapPrm", "CapInh", "CapAmb")} == {0}
    finally:
        judge.close()


def test_a_judge_that_has_died_is_not_waited_for(pretender):
    def fail(*_):
        raise OSError(1, "injected")

    pretender.setattr(privileges, "drop", fail)
    judge = JudgeThread(lambda *_: 0, lambda: False, opener=False)
    with pytest.raises(BrokenError, match="has died"):
        judge.judge(None, None)


def test_who_waits_for_his_link_holds_up_no_other_judgement():
    waits = threading.Event()
    judge = JudgeThread(lambda worker, _: waits.wait(10) if worker else 7, lambda: False, opener=False)
    try:
        first = threading.Thread(target=judge.judge, args=(True, None))
        first.start()
        assert judge.judge(False, None) == 7
        assert first.is_alive()
        waits.set()
        first.join(5)
    finally:
        judge.close()


def effective(thread):
    """Capabilities of a thread, by their names."""
    (task,) = [one for one in tasks(os.getpid()) if one["Pid"] == str(thread.native_id)]
    return {name for name, number in NUMBERS.items() if int(task["CapEff"], 16) >> number & 1}


@pytest.mark.parametrize("queues", [(0,), (0, 1)])
@pytest.mark.parametrize("count", [2000, 5001])
def test_nothing_is_lost_on_the_way(wire, pretender, queues, count):
    """Fewer packets than the rings take, and more. What waited leaves in a burst that no ordinary user's
    socket keeps, so the kernel counts."""
    with wire.counted() as arrived, wire.listening():
        send_through_a_fallback(Traffic(Flow(frame(100), SEQUENCE), count=count, rate=RATE), queues)
        wait_until(lambda: arrived() >= count)
        assert arrived() == count


def test_an_endpoint_sends_on(wire, pretender):
    """No flow runs, nobody watches the engine: the worker's own thread judges."""
    with wire.capture() as frames, Engine(EngineConfig("vtx", progress_timeout_s=0.3)) as engine:
        endpoint = engine.raw()
        for i in range(50):
            endpoint.send(frame(60, fill=i))
        wait_until(lambda: len(frames) == 50)
        endpoint.send(frame(60, fill=50))
        wait_until(lambda: len(frames) == 51)
        assert engine.binding.mode == "copy"
    assert [f[42] for f in frames] == list(range(51))


def test_who_insists_on_zerocopy_gets_an_error(wire, pretender):
    with (
        Engine(EngineConfig("vtx", mode="zerocopy", progress_timeout_s=0.3)) as engine,
        pytest.raises(BrokenError, match=r"no completion.*--mode copy"),
    ):
        asyncio.run(engine.run(Traffic(frame(60), duration_s=5)))


@pytest.mark.parametrize("queues", [(0,), (0, 1)])
def test_the_fallback_itself_fails(wire, pretender, queues):
    """Rings are gone and there are no others: both loops end with the reason, and nothing is left."""
    with Engine(EngineConfig("vtx", queues=queues, mode="copy")):
        pass
    gc.collect()
    before = holdings()

    def refuse(self, mode):
        raise UnavailableError("bind", "vtx, queue 0, copy", "injected")

    engine = Engine(EngineConfig("vtx", queues=queues, progress_timeout_s=0.3))
    with engine:
        pretender.setattr(binding.Binding, "_bind", refuse)
        endpoint = engine.raw()
        with pytest.raises(XskError, match="injected"):
            asyncio.run(engine.run(Traffic(frame(60), duration_s=5)))
        with pytest.raises(BrokenError, match="injected"):
            endpoint.send(frame(60))
    assert engine.snapshot().completed_packets == 0
    wait_until(lambda: holdings() == before)


def test_closing_in_the_middle_of_it(wire, pretender):
    for delay in (0.05, 0.25, 0.3, 0.32, 0.35, 0.4):
        with Engine(
            EngineConfig("vtx", queues=(0, 1), progress_timeout_s=0.3, drain_timeout_s=0.2)
        ) as engine:

            async def briefly(engine=engine, delay=delay):
                stop = asyncio.Event()
                asyncio.get_running_loop().call_later(delay, stop.set)
                await engine.run(Traffic(frame(60), rate=RATE), stop)

            asyncio.run(briefly())
        assert not any(w.alive for w in engine.workers)
        assert engine.binding.mode == "copy"


def test_a_lost_carrier_is_waited_for_and_not_fallen_back_from(wire, pretender):
    with another_lab(LabOptions()) as lab:
        config = EngineConfig("vtx", progress_timeout_s=0.3, link_timeout_s=0.5)
        with Engine(config) as engine:
            lab.ip("link", "set", "vrx", "down", rx=True)
            with pytest.raises(BrokenError, match=r"link was down.*--link-timeout"):
                asyncio.run(engine.run(Traffic(frame(60), duration_s=5)))
        assert engine.binding.mode == "zerocopy"


@pytest.mark.parametrize("mode", ["auto", "zerocopy"])
def test_a_driver_that_binds_and_then_refuses_to_send(wire, pretender, mode):
    """Without an answer that a program would change."""
    pretender.setattr(Xsk, "try_wakeup", lambda self: 95 if self.mode == "zerocopy" else 0)  # EOPNOTSUPP
    if mode == "zerocopy":
        with pytest.raises(UnavailableError, match=r"EOPNOTSUPP.*refuses to send.*--mode copy"):
            Engine(EngineConfig("vtx", mode=mode)).open()
        return
    with Engine(EngineConfig("vtx", mode=mode)) as engine:
        assert engine.binding.mode == "copy"
        assert "refuses to send (EOPNOTSUPP)" in engine.binding.reason
        asyncio.run(engine.run(Traffic(frame(60), count=10)))
    assert engine.snapshot().completed_packets == 10


def test_a_completion_in_the_last_moment(wire, pretender):
    """Between the judge's look and the pause another queue completes: no fallback, and a clear error."""
    real = Worker.pause

    def pause(self, timeout_s):
        paused = real(self, timeout_s)
        self.counters.completed_descs = 1
        return paused

    pretender.setattr(Worker, "pause", pause)
    with (
        Engine(EngineConfig("vtx", queues=(0, 1), progress_timeout_s=0.3)) as engine,
        pytest.raises(BrokenError, match="no completion"),
    ):
        asyncio.run(engine.run(Traffic(frame(60), duration_s=5, rate=RATE)))
    assert engine.binding.mode == "zerocopy"


def test_whatever_the_judge_raises_ends_the_run(wire, pretender):
    pretender.setattr(StallJudge, "judge", lambda *_: 1 // 0)
    with (
        Engine(EngineConfig("vtx", progress_timeout_s=0.3)) as engine,
        pytest.raises(BrokenError, match="ZeroDivisionError"),
    ):
        asyncio.run(engine.run(Traffic(frame(60), duration_s=5)))


@pytest.mark.parametrize("mode", ["copy", "auto"])
def test_closing_without_a_link_takes_the_drain_and_no_more(wire, pretender, mode):
    with another_lab(LabOptions()) as lab:
        engine = Engine(EngineConfig("vtx", mode=mode, drain_timeout_s=0.3, link_timeout_s=20)).open()
        lab.ip("link", "set", "vtx", "down")
        engine.raw().send(frame(60))
        time.sleep(0.1)
        started = time.monotonic()
        engine.close()
        # Not a speed: the time until it would be aborted is 2 s more in copy mode, 25 s in auto.
        assert time.monotonic() - started < 2
        assert engine.snapshot().inflight_descs == 1


def test_endpoints_close_while_the_link_is_waited_for(wire, pretender):
    with another_lab(LabOptions()) as lab:
        config = EngineConfig("vtx", progress_timeout_s=0.2, link_timeout_s=20, drain_timeout_s=0.3)
        with Engine(config) as engine:
            busy, idle = engine.raw(), engine.raw()
            lab.ip("link", "set", "vrx", "down", rx=True)
            busy.send(frame(60))
            time.sleep(0.5)  # judged by now
            idle.close()
            busy.close()


def test_a_forked_child_holds_nothing(wire, real_root):
    """Neither a socket nor the program: both are gone when the parent closes, whatever the child does."""
    index = netdev.get("vtx").ifindex
    with Engine(EngineConfig("vtx")) as engine:
        engine.binding._program = PassProgram(netdev.get("vtx"))
        child = os.fork()
        if child == 0:
            time.sleep(5)
            os._exit(0)
    try:
        wait_until(lambda: not libbpf.attached_program(index)[0], 2)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_zerocopy_that_the_memory_limit_has_no_room_for(wire, pretender, monkeypatch):
    real = Binding.__init__

    def init(self, umem, *arguments, rx_chunks, **options):
        if rx_chunks:
            raise UnavailableError("bind", "vtx", "too much", errno=errno.ENOBUFS)
        real(self, umem, *arguments, rx_chunks=rx_chunks, **options)

    pretender.setattr(Binding, "__init__", init)
    pretender.setattr(netdev, "_rx_ring", lambda _: 256)
    with Engine(EngineConfig("vtx")) as engine:
        assert engine.binding.mode == "copy"
        assert "locked-memory" in engine.binding.reason
    with pytest.raises(UnavailableError, match="too much"):
        Engine(EngineConfig("vtx", mode="zerocopy")).open()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOMEM, errno.EINVAL])
def test_whatever_a_driver_says_to_zerocopy_copy_is_tried(wire, monkeypatch, number):
    real = binding.bind_queues

    def bind(umem, netdev, queues, mode, **options):
        if mode == "zerocopy":
            raise OSError(number, "injected", "0")
        return real(umem, netdev, queues, mode, **options)

    monkeypatch.setattr(binding, "bind_queues", bind)
    with Engine(EngineConfig("vtx")) as engine:
        assert engine.binding.mode == "copy"
        assert errno.errorcode[number] in engine.binding.reason
    with pytest.raises(UnavailableError, match=rf"{errno.errorcode[number]}.*--mode copy"):
        Engine(EngineConfig("vtx", mode="zerocopy")).open()

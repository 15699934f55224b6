"""One traffic from its start to its drain: what commands run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from xsk_engine.crew import drain
from xsk_engine.errors import BusyError, ClosedError
from xsk_engine.flow import Flow, Traffic
from xsk_engine.mix import Mixes
from xsk_engine.mixprogram import MixProgram, compile_traffic
from xsk_engine.replay import Replay
from xsk_engine.replay import program as replay_program
from xsk_engine.trace import Trace

if TYPE_CHECKING:
    from xsk_engine.engine import Engine
    from xsk_engine.worker import Worker

_POLL_S = 0.001
# Looked at again after so long even if no event comes: a loop's thread ends a moment after its last one.
_LOOK_S = 0.5


def compile_for(engine: Engine, traffic: Traffic) -> list[list[MixProgram]]:
    """The programs of each of its queues. ValueError."""
    assert engine.umem is not None
    return compile_traffic(
        traffic,
        len(engine.workers),
        # of a worker's part of the umem, half: the rest is for packets
        template_budget=engine.umem.area.length // 2 // len(engine.workers),
        chunk_size=engine.config.chunk_size,
        metadata_len=engine.config.tx_metadata_len,
    )


class TrafficRun:
    """Engine.run, in the thread of the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, traffic: Traffic | Flow | Replay, stop: asyncio.Event | None) -> None:
        engine = self._engine
        workers = engine.open_workers()
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def on_event() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(engine.event_fd, 8)
            changed.set()

        loop.add_reader(engine.event_fd, on_event)
        waiter = asyncio.ensure_future(stop.wait()) if stop is not None else None
        if waiter is not None:
            waiter.add_done_callback(lambda _: changed.set())
        try:
            if isinstance(traffic, Replay):
                await self._load_replay(traffic, waiter)
            else:
                programs = compile_for(engine, Traffic(traffic) if isinstance(traffic, Flow) else traffic)
                engine.mixes = [
                    worker.load_mixes(mine) if mine else None
                    for worker, mine in zip(workers, programs, strict=True)
                ]
            # The queues take turns: at the same time.
            for worker, mixes in zip(workers, engine.mixes, strict=True):
                if mixes is not None:
                    worker.start_mixes(mixes)
            while not (waiter is not None and waiter.done()) and not self._finished():
                changed.clear()
                if self._finished():
                    break
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), _LOOK_S)
            await self._drain()
        except BaseException as error:  # cancelled, or a flow could not start: nothing goes on sending
            drain(engine.workers)
            if isinstance(error, ClosedError):  # of a loop that has ended: why it has says more
                engine.raise_failure()
            raise
        finally:
            loop.remove_reader(engine.event_fd)
            if waiter is not None:
                waiter.cancel()
        engine.raise_failure()
        for worker, mixes in self._with_mixes():
            worker.raise_refused(mixes)

    async def _load_replay(self, replay: Replay, stopped: asyncio.Future[Literal[True]] | None) -> None:
        engine = self._engine
        assert engine.umem is not None
        assert engine.netdev is not None
        worker = engine.workers[0]
        engine.trace = trace = Trace(engine.umem, replay, engine.netdev.max_frame_bytes, worker.index)
        engine.mixes = [
            worker.load_mixes([replay_program(replay)], trace),
            *(None for _ in engine.workers[1:]),
        ]
        if replay.stream:
            trace.start_stream()
            return
        if stopped is not None:
            stopped.add_done_callback(lambda _: trace.stop())
        await asyncio.to_thread(trace.load)

    def _with_mixes(self) -> list[tuple[Worker, Mixes]]:
        pairs = zip(self._engine.workers, self._engine.mixes, strict=True)
        return [(worker, mixes) for worker, mixes in pairs if mixes is not None]

    def _finished(self) -> bool:
        """All flows have posted what they will, or some worker has failed."""
        return any(w.failure() or not w.alive for w in self._engine.workers) or all(
            mixes.ended for _, mixes in self._with_mixes()
        )

    async def _drain(self) -> None:
        engine = self._engine
        drain(engine.workers)
        deadline = engine.stop_deadline()
        while any(w.alive for w in engine.workers) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        engine.join_workers(deadline)

    async def update(self, flows: Sequence[int], offset: int, data: bytes) -> None:
        engine = self._engine
        pending = [worker.start_update(mixes, flows, offset, data) for worker, mixes in self._with_mixes()]
        deadline = time.monotonic() + engine.config.progress_timeout_s
        while any(not update.done for update in pending):
            if time.monotonic() > deadline and all(w.alive for w in engine.workers):
                raise BusyError("update", engine.config.interface, "its packets do not complete")
            await asyncio.sleep(_POLL_S)

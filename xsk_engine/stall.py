"""A loop makes no progress: why, and what now? Judged away from the loop, in the worker's own thread or,
where that may not do what it takes, in one beside it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from xsk_engine import netdev as netdevs
from xsk_engine import privileges
from xsk_engine._ffi import native as ffi
from xsk_engine.errors import BrokenError, UnavailableError, XskError

if TYPE_CHECKING:
    from xsk_engine.binding import Binding
    from xsk_engine.config import EngineConfig
    from xsk_engine.worker import Worker
    from xsk_engine.xsk import Xsk

_PAUSE_TIMEOUT_S = 2.0
_LINK_POLL_S = 0.02
# How often it looks whether zero-copy has shown that it works. Lower: takes time; higher: has capabilities
# for longer.
_LOOK_S = 0.1
_REST_S = 10.0
_TO_BIND_ANEW = ("CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_NET_ADMIN")
"""a socket, its umem beyond the limit, its send buffer beyond the limit"""

Judge = Callable[["Worker", "Xsk"], int]
"""StallJudge.judge, of one engine"""


class StallJudge:
    """Waits for a link without carrier; moves all queues to copy mode when zero-copy has completed nothing at
    all; gives up otherwise."""

    def __init__(
        self, binding: Binding, interface: str, link_timeout_s: float, workers: Sequence[Worker]
    ) -> None:
        self._binding = binding
        self._interface = interface
        self._link_timeout_s = link_timeout_s
        self._workers = workers
        self._lock = threading.Lock()
        self._failure: XskError | None = None
        self._without_link: dict[Worker, tuple[int, float]] = {}
        """what each had completed when the link was first seen to be away, and until when it may be"""

    def judge(self, worker: Worker, stalled_on: Xsk) -> int:
        """ERROR_NONE: run on. Else the error to give up with. XskError: the fallback itself failed.
        `stalled_on`: the worker's socket while its loop ran."""
        if not self._has_carrier():
            return self._await_carrier(worker)
        self._without_link.pop(worker, None)
        with self._lock:
            if worker.xsk is not stalled_on:
                return ffi.ERROR_NONE  # another worker's judgement has moved this one too
            if self._failure is not None:
                raise self._failure  # or has tried to
            if not self._binding.may_fall_back or any(w.counters.completed_descs for w in self._workers):
                return ffi.ERROR_NO_PROGRESS
            return self._fall_back(worker, [w for w in self._workers if w is not worker])

    def _fall_back(self, worker: Worker, others: Sequence[Worker]) -> int:
        reason = f"{self._binding.reason}, but completed nothing, so copy"
        try:
            if not all(w.pause(_PAUSE_TIMEOUT_S) for w in others):
                return ffi.ERROR_NO_PROGRESS
            if any(w.counters.completed_descs for w in others):
                return ffi.ERROR_NO_PROGRESS  # in the meantime
            for each in self._workers:
                each.detach()
            try:
                self._binding.fall_back(reason, lambda: worker.called() == ffi.CALLED_TO_ABORT)
                for each, xsk in zip(self._workers, self._binding.xsks, strict=True):
                    each.attach(xsk)
            except XskError as error:
                self._failure = error
                for other in others:
                    other.fail(error)  # its rings are gone
                raise
            return ffi.ERROR_NONE
        finally:
            for other in others:
                other.resume()

    def _has_carrier(self) -> bool:
        try:
            device = netdevs.get(self._interface)
        except UnavailableError:
            return True  # gone: the next kick says so better
        return device.up and device.carrier

    def _await_carrier(self, worker: Worker) -> int:
        if worker.counters.state == ffi.LOOP_DRAINING:
            return ffi.ERROR_NO_PROGRESS  # a drain has its own deadline, and that was it
        completed, now = worker.counters.completed_descs, time.monotonic()
        since = self._without_link.get(worker)
        if since is None or since[0] != completed:
            since = self._without_link[worker] = completed, now + self._link_timeout_s
        while not self._has_carrier():
            if time.monotonic() > since[1]:
                return ffi.ERROR_LINK_DOWN
            if worker.called():
                return ffi.ERROR_NONE  # to serve it, and to be judged again, by the same deadline
            time.sleep(_LINK_POLL_S)
        self._without_link.pop(worker, None)
        return ffi.ERROR_NONE


class JudgeThread:
    """Judges in a thread of its own, for workers that have no right to what it takes: reading files, opening
    sockets. It has the capabilities for that while zero-copy `is_in_doubt`; with an `opener`, which has its
    own from its file, it may run that. judge() by any worker, close() when they have ended."""

    def __init__(self, judge: Judge, is_in_doubt: Callable[[], bool], *, opener: bool) -> None:
        self._judge = judge
        self._opener = opener
        self._is_in_doubt = is_in_doubt
        self._cases: queue.SimpleQueue[tuple[Worker, Xsk, Future[int]] | None] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="xsk-judge", daemon=True)
        self._thread.start()

    def judge(self, worker: Worker, stalled_on: Xsk) -> int:
        """As StallJudge's, which has the deadlines."""
        verdict: Future[int] = Future()
        self._cases.put((worker, stalled_on, verdict))
        while not verdict.done():
            wait([verdict], _LOOK_S)
            if not self._thread.is_alive() and not verdict.done() and not verdict.running():
                raise BrokenError(
                    "judge", repr(worker), f"the thread that judges has died: {self._failure!r}"
                )
        return verdict.result()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            self._failure = error

    def _serve(self) -> None:
        keeps = self._is_in_doubt()
        if keeps and self._opener:
            privileges.drop_but_for_programs()
        else:
            privileges.drop(_TO_BIND_ANEW if keeps else ())
        while True:
            with contextlib.suppress(queue.Empty):
                case = self._cases.get(timeout=_LOOK_S if keeps else _REST_S)
                if case is None:
                    return
                # One for each: who waits for his link holds up nobody else.
                threading.Thread(target=self._settle, args=case, name="xsk-verdict", daemon=True).start()
            if keeps and not self._is_in_doubt():
                keeps = False
                privileges.drop()

    def _settle(self, worker: Worker, stalled_on: Xsk, verdict: Future[int]) -> None:
        verdict.set_running_or_notify_cancel()
        try:
            verdict.set_result(self._judge(worker, stalled_on))
        except BaseException as error:
            verdict.set_exception(error)

    def close(self) -> None:
        """Idempotent."""
        self._cases.put(None)
        self._thread.join()


def make_judge(
    stack: contextlib.ExitStack, binding: Binding, config: EngineConfig, workers: Sequence[Worker]
) -> Judge:
    """For these workers, which may not be there yet; closed by the stack."""
    stalls = StallJudge(binding, config.interface, config.link_timeout_s, workers)
    if not config.sandbox and not (config.drop_privileges and binding.may_fall_back):
        return stalls.judge  # in the worker's own thread

    def is_in_doubt() -> bool:
        return binding.may_fall_back and not any(worker.counters.completed_descs for worker in workers)

    thread = JudgeThread(stalls.judge, is_in_doubt, opener=config.opener is not None)
    stack.callback(thread.close)
    return thread.judge

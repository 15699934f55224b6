"""A loop makes no progress: why, and what now? Judged in the worker's own thread, away from the loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xsk_engine import netdev as netdevs
from xsk_engine._ffi import native as ffi
from xsk_engine.errors import UnavailableError, XskError

if TYPE_CHECKING:
    from xsk_engine.binding import Binding
    from xsk_engine.worker import Worker
    from xsk_engine.xsk import Xsk

_PAUSE_TIMEOUT_S = 2.0
_LINK_POLL_S = 0.02


class StallJudge:
    """Waits for a link without carrier; moves all queues to copy mode when zero-copy has completed nothing at
    all; gives up otherwise."""

    def __init__(self, binding: Binding, interface: str, link_timeout_s: float) -> None:
        self._binding = binding
        self._interface = interface
        self._link_timeout_s = link_timeout_s
        self._lock = threading.Lock()
        self._failure: XskError | None = None

    def judge(self, worker: Worker, stalled_on: Xsk, workers: Sequence[Worker]) -> int:
        """ERROR_NONE: run on. Else the error to give up with. XskError: the fallback itself failed.
        `stalled_on`: the worker's socket while its loop ran."""
        if not self._has_carrier():
            return self._await_carrier(worker)
        with self._lock:
            if worker.xsk is not stalled_on:
                return ffi.ERROR_NONE  # another worker's judgement has moved this one too
            if self._failure is not None:
                raise self._failure  # or has tried to
            if not self._binding.may_fall_back or any(w.counters.completed_descs for w in workers):
                return ffi.ERROR_NO_PROGRESS
            return self._fall_back(worker, [w for w in workers if w is not worker], workers)

    def _fall_back(self, worker: Worker, others: Sequence[Worker], workers: Sequence[Worker]) -> int:
        reason = f"{self._binding.reason}, but completed nothing, so copy"
        try:
            if not all(w.pause(_PAUSE_TIMEOUT_S) for w in others):
                return ffi.ERROR_NO_PROGRESS
            if any(w.counters.completed_descs for w in others):
                return ffi.ERROR_NO_PROGRESS  # in the meantime
            for each in workers:
                each.detach()
            try:
                self._binding.fall_back(reason, lambda: worker.called() == ffi.CALLED_TO_ABORT)
                for each, xsk in zip(workers, self._binding.xsks, strict=True):
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
        deadline = time.monotonic() + self._link_timeout_s
        while not self._has_carrier():
            if worker.called():
                return ffi.ERROR_NONE  # to serve it, and to be judged again
            if time.monotonic() > deadline:
                return ffi.ERROR_LINK_DOWN
            time.sleep(_LINK_POLL_S)
        return ffi.ERROR_NONE

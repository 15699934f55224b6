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

    def judge(self, worker: Worker, workers: Sequence[Worker]) -> int:
        """ERROR_NONE: run on. Else the error to give up with. XskError: the fallback itself failed."""
        stalled_on = worker.xsk
        if not self._has_carrier():
            return self._await_carrier(worker)
        with self._lock:
            if worker.xsk is not stalled_on:
                return ffi.ERROR_NONE  # another worker's judgement has moved this one too
            if worker.failure():
                return ffi.ERROR_NO_PROGRESS  # or has tried to
            if not self._binding.may_fall_back or any(w.counters.completed_descs for w in workers):
                return ffi.ERROR_NO_PROGRESS
            return self._fall_back([w for w in workers if w is not worker], workers)

    def _fall_back(self, others: Sequence[Worker], workers: Sequence[Worker]) -> int:
        reason = f"{self._binding.reason}, but completed nothing, so copy"
        try:
            if not all(w.pause(_PAUSE_TIMEOUT_S) for w in others):
                return ffi.ERROR_NO_PROGRESS
            for worker in workers:
                worker.detach()
            try:
                self._binding.fall_back(reason)
            except XskError as error:
                for worker in others:
                    worker.fail(error)  # its rings are gone
                raise
            for worker, xsk in zip(workers, self._binding.xsks, strict=True):
                worker.attach(xsk)
            return ffi.ERROR_NONE
        finally:
            for worker in others:
                worker.resume()

    def _has_carrier(self) -> bool:
        try:
            device = netdevs.get(self._interface)
        except UnavailableError:
            return True  # gone: the next kick says so better
        return device.up and device.carrier

    def _await_carrier(self, worker: Worker) -> int:
        deadline = time.monotonic() + self._link_timeout_s
        while not self._has_carrier():
            if worker.hurried.wait(_LINK_POLL_S):
                return ffi.ERROR_NONE  # to be stopped
            if time.monotonic() > deadline:
                return ffi.ERROR_LINK_DOWN
        return ffi.ERROR_NONE

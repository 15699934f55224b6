"""The native object that checks what arrived, and its figures."""

from __future__ import annotations

import ctypes
import errno
from ctypes import c_uint32, c_void_p
from typing import Any

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.arrivals import BUCKETS, Arrivals, FlowArrivals, Latency, buckets_of
from xsk_engine.errors import ClosedError

_BLOCK = 256
"""flows read in one call; their histograms are 2.6 kB each"""
_SAME = [name for name in FlowArrivals.__dataclass_fields__ if name != "latency"]
_TOTALS = [name for name in Arrivals.__dataclass_fields__ if name not in ("flow_count", "latency", "flows")]


class Checker:
    """Counts frames per flow, by the signature at their end (``signature: true`` of a flow). One thread at a
    time checks: a receive loop that was given ``handle``, or :meth:`frame`. Any thread reads. Memory: 4 KiB
    for each flow that arrives.

        checker = Checker(max_flows=10_000)
        checker.frame(frame, time.clock_gettime_ns(time.CLOCK_TAI))
        print(checker.read().received_packets)
        checker.close()
    """

    def __init__(self, max_flows: int = 10_000, *, reflected: bool = False) -> None:
        """Flow ids 0 to ``max_flows`` - 1 are told apart. ``reflected``: of packets that ``sink --reflect``
        has sent back, and no others. ValueError: not from 1 to 2^32 - 1; XskError with ENOMEM."""
        if not 1 <= max_flows < 1 << 32:
            raise ValueError(f"max_flows: {max_flows} is not between 1 and 4294967295")
        config = ffi.CheckConfig(max_flows=max_flows, flags=ffi.CHECK_REFLECTED if reflected else 0)
        self._handle: c_void_p | None = ffi.create(native.check_create, ctypes.byref(config))

    @property
    def handle(self) -> c_void_p:
        """The native ``struct xske_check``, for receive loops. ClosedError."""
        if self._handle is None:
            raise ClosedError("check", "checker", "it is closed", errno=errno.EBADF)
        return self._handle

    def frame(self, frame: bytes, arrived_ns: int, *, csum_partial: bool = False) -> None:
        """One frame without FCS that arrived at ``arrived_ns`` of CLOCK_TAI. ``csum_partial``: its receiver
        says that the transport checksum is not finished. ClosedError."""
        flags = ffi.CHECK_CSUM_PARTIAL if csum_partial else 0
        native.check_frame(self.handle, frame, len(frame), arrived_ns, flags)

    def read(self, *, flows: bool = True, histograms: bool = True) -> Arrivals:
        """What has been checked so far. ``flows``: each of them, too (some 20 us per flow);
        ``histograms``: their latencies in buckets, without which they have no percentiles. While a thread
        checks, figures may be a packet apart from each other. ClosedError."""
        counters, latency = ffi.CheckCounters(), ffi.Latency()
        each = self._flows(histograms) if flows else []
        native.check_read(self.handle, ctypes.byref(counters), ctypes.byref(latency))
        return Arrivals(
            **{name: getattr(counters, name) for name in _TOTALS},
            flow_count=counters.flows,
            latency=Latency(
                latency.count, latency.sum_ns, latency.min_ns, latency.max_ns, buckets_of(latency.bucket)
            ),
            flows=tuple(sorted(each, key=lambda flow: flow.flow_id)),
        )

    def _flows(self, histograms: bool) -> list[FlowArrivals]:
        pages = (ffi.CheckFlow * _BLOCK)()
        buckets = (c_uint32 * (_BLOCK * BUCKETS))() if histograms else None
        found: list[FlowArrivals] = []
        n = _BLOCK
        while n == _BLOCK:
            n = native.check_flows(self.handle, len(found), _BLOCK, pages, buckets)
            for i in range(n):
                counts = buckets[i * BUCKETS : (i + 1) * BUCKETS] if buckets is not None else ()
                found.append(_flow(pages[i], counts))
        return found

    def close(self) -> None:
        """When no thread checks or reads. Idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            native.check_destroy(handle)


def _flow(page: Any, counts: Any) -> FlowArrivals:
    return FlowArrivals(
        **{name: getattr(page, name) for name in _SAME},
        latency=Latency(
            page.latency_count,
            page.latency_sum_ns,
            page.latency_min_ns,
            page.latency_max_ns,
            buckets_of(counts),
        ),
    )

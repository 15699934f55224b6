"""Has the kernel done with these frags? The answer as an object."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Generator
from ctypes import c_void_p
from typing import TYPE_CHECKING

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.errors import DeadlineError, XskError
from xsk_engine.single import Single
from xsk_engine.waiting import awaited, check_timeout, wait_until

if TYPE_CHECKING:
    import numpy


class Tracker(Single):
    """What ``post(frags, track=True)`` returns. ``done`` and ``wait`` from any thread; ``await tracker`` from
    the event loop that the engine was opened in with :func:`aopen`.

    Complete means: the kernel has done with the memory. On the wire it may be neither before nor after
    (a driver in copy mode completes when it has let go of its copy).

        tracker = endpoint.post(frags, track=True)
        tracker.wait(1.0)
        print(tracker.timestamps_ns)
    """

    def __init__(
        self,
        n: int,
        why_lost: Callable[[], XskError],
        is_over: Callable[[], bool],
        changed: Callable[[float], asyncio.Future[None]] | None,
    ) -> None:
        self._handle: c_void_p | None = ffi.create(native.tracker_create, n)
        self._n = n
        self._why_lost = why_lost
        self._is_over = is_over
        self._changed = changed

    @property
    def handle(self) -> c_void_p | None:
        """The native object; for who posts."""
        return self._handle

    def close(self) -> None:
        """No more is posted with it; by who posts."""
        native.tracker_close(self._handle)

    def __len__(self) -> int:
        """How many packets it was made for."""
        return self._n

    @property
    def done(self) -> bool:
        """All of them have completed. BrokenError or ClosedError: some never will."""
        state = native.tracker_state(self._handle)
        if state == ffi.TRACKER_PENDING and self._is_over():
            state = native.tracker_state(self._handle)
            if state == ffi.TRACKER_PENDING:  # posted as the loop ended, which has not seen it
                state = ffi.TRACKER_LOST
        if state == ffi.TRACKER_LOST:
            raise self._why_lost()
        return bool(state == ffi.TRACKER_DONE)

    def wait(self, timeout: float = 5.0) -> None:
        """Until it is done, at most ``timeout`` seconds: DeadlineError, which leaves it as it is.

        Errors of ``done``, too. Any thread.

            endpoint.post(frags, track=True).wait(1.0)
        """
        wait_until(lambda: self.done, check_timeout("timeout", timeout), lambda: self._late(timeout))

    def _late(self, timeout: float) -> XskError:
        import errno

        return DeadlineError(
            "tracker.wait",
            f"{self._n} packets, {timeout:g} s",
            "not all have completed; is the link up?",
            errno=errno.ETIMEDOUT,
        )

    def __await__(self) -> Generator[object, None, None]:
        return awaited(lambda: self.done, self._changed).__await__()

    @property
    def timestamps_ns(self) -> numpy.ndarray:
        """When each packet left, in ns of CLOCK_TAI, as the kernel says: uint64 of shape (n,), 0 where it
        does not (before it is done, or for an endpoint that was not opened with ``timestamps=True``)."""
        import numpy

        stamps = native.tracker_stamps(self._handle)
        address = ctypes.cast(stamps, c_void_p).value
        assert address is not None
        return numpy.frombuffer(ctypes.string_at(address, 8 * self._n), dtype=numpy.uint64)

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", None), None
        if handle is not None:
            native.tracker_destroy(handle)

"""Many payloads or frags on their way through an endpoint, as far as they have come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xsk_engine._ffi.native import long
from xsk_engine.errors import ClosedError
from xsk_engine.frag import Frag, Frags, pointer_to, rows_of

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from xsk_engine.endpoint import Endpoint
    from xsk_engine.tracker import Tracker


class Batch:
    """Payloads in one block of memory. ValueError, TypeError for what is no such thing."""

    def __init__(
        self, payloads: Sequence[Any] | numpy.ndarray, lengths: numpy.typing.ArrayLike | None
    ) -> None:
        import numpy

        self.sent = 0
        self._at = 0
        with self.telling():
            if isinstance(payloads, numpy.ndarray):
                self._take_array(payloads, lengths)
            else:
                self._take_list(payloads, lengths)
        self._start = self._bytes.__array_interface__["data"][0]
        self._lens_start = self._lens.__array_interface__["data"][0]

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Whatever is raised says how many were sent before."""
        try:
            yield
        except BaseException as error:
            error.sent = self.sent  # type: ignore[attr-defined]
            raise

    def _take_array(self, array: numpy.ndarray, lengths: numpy.typing.ArrayLike | None) -> None:
        import numpy

        if array.dtype != numpy.uint8 or array.ndim != 2:
            raise TypeError(
                f"payloads: an array of {array.dtype} with {array.ndim} dimensions; uint8 with 2 is needed"
            )
        n, size = array.shape
        if n and size and (array.strides[1] != 1 or array.strides[0] < size):
            array = numpy.ascontiguousarray(array)
        lens = numpy.full(n, size) if lengths is None else numpy.asarray(lengths)
        if lens.dtype.kind not in "iu":
            raise TypeError(f"lengths: numbers of {lens.dtype}; integers are needed")
        lens = lens.copy()  # nobody changes them meanwhile
        if lens.shape != (n,) or (n and not (lens.min() >= 0 and lens.max() <= size)):
            raise ValueError(f"lengths: {n} numbers from 0 to {size} are needed")
        self._bytes, self._stride = array, array.strides[0] if size else 0
        self._lens = numpy.ascontiguousarray(lens, dtype=numpy.uint32)
        self.left = n

    def _take_list(self, payloads: Sequence[Any], lengths: numpy.typing.ArrayLike | None) -> None:
        import numpy

        if lengths is not None:
            raise TypeError("lengths: only with an array; slice the payloads of a list")
        if isinstance(payloads, (bytes, bytearray, memoryview, str)):
            raise TypeError("payloads: a list of them, or a 2-D uint8 array; send() takes one")
        try:
            payloads = list(payloads)
            if not all(type(payload) is bytes for payload in payloads):
                payloads = [bytes(memoryview(payload)) for payload in payloads]
        except TypeError as error:
            raise TypeError(f"payloads: {error}") from None
        joined = b"".join(payloads)
        n = len(payloads)
        lens = numpy.fromiter(map(len, payloads), dtype=numpy.uint32, count=n)
        self._bytes, self._stride = numpy.frombuffer(joined or b"\0", dtype=numpy.uint8), 0
        self._lens = lens
        self.left = n

    def send(self, endpoint: Endpoint, most: int) -> int:
        """How many of the next `most` were taken, or a negative errno."""
        n = min(most, self.left)
        with endpoint.umem.inside.here(), endpoint.using("send_many"):
            result = int(
                long.endpoint_send_many(
                    endpoint.handle,
                    endpoint.head,
                    self._start + self._at,
                    self._stride,
                    self._lens_start + 4 * self.sent,
                    n,
                )
            )
        if result > 0:
            if self._stride:
                self._at += self._stride * result
            else:
                self._at += int(self._lens[self.sent : self.sent + result].sum())
            self.sent += result
            self.left -= result
        return result

    def failed(self, endpoint: Endpoint, result: int) -> Exception:
        """The error."""
        return endpoint.failed("send_many", result, int(self._lens[self.sent]))


class Post:
    """Frags on their way; what has not gone stays held."""

    def __init__(
        self,
        endpoint: Endpoint,
        frags: Frags | Frag | Sequence[Frag],
        make_tracker: Callable[[int], Tracker] | None,
    ) -> None:
        many = [frags] if isinstance(frags, (Frags, Frag)) else list(frags)
        self._parts: list[tuple[Any, Any]] = []
        """(hold, rows still to be posted)"""
        self.left = 0
        for one in many:
            if not isinstance(one, (Frags, Frag)):
                raise TypeError(f"frags: {type(one).__name__}; alloc() makes them")
            self._add(endpoint, one)
        self.tracker = make_tracker(self.left) if make_tracker is not None else None

    def _add(self, endpoint: Endpoint, frags: Frags | Frag) -> None:
        import numpy

        hold, where = rows_of(frags)
        if hold.umem is not endpoint.umem:
            raise ValueError("frags: of another engine")
        rows = numpy.arange(where.start, where.stop)[hold.held[where]]
        if not len(rows):
            raise ClosedError("post", repr(frags), "they were posted or released")
        self._parts.append((hold, rows))
        self.left += len(rows)

    def run(self, endpoint: Endpoint) -> int:
        """How many of the next were taken, or a negative errno."""
        hold, rows = self._parts[0]
        tracker = self.tracker.handle if self.tracker is not None else None
        with endpoint.umem.inside.here(), endpoint.using("post"):
            if not hold.held[rows].all():
                raise ClosedError("post", f"{len(rows)} frags", "some were posted or released meanwhile")
            descs, before = hold.descs[rows], endpoint.sent_so_far()
            # From here they are the loop's, until it says how many it took: a signal's handler may raise
            # when the call has returned, and what the loop has must not go back.
            hold.held[rows], taken = False, len(rows)
            try:
                result = int(
                    long.endpoint_post(endpoint.handle, endpoint.head, pointer_to(descs), len(rows), tracker)
                )
                taken = max(result, 0)
            except BaseException:
                taken = endpoint.sent_so_far() - before
                raise
            finally:
                hold.held[rows[taken:]] = True
                hold.spent(rows[:taken])
        if result > 0:
            self.left -= result
            if result == len(rows):
                self._parts.pop(0)
            else:
                self._parts[0] = (hold, rows[result:])
        return result

    def close(self) -> None:
        """No more of them."""
        if self.tracker is not None:
            self.tracker.close()

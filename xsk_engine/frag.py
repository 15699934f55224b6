"""Frags as an application holds them: memory of the umem to be filled in place and posted."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from operator import index
from typing import TYPE_CHECKING, Any, overload

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.errors import ClosedError
from xsk_engine.single import Single
from xsk_engine.umem import Umem

if TYPE_CHECKING:
    import numpy
    import numpy.typing


class Hold(Single):
    """References on n frags, and which of them are still there. Dropped without posting, they go back by
    themselves, with a ResourceWarning."""

    def __init__(self, umem: Umem, addrs: Any, front: int, size: int, what: str) -> None:
        import numpy

        self.umem = umem
        self.front = front
        """bytes of header before each payload"""
        self.size = size
        self.descs = numpy.zeros(len(addrs), dtype=[("addr", "u8"), ("len", "u4"), ("options", "u4")])
        """native struct xske_desc: where each frame is, and how long"""
        self.descs["addr"] = addrs
        self.descs["len"] = front + size
        self.held = numpy.ones(len(addrs), dtype=bool)
        self.views: dict[int, weakref.ref[memoryview]] = {}
        self.owner: object = None
        """the engine, which lives as long as they do"""
        self._what = what

    def spent(self, rows: Any) -> None:
        """These are somebody else's now."""
        self.held[rows] = False
        if self.views:
            for row in [row for row in self.views if not self.held[row]]:
                view = self.views.pop(row)()
                if view is not None:
                    with contextlib.suppress(BufferError):  # something was derived from it
                        view.release()

    def release(self, rows: Any) -> None:
        """Gives those that are held back."""
        import numpy

        mine = numpy.zeros(len(self.held), dtype=bool)
        mine[rows] = True
        descs = self.descs[mine & self.held]
        self.spent(rows)
        first, n = pointer_to(descs), len(descs)  # before the handle is read: a handler may close the umem
        with self.umem.in_use:
            if not n or self.umem.handle is None:
                return
            if native.frags_unref(self.umem.handle, first, n):
                self.umem.wake_owners()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # By then modules' names are None.
        if is_finalizing() or not hasattr(self, "views") or self.umem.handle is None:
            return
        left = int(self.held.sum())
        if not left:
            return
        warnings.warn(f"{left} frags of {self._what} were never posted", ResourceWarning, stacklevel=2)
        self.release(slice(None))


def pointer_to(descs: numpy.ndarray) -> Any:
    """Of an array of native descs."""
    return ctypes.cast(descs.__array_interface__["data"][0], ctypes.POINTER(ffi.Desc))


class Frag:
    """One frag: ``payload`` is its memory. Whoever holds it may write, one thread at a time.

    Posting or releasing uses it up: then its memoryview is released, and everything raises ClosedError. A
    frag that is dropped goes back by itself, with a ResourceWarning.

        frag = endpoint.alloc(1, 100)[0]
        frag.payload[:5] = b"hello"
        endpoint.post(frag)
    """

    __slots__ = ("_hold", "_row")

    def __init__(self, hold: Hold, row: int) -> None:
        self._hold = hold
        self._row = row

    def _held(self) -> Hold:
        if not self._hold.held[self._row]:
            raise ClosedError("frag", f"addr {self.addr}", "it was posted or released")
        if self._hold.umem.handle is None:
            raise ClosedError("frag", f"addr {self.addr}", "its engine is closed")
        return self._hold

    @property
    def addr(self) -> int:
        """Offset of its frame in the umem."""
        return int(self._hold.descs["addr"][self._row])

    @property
    def payload(self) -> memoryview:
        """The writable bytes behind the header, as many as alloc() was asked for. Always the same memoryview;
        views derived from it cannot be revoked when the frag is posted, so do not keep them. ClosedError when
        it is gone."""
        hold = self._held()
        known = hold.views.get(self._row)
        view = known() if known is not None else None
        if view is None:
            view = hold.umem.area.view(self.addr + hold.front, hold.size)
            hold.views[self._row] = weakref.ref(view)
        return view

    @property
    def frame(self) -> memoryview:
        """The whole frame: header and payload. The header may be changed; lengths and checksums are written
        when it is posted. ClosedError when it is gone."""
        hold = self._held()
        return hold.umem.area.view(self.addr, hold.front + hold.size)

    @property
    def length(self) -> int:
        """Bytes of payload that are sent; at first all. ValueError for more, or less than 0."""
        return int(self._held().descs["len"][self._row]) - self._hold.front

    @length.setter
    def length(self, value: int) -> None:
        if not 0 <= index(value) <= self._held().size:
            raise ValueError(f"length: {value} is not in 0 to {self._hold.size}")
        self._hold.descs["len"][self._row] = self._hold.front + value

    def clone(self) -> Frag:
        """A second reference on the same bytes, to be posted for itself. Who has clones must not write while
        one of them may be inflight. ClosedError when it is gone.

            frag = endpoint.alloc(1, 100)[0]
            endpoint.post([frag.clone(), frag])
        """
        with self._hold.umem.inside.here(), self._hold.umem.in_use:
            hold, addr = self._held(), self.addr
            native.frag_ref(hold.umem.handle, addr)
        twin = Hold(hold.umem, [self.addr], hold.front, hold.size, "a clone")
        twin.owner = hold.owner
        twin.descs["len"] = hold.descs["len"][self._row]
        return Frag(twin, 0)

    def release(self) -> None:
        """Gives it back unposted. Idempotent.

        One thread at a time, as all of a frag.

            frags[0].release()
        """
        self._hold.release(slice(self._row, self._row + 1))

    def __repr__(self) -> str:
        state = "held" if self._hold.held[self._row] else "gone"
        return f"<Frag addr={self.addr} size={self._hold.size} {state}>"


class Frags:
    """A sequence of n frags of ``size`` bytes, the payloads at one distance from each other: ``array`` is all
    of them as numpy sees them. Slices share the frags. As Frag in everything else.

        frags = endpoint.alloc(64, 1000)
        frags.array[:] = 7
        endpoint.post(frags)
    """

    __slots__ = ("_first", "_hold", "_n", "_pitch")

    def __init__(self, hold: Hold, pitch: int, first: int = 0, n: int | None = None) -> None:
        self._hold = hold
        self._pitch = pitch
        self._first = first
        self._n = len(hold.held) if n is None else n

    @property
    def size(self) -> int:
        """Bytes of each payload."""
        return self._hold.size

    @property
    def _rows(self) -> slice:
        return slice(self._first, self._first + self._n)

    @property
    def held(self) -> numpy.ndarray:
        """Which of them are still to be posted: bool of shape (n,), a copy."""
        held: numpy.ndarray = self._hold.held[self._rows].copy()
        return held

    @property
    def array(self) -> numpy.ndarray:
        """The payloads: writable uint8 of shape (n, size), directly in the umem; no copy. ClosedError when
        one of them was posted or released. An array made earlier cannot be revoked: writing to it after the
        post changes what is sent, or somebody else's packets. ``open(debug=True)`` finds who does."""
        import numpy

        hold = self._hold
        if not hold.held[self._rows].all() or hold.umem.handle is None:
            raise ClosedError(
                "frags",
                f"{self._n} of {hold.size} bytes",
                "some were posted or released, or the engine is closed",
            )
        if not self._n:
            return numpy.empty((0, hold.size), dtype=numpy.uint8)
        start = int(hold.descs["addr"][self._first]) + hold.front
        view = hold.umem.area.view(start, (self._n - 1) * self._pitch + hold.size)
        shape, strides = (self._n, hold.size), (self._pitch, 1)
        array: numpy.ndarray = numpy.ndarray(shape, numpy.uint8, view, strides=strides)
        return array

    @property
    def lengths(self) -> numpy.ndarray:
        """Bytes of each payload that are sent: uint32 of shape (n,), a copy; set it whole. ValueError for
        lengths outside 0 to size."""
        lengths: numpy.ndarray = self._hold.descs["len"][self._rows] - self._hold.front
        return lengths

    @lengths.setter
    def lengths(self, values: numpy.typing.ArrayLike) -> None:
        import numpy

        lengths = numpy.broadcast_to(numpy.asarray(values), (self._n,))
        if lengths.dtype.kind not in "iu":
            raise TypeError(f"lengths: numbers of {lengths.dtype}; integers are needed")
        if self._n and not (lengths.min() >= 0 and lengths.max() <= self._hold.size):
            raise ValueError(f"lengths: not all in 0 to {self._hold.size}")
        self._hold.descs["len"][self._rows] = lengths + self._hold.front

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, at: int) -> Frag: ...

    @overload
    def __getitem__(self, at: slice) -> Frags: ...

    def __getitem__(self, at: int | slice) -> Frag | Frags:
        """A Frag, or the Frags of a slice (without a step)."""
        if isinstance(at, slice):
            start, stop, step = at.indices(self._n)
            if step != 1:
                raise ValueError("frags: a slice of them has no step")
            return Frags(self._hold, self._pitch, self._first + start, max(stop - start, 0))
        if not -self._n <= at < self._n:
            raise IndexError(f"frags: {at} of {self._n}")
        return Frag(self._hold, self._first + at % self._n)

    def __iter__(self) -> Iterator[Frag]:
        return (Frag(self._hold, self._first + i) for i in range(self._n))

    def release(self) -> None:
        """Gives those that are left back unposted. Idempotent.

        One thread at a time, as all of them.

            frags.release()
        """
        self._hold.release(self._rows)

    def __repr__(self) -> str:
        return f"<Frags n={self._n} size={self._hold.size} held={int(self.held.sum())}>"


def rows_of(frags: Frags | Frag) -> tuple[Hold, slice]:
    """For who posts them."""
    if isinstance(frags, Frag):
        return frags._hold, slice(frags._row, frags._row + 1)
    return frags._hold, frags._rows

"""One thread per txq: a Python thread inside one long native call."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from ctypes import byref, c_uint32, c_void_p
from typing import TYPE_CHECKING, Any

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.libc import new_eventfd
from xsk_engine._ffi.native import long, native
from xsk_engine.capture import Capture
from xsk_engine.errors import BrokenError, BusyError, ClosedError, UnavailableError, XskError
from xsk_engine.loopfailure import loop_failure
from xsk_engine.mix import Mixes
from xsk_engine.mixprogram import MixProgram, PaceProgram
from xsk_engine.stats import Snapshot
from xsk_engine.trace import Trace
from xsk_engine.umem import Umem
from xsk_engine.waiting import pauses
from xsk_engine.xsk import Xsk

if TYPE_CHECKING:
    import numpy

_PROBE_TIMEOUT_NS = 20_000_000

# A Snapshot's figures stand in the counter page in the same order; tests/ffi compares the names.
_WORDS = struct.Struct(f"{len(ffi.Counters._fields_)}Q")
_FIRST = [field[0] for field in ffi.Counters._fields_].index("submitted_packets")
_FIGURES = len(Snapshot.__dataclass_fields__) - 1


class Worker:
    """The txq of one xsk, its arena and its loop, and the thread that runs them.

    start() and close() in one thread; commands and ``counters`` from any.
    """

    def __init__(
        self,
        umem: Umem,
        xsk: Xsk,
        index: int,
        event_fd: int,
        *,
        interface: str,
        cpu: int | None,
        link_timeout_s: float,
        progress_timeout_s: float,
        drain_timeout_s: float,
        on_stall: Callable[[Worker, Xsk], int],
        capture: Capture | None = None,
        at_start: Callable[[], None] = lambda: None,
    ) -> None:
        self.xsk = xsk
        self.index = index
        self.counters = ffi.Counters()
        self.gaps = ffi.Gaps()
        self._name = f"{interface}, queue {xsk.queue}"
        self._umem = umem
        self._cpu = cpu
        self._on_stall = on_stall
        self._at_start = at_start
        # Who holds it up may change sockets under the loop once its thread stands outside.
        self._turnstile = threading.Condition()
        self._held_up = False
        self._outside = True
        self._command_lock = threading.Lock()
        self._event_fd = event_fd
        self._failure: XskError | None = None
        self._mixes: list[Mixes] = []
        # Commands whose memory is the loop's until they are done, and what they name.
        self._pending: list[tuple[Any, Mixes]] = []
        # What has ended, and how many commands may name it.
        self._dying: list[tuple[int, Mixes]] = []
        self._thread: threading.Thread | None = None
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.txq = ffi.create(native.txq_create, umem.handle, byref(self._txq_config(xsk)))
            stack.callback(native.txq_destroy, self.txq)
            arena_config = ffi.ArenaConfig(umem.area.length // umem.chunk_size, index, ffi.ARENA_LOOP_OWNED)
            self.arena = ffi.create(native.arena_open, umem.handle, byref(arena_config))
            stack.callback(native.arena_close, self.arena)
            self._wake_fd = new_eventfd()
            stack.callback(os.close, self._wake_fd)
            loop_config = ffi.LoopConfig(
                txq=self.txq,
                arena=self.arena,
                counters=ctypes.pointer(self.counters),
                gaps=ctypes.pointer(self.gaps),
                capture=capture.handle if capture is not None else None,
                link_timeout_ns=int(link_timeout_s * 1e9),
                progress_timeout_ns=int(progress_timeout_s * 1e9),
                drain_timeout_ns=int(drain_timeout_s * 1e9),
                wake_fd=self._wake_fd,
                event_fd=event_fd,
            )
            self.loop = ffi.create(native.loop_create, byref(loop_config))
            stack.callback(native.loop_destroy, self.loop)
            stack.callback(self._destroy_mixes)
            self._stack = stack.pop_all()

    def _txq_config(self, xsk: Xsk) -> ffi.TxqConfig:
        return ffi.TxqConfig(xsk.tx, xsk.cq, None, None, xsk.fd, self.index, 1, 0)

    def probe_invalid(self) -> None:
        """How does this kernel treat an invalid desc? Before start()."""
        try:
            result = native.txq_probe_invalid(self.txq, _PROBE_TIMEOUT_NS)
        except OSError as error:
            raise UnavailableError(
                "sendto",
                self._name,
                "the kernel takes no descs; see xsk-engine doctor",
                errno=error.errno,
            ) from None
        self.xsk.reset_statistics(invalid_to_come=result == ffi.PROBE_UNSEEN)

    def start(self) -> None:
        """Starts the thread; it idles until a flow or an endpoint gives it work."""
        self._thread = threading.Thread(target=self._run, name=f"xsk-{self.xsk.queue}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._cpu is not None:
                os.sched_setaffinity(0, {self._cpu})
            self._at_start()
            self._run_loop()
        except Exception as error:  # whatever it is: who waits for the loop must hear of its end
            number = getattr(error, "errno", None)
            ran = self.counters.state != ffi.LOOP_NEW
            what = f"its thread has died: {error!r}" if ran else f"the loop did not start: {error!r}"
            where = self._name if self._cpu is None else f"{self._name}, cpu {self._cpu}"
            self._failure = BrokenError("worker", where, what, errno=number)
            native.loop_give_up(self.loop, ffi.ERROR_NO_PROGRESS)
            with contextlib.suppress(OSError):  # if it had no loop to say so itself
                os.write(self._event_fd, (1).to_bytes(8, sys.byteorder))

    def _run_loop(self) -> None:
        while True:
            with self._turnstile:
                self._turnstile.wait_for(lambda: not self._held_up)  # who holds it up lets go in a finally
                self._outside = False
                xsk = self.xsk
            try:
                if self._failure:
                    native.loop_give_up(self.loop, ffi.ERROR_NO_PROGRESS)
                    return
                state = native.loop_run(self.loop)
            finally:
                with self._turnstile:
                    self._outside = True
                    self._turnstile.notify_all()
            if state == ffi.LOOP_STALLED:
                self._settle_stall(xsk)
            elif state in (ffi.LOOP_STOPPED, ffi.LOOP_FAILED):
                return
            elif state != ffi.LOOP_PAUSED:
                raise RuntimeError(f"loop_run returned {state}")

    def called(self) -> int:
        """NOT_CALLED, CALLED_BY_COMMAND or CALLED_TO_ABORT; in its own thread, away from the loop."""
        return int(native.loop_called(self.loop))

    def _settle_stall(self, xsk: Xsk) -> None:
        try:
            verdict = self._on_stall(self, xsk)
        except XskError as error:
            self._failure = error  # the next turn gives up
        except Exception as error:  # whatever it is: a loop that nobody ends would be waited for
            self._failure = BrokenError("stall", self._name, repr(error), errno=getattr(error, "errno", None))
        else:
            if verdict != ffi.ERROR_NONE:
                native.loop_give_up(self.loop, verdict)

    @property
    def outside(self) -> bool:
        """Its thread is not in the loop, which answers no command until it is."""
        return self._outside

    # -- moving to another socket, called by the thread of a stalled worker --------------------------------

    def pause(self, timeout_s: float) -> bool:
        """Its thread leaves the loop and waits for resume(); False when it does not within the timeout."""
        with self._turnstile:
            self._held_up = True
            if self._outside:
                return True
        with contextlib.suppress(ClosedError):
            self.command(ffi.PAUSE)
        with self._turnstile:
            return self._turnstile.wait_for(lambda: self._outside, timeout_s)

    def resume(self) -> None:
        """Lets go; idempotent."""
        with self._turnstile:
            self._held_up = False
            self._turnstile.notify_all()

    def detach(self) -> None:
        """Keeps what is inflight, before the socket is closed. Nothing may have completed on it."""
        native.txq_detach(self.txq)

    def attach(self, xsk: Xsk) -> None:
        """Submits it again on another socket."""
        native.txq_attach(self.txq, byref(self._txq_config(xsk)))
        self.xsk = xsk

    def fail(self, error: XskError) -> None:
        """It ends with this error when it is resumed."""
        self._failure = error

    # -- commands ------------------------------------------------------------------------------------------

    def load_mixes(self, programs: Sequence[MixProgram], trace: Trace | None = None) -> Mixes:
        """Makes native objects of them, which live as long as the worker."""
        mixes = Mixes(self._umem, programs, trace)
        self._mixes.append(mixes)
        return mixes

    def start_mixes(self, mixes: Mixes) -> None:
        """Hands them to the loop, which copies their templates into the umem."""
        self.command(ffi.START_MIX, mixes.handle)

    def start_update(self, mixes: Mixes, flows: Sequence[int], offset: int, data: bytes) -> Any:
        """Has the loop change bytes of these flows' templates; ``done`` of what comes back becomes 1. One
        at a time."""
        update = mixes.update(flows, offset, data)
        self.command(ffi.UPDATE, ctypes.cast(ctypes.pointer(update), c_void_p), (update, mixes))
        return update

    def stop_mixes(self, mixes: Mixes) -> None:
        """They end with the loop's next turn."""
        with contextlib.suppress(ClosedError):
            self.command(ffi.STOP_MIX, mixes.handle)

    def forget_mixes(self, mixes: Mixes) -> None:
        """They have ended; freed when no command names them any more."""
        with self._command_lock:
            if mixes in self._mixes:
                self._mixes.remove(mixes)
                self._dying.append((self._commands()[0], mixes))
            self._bury()

    def _commands(self) -> tuple[int, int]:
        """Given, and carried out."""
        done = c_uint32()
        return int(native.loop_commands(self.loop, byref(done))), done.value

    def hears(self) -> Callable[[], bool]:
        """Of the commands so far: has the loop carried them out?"""
        last, _ = self._commands()
        return lambda: self._has_done(last)

    def _has_done(self, last: int) -> bool:
        """So many of them, which are counted modulo 2^32."""
        return (self._commands()[1] - last) % (1 << 32) < 1 << 31

    def _bury(self) -> None:
        self._pending = [one for one in self._pending if not one[0].done]
        named = [mixes for _, mixes in self._pending]
        for last, mixes in list(self._dying):
            if self._has_done(last) and mixes not in named:
                self._dying.remove((last, mixes))
                mixes.close()

    def raise_refused(self, mixes: Mixes) -> None:
        """BrokenError when one of them could not start; after they have ended."""
        number = mixes.error
        if number:
            text = "no chunks for its templates; use a larger umem (--umem-mb)"
            raise BrokenError("start flow", self._name, text, errno=number)

    def repace(self, mixes: Mixes, at: int, pace: PaceProgram) -> None:
        """Another pace for the program at this place in what was loaded."""
        command = mixes.repace(at, pace)
        self.command(ffi.REPACE, ctypes.cast(ctypes.pointer(command), c_void_p), (command, mixes))

    def command(self, op: int, target: c_void_p | None = None, kept: tuple[Any, Mixes] | None = None) -> None:
        """Any thread. `kept`: what the loop reads until its ``done``. ClosedError when the loop has ended,
        BusyError when a thousand commands wait."""
        with self._umem.inside.here(), self._command_lock:  # a command together with what it needs
            if kept is not None:  # first: when the call has returned, a signal's handler may raise
                self._pending.append(kept)
            number = -int(long.loop_command(self.loop, op, target))
            if number and kept is not None:
                self._pending.remove(kept)
        if number == errno.EPIPE:
            raise ClosedError("command", self._name, "its loop has ended; open a new engine")
        if number:
            raise BusyError("command", self._name, "its command ring is full", errno=number)

    def drain(self, patience: float = 0.0) -> None:
        """Stops the flows, waits for completions at most the drain timeout, ends the loop. Any thread. A
        loop that takes no command until `patience` (time.monotonic()) is ended as by abort()."""
        for pause in pauses():
            with contextlib.suppress(ClosedError):
                try:
                    self.command(ffi.DRAIN)
                except BusyError:
                    if time.monotonic() < patience:
                        time.sleep(pause)
                        continue
                    self.abort()
            return

    def abort(self) -> None:
        """Ends the loop now. Any thread."""
        native.loop_abort(self.loop)

    def snapshot(self) -> Snapshot:
        """Its figures now: no system call; any thread."""
        words = _WORDS.unpack_from(self.counters)
        return Snapshot(*(*words[_FIRST : _FIRST + _FIGURES], time.monotonic_ns()))

    def page(self) -> numpy.ndarray:
        """The counter page as a read-only numpy record array of length 1; any thread."""
        import numpy

        fields = numpy.dtype([(field[0], numpy.uint64) for field in ffi.Counters._fields_])
        page: numpy.ndarray = numpy.frombuffer(memoryview(self.counters).cast("B"), dtype=fields)
        page.flags.writeable = False
        return page

    @property
    def alive(self) -> bool:
        """Its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Waits for the thread; True when it has ended."""
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self.alive

    def failure(self) -> XskError | None:
        """Why the loop stopped by itself, or None."""
        return self._failure or loop_failure(self.counters, self._name, self.xsk.mode)

    def _destroy_mixes(self) -> None:
        for mixes in [*self._mixes, *(mixes for _, mixes in self._dying)]:
            mixes.close()
        self._mixes, self._dying = [], []

    def close(self) -> None:
        """After the thread ended. Idempotent."""
        self._stack.close()

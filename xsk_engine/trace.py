"""A capture file's packets in the umem: counted, loaded, or streamed through it by a thread."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import threading
from ctypes import byref, c_void_p

from xsk_engine import shortage
from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.arena import Arena
from xsk_engine.edits import LAYERS, Edit
from xsk_engine.errors import BrokenError, UnavailableError, XskError
from xsk_engine.pcapfile import PcapFile
from xsk_engine.replay import OVERSIZE, Replay, TraceSummary
from xsk_engine.umem import Umem

_BATCH = 4096
"""packets per call of libpcap; higher: later to stop"""
_RING = 1 << 16
"""descs of a stream that wait for the loop: more than a umem of small packets holds"""


def _edits(edits: tuple[Edit, ...]) -> ctypes.Array[ffi.Edit]:
    made = (ffi.Edit * max(len(edits), 1))()
    for raw, edit in zip(made, edits, strict=False):
        raw.layer, raw.offset, raw.len = LAYERS.index(edit.layer), edit.offset, len(edit.value)
        raw.flags = ffi.EDIT_KEEP_GROUP if edit.keep_group else 0
        raw.value[: len(edit.value)] = edit.value
        raw.mask[: len(edit.mask)] = edit.mask
    return made


def _create(
    replay: Replay, max_frame_bytes: int, chunk_size: int, metadata_len: int, arena: Arena | None
) -> c_void_p:
    edits = _edits(replay.edits)
    config = ffi.TraceConfig(
        arena=arena.handle if arena is not None else None,
        edits=edits,
        edit_count=len(replay.edits),
        flags=(ffi.TRACE_FIX_CHECKSUMS if replay.fix_checksums else 0)
        | (ffi.TRACE_WITHOUT_GAPS if replay.speed is None else 0),
        max_bytes=max_frame_bytes,
        oversize=OVERSIZE.index(replay.oversize),
        max_gap_ns=0 if replay.max_gap_s is None else max(int(replay.max_gap_s * 10**9), 1),
        chunk_size=chunk_size,
        metadata_len=metadata_len,
        ring=_RING if replay.stream and arena is not None else 0,
        passes=replay.loops or 0,
    )
    return ffi.create(native.trace_create, byref(config))


def _summary(handle: c_void_p, damage: str) -> TraceSummary:
    raw = ffi.TraceStats()
    native.trace_read(handle, byref(raw))
    return TraceSummary(**{one[0]: getattr(raw, one[0]) for one in raw._fields_}, damage=damage)


def _one_pass(handle: c_void_p, replay: Replay, file: PcapFile) -> str:
    """Gives the file's packets to the trace; what was wrong with the file."""
    take = ctypes.cast(native.trace_take, c_void_p).value
    assert take is not None
    left = replay.limit
    with file:
        while not native.trace_is_closed(handle) and left != 0:
            read = file.feed(take, handle, _BATCH if left is None else min(_BATCH, left))
            if not read:
                break
            left = None if left is None else left - read
    return file.damage


def survey(
    replay: Replay, max_frame_bytes: int, chunk_size: int = 4096, metadata_len: int = 0
) -> TraceSummary:
    """Reads the file once and counts. ValueError: no capture of Ethernet."""
    handle = _create(replay, max_frame_bytes, chunk_size, metadata_len, None)
    try:
        damage = _one_pass(handle, replay, PcapFile(replay.path, fd=replay.fd))
        native.trace_finish(handle, 0)
        return _summary(handle, damage)
    finally:
        native.trace_destroy(handle)


class Trace:
    """A replay's packets in a umem, for the loop with this `txq_id`.

    load() or start_stream(), then the loop has it; release() when that has ended. stop() from any thread.
    """

    def __init__(self, umem: Umem, replay: Replay, max_frame_bytes: int, txq_id: int) -> None:
        self.replay = replay
        self.summary = TraceSummary()
        """when it is loaded, or the stream has ended"""
        self._failure: XskError | None = None
        self._feeder: threading.Thread | None = None
        self._taking = threading.Lock()
        self._arena = Arena(umem, umem.area.length // umem.chunk_size, txq_id)
        try:
            self.handle: c_void_p | None = _create(
                replay, max_frame_bytes, umem.chunk_size, umem.tx_metadata_len, self._arena
            )
        except BaseException:
            self._arena.close()
            raise

    def load(self) -> None:
        """All packets into the umem. Blocking. UnavailableError: it has not enough chunks, or a packet is
        too long; BrokenError: there is no packet that can be sent; ValueError: no capture of Ethernet."""
        self._take(passes=1)
        self.raise_failure()

    def start_stream(self) -> None:
        """From now on a thread reads the file, as often as the replay says, ahead of the loop."""
        feeder = threading.Thread(target=self._stream, name="replay", daemon=True)
        with shortage.named("replay", "its reader"):
            feeder.start()
        self._feeder = feeder

    def _stream(self) -> None:
        try:
            self._take(passes=self.replay.loops)
        except XskError as error:
            self._failure = error
        except Exception as error:  # or the loop would wait for packets for ever
            self._failure = BrokenError("read", self.replay.path, str(error))
        if self._failure is not None:
            with contextlib.suppress(OSError):  # which it has said already
                native.trace_finish(self.handle, 0)

    def _take(self, passes: int | None) -> None:
        handle, damage, done = self.handle, "", 0
        assert handle is not None
        with self._taking, self._arena:
            while not native.trace_is_closed(handle):
                before = _summary(handle, "").packets
                damage = _one_pass(
                    handle,
                    self.replay,
                    PcapFile(self.replay.path, lambda: bool(native.trace_is_closed(handle)), self.replay.fd),
                )
                self.summary = _summary(handle, damage)
                done += 1
                last = done == passes or self.summary.packets == before or bool(self.summary.refused)
                # Before the loop may see the end: failures are asked for behind it, and the trace is closed.
                if self.summary.refused:
                    self._failure = too_long(self.replay, self.summary)
                elif last and not self.summary.packets and not native.trace_is_closed(handle):
                    self._failure = nothing_to_send(self.replay, self.summary)
                try:
                    native.trace_finish(handle, not last)
                except OSError as error:
                    self._failure = _no_room(self.replay, error)
                if last or self._failure:
                    break

    def raise_failure(self) -> None:
        """What went wrong with the file, if anything."""
        if self._failure is not None:
            raise self._failure

    def posted(self) -> tuple[int, int]:
        """Packets and bytes that the loop has posted so far; any thread while it is not released."""
        raw = ffi.FlowCounters()
        native.trace_posted(self.handle, byref(raw))
        return raw.packets, raw.bytes

    def stop(self) -> None:
        """Nothing more is taken; nothing after release()."""
        if self.handle is not None:
            native.trace_close(self.handle)

    def finish(self) -> None:
        """Waits for whoever takes, when the loop has ended."""
        self.stop()
        if self._feeder is not None:
            self._feeder.join()
        with self._taking:
            pass

    def release(self) -> None:
        """After the native object's end: its memory is the umem's again."""
        self.handle = None
        self._arena.close()


def _no_room(replay: Replay, error: OSError) -> XskError:
    if error.errno == errno.ENOBUFS:
        return UnavailableError(
            "load",
            replay.path,
            "its packets do not fit into the umem; use a larger --umem-mb",
            errno=error.errno,
        )
    return UnavailableError("load", replay.path, "no memory", errno=error.errno)


def nothing_to_send(replay: Replay, summary: TraceSummary) -> BrokenError:
    """Of a file without a packet."""
    why = f": {summary.damage}" if summary.damage else ""
    return BrokenError("read", replay.path, f"there is no packet in it that can be sent{why}")


def too_long(replay: Replay, summary: TraceSummary) -> UnavailableError:
    """The refusal of packets that the interface does not take."""
    return UnavailableError(
        "load",
        replay.path,
        f"packets that are longer than the interface takes: {summary.oversize_packets}, the longest "
        f"{summary.longest_bytes} bytes; raise its MTU, or say --oversize skip or truncate",
        errno=errno.EMSGSIZE,
    )

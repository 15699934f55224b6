"""Flow programs as native objects: made here, run by a worker's loop, destroyed when it has ended."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence
from ctypes import byref, c_uint32, c_uint64, c_void_p

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.flowprogram import Csum, FlowProgram, Patch
from xsk_engine.mixprogram import MixProgram, PaceProgram
from xsk_engine.trace import Trace
from xsk_engine.umem import Umem


def _patches(patches: Sequence[Patch]) -> ctypes.Array[ffi.Patch]:
    made = (ffi.Patch * max(len(patches), 1))()
    for raw, patch in zip(made, patches, strict=False):
        raw.offset, raw.width, raw.kind, raw.csums = patch.offset, patch.width, patch.kind, patch.csums
        raw.shift, raw.mask, raw.base, raw.step = patch.shift, patch.mask, patch.base, patch.step
        raw.modulo, raw.hold, raw.key = patch.modulo, patch.hold, patch.key
        raw.value_count = len(patch.values)
        if patch.values:
            raw.values = (c_uint64 * len(patch.values))(*patch.values)
    return made


def _csums(csums: Sequence[Csum]) -> ctypes.Array[ffi.Csum]:
    made = (ffi.Csum * max(len(csums), 1))()
    for raw, csum in zip(made, csums, strict=False):
        for name in ("offset", "start", "end", "pseudo_offset", "pseudo_len", "constant", "csums"):
            setattr(raw, name, getattr(csum, name))
        raw.flags = (ffi.CSUM_UDP if csum.udp else 0) | (ffi.CSUM_PARTIAL if csum.partial else 0)
    return made


def pace_config(pace: PaceProgram) -> ffi.PaceConfig:
    """The same for native code."""
    return ffi.PaceConfig(*(int(getattr(pace, name)) for name in PaceProgram.__dataclass_fields__))


def _flow(umem: Umem, program: FlowProgram, queue: int, queues: int) -> c_void_p:
    sizes = program.sizes
    frame = ctypes.create_string_buffer(program.frame, len(program.frame))
    config = ffi.FlowConfig(
        frame=ctypes.addressof(frame),
        frame_len=len(program.frame),
        flags=(ffi.FLOW_TEMPLATES if program.still else 0)
        | (ffi.FLOW_RANDOM_SIZES if sizes.random else 0)
        | (ffi.FLOW_TIMESTAMP if program.timestamp else 0),
        patch_count=len(program.patches),
        csum_count=len(program.csums),
        patches=_patches(program.patches),
        csums=_csums(program.csums),
        size_key=program.size_key,
        weight=program.weight,
        queue=queue,
        queues=queues,
        offload_start=program.offload[0],
        offload_offset=program.offload[1],
    )
    if len(sizes.distinct) > 1 or sizes.distinct[0] != len(program.frame):
        config.size_count, config.order_len = len(sizes.distinct), len(sizes.order)
        config.sizes = (c_uint32 * len(sizes.distinct))(*sizes.distinct)
        if sizes.order != tuple(range(len(sizes.distinct))):
            config.order = (c_uint32 * len(sizes.order))(*sizes.order)
        else:
            config.order_len = 0
    try:
        return ffi.create(native.flow_create, umem.handle, byref(config))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        raise ValueError(
            f"size: a packet of more than {ffi.MAX_DESCS_PER_PACKET} descs, or with fields behind its first, "
            f"in chunks of {umem.chunk_size} bytes"
        ) from None


class Mixes:
    """What one worker runs: a chain of native mixes, which own their flows; or one that posts a trace, which
    is this object's from the beginning, also when it cannot be made.

    OSError (ENOMEM); ValueError: a packet of more descs than the kernel takes, or fields behind its first.
    Create and close in one thread; in between it is the loop's.
    """

    def __init__(self, umem: Umem, programs: Sequence[MixProgram], trace: Trace | None = None) -> None:
        self.handle = c_void_p()
        self._handles: list[c_void_p] = []
        self._error = 0
        self._flows: dict[int, c_void_p] = {}
        self._trace = trace
        self.flow_count = sum(len(program.members) for program in programs)
        try:
            for program in programs:
                self._add(umem, program)
        except BaseException:
            self.close()
            raise

    def _add(self, umem: Umem, program: MixProgram) -> None:
        flows: list[c_void_p] = []
        try:
            for one in program.flows:
                flows.append(_flow(umem, one, program.queue, program.queues))
            pace = program.pace
            config = ffi.MixConfig(
                flows=(c_void_p * len(flows))(*flows),
                order=(c_uint32 * len(program.order))(*program.order),
                flow_count=len(flows),
                order_len=len(program.order),
                pace=pace_config(pace),
                count=program.count or 0,
                duration_ns=program.duration_ns or 0,
                quota_frags=program.quota_frags,
                batch=program.batch,
                beside=self.handle,
                trace=None if flows or self._trace is None else self._trace.handle,
            )
            self.handle = ffi.create(native.mix_create, byref(config))
            self._handles.append(self.handle)
        except BaseException:
            for flow in flows:
                native.flow_destroy(flow)
            raise
        if flows:
            self._flows.update(zip(program.members, flows, strict=True))

    def repace(self, at: int, pace: PaceProgram) -> ffi.Repace:
        """A command to change the pace of the program at this place."""
        return ffi.Repace(self._handles[at], pace_config(pace))

    def update(self, flows: Sequence[int], offset: int, data: bytes) -> ffi.Update:
        """A command to change bytes of the templates of these flows, by their place in the traffic."""
        handles = [self._flows[i] for i in flows if i in self._flows]
        padded = (ctypes.c_uint8 * 8)(*data)
        return ffi.Update(
            (c_void_p * max(len(handles), 1))(*handles), len(handles), offset, len(data), padded
        )

    @property
    def ended(self) -> bool:
        """They have posted all they will, and the loop has forgotten them. Any thread while it is open."""
        return bool(native.mix_has_ended(self.handle))

    @property
    def error(self) -> int:
        """0, or the errno with which one of them could not start; the last one after close()."""
        if self.handle:
            self._error = int(native.mix_error(self.handle))
        return self._error

    def posted(self) -> dict[int, tuple[int, int]]:
        """Packets and bytes that each flow has posted here so far, by its place in the traffic. Any thread
        while it is open."""
        if self._trace is not None:
            return {0: self._trace.posted()}
        handles = (c_void_p * max(len(self._flows), 1))(*self._flows.values())
        raw = (ffi.FlowCounters * len(handles))()
        native.flow_read(handles, len(self._flows), raw)
        return {index: (one.packets, one.bytes) for index, one in zip(self._flows, raw, strict=False)}

    def close(self) -> None:
        """When its loop has ended. Idempotent."""
        self._error = self.error
        handle, self.handle = self.handle, c_void_p()
        if self._trace is not None:
            self._trace.finish()
        if handle:
            native.mix_destroy(handle)
        if self._trace is not None:
            if not handle:
                native.trace_destroy(self._trace.handle)
            self._trace.release()
            self._trace = None
        self._flows, self._handles = {}, []

"""Traffic without an interface: the loop itself over a device that is none, with a clock that only sleeps
move.

So what it shows is what would be sent, by the same code, and when.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from ctypes import byref

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.libc import new_eventfd
from xsk_engine._ffi.native import native
from xsk_engine.capture import Capture
from xsk_engine.errors import BrokenError
from xsk_engine.flow import Traffic
from xsk_engine.mix import Mixes
from xsk_engine.mixprogram import MixProgram, compile_traffic
from xsk_engine.umem import Umem

_RING = 256
_CHUNK_BYTES = 4096
_TEMPLATE_BYTES = 4 << 20
_MOVING_BYTES = 2 << 20
"""for the packets of a ring, one to a chunk"""


def packets(traffic: Traffic, most: int, *, queue: int = 0, queues: int = 1) -> Iterator[tuple[int, bytes]]:
    """The first packets, at most `most`, as (ns since the first, frame). ValueError for flows that cannot
    be."""
    yield from _records(blocks(traffic, most, queue=queue, queues=queues))


def _records(read: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    rest = b""
    for data in read:
        rest += data
        at = 0
        while len(rest) >= at + 16:
            seconds, ns, length, _ = struct.unpack_from("=IIII", rest, at)
            if len(rest) < at + 16 + length:
                break
            yield seconds * 10**9 + ns, rest[at + 16 : at + 16 + length]
            at += 16 + length
        rest = rest[at:]


def blocks(traffic: Traffic, most: int, *, queue: int = 0, queues: int = 1) -> Iterator[bytes]:
    """The same as bytes of pcap records, for a file."""
    programs = compile_traffic(traffic, queues, template_budget=_TEMPLATE_BYTES)[queue]
    if not programs:
        return
    with contextlib.ExitStack() as stack:
        loop = _NullLoop(stack, programs, most)
        while not loop.done():
            loop.step()
            if data := loop.capture.read():
                yield data
        while data := loop.capture.read():
            yield data


class _NullLoop:
    """A loop over the null device, stepped by hand."""

    def __init__(self, stack: contextlib.ExitStack, programs: Sequence[MixProgram], most: int) -> None:
        flows = [flow for mix in programs for flow in mix.flows]
        metadata = ffi.TX_METADATA_BYTES if any(f.offload[0] or f.timestamp for f in flows) else 0
        length = sum(flow.umem_bytes(_CHUNK_BYTES, metadata) for flow in flows) // _CHUNK_BYTES * _CHUNK_BYTES
        length += _MOVING_BYTES
        umem = Umem(length, _CHUNK_BYTES, tx_metadata_len=metadata)
        stack.callback(umem.close)
        self.capture = Capture(most, clock_start_ns=ffi.NULL_START_NS)
        stack.callback(self.capture.close)
        null = ffi.create(native.null_create, _RING)
        stack.callback(native.null_destroy, null)
        txq_config, clock = ffi.TxqConfig(), ffi.Clock()
        native.null_attach(null, byref(txq_config), byref(clock))
        txq = ffi.create(native.txq_create, umem.handle, byref(txq_config))
        stack.callback(native.txq_destroy, txq)
        arena_config = ffi.ArenaConfig(length // _CHUNK_BYTES, 0, ffi.ARENA_LOOP_OWNED)
        arena = ffi.create(native.arena_open, umem.handle, byref(arena_config))
        stack.callback(native.arena_close, arena)
        wake_fd = new_eventfd()
        stack.callback(os.close, wake_fd)
        self._mixes = Mixes(umem, programs)
        stack.callback(self._mixes.close)
        self._most = most
        self._counters = ffi.Counters()
        config = ffi.LoopConfig(
            txq=txq,
            arena=arena,
            counters=ctypes.pointer(self._counters),
            capture=self.capture.handle,
            clock=clock,
            progress_timeout_ns=10**9,
            wake_fd=wake_fd,
            event_fd=-1,
        )
        self._loop = ffi.create(native.loop_create, byref(config))
        stack.callback(native.loop_destroy, self._loop)
        stack.callback(self._drain)
        native.loop_command(self._loop, ffi.START_MIX, self._mixes.handle)

    def done(self) -> bool:
        page = self._counters
        return bool(page.finished_flows >= self._mixes.flow_count or page.submitted_packets >= self._most)

    def step(self) -> None:
        state = native.loop_step(self._loop)
        if state not in (ffi.LOOP_RUNNING, ffi.LOOP_DRAINING):
            raise BrokenError("dry run", "", f"the loop ended with error {self._counters.error}")

    def _drain(self) -> None:
        with contextlib.suppress(OSError):  # it has failed and ended
            native.loop_command(self._loop, ffi.DRAIN, None)
        while self._counters.state < ffi.LOOP_STOPPED:
            native.loop_step(self._loop)

"""The fake kernel and the native objects as the model tests drive them."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_int32, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.loader import declare, open_library
from xsk_engine._ffi.native import native
from xsk_engine.umem import Umem

BUILD = Path(os.environ.get("XSK_NATIVE_BUILD", Path(__file__).parents[2] / "build/native"))

_RING = POINTER(ffi.Ring)


class Frame(ctypes.Structure):
    """As it left a fake device."""

    _fields_ = [
        ("bytes", POINTER(c_uint8)),
        ("now_ns", c_uint64),
        *(
            (name, c_uint32)
            for name in ("len", "descs", "csum_requested", "csum_start", "csum_offset", "bad")
        ),
    ]


fake = declare(
    open_library(str(BUILD / "tests/native/libfake_kernel.so"), "make test-native builds it"),
    "libfake_kernel.so",
    {
        "fake_create": ([c_uint32, c_uint32, c_uint32], c_void_p, None),
        "fake_destroy": ([c_void_p], None, None),
        "fake_rings": ([c_void_p, _RING, _RING], None, None),
        "fake_advance": ([c_void_p, c_uint64], None, None),
        "fake_slept_ns": ([c_void_p], c_uint64, None),
        "fake_policy": ([c_void_p, c_uint32, c_int], None, None),
        "fake_script": ([c_void_p, c_int, c_uint32], None, None),
        "fake_lossy": ([c_void_p, c_uint32], None, None),
        "fake_silent": ([c_void_p], None, None),
        "fake_held": ([c_void_p], c_uint32, None),
        "fake_held_desc": ([c_void_p, c_uint32], ffi.Desc, None),
        "fake_complete": ([c_void_p, c_uint32], c_int, None),
        "fake_complete_addr": ([c_void_p, c_uint64], c_int, None),
        "fake_taken": ([c_void_p], c_uint64, None),
        "fake_kicks": ([c_void_p], c_uint64, None),
        "fake_now": ([c_void_p], c_uint64, None),
        "fake_sleep": ([c_void_p, c_uint64], None, None),
        "fake_kick": ([c_void_p], c_int, None),
        "fake_clock": ([c_void_p], c_uint64, None),
        "fake_wake_ns": ([c_void_p], c_uint64, None),
        "fake_turn": ([c_void_p, c_uint64], None, None),
        "fake_run": ([c_void_p, c_void_p, c_void_p, c_uint64, c_uint32], c_int32, None),
        "fake_device_create": ([c_void_p, c_void_p, c_uint32, c_uint32], c_void_p, None),
        "fake_device_destroy": ([c_void_p], None, None),
        "fake_device_frames": ([c_void_p], c_uint32, None),
        "fake_device_frame": ([c_void_p, c_uint32], POINTER(Frame), None),
        "fake_device_drop": ([c_void_p], None, None),
        "fake_device_changed": ([c_void_p], c_uint64, None),
        "fake_rx_create": ([c_void_p, c_uint32, c_uint32, c_uint32, c_uint32], c_void_p, None),
        "fake_rx_destroy": ([c_void_p], None, None),
        "fake_rx_rings": ([c_void_p, _RING, _RING], None, None),
        "fake_rx_give": ([c_void_p, c_char_p, c_uint32, c_uint32], c_int, None),
    },
    prefix="fake_",
)


def address(function) -> int:
    return ctypes.cast(function, c_void_p).value


NEAR_WRAP = 2**32 - 100


def patch(offset, width, **values):
    """A field that fills its bytes."""
    return ffi.Patch(offset=offset, width=width, **({"mask": (1 << width * 8) - 1, "step": 1} | values))


def held_packets(one, taken):
    """Packets that the kernel got beyond `taken` descs, put together from their descs."""
    found, parts = [], []
    held = fake.held(one.kernel)
    for i in range(held - (fake.taken(one.kernel) - taken), held):
        desc = fake.held_desc(one.kernel, i)
        parts.append(bytes(one.umem.area.view(desc.addr, desc.len)))
        if not desc.options & ffi.DESC_CONTD:
            found.append(b"".join(parts))
            parts = []
    assert not parts
    return found


class Bench:
    """A umem, a fake kernel and a loop that is stepped by hand."""

    def __init__(
        self,
        *,
        ring=64,
        cq=None,
        chunks=64,
        chunk_size=2048,
        cursor=NEAR_WRAP,
        metadata_len=0,
        link_timeout_ns=5 * 10**9,
        progress_timeout_ns=10**9,
        drain_timeout_ns=10**9,
        capture=None,
        virtual_time=0,
        event_fd=-1,
    ):
        self.umem = Umem(chunks * chunk_size, chunk_size, tx_metadata_len=metadata_len)
        self.kernel = fake.create(ring, cq or ring, cursor)
        config = ffi.TxqConfig(kick=address(fake.kick), kick_ctx=self.kernel, fd=-1, need_wakeup=1)
        fake.rings(self.kernel, ctypes.byref(config.tx), ctypes.byref(config.cq))
        self.txq = ffi.create(native.txq_create, self.umem.handle, ctypes.byref(config))
        self.arena = self.open_arena(loop_owned=True)
        self.counters = ffi.Counters()
        self.gaps = ffi.Gaps()
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK) if hasattr(os, "eventfd") else os.pipe()[0]
        loop_config = ffi.LoopConfig(
            txq=self.txq,
            arena=self.arena,
            counters=ctypes.pointer(self.counters),
            gaps=ctypes.pointer(self.gaps),
            capture=capture,
            clock=ffi.Clock(address(fake.now), address(fake.sleep), self.kernel, virtual_time),
            link_timeout_ns=link_timeout_ns,
            progress_timeout_ns=progress_timeout_ns,
            drain_timeout_ns=drain_timeout_ns,
            wake_fd=self.wake_fd,
            event_fd=event_fd,
        )
        self.loop = ffi.create(native.loop_create, ctypes.byref(loop_config))
        self.mixes = []
        self.arenas = []
        """closed behind them"""

    def open_arena(self, quota=1 << 20, loop_owned=False, txq_id=0):
        config = ffi.ArenaConfig(quota, txq_id, ffi.ARENA_LOOP_OWNED if loop_owned else 0)
        return ffi.create(native.arena_open, self.umem.handle, ctypes.byref(config))

    def endpoint(self, arena, entries=64, batch=64, **values):
        """Known to the loop with its next turn, if it is told."""
        config = ffi.EndpointConfig(
            **({"arena": arena, "entries": entries, "max_frame_bytes": 1514, "batch": batch} | values)
        )
        return ffi.create(native.endpoint_create, self.loop, ctypes.byref(config))

    def flow(self, frame=b"\x02" * 60, patches=(), csums=(), sizes=(), **values):
        """A native flow; without patches one that only posts its template."""
        buffer = ctypes.create_string_buffer(frame, len(frame))
        still = all(patch.kind == ffi.PATCH_LENGTH for patch in patches)
        config = ffi.FlowConfig(
            frame=ctypes.addressof(buffer),
            frame_len=len(frame),
            patch_count=len(patches),
            patches=(ffi.Patch * max(len(patches), 1))(*patches),
            csum_count=len(csums),
            csums=(ffi.Csum * max(len(csums), 1))(*csums),
            size_count=len(sizes),
            sizes=(c_uint32 * len(sizes))(*sizes) if sizes else None,
            **({"weight": 1, "queues": 1, "flags": ffi.FLOW_TEMPLATES if still else 0} | values),
        )
        return ffi.create(native.flow_create, self.umem.handle, ctypes.byref(config))

    def start(
        self, frame=b"\x02" * 60, patches=(), rate_packets=0, rate_period_ns=0, flow=None, pace=None, **values
    ):
        """One flow of its own mix, started."""
        flow = self.flow(frame, patches, **(flow or {}))
        pace = {"rate_units": rate_packets, "period_ns": rate_period_ns, "packet_units": 1} | (pace or {})
        return self.start_mix([flow], [0], pace, **values)

    def start_mix(self, flows, order, pace=None, beside=None, command=True, **values):
        config = ffi.MixConfig(
            flows=(c_void_p * len(flows))(*flows),
            order=(c_uint32 * len(order))(*order),
            flow_count=len(flows),
            order_len=len(order),
            pace=ffi.PaceConfig(**(pace or {})),
            beside=beside,
            **({"batch": 16} | values),
        )
        try:
            mix = ffi.create(native.mix_create, ctypes.byref(config))
        except OSError:
            for flow in flows:
                native.flow_destroy(flow)
            raise
        if beside is not None:
            self.mixes.remove(beside)
        self.mixes.append(mix)
        if command:
            native.loop_command(self.loop, ffi.START_MIX, mix)
        return mix

    def drain(self):
        native.loop_command(self.loop, ffi.DRAIN, None)

    def step(self, turns=1):
        state = None
        for _ in range(turns):
            state = native.loop_step(self.loop)
        return state

    def run(self, most=100_000):
        """Steps until the loop has ended; a stall is given up."""
        for _ in range(most):
            state = native.loop_step(self.loop)
            if state == ffi.LOOP_STALLED:
                native.loop_give_up(self.loop, ffi.ERROR_NO_PROGRESS)
            if self.counters.state >= ffi.LOOP_STOPPED:
                return self.counters.state
        raise AssertionError(f"still running after {most} turns")

    def packet(self, i):
        desc = fake.held_desc(self.kernel, i)
        return bytes(self.umem.area.view(desc.addr, desc.len))

    def close(self):
        """Ends the loop if it runs, checks conservation, frees everything."""
        self.end()
        page = self.counters
        assert page.submitted_descs == page.completed_descs + page.inflight_descs
        audit = self.umem.audit()
        self.free_guests()
        native.loop_destroy(self.loop)
        for mix in self.mixes:
            native.mix_destroy(mix)
        for arena in (self.arena, *self.arenas):
            native.arena_close(arena)
        if not page.inflight_descs:
            after = self.umem.audit()
            assert after.pooled + after.referenced == after.chunks
        native.txq_destroy(self.txq)
        fake.destroy(self.kernel)
        os.close(self.wake_fd)
        self.umem.close()
        return audit

    def free_guests(self):
        """What goes before the loop does."""

    def end(self):
        """The loop, with everything completed, if it still runs."""
        if self.counters.state < ffi.LOOP_STOPPED:
            fake.policy(self.kernel, 1 << 30, 1)
            fake.script(self.kernel, 0, 0)
            while fake.held(self.kernel) and fake.complete(self.kernel, 0) == 0:
                pass
            native.loop_command(self.loop, ffi.DRAIN, None)
            self.run()

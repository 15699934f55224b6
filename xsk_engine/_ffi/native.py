"""libxske.so: mirrors native/xske.h, but for TCP (nativetcp.py)."""

from __future__ import annotations

import ctypes
import importlib.resources
import mmap
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_uint8, c_uint32, c_uint64, c_void_p
from typing import Any

from xsk_engine._ffi.errcheck import negative_errno
from xsk_engine._ffi.libc import libc
from xsk_engine._ffi.loader import declare, open_library
from xsk_engine.errors import UnavailableError

ABI_VERSION = 10
ARENA_LOOP_OWNED, ARENA_POISON = 1, 2
DESC_CONTD = 1
TX_METADATA_BYTES = 24
BUCKETS = 496
NULL_START_NS = 10**9
MAX_DESCS_PER_PACKET = 18

LOOP_NEW, LOOP_RUNNING, LOOP_DRAINING, LOOP_STOPPED, LOOP_FAILED, LOOP_PAUSED, LOOP_STALLED = range(7)
(
    ERROR_NONE,
    ERROR_KICK,
    ERROR_LINK_DOWN,
    ERROR_NO_PROGRESS,
    ERROR_COMPLETION,
    ERROR_RING_FULL,
) = range(6)
PROBE_DROPPED, PROBE_COMPLETED, PROBE_UNSEEN = range(3)
START_MIX, ADD_ENDPOINT, REMOVE_ENDPOINT, DRAIN, PARK, PAUSE, UPDATE, STOP_MIX, REPACE = range(1, 10)
PATCH_RANGE, PATCH_LIST, PATCH_RANDOM, PATCH_LENGTH, PATCH_TIME = range(5)
CSUM_UDP, CSUM_PARTIAL = 1, 2
EDIT_KEEP_GROUP = TRACE_FIX_CHECKSUMS = 1
TRACE_WITHOUT_GAPS = 2
FLOW_TEMPLATES, FLOW_RANDOM_SIZES, FLOW_TIMESTAMP = 1, 2, 4
NOT_CALLED, CALLED_BY_COMMAND, CALLED_TO_ABORT = range(3)
ENDPOINT_NEW, ENDPOINT_ADDED, ENDPOINT_REMOVED = range(3)
ENDPOINT_TIMESTAMPS = 1
RECEIVER_BUSY_POLL = 1
TRACKER_PENDING, TRACKER_DONE, TRACKER_LOST = range(3)
HEADER_BYTES = 80
LATENCY_BUCKETS = 656
CHECK_CSUM_PARTIAL = 1
CHECK_REFLECTED = 1


class UmemConfig(ctypes.Structure):
    _fields_ = [
        ("area", c_void_p),
        ("len", c_uint64),
        ("chunk_size", c_uint32),
        ("metadata_len", c_uint32),
    ]


class Audit(ctypes.Structure):
    _fields_ = [
        (name, c_uint32)
        for name in (
            "chunks",
            "pooled",
            "stacked",
            "returned",
            "referenced",
            "inflight",
            "lost",
            "doubled",
            "arenas",
            "reserved",
        )
    ] + [("inflight_descs", c_uint64)]


class ArenaConfig(ctypes.Structure):
    _fields_ = [
        ("quota_chunks", c_uint32),
        ("txq_id", c_uint32),
        ("flags", c_uint32),
        ("reserved", c_uint32),
    ]


class ArenaStats(ctypes.Structure):
    _fields_ = [
        ("allocated_frags", c_uint64),
        ("recycled_chunks", c_uint64),
        ("cross_thread_returns", c_uint64),
        ("quota_waits", c_uint64),
        ("owned_chunks", c_uint32),
        ("reserved", c_uint32),
    ]


class Ring(ctypes.Structure):
    _fields_ = [
        ("cached_prod", c_uint32),
        ("cached_cons", c_uint32),
        ("mask", c_uint32),
        ("size", c_uint32),
        ("producer", c_void_p),
        ("consumer", c_void_p),
        ("ring", c_void_p),
        ("flags", c_void_p),
    ]


def dont_fork(ring: Ring, entry_bytes: int) -> None:
    """MADV_DONTFORK on a mapped kernel ring: a child's copy would keep the socket, and its queue, alive."""
    start = min(ring.producer, ring.consumer, ring.ring, ring.flags) & ~(mmap.PAGESIZE - 1)
    libc.madvise(start, ring.ring + ring.size * entry_bytes - start, mmap.MADV_DONTFORK)


class Desc(ctypes.Structure):
    _fields_ = [("addr", c_uint64), ("len", c_uint32), ("options", c_uint32)]


class TxqConfig(ctypes.Structure):
    _fields_ = [
        ("tx", Ring),
        ("cq", Ring),
        ("kick", c_void_p),
        ("kick_ctx", c_void_p),
        ("fd", c_int32),
        ("txq_id", c_uint32),
        ("need_wakeup", c_uint32),
        ("reserved", c_uint32),
    ]


class Patch(ctypes.Structure):
    _fields_ = [
        ("offset", c_int32),
        ("width", c_uint32),
        ("kind", c_uint32),
        ("csums", c_uint32),
        ("shift", c_uint32),
        ("value_count", c_uint32),
        ("mask", c_uint64),
        ("base", c_uint64),
        ("step", c_uint64),
        ("modulo", c_uint64),
        ("hold", c_uint64),
        ("key", c_uint64),
        ("values", POINTER(c_uint64)),
    ]


class Csum(ctypes.Structure):
    _fields_ = [
        (name, c_uint32)
        for name in (
            "offset",
            "start",
            "end",
            "pseudo_offset",
            "pseudo_len",
            "constant",
            "csums",
            "flags",
        )
    ]


class FlowConfig(ctypes.Structure):
    _fields_ = [
        ("frame", c_void_p),
        ("frame_len", c_uint32),
        ("flags", c_uint32),
        ("patch_count", c_uint32),
        ("csum_count", c_uint32),
        ("size_count", c_uint32),
        ("order_len", c_uint32),
        ("patches", POINTER(Patch)),
        ("csums", POINTER(Csum)),
        ("sizes", POINTER(c_uint32)),
        ("order", POINTER(c_uint32)),
        ("size_key", c_uint64),
        ("weight", c_uint32),
        ("queue", c_uint32),
        ("queues", c_uint32),
        ("offload_start", c_uint32),
        ("offload_offset", c_uint32),
        ("reserved", c_uint32),
    ]


class FlowCounters(ctypes.Structure):
    _fields_ = [("packets", c_uint64), ("bytes", c_uint64)]


class Edit(ctypes.Structure):
    _fields_ = [
        *((name, c_uint32) for name in ("layer", "offset", "len", "flags")),
        ("value", c_uint8 * 16),
        ("mask", c_uint8 * 16),
    ]


class TraceConfig(ctypes.Structure):
    _fields_ = [
        ("arena", c_void_p),
        ("edits", POINTER(Edit)),
        *((name, c_uint32) for name in ("edit_count", "flags", "max_bytes", "oversize")),
        ("max_gap_ns", c_uint64),
        *((name, c_uint32) for name in ("chunk_size", "metadata_len", "ring", "passes")),
    ]


class TraceStats(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "packets",
            "bytes",
            "wire_bytes",
            "longest_bytes",
            "oversize_packets",
            "edited_packets",
            "snapped_packets",
            "short_packets",
            "backward_packets",
            "long_gaps",
            "gaps_ns",
            "first_ns",
            "last_ns",
            "chunks",
            "refused",
        )
    ]


class PaceConfig(ctypes.Structure):
    _fields_ = [
        *(
            (name, c_uint64)
            for name in (
                "rate_units",
                "period_ns",
                "packet_units",
                "byte_units",
                "first_units",
                "burst_gap_units",
                "key",
            )
        ),
        *(
            (name, c_uint32)
            for name in ("overhead_bytes", "min_bytes", "burst", "poisson", "recorded", "reserved")
        ),
    ]


class MixConfig(ctypes.Structure):
    _fields_ = [
        ("flows", POINTER(c_void_p)),
        ("order", POINTER(c_uint32)),
        ("flow_count", c_uint32),
        ("order_len", c_uint32),
        ("pace", PaceConfig),
        ("count", c_uint64),
        ("duration_ns", c_uint64),
        ("quota_frags", c_uint32),
        ("batch", c_uint32),
        ("beside", c_void_p),
        ("trace", c_void_p),
    ]


class Update(ctypes.Structure):
    _fields_ = [
        ("flows", POINTER(c_void_p)),
        ("flow_count", c_uint32),
        ("offset", c_uint32),
        ("len", c_uint32),
        ("bytes", c_uint8 * 8),
        ("done", c_uint32),
        ("next", c_void_p),
    ]


class Repace(ctypes.Structure):
    _fields_ = [("mix", c_void_p), ("pace", PaceConfig), ("done", c_uint32), ("reserved", c_uint32)]


class Header(ctypes.Structure):
    _fields_ = [("words", c_uint64 * (HEADER_BYTES // 8)), ("len", c_uint32), ("ip_offset", c_uint32)]


class EndpointConfig(ctypes.Structure):
    _fields_ = [
        ("arena", c_void_p),
        *((name, c_uint32) for name in ("entries", "max_frame_bytes", "flags", "batch")),
    ]


class Span(ctypes.Structure):
    _fields_ = [("addr", c_uint64), ("pitch", c_uint32), ("n", c_uint32)]


class EndpointCounters(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "submitted_packets",
            "submitted_bytes",
            "submitted_descs",
            "posted_descs",
            "completed_descs",
        )
    ]


class Histogram(ctypes.Structure):
    _fields_ = [
        ("count", c_uint64),
        ("sum_ns", c_uint64),
        ("min_ns", c_uint64),
        ("max_ns", c_uint64),
        ("bucket", c_uint64 * BUCKETS),
    ]


class Gaps(ctypes.Structure):
    _fields_ = [
        ("post", Histogram),
        ("error", Histogram),
        ("wire", Histogram),
        ("latency", Histogram),
        ("negative_latency_packets", c_uint64),
        ("paced_ns", c_uint64),
        ("asked_ns", c_uint64),
    ]


class Counters(ctypes.Structure):
    """The counter page of one loop: 64-bit words, written by the loop once a turn."""

    _fields_ = [
        (name, c_uint64)
        for name in (
            "state",
            "error",
            "error_errno",
            "error_arg",
            "submitted_packets",
            "submitted_descs",
            "submitted_bytes",
            "completed_packets",
            "completed_descs",
            "completed_bytes",
            "completed_wire_bytes",
            "inflight_descs",
            "bad_completions",
            "kick_calls",
            "kick_eagain",
            "kick_ebusy",
            "kick_enobufs",
            "kick_enetdown",
            "kick_other",
            "backpressure",
            "link_down_ns",
            "first_post_ns",
            "last_post_ns",
            "last_completion_ns",
            "active_flows",
            "finished_flows",
            "allocated_frags",
            "recycled_chunks",
            "cross_thread_returns",
            "quota_waits",
            "owned_chunks",
            "turns",
        )
    ]


class Clock(ctypes.Structure):
    _fields_ = [
        ("now_ns", c_void_p),
        ("sleep_ns", c_void_p),
        ("ctx", c_void_p),
        ("virtual_time", c_uint32),
        ("reserved", c_uint32),
    ]


class LoopConfig(ctypes.Structure):
    _fields_ = [
        ("txq", c_void_p),
        ("arena", c_void_p),
        ("counters", POINTER(Counters)),
        ("gaps", POINTER(Gaps)),
        ("capture", c_void_p),
        ("clock", Clock),
        ("link_timeout_ns", c_uint64),
        ("progress_timeout_ns", c_uint64),
        ("drain_timeout_ns", c_uint64),
        ("wake_fd", c_int32),
        ("event_fd", c_int32),
    ]


class CheckConfig(ctypes.Structure):
    _fields_ = [("max_flows", c_uint32), ("flags", c_uint32)]


class CheckCounters(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "packets",
            "bytes",
            "received_packets",
            "received_bytes",
            "lost_packets",
            "duplicate_packets",
            "reordered_packets",
            "late_packets",
            "restarts",
            "corrupt_packets",
            "truncated_packets",
            "foreign_packets",
            "unknown_flow_packets",
            "unverified_packets",
            "csum_partial_packets",
            "untimed_packets",
            "negative_latency_packets",
            "flows",
            "first_ns",
            "last_ns",
        )
    ]


class Latency(ctypes.Structure):
    _fields_ = [
        ("count", c_uint64),
        ("sum_ns", c_uint64),
        ("min_ns", c_uint64),
        ("max_ns", c_uint64),
        ("bucket", c_uint64 * LATENCY_BUCKETS),
    ]


class CheckFlow(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "flow_id",
            "received_packets",
            "received_bytes",
            "lost_packets",
            "duplicate_packets",
            "reordered_packets",
            "late_packets",
            "extent_max_packets",
            "extent_sum_packets",
            "least_extents",
            "restarts",
            "first_sequence",
            "highest_sequence",
            "untimed_packets",
            "negative_latency_packets",
            "latency_count",
            "latency_sum_ns",
            "latency_min_ns",
            "latency_max_ns",
            "jitter_ns",
        )
    ]


class RxqConfig(ctypes.Structure):
    _fields_ = [("rx", Ring), ("fill", Ring), ("fd", c_int32), ("reserved", c_uint32)]


class ReceiveCounters(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "packets",
            "bytes",
            "descs",
            "bad_descs",
            "bad_addr",
            "uncaptured_packets",
            "overrun_packets",
            "wakeup_calls",
            "sleeps",
            "first_ns",
            "last_ns",
        )
    ]


class ReceiverConfig(ctypes.Structure):
    _fields_ = [
        ("arena", c_void_p),
        ("queues", POINTER(RxqConfig)),
        ("queue_count", c_uint32),
        ("stop_fd", c_int32),
        ("check", c_void_p),
        ("capture", c_void_p),
        ("counters", POINTER(ReceiveCounters)),
        ("ifindex", c_uint32),
        ("max_frame_bytes", c_uint32),
        ("filter", c_void_p),
        ("filter_count", c_uint32),
        ("flags", c_uint32),
    ]


class WireCounters(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "taken_packets",
            "forwarded_packets",
            "dropped_packets",
            "duplicated_packets",
            "reordered_packets",
            "corrupted_packets",
            "overrun_packets",
            "send_error_packets",
            "missed_packets",
            "held_packets",
        )
    ]


class WireConfig(ctypes.Structure):
    _fields_ = [
        ("counters", POINTER(WireCounters)),
        *((name, c_uint64) for name in ("seed", "drop", "duplicate", "reorder", "corrupt", "delay_ns")),
        *(
            (name, c_uint32)
            for name in (
                "direction",
                "reorder_by",
                "from_ifindex",
                "to_ifindex",
                "max_frame_bytes",
                "reserved",
            )
        ),
    ]


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "xske_umem_config": UmemConfig,
    "xske_audit": Audit,
    "xske_arena_config": ArenaConfig,
    "xske_arena_stats": ArenaStats,
    "xske_ring": Ring,
    "xske_desc": Desc,
    "xske_txq_config": TxqConfig,
    "xske_patch": Patch,
    "xske_csum": Csum,
    "xske_flow_config": FlowConfig,
    "xske_flow_counters": FlowCounters,
    "xske_edit": Edit,
    "xske_trace_config": TraceConfig,
    "xske_trace_stats": TraceStats,
    "xske_pace_config": PaceConfig,
    "xske_mix_config": MixConfig,
    "xske_update": Update,
    "xske_repace": Repace,
    "xske_header": Header,
    "xske_endpoint_config": EndpointConfig,
    "xske_span": Span,
    "xske_endpoint_counters": EndpointCounters,
    "xske_histogram": Histogram,
    "xske_gaps": Gaps,
    "xske_counters": Counters,
    "xske_clock": Clock,
    "xske_loop_config": LoopConfig,
    "xske_check_config": CheckConfig,
    "xske_check_counters": CheckCounters,
    "xske_latency": Latency,
    "xske_check_flow": CheckFlow,
    "xske_rxq_config": RxqConfig,
    "xske_receive_counters": ReceiveCounters,
    "xske_receiver_config": ReceiverConfig,
    "xske_wire_counters": WireCounters,
    "xske_wire_config": WireConfig,
}

_OUT = POINTER(c_void_p)
_ADDR = POINTER(c_uint64)
_RING = POINTER(Ring)
_TABLE: dict[str, Any] = {
    "xske_abi_version": ([], c_uint32, None),
    "xske_umem_create": ([POINTER(UmemConfig), _OUT], c_int, negative_errno),
    "xske_umem_destroy": ([c_void_p], None, None),
    "xske_umem_audit": ([c_void_p, c_int, POINTER(Audit)], c_int, None),
    "xske_arena_open": ([c_void_p, POINTER(ArenaConfig), _OUT], c_int, negative_errno),
    "xske_arena_close": ([c_void_p], c_int, negative_errno),
    "xske_arena_enter": ([c_void_p], c_int, negative_errno),
    "xske_arena_leave": ([c_void_p], None, None),
    "xske_arena_park": ([c_void_p], None, None),
    "xske_arena_read_stats": ([c_void_p, POINTER(ArenaStats)], None, None),
    "xske_arena_await": ([c_void_p], None, None),
    "xske_frag_alloc": ([c_void_p, c_uint32, _ADDR], c_int, negative_errno),
    "xske_frag_ref": ([c_void_p, c_uint64], c_int, negative_errno),
    "xske_frag_unref": ([c_void_p, c_void_p, c_uint64], c_int, negative_errno),
    "xske_frags_unref": ([c_void_p, POINTER(Desc), c_uint32], c_int, None),
    "xske_txq_create": ([c_void_p, POINTER(TxqConfig), _OUT], c_int, negative_errno),
    "xske_txq_destroy": ([c_void_p], None, None),
    "xske_txq_probe_invalid": ([c_void_p, c_uint64], c_int, negative_errno),
    "xske_txq_detach": ([c_void_p], c_int, negative_errno),
    "xske_txq_attach": ([c_void_p, POINTER(TxqConfig)], c_int, negative_errno),
    "xske_rx_fill": ([_RING, _ADDR, c_uint32], c_int, negative_errno),
    "xske_flow_create": ([c_void_p, POINTER(FlowConfig), _OUT], c_int, negative_errno),
    "xske_flow_destroy": ([c_void_p], None, None),
    "xske_flow_read": ([_OUT, c_uint32, POINTER(FlowCounters)], None, None),
    "xske_trace_create": ([POINTER(TraceConfig), _OUT], c_int, negative_errno),
    "xske_trace_destroy": ([c_void_p], None, None),
    "xske_trace_take": ([c_void_p, c_void_p, c_void_p], None, None),
    "xske_trace_finish": ([c_void_p, c_int], c_int, negative_errno),
    "xske_trace_close": ([c_void_p], None, None),
    "xske_trace_is_closed": ([c_void_p], c_int, None),
    "xske_trace_read": ([c_void_p, POINTER(TraceStats)], None, None),
    "xske_trace_posted": ([c_void_p, POINTER(FlowCounters)], None, None),
    "xske_mix_create": ([POINTER(MixConfig), _OUT], c_int, negative_errno),
    "xske_mix_destroy": ([c_void_p], None, None),
    "xske_mix_has_ended": ([c_void_p], c_int, None),
    "xske_mix_error": ([c_void_p], c_int, None),
    "xske_capture_create": ([c_uint64, c_uint64, c_uint64, _OUT], c_int, negative_errno),
    "xske_capture_destroy": ([c_void_p], None, None),
    "xske_capture_read": ([c_void_p, c_void_p, c_uint64], c_uint64, None),
    "xske_capture_close": ([c_void_p], None, None),
    "xske_null_create": ([c_uint32, _OUT], c_int, negative_errno),
    "xske_null_destroy": ([c_void_p], None, None),
    "xske_null_attach": ([c_void_p, POINTER(TxqConfig), POINTER(Clock)], None, None),
    "xske_loop_create": ([POINTER(LoopConfig), _OUT], c_int, negative_errno),
    "xske_loop_destroy": ([c_void_p], None, None),
    "xske_loop_run": ([c_void_p], c_int, negative_errno),
    "xske_loop_called": ([c_void_p], c_int, None),
    "xske_loop_give_up": ([c_void_p, c_uint32], None, None),
    "xske_loop_step": ([c_void_p], c_int, negative_errno),
    "xske_loop_command": ([c_void_p, c_uint32, c_void_p], c_int, negative_errno),
    "xske_loop_commands": ([c_void_p, POINTER(c_uint32)], c_uint32, None),
    "xske_loop_abort": ([c_void_p], None, None),
    "xske_endpoint_create": ([c_void_p, POINTER(EndpointConfig), _OUT], c_int, negative_errno),
    "xske_endpoint_destroy": ([c_void_p], None, None),
    "xske_endpoint_submit": ([c_void_p, POINTER(Desc), c_uint32], c_int, negative_errno),
    "xske_endpoint_state": ([c_void_p], c_int, None),
    "xske_header_set_mac": ([POINTER(Header), c_char_p], None, None),
    "xske_tracker_create": ([c_uint32, _OUT], c_int, negative_errno),
    "xske_tracker_destroy": ([c_void_p], None, None),
    "xske_tracker_close": ([c_void_p], None, None),
    "xske_tracker_state": ([c_void_p], c_int, None),
    "xske_tracker_stamps": ([c_void_p], POINTER(c_uint64), None),
    "xske_check_create": ([POINTER(CheckConfig), _OUT], c_int, negative_errno),
    "xske_check_destroy": ([c_void_p], None, None),
    "xske_check_frame": ([c_void_p, c_char_p, c_uint32, c_uint64, c_uint32], None, None),
    "xske_check_read": ([c_void_p, POINTER(CheckCounters), POINTER(Latency)], None, None),
    "xske_check_flows": (
        [c_void_p, c_uint32, c_uint32, POINTER(CheckFlow), POINTER(c_uint32)],
        c_uint32,
        None,
    ),
    "xske_receiver_create": ([POINTER(ReceiverConfig), _OUT], c_int, negative_errno),
    "xske_receiver_destroy": ([c_void_p], None, None),
    "xske_receiver_run": ([c_void_p], c_int, negative_errno),
    "xske_receiver_stop": ([c_void_p], None, None),
    "xske_wire_create": ([POINTER(WireConfig), _OUT], c_int, negative_errno),
    "xske_wire_destroy": ([c_void_p], None, None),
    "xske_wire_run": ([c_void_p], c_int, negative_errno),
    "xske_wire_stop": ([c_void_p], None, None),
    "xske_wire_read": ([POINTER(WireCounters), POINTER(WireCounters)], None, None),
}


_SHORT: dict[str, Any] = {
    "xske_endpoint_send": ([c_void_p, c_void_p, c_char_p, c_uint64], c_int, None),
    "xske_endpoint_read": ([c_void_p, POINTER(EndpointCounters)], None, None),
    "xske_arena_await": ([c_void_p], None, None),
    "xske_arena_read_stats": ([c_void_p, POINTER(ArenaStats)], None, None),
}
"""Of which an application makes a million a second: called without letting go of the GIL, which costs as much
as they do. They return a negative errno themselves; c_char_p takes bytes without an object on the way."""
_LONG: dict[str, Any] = {
    "xske_endpoint_send_many": (
        [c_void_p, c_void_p, c_void_p, c_uint64, c_void_p, c_uint32],
        c_int64,
        None,
    ),
    "xske_endpoint_alloc": ([c_void_p, c_void_p, c_uint32, c_uint32, POINTER(Span)], c_int, None),
    "xske_endpoint_post": ([c_void_p, c_void_p, c_void_p, c_uint32, c_void_p], c_int64, None),
    "xske_loop_command": ([c_void_p, c_uint32, c_void_p], c_int, None),
    "xske_arena_park_if_idle": ([c_void_p], c_int, None),
}
"""As many packets as you like, and others may run: they return a negative errno themselves, and what is
raised is a signal handler's."""


def library_path() -> str:
    with importlib.resources.as_file(importlib.resources.files("xsk_engine") / "libxske.so") as path:
        return str(path)


def _load() -> Any:
    library = open_library(library_path(), "reinstall xsk-engine (pip install .)")
    functions = declare(library, "libxske.so", _TABLE, prefix="xske_")
    if functions.abi_version() != ABI_VERSION:
        raise UnavailableError(
            "load",
            "libxske.so",
            f"it has ABI {functions.abi_version()}, this package needs {ABI_VERSION}; reinstall xsk-engine",
        )
    return functions


native: Any = _load()
short: Any = declare(ctypes.PyDLL(library_path()), "libxske.so", _SHORT, prefix="xske_")
long: Any = declare(ctypes.CDLL(library_path()), "libxske.so", _LONG, prefix="xske_")


def create(function: Any, *args: Any) -> c_void_p:
    """Calls a constructor whose last parameter is where the new object's pointer goes."""
    out = c_void_p()
    function(*args, ctypes.byref(out))
    return out

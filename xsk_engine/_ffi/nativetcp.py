"""libxske.so, the part about TCP: mirrors native/xske.h. It is loaded when an engine is opened with TCP."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int64, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any

from xsk_engine._ffi.errcheck import negative_errno
from xsk_engine._ffi.loader import declare
from xsk_engine._ffi.native import Header, RxqConfig, library_path

MULTI_BUFFER, OFFLOAD = 1, 2
NODELAY, KEEPALIVE, PACING = 1, 2, 4
READABLE, WRITABLE, CHANGED, DRAINED = 1, 2, 4, 8
CONGESTION = {"reno": 1, "cubic": 2}
(
    NEW,
    SYN_SENT,
    SYN_RECEIVED,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    CLOSE_WAIT,
    CLOSING,
    LAST_ACK,
    TIME_WAIT,
    CLOSED,
) = range(11)


class TcpCounters(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "received_packets",
            "received_bytes",
            "csum_partial_packets",
            "bad_csum_packets",
            "malformed_packets",
            "foreign_packets",
            "stray_packets",
            "icmp_packets",
            "bad_descs",
            "bad_addr",
            "opened_connections",
            "established_connections",
            "closed_connections",
            "connections",
            "copied_segments",
        )
    ]


class TcpConfig(ctypes.Structure):
    _fields_ = [
        ("loop", c_void_p),
        ("receive_arena", c_void_p),
        ("queues", POINTER(RxqConfig)),
        *((name, c_uint32) for name in ("queue_count", "max_connections", "flags", "reserved")),
        ("counters", POINTER(TcpCounters)),
    ]


class TcpConnConfig(ctypes.Structure):
    _fields_ = [
        ("arena", c_void_p),
        ("header", Header),
        ("local_port", c_uint16),
        ("remote_port", c_uint16),
        *((name, c_uint32) for name in ("mtu", "flags", "congestion", "entries", "receive_buffer_bytes")),
        *(
            (name, c_uint64)
            for name in (
                "send_buffer_bytes",
                "connect_timeout_ns",
                "user_timeout_ns",
                "keepalive_idle_ns",
                "keepalive_interval_ns",
            )
        ),
        ("keepalive_probes", c_uint32),
        ("reserved", c_uint32),
        ("time_wait_ns", c_uint64),
    ]


class TcpInfo(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "state",
            "sent_segments",
            "sent_bytes",
            "acked_bytes",
            "received_segments",
            "received_bytes",
            "retransmitted_segments",
            "retransmitted_bytes",
            "dropped_segments",
            "duplicate_acks",
            "recoveries",
            "timeouts",
            "tail_probes",
            "undone_recoveries",
            "window_probes",
            "challenge_acks",
            "refused_segments",
            "csum_partial_segments",
            "icmp_messages",
            "srtt_ns",
            "rttvar_ns",
            "min_rtt_ns",
            "rto_ns",
            "cwnd_bytes",
            "ssthresh_bytes",
            "inflight_bytes",
            "unsent_bytes",
            "peer_window_bytes",
            "send_buffer_bytes",
            "mss_bytes",
            "path_mtu",
            "recovery_state",
            "outstanding_segments",
            "backoffs",
            "options",
            "send_wscale",
            "receive_wscale",
            "receive_mss",
            "written_bytes",
        )
    ]


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "xske_tcp_counters": TcpCounters,
    "xske_tcp_config": TcpConfig,
    "xske_tcp_conn_config": TcpConnConfig,
    "xske_tcp_info": TcpInfo,
}

_OUT = POINTER(c_void_p)
TABLE: dict[str, Any] = {
    "xske_tcp_create": ([POINTER(TcpConfig), _OUT], c_int, negative_errno),
    "xske_tcp_destroy": ([c_void_p], None, None),
    "xske_tcp_open": ([c_void_p, POINTER(TcpConnConfig), _OUT], c_int, negative_errno),
    "xske_tcp_connect": ([c_void_p], c_int, negative_errno),
    "xske_tcp_conn_destroy": ([c_void_p], None, None),
    "xske_tcp_set_mac": ([c_void_p, c_char_p], None, None),
}
SHORT: dict[str, Any] = {
    "xske_tcp_write": ([c_void_p, c_char_p, c_uint64], c_int64, None),
    "xske_tcp_alloc": ([c_void_p, POINTER(c_uint64), POINTER(c_uint32)], c_int, None),
    "xske_tcp_submit": ([c_void_p, c_uint64, c_uint32], c_int, None),
    "xske_tcp_read": ([c_void_p, c_void_p, c_uint64], c_int64, None),
    "xske_tcp_shutdown": ([c_void_p], c_int, None),
    "xske_tcp_close": ([c_void_p], c_int, None),
    "xske_tcp_abort": ([c_void_p], c_int, None),
    "xske_tcp_state": ([c_void_p], c_int, None),
    "xske_tcp_error": ([c_void_p], c_int, None),
    "xske_tcp_await": ([c_void_p, c_uint32], None, None),
    "xske_tcp_awaited": ([c_void_p], c_uint32, None),
    "xske_tcp_info": ([c_void_p, POINTER(TcpInfo)], None, None),
}
"""As native.short: with the GIL, for what is done in a microsecond. They return a negative errno
themselves."""
LONG: dict[str, Any] = {
    "xske_tcp_write": ([c_void_p, c_void_p, c_uint64], c_int64, None),
    "xske_tcp_read": ([c_void_p, c_void_p, c_uint64], c_int64, None),
}
"""As native.long: of many bytes, while others run."""

native: Any = declare(ctypes.CDLL(library_path()), "libxske.so", TABLE, prefix="xske_tcp_")
short: Any = declare(ctypes.PyDLL(library_path()), "libxske.so", SHORT, prefix="xske_tcp_")
long: Any = declare(ctypes.CDLL(library_path()), "libxske.so", LONG, prefix="xske_tcp_")
announce: Any = getattr(short, "await")  # a keyword

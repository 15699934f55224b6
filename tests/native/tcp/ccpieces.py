"""Wheel, RTT, congestion control and initial sequence numbers as the tests drive them."""

from ctypes import c_char_p, c_int, c_int64, c_uint32, c_uint64, c_void_p

from fake import BUILD

from xsk_engine._ffi.loader import declare, open_library

pieces = declare(
    open_library(str(BUILD / "tests/native/libcc_pieces.so"), "make test-native builds it"),
    "libcc_pieces.so",
    {
        "pieces_free": ([c_void_p], None, None),
        "pieces_timers": ([c_uint32, c_uint64], c_void_p, None),
        "pieces_arm": ([c_void_p, c_uint32, c_uint64], None, None),
        "pieces_cancel": ([c_void_p, c_uint32], None, None),
        "pieces_is_armed": ([c_void_p, c_uint32], c_int, None),
        "pieces_expire": ([c_void_p, c_uint64], c_int64, None),
        "pieces_next_ns": ([c_void_p], c_uint64, None),
        "pieces_rtt": ([], c_void_p, None),
        "pieces_sample": ([c_void_p, c_uint64, c_uint64], None, None),
        "pieces_back_off": ([c_void_p], None, None),
        "pieces_syn_timed_out": ([c_void_p], None, None),
        "pieces_rto_ns": ([c_void_p], c_uint64, None),
        "pieces_srtt_ns": ([c_void_p], c_uint64, None),
        "pieces_rttvar_ns": ([c_void_p], c_uint64, None),
        "pieces_min_ns": ([c_void_p], c_uint64, None),
        "pieces_cc": ([c_uint32, c_uint32], c_void_p, None),
        "pieces_ack": ([c_void_p, c_uint64, c_uint64, c_uint64, c_int], None, None),
        "pieces_loss": ([c_void_p, c_uint64, c_uint64], None, None),
        "pieces_timeout": ([c_void_p, c_uint64, c_int, c_uint64], None, None),
        "pieces_idle": ([c_void_p, c_uint64, c_uint64, c_uint64], None, None),
        "pieces_undo": ([c_void_p], None, None),
        "pieces_mss": ([c_void_p, c_uint32, c_uint64], None, None),
        "pieces_cwnd": ([c_void_p], c_uint64, None),
        "pieces_ssthresh": ([c_void_p], c_uint64, None),
        "pieces_name": ([c_void_p], c_char_p, None),
        "pieces_secret": ([], c_void_p, None),
        "pieces_isn": ([c_void_p, c_char_p, c_uint32, c_uint64], c_uint32, None),
        "pieces_timestamp_offset": ([c_void_p, c_char_p, c_uint32], c_uint32, None),
        "pieces_siphash": ([c_char_p, c_char_p, c_uint32], c_uint64, None),
    },
    prefix="pieces_",
)

MS, SECOND = 10**6, 10**9
UNLIMITED = 2**64 - 1


class Piece:
    """Something on the heap; a context manager frees it."""

    def __init__(self, handle):
        assert handle
        self.handle = handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pieces.free(self.handle)

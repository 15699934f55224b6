"""The TCP part of xske.h, raw: results are negative errnos, for tests that ask for them."""

import ctypes
import errno

from xsk_engine._ffi import nativetcp
from xsk_engine._ffi.loader import declare
from xsk_engine._ffi.native import library_path

STATES = (
    "NEW",
    "SYN_SENT",
    "SYN_RECEIVED",
    "ESTABLISHED",
    "FIN_WAIT_1",
    "FIN_WAIT_2",
    "CLOSE_WAIT",
    "CLOSING",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSED",
)
NODELAY, KEEPALIVE, PACING = nativetcp.NODELAY, nativetcp.KEEPALIVE, nativetcp.PACING
RENO, CUBIC = nativetcp.CONGESTION["reno"], nativetcp.CONGESTION["cubic"]

tcp = declare(
    ctypes.CDLL(library_path()),
    "libxske.so",
    {
        name: (arguments, result, None)
        for name, (arguments, result, _) in (nativetcp.TABLE | nativetcp.SHORT).items()
    },
    prefix="xske_tcp_",
)


def named(result):
    """A result as it is, an error by its name."""
    return errno.errorcode[-result] if result < 0 else result

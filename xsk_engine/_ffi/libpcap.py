"""libpcap, for reading capture files. Loaded when a file is opened."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_void_p
from functools import cache
from types import SimpleNamespace
from typing import Any

from xsk_engine._ffi.loader import declare, open_library

ERRBUF_BYTES = 256
TSTAMP_PRECISION_NANO = 1
LINKTYPE_ETHERNET = 1
_SONAMES = ("libpcap.so.0.8", "libpcap.so.1")
"""Debian's name, and everybody else's"""

_TABLE: dict[str, Any] = {
    "pcap_fopen_offline_with_tstamp_precision": ([c_void_p, ctypes.c_uint, c_char_p], c_void_p, None),
    "pcap_datalink": ([c_void_p], c_int, None),
    "pcap_datalink_val_to_description": ([c_int], c_char_p, None),
    "pcap_dispatch": ([c_void_p, c_int, c_void_p, c_void_p], c_int, None),
    "pcap_geterr": ([c_void_p], c_char_p, None),
    "pcap_close": ([c_void_p], None, None),
}
_STDIO: dict[str, Any] = {
    "fdopen": ([c_int, c_char_p], c_void_p, None),
    "fclose": ([c_void_p], c_int, None),
}


class PacketHeader(ctypes.Structure):
    """struct pcap_pkthdr (pcap/pcap.h), as native/trace.c reads it: with times in ns, ``tv_usec`` is ns."""

    _fields_ = [
        ("tv_sec", ctypes.c_long),
        ("tv_usec", ctypes.c_long),
        ("caplen", ctypes.c_uint32),
        ("len", ctypes.c_uint32),
    ]


@cache
def load() -> SimpleNamespace:
    """UnavailableError without it."""
    from xsk_engine.errors import UnavailableError

    hint = "install libpcap (Debian, Ubuntu: apt-get install libpcap0.8)"
    try:
        library = open_library(_SONAMES[1], hint)
    except UnavailableError:
        library = open_library(_SONAMES[0], hint)
    functions = declare(library, library._name, _TABLE, prefix="pcap_")
    functions.stdio = declare(open_library("libc.so.6", "a glibc system is needed"), "libc", _STDIO)
    return functions

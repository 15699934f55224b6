"""libpcap, for reading capture files and for compiling filters. Loaded when it is needed."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_uint32, c_void_p
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
    "pcap_open_dead": ([c_int, c_int], c_void_p, None),
    "pcap_compile": ([c_void_p, c_void_p, c_char_p, c_int, c_uint32], c_int, None),
    "pcap_freecode": ([c_void_p], None, None),
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


class BpfProgram(ctypes.Structure):
    """struct bpf_program (pcap/bpf.h): instructions of 8 bytes, as the kernel has them."""

    _fields_ = [("bf_len", ctypes.c_uint), ("bf_insns", c_void_p)]


_SNAPLEN = 262144


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


def compile_filter(expression: str) -> bytes:
    """The classic BPF program for a packet socket on Ethernet. ValueError: what is wrong with the
    expression."""
    pcap, program = load(), BpfProgram()
    dead = pcap.open_dead(LINKTYPE_ETHERNET, _SNAPLEN)
    try:
        if pcap.compile(dead, byref(program), expression.encode(), 1, 0xFFFFFFFF):
            raise ValueError(f"filter: {expression}: {pcap.geterr(dead).decode()}")
        try:
            return ctypes.string_at(program.bf_insns, 8 * program.bf_len)
        finally:
            pcap.freecode(byref(program))
    finally:
        pcap.close(dead)

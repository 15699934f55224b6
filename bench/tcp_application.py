"""The engine's application: tcp_writer.c, on connections that Python has opened."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Sequence

from bench.scene import library
from xsk_engine._ffi.native import library_path
from xsk_engine.tcp import TcpConnection

LIMIT_S = 60
_NAMES = ("write", "alloc", "submit", "info")


class _Functions(ctypes.Structure):
    """struct tcp_functions."""

    _fields_ = [(name, ctypes.c_void_p) for name in _NAMES]


class _Application(ctypes.Structure):
    """struct application."""

    _fields_ = [
        ("tcp", _Functions),
        ("megabytes", ctypes.c_uint32),
        ("in_place", ctypes.c_uint32),
        ("nap_us", ctypes.c_uint32),
        ("limit_s", ctypes.c_uint32),
    ]


@functools.cache
def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The writer and the engine's library: they are built when they are needed."""
    return library("tcp_writer"), ctypes.CDLL(library_path())


def send(
    connections: Sequence[TcpConnection],
    megabytes: int,
    *,
    nap_us: int,
    in_place: bool = False,
    cpu: int | None = None,
) -> None:
    """So many MiB on each, by one thread, which may be bound to a CPU. Returns when all is acknowledged.
    OSError."""
    writer, engine = _libraries()
    functions = (ctypes.cast(getattr(engine, f"xske_tcp_{name}"), ctypes.c_void_p) for name in _NAMES)
    application = _Application(_Functions(*functions), megabytes, in_place, nap_us, LIMIT_S)
    handles = (ctypes.c_void_p * len(connections))(*(connection.handle for connection in connections))
    results: list[int] = []

    def run() -> None:
        if cpu is not None:
            os.sched_setaffinity(threading.get_native_id(), {cpu})
        results.append(writer.send_all(ctypes.byref(application), handles, len(connections)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if results != [0]:
        raise OSError(-results[0], os.strerror(-results[0]))

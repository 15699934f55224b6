"""The process of a laboratory's wire, and how it is started, found and ended.

It stands in the wire's namespace, one native thread for each direction, and belongs to nobody's session, so
that Ctrl-C does not reach it. It ends with the process it watches (``lab run``) or when it is told to
(``lab down``).
Nothing is kept in files: it is found by its namespace and by the name of its page.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from xsk_engine import child
from xsk_engine._ffi import native as ffi
from xsk_engine.errors import UnavailableError
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.wirepage import NAME, WirePage
from xsk_engine.lab.wirespec import BACK, FORWARD, WireSpec

_START_S = 20.0
_END_S = 5.0
_WATCH_S = 10.0
_NICE = -10
_FRAME_BYTES_BEYOND_MTU = 14 + topology.INNER_MTU_MORE
_SAYS_READY = "ready "


@dataclass(frozen=True)
class Forwarder:
    """A running one."""

    pid: int
    page: WirePage

    def end(self) -> None:
        """Kills it and waits until it is gone; nothing when it is gone already."""
        try:
            process = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], _END_S)
        finally:
            os.close(process)


def start(wire_namespace_fd: int, spec: WireSpec, mtu: int, watched_pid: int | None) -> Forwarder:
    """Starts one between the two inner ends, which are there and up. It ends with the process `watched_pid`;
    None: only when it is told to. UnavailableError when it does not come up."""
    page = WirePage.create(spec)
    ready, says_ready = os.pipe()
    watched = os.pidfd_open(watched_pid) if watched_pid is not None else -1
    fds = [page.fd, says_ready, watched]
    command = child.python(__spec__.name, *map(str, fds), str(mtu))
    try:
        with namespaces.entered(wire_namespace_fd):
            process = subprocess.Popen(
                command,
                pass_fds=[fd for fd in fds if fd >= 0],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        os.close(says_ready)
        process.wait(_START_S)  # what it leaves behind is ours no more
        said = _read_all(ready, time.monotonic() + _START_S)
    finally:
        os.close(ready)
        if watched >= 0:
            os.close(watched)
    if not said.startswith(_SAYS_READY):
        raise UnavailableError("lab", f"wire {spec}", said or "its process ended before it was ready")
    return Forwarder(int(said.removeprefix(_SAYS_READY)), page)


def _read_all(fd: int, deadline: float) -> str:
    text = b""
    while select.select([fd], [], [], max(deadline - time.monotonic(), 0))[0]:
        if not (piece := os.read(fd, 4096)):
            break
        text += piece
    return text.decode()


def find(wire_namespace_fd: int) -> Forwarder | None:
    """The one that stands in that namespace."""
    namespace = os.fstat(wire_namespace_fd)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ends, or is not ours
            if os.path.samestat(os.stat(entry / "ns/net"), namespace) and (page := _page_of(entry)):
                return Forwarder(int(entry.name), page)
    return None


def _page_of(process: Path) -> WirePage | None:
    for fd in (process / "fd").iterdir():
        if os.readlink(fd).startswith(f"/memfd:{NAME} "):
            return WirePage(os.open(fd, os.O_RDWR | os.O_CLOEXEC))
    return None


def _forward(wire: ctypes.c_void_p, cpu: int) -> None:
    # One that moves to another core leaves frames in the first one's backlog, which others overtake.
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {cpu})
    ffi.native.wire_run(wire)


def _start_threads(page: WirePage, mtu: int) -> None:
    spec = page.spec
    inner = [socket.if_nametoindex(name) for name in topology.INNER_INTERFACES]
    cpus = sorted(os.sched_getaffinity(0))
    wires = []
    for direction in (FORWARD, BACK):
        counters = ctypes.pointer(page.counters(direction))
        config = ffi.WireConfig(counters, spec.seed, *spec.shares(direction), spec.delay_ns)
        config.direction = direction
        config.reorder_by = spec.reorder_by
        config.from_ifindex, config.to_ifindex = inner if direction == FORWARD else inner[::-1]
        config.max_frame_bytes = mtu + _FRAME_BYTES_BEYOND_MTU
        wires.append(ffi.create(ffi.native.wire_create, ctypes.byref(config)))
    for direction, wire in zip((FORWARD, BACK), wires, strict=True):
        cpu = cpus[-1 - direction] if len(cpus) > 1 else cpus[0]
        threading.Thread(target=_forward, args=(wire, cpu), daemon=True).start()


def _go_ahead_of_others() -> None:
    """For root: a wire that waits for a core loses packets. sched(7): with autogroups (a session is one) nice
    values count only within the session."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICE))


def main(page_fd: int, says_ready: int, watched: int, mtu: int) -> int:
    """Started by :func:`start`; does not return while it is needed."""
    if os.fork():
        os._exit(0)  # so that nobody has a child that he does not know
    os.setsid()
    os.chdir("/")
    _go_ahead_of_others()
    page = WirePage(page_fd)
    try:
        _start_threads(page, mtu)
    except OSError as error:
        os.write(says_ready, (error.strerror or str(error)).encode())
        return 1
    os.write(says_ready, f"{_SAYS_READY}{os.getpid()}".encode())
    os.close(says_ready)
    while True:
        ended, _, _ = select.select([watched] if watched >= 0 else [], [], [], _WATCH_S)
        if ended:
            os._exit(0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

"""Sockets from xsk-engine-open, which may open them where this process may not. Same shape as
:mod:`xsk_engine._ffi.sockopt`, of which the bound sockets are.

Source: native/open/xsk-engine-open.c."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xsk_engine._ffi import sockopt, uapi
from xsk_engine._ffi.native import Ring
from xsk_engine.config import MOST_OPENED
from xsk_engine.errors import UnavailableError

if TYPE_CHECKING:
    import subprocess

_VERSION = 1
_REQUEST = struct.Struct("=7I64I16s")
_REPLY = struct.Struct("=3I244s")

# It gives up by itself after 10 s.
_ANSWER_S = 12.0
_EXIT_S = 1.0


class Refusal(OSError):
    """The helper's own; ``strerror`` says which rule of which file, or what it lacks."""


def find(program: str) -> str:
    """Its path, from PATH where it has no slash. UnavailableError."""
    import shutil

    path = shutil.which(program)
    if path is None:
        raise UnavailableError(
            "opener", program, "no such program; docs/opener.md says how to install it", errno=errno.ENOENT
        )
    return path


def _start(path: str, stdin: socket.socket) -> subprocess.Popen[bytes]:
    import subprocess  # with it and the like, every start of an engine would take longer

    try:
        return subprocess.Popen([path], stdin=stdin.fileno(), stdout=subprocess.DEVNULL, env={})
    except OSError as error:
        raise UnavailableError(
            "opener", path, "it cannot be run; docs/opener.md says how to install it", errno=error.errno
        ) from None


def _end(process: subprocess.Popen[bytes]) -> int | None:
    """It is gone afterwards; its exit status. None: it hangs in the kernel, where nothing ends it."""
    from subprocess import TimeoutExpired

    with contextlib.suppress(TimeoutExpired):
        return process.wait(_EXIT_S)
    process.kill()
    with contextlib.suppress(TimeoutExpired):
        return process.wait(_EXIT_S)
    return None


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its fds. (socket.recv_fds does not pass the flag on.)"""
    fds = array.array("i")
    space = socket.CMSG_SPACE(MOST_OPENED * fds.itemsize)
    data, ancillary, _, _ = sock.recvmsg(_REPLY.size + 1, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) // fds.itemsize * fds.itemsize])
    return data, fds.tolist()


def _ask(path: str, request: bytes, umem_fd: int) -> tuple[bytes, list[int]]:
    """The helper's answer. UnavailableError when there is none."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with its:
            process = _start(path, its)
        answer, late = b"", False
        fds: list[int] = []
        try:
            ours.settimeout(_ANSWER_S)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended already
                socket.send_fds(ours, [request], [umem_fd])
                answer, fds = _receive(ours)
        except TimeoutError:
            late = True
            process.kill()
        finally:
            status = _end(process)
    if late:
        raise UnavailableError("opener", path, f"no answer within {_ANSWER_S:g} s", errno=errno.ETIMEDOUT)
    if len(answer) != _REPLY.size:
        for fd in fds:
            os.close(fd)
        what = f"a message of {len(answer)} bytes" if answer else f"exit status {status}, and no answer"
        raise UnavailableError("opener", path, f"{what}; is it an xsk-engine-open of this version?")
    return answer, fds


class Registration:
    """A umem registered by the helper, with all its queues bound; it lives in the kernel while any of them
    does. `umem_fd`: its memfd. OSError with bind's errno, and the queue as its filename; Refusal;
    UnavailableError: no helper there, or one that does not answer."""

    name = "opener"

    def __init__(
        self,
        address: int,
        length: int,
        chunk_size: int,
        tx_metadata_len: int,
        ring_size: int,
        *,
        program: str,
        umem_fd: int,
        ifname: str,
        queues: Sequence[int],
        bind_flags: int,
    ) -> None:
        self._rings = sockopt.Rings(ring_size, 0)
        self._sockets: dict[int, sockopt.BoundSocket] = {}
        request = _REQUEST.pack(
            _VERSION,
            bool(bind_flags & uapi.XDP_ZEROCOPY),
            bool(bind_flags & uapi.XDP_USE_SG),
            chunk_size,
            tx_metadata_len,
            ring_size,
            len(queues),
            *queues,
            *(0 for _ in range(MOST_OPENED - len(queues))),
            os.fsencode(ifname),
        )
        path = find(program)
        answer, fds = _ask(path, request, umem_fd)
        try:
            self._adopt(path, answer, fds, queues)
        except BaseException:
            self.close()
            raise
        finally:
            for fd in fds:
                os.close(fd)

    def _adopt(self, path: str, answer: bytes, fds: Sequence[int], queues: Sequence[int]) -> None:
        version, number, queue, text = _REPLY.unpack(answer)
        text = text.partition(b"\0")[0].decode("ascii", "replace")
        if number:
            raise (Refusal(number, text) if text else OSError(number, os.strerror(number), str(queue)))
        if version != _VERSION:
            raise UnavailableError("opener", path, "it is an xsk-engine-open of another version")
        if len(fds) != len(queues):
            why = f"{len(fds)} of {len(queues)} sockets have arrived; are there descriptors left (ulimit -n)?"
            raise UnavailableError("opener", path, why)
        for queue, fd in zip(queues, fds, strict=True):
            bound = self._sockets[queue] = sockopt.BoundSocket(fd)
            bound.bound = True
            bound.map_rings(self._rings)

    def open(
        self,
        ifname: str,
        ifindex: int,
        queue: int,
        bind_flags: int,
        stock: Callable[[Ring], None] | None = None,
    ) -> sockopt.BoundSocket:
        """The one of this queue. `stock` puts chunks on its fill ring: after the bind, not before."""
        bound = self._sockets[queue]
        if stock:
            stock(bound.fill)
        return bound

    def close(self) -> None:
        """Closes all sockets, and the umem with the last. Idempotent."""
        while self._sockets:
            self._sockets.popitem()[1].close()

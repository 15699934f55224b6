"""A server at the peer, for senders that want one, and how processes are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.arm import AbsentError
from bench.scene import OTHER_CPU, Scene

_START_S = 5.0
_LISTEN = "0A"
"""TCP_LISTEN in /proc/net/tcp"""


@contextlib.contextmanager
def listening(scene: Scene, command: Sequence[str], port: int) -> Iterator[None]:
    """`command` runs at the peer, and listens to this TCP port. AbsentError: it does not."""
    with scene.at_peer():
        server = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {OTHER_CPU}),
        )
    try:
        deadline = time.monotonic() + _START_S
        while not _listens(scene, port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise AbsentError(f"{command[0]} does not listen to port {port}")
            time.sleep(0.01)
        yield
    finally:
        kill(server)


def _listens(scene: Scene, port: int) -> bool:
    with scene.at_peer():
        lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    sockets = (line.split() for line in lines)
    return any(one[1].endswith(f":{port:04X}") and one[3] == _LISTEN for one in sockets)


def kill(process: subprocess.Popen[bytes]) -> None:
    """And its children; it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)

"""How long from starting a program to its first packet at the peer."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from bench.arm import AbsentError, Arm, Sample
from bench.arms.listening import kill, listening
from bench.scene import OTHER_CPU, RX, SENDER_CPU, Scene

START_S = 15.0
_SETTLE_S, _LONGEST_SETTLE_S = 0.03, 2.0
_ETH_P_ALL = 0x0003
_UDP = 17


def is_to(frame: bytes, ports: Iterable[int]) -> bool:
    """Is it UDP to one of these ports, over IPv4 without options or IPv6 without extensions?"""
    ethertype = frame[12:14]
    if ethertype == b"\x08\x00":
        protocol, at = frame[23:24], 36
    elif ethertype == b"\x86\xdd":
        protocol, at = frame[20:21], 56
    else:
        return False
    if protocol != bytes([_UDP]) or len(frame) < at + 2:
        return False
    return struct.unpack_from(">H", frame, at)[0] in ports


class FirstPacketArm(Arm):
    """``command``: a sender, which is killed after its first packet. ``server``: what must listen to a TCP
    port at the peer before it starts, and that port; ``undo``: commands that take away what a kill leaves. A
    sample has first_packet_s."""

    def __init__(
        self,
        name: str,
        scene: Scene,
        command: Callable[[], Sequence[str]],
        ports: Sequence[int],
        *,
        ours: bool = False,
        server: tuple[Sequence[str], int] | None = None,
        undo: Sequence[Sequence[str]] = (),
    ) -> None:
        super().__init__(name)
        self.ours = ours
        self._scene, self._command, self._ports = scene, command, ports
        self._server, self._undo = server, undo
        self._said: Path = scene.folder / "first.said"
        self._sample: Sample = {}

    def setup(self) -> None:
        """Once for the caches."""
        self.run()

    def run(self) -> None:
        command = list(self._command())
        with self._served(), self._wire() as wire, self._said.open("wb") as said:
            start = time.perf_counter()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {SENDER_CPU, OTHER_CPU}),
            )
            try:
                self._sample = {"first_packet_s": self._until_first(wire, process, start)}
            finally:
                kill(process)
                for one in self._undo:
                    subprocess.run(one, check=False, capture_output=True, timeout=10)
        self._settle()

    def _served(self) -> contextlib.AbstractContextManager[None]:
        return listening(self._scene, *self._server) if self._server else contextlib.nullcontext()

    def sample(self) -> Sample:
        return self._sample

    def _until_first(self, wire: socket.socket, process: subprocess.Popen[bytes], start: float) -> float:
        ended = False
        while time.perf_counter() < start + START_S:
            with contextlib.suppress(TimeoutError):
                if is_to(wire.recv(128), self._ports):
                    return time.perf_counter() - start
                continue
            if ended:  # and nothing came since
                break
            ended = process.poll() is not None
        lines = self._said.read_text(errors="replace").strip().splitlines()
        raise AbsentError(f"{self.name} sends nothing: {lines[-1] if lines else 'and says nothing'}")

    @contextlib.contextmanager
    def _wire(self) -> Iterator[socket.socket]:
        """What the peer's interface sees, from now on."""
        with self._scene.at_peer():
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with wire:
            wire.bind((RX, _ETH_P_ALL))
            wire.settimeout(0.2)
            yield wire

    def _settle(self) -> None:
        """Until nothing of it arrives any more."""
        deadline = time.monotonic() + _LONGEST_SETTLE_S
        seen = -1
        while (now := self._scene.received().packets) != seen and time.monotonic() < deadline:
            seen = now
            time.sleep(_SETTLE_S)

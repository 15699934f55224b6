"""Programs that send one stream without end, and take turns: each is stopped (SIGSTOP) while the others have
their slices. Machines that are shared change their speed within seconds, and only slices that are shorter
than that see the same machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from bench.arm import AbsentError, Arm, Sample
from bench.noise import cpu_seconds, difference
from bench.scene import OTHER_CPU, SENDER_CPU, Scene

WARM_UP_S = 0.01
SLICE_S = 0.08
_SEEN_PACKETS = 100
"""at the peer, before a sender counts as started"""
_START_S = 15.0
_PAUSE_S = 0.01


class StreamArm(Arm):
    """``command``: makes the command line, as late as possible. ``own_cpus``: it pins its sender itself;
    others are pinned to the sender's CPU as a whole. A sample has packets and bytes (of frames without FCS,
    both by the peer's interface), seconds, and the CPU seconds of the whole machine."""

    def __init__(
        self,
        name: str,
        scene: Scene,
        command: Callable[[], Sequence[str]],
        *,
        ours: bool = False,
        own_cpus: bool = False,
        slice_s: float = SLICE_S,
    ) -> None:
        super().__init__(name)
        self.ours = ours
        self._scene, self._command, self._slice_s = scene, command, slice_s
        self._cpus = {SENDER_CPU, OTHER_CPU} if own_cpus else {SENDER_CPU}
        self._process: subprocess.Popen[bytes] | None = None
        self._said = scene.folder / f"{name.replace(' ', '-')}.said"
        self._sample: Sample = {}

    def setup(self) -> None:
        """Starts it, waits until the peer sees its packets, and stops it for now."""
        before = self._scene.received().packets
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                list(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # its children are stopped with it
                preexec_fn=lambda: os.sched_setaffinity(0, self._cpus),
            )
        deadline = time.monotonic() + _START_S
        while self._scene.received().packets < before + _SEEN_PACKETS:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AbsentError(f"{self.name} sends nothing: {self._last_words()}")
            time.sleep(0.01)
        self._signal(signal.SIGSTOP)
        time.sleep(_PAUSE_S)

    def run(self) -> None:
        self._signal(signal.SIGCONT)
        time.sleep(WARM_UP_S)
        cpu, first, start = cpu_seconds(), self._scene.received(), time.perf_counter()
        time.sleep(self._slice_s)
        last, end, cpu_after = self._scene.received(), time.perf_counter(), cpu_seconds()
        self._signal(signal.SIGSTOP)
        time.sleep(_PAUSE_S)
        if self._process is None or self._process.poll() is not None:
            raise AbsentError(f"{self.name} has ended: {self._last_words()}")
        self._sample = {
            "packets": last.packets - first.packets,
            "bytes": last.bytes - first.bytes,
            "seconds": end - start,
            **difference(cpu_after, cpu),
        }

    def sample(self) -> Sample:
        return self._sample

    def teardown(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(10)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        lines = self._said.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "and says nothing"

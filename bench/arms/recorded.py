"""Programs that send once from beginning to end, while tcpdump writes down at the peer what arrives when."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.arm import AbsentError, Arm
from bench.scene import OTHER_CPU, PORT, RX, SENDER_CPU, Scene

LIMIT_S = 60
_SETTLE_S = 0.3
_SNAP_BYTES, _BUFFER_KIB = 64, 16384


class RecordedArm(Arm):
    """``ours`` pins its sender itself; others are pinned to the sender's CPU. Who derives from it makes the
    sample of ``recorded`` (pcap, times in ns) and, if it is ours, of ``report``, when `run` is done."""

    recorded: Path

    def __init__(self, name: str, scene: Scene, command: Sequence[str], *, ours: bool) -> None:
        super().__init__(name)
        self.ours = ours
        self._scene, self._command = scene, list(command)
        self._cpus = {SENDER_CPU, OTHER_CPU} if ours else {SENDER_CPU}
        self._said = ""
        self.recorded = scene.folder / "recorded.pcap"

    def setup(self) -> None:
        for program in ("tcpdump", self._command[0]):
            if not shutil.which(program):
                raise AbsentError(f"there is no {program} here")

    def run(self) -> None:
        recorder = self._start_recorder()
        try:
            done = subprocess.run(
                self._command,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                preexec_fn=lambda: os.sched_setaffinity(0, self._cpus),
            )
            time.sleep(_SETTLE_S)
        finally:
            recorder.send_signal(signal.SIGINT)
            try:
                recorder.communicate(timeout=10)
            finally:
                recorder.kill()
                recorder.wait(10)
        if done.returncode:
            raise RuntimeError(f"{self.name}: ended with {done.returncode}: {done.stderr.strip()}")
        self._said = done.stdout

    def report(self) -> Any:
        """What the last run said of itself."""
        return json.loads(self._said)

    def _start_recorder(self) -> subprocess.Popen[bytes]:
        """AbsentError: it does not listen; in a user namespace there is no other user for it to become."""
        with self._scene.at_peer():
            recorder = subprocess.Popen(
                [
                    *("tcpdump", "-i", RX, "-w", str(self.recorded), "-s", str(_SNAP_BYTES)),
                    *("-B", str(_BUFFER_KIB), "--immediate-mode", "--time-stamp-precision=nano"),
                    f"udp dst port {PORT}",
                ],
                stderr=subprocess.PIPE,
                preexec_fn=lambda: os.sched_setaffinity(0, {OTHER_CPU}),
            )
        assert recorder.stderr is not None
        said = b""
        for line in recorder.stderr:
            if b"listening on" in line:
                return recorder
            said = line
        recorder.wait(10)
        raise AbsentError(said.decode(errors="replace").strip() or "tcpdump has ended")

"""Programs that send at a rate for a while, and when their frames arrive (bench/programs/arrivals.c)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from bench.arm import AbsentError, Arm, Sample
from bench.arms.listening import listening
from bench.scene import BUILD, OTHER_CPU, PORT, RX, SENDER_CPU, Scene

LIMIT_S = 90
_SILENCE_S = 1.5
"""ends a run, or three gaps do; less than a second would end trafgen's, which sends once a second"""
_END_S = 30


def figures_of(seen: dict[str, Any], rate: float) -> Sample:
    """Of what arrivals.c prints: percent off the rate, and gap errors in ns. Two frames at least."""
    achieved = (seen["frames"] - 1) / seen["span_ns"] * 1e9
    gaps = {f"gap_error_{name}": float(seen[name]) for name in ("p50_ns", "p99_ns", "p99_9_ns")}
    return {"off_percent": (achieved / rate - 1) * 100, **gaps}


class ArrivingArm(Arm):
    """``command``: sends to `port` at `rate` in packets per second and ends. ``ours`` pins its sender itself,
    others are pinned to the sender's CPU. ``server``: must listen at the peer meanwhile, to `port`.
    ``missing``: what it lacks here, if anything."""

    def __init__(
        self,
        name: str,
        scene: Scene,
        command: Callable[[], Sequence[str]],
        rate: float,
        *,
        port: int = PORT,
        ours: bool = False,
        server: Sequence[str] | None = None,
        missing: Callable[[], str] = lambda: "",
    ) -> None:
        super().__init__(name)
        self.ours = ours
        self._scene, self._command, self._rate, self._port = scene, command, rate, port
        self._server, self._missing = server, missing
        self._cpus = {SENDER_CPU, OTHER_CPU} if ours else {SENDER_CPU}
        self._sample: Sample = {}

    def setup(self) -> None:
        why = self._missing()
        if why:
            raise AbsentError(why)

    def run(self) -> None:
        served = (
            listening(self._scene, self._server, self._port) if self._server else contextlib.nullcontext()
        )
        with served:
            watcher = self._watch()
            try:
                done = subprocess.run(
                    list(self._command()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    timeout=LIMIT_S,
                    preexec_fn=lambda: os.sched_setaffinity(0, self._cpus),
                )
                out = watcher.communicate(timeout=_END_S)[0]
            finally:
                watcher.kill()
                watcher.communicate(timeout=10)
        seen = json.loads(out)
        if done.returncode or seen["frames"] < 2:
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise RuntimeError(f"{self.name}: status {done.returncode}, {seen['frames']} frames came: {said}")
        self._sample = figures_of(seen, self._rate)

    def sample(self) -> Sample:
        return self._sample

    def _served(self) -> contextlib.AbstractContextManager[None]:
        if self._server is None:
            return contextlib.nullcontext()
        return listening(self._scene, self._server, self._port)

    def _watch(self) -> subprocess.Popen[bytes]:
        """Returns when it sees what comes. RuntimeError."""
        silence_s = max(_SILENCE_S, 3 / self._rate)
        with self._scene.at_peer():
            watcher = subprocess.Popen(
                [str(BUILD / "arrivals"), RX, str(self._port), str(silence_s), f"{1e9 / self._rate:.0f}"],
                stdout=subprocess.PIPE,
                preexec_fn=lambda: os.sched_setaffinity(0, {OTHER_CPU}),
            )
        assert watcher.stdout is not None
        if watcher.stdout.readline() != b"ready\n":
            watcher.kill()
            watcher.communicate(timeout=10)
            raise RuntimeError("arrivals: is not ready")
        return watcher

"""Senders that keep a rate for a while, all of the same packet, with a signature at its end."""

from __future__ import annotations

import json
import os
import subprocess
import time
from abc import ABC, abstractmethod
from ipaddress import ip_address

from bench.arm import AbsentError
from bench.scene import BUILD, PORT, SENDER_CPU, TX, engine_mode, everywhere
from xsk_engine import Engine, EngineConfig, parse_flow
from xsk_engine.lab import topology
from xsk_engine.packet import parse_mac, udp_frame, udp_header_bytes

FRAME_BYTES = 66
"""the shortest UDP packet over IPv4 that has room for a signature, without FCS"""
_PATIENCE_S = 30.0


class Load(ABC):
    """``run`` blocks; one at a time."""

    def open(self) -> None:  # noqa: B027, as most have nothing to open
        """Everything that is not to be measured. AbsentError, XskError."""

    @abstractmethod
    def run(self, pps: int, seconds: float) -> int:
        """Sends at this rate, 0: as fast as it goes; how many packets that were. Sequences start at 0."""

    def close(self) -> None:  # noqa: B027, as most have nothing to close
        """Ends what open() began. Idempotent."""


class EngineLoad(Load):
    """The loop that `send --signature` runs, in this process, which need not start anew each time."""

    FLOW = (
        f"ip src={topology.TX_IPV4} dst={topology.RX_IPV4} / udp dst={PORT} ; signature ; size={FRAME_BYTES}"
    )

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def open(self) -> None:
        with everywhere():
            engine = Engine(EngineConfig(TX, cpus=(SENDER_CPU,), mode=engine_mode()))
        self._engine = engine.open()

    def run(self, pps: int, seconds: float) -> int:
        assert self._engine is not None
        running = self._engine.start(parse_flow(self.FLOW), rate=f"{pps}pps" if pps else None)
        time.sleep(seconds)
        running.stop()
        running.wait(_PATIENCE_S)
        return running.counts()[0][0]

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


class PacedLoad(Load):
    """bench/programs/paced.c. ``how``: sendto, sendmmsg or packet."""

    def __init__(self, how: str) -> None:
        self._how = how

    def run(self, pps: int, seconds: float) -> int:
        command = [
            str(BUILD / "paced"),
            self._how,
            TX,
            str(SENDER_CPU),
            str(pps),
            f"{seconds:.3f}",
            frame().hex(),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds + _PATIENCE_S,
            preexec_fn=lambda: os.sched_setaffinity(0, {SENDER_CPU}),
        )
        if done.returncode:
            raise AbsentError(f"paced {self._how}: {done.stderr.strip()}")
        return int(json.loads(done.stdout)["sent"])


def frame() -> bytes:
    """What EngineLoad sends, but for the signature."""
    return udp_frame(
        parse_mac(topology.RX_MAC),
        parse_mac(topology.TX_MAC),
        ip_address(topology.TX_IPV4),
        ip_address(topology.RX_IPV4),
        9,
        PORT,
        bytes(FRAME_BYTES - udp_header_bytes(4)),
    )

"""The engine's own senders as commands, as bench/peers.py has the others'."""

from __future__ import annotations

import sys

from bench.scene import PORT, ROOT, SENDER_CPU, TX, engine_mode
from xsk_engine.lab import topology

ENDS = f"ip src={topology.TX_IPV4} dst={topology.RX_IPV4}"


def fixed(size: int) -> str:
    """One unchanging packet of so many bytes, to the bound port."""
    return f"{ENDS} / udp dst={PORT} ; size={size}"


def send(*what: str, queue: int | str = 0, cpu: int | str | None = SENDER_CPU) -> list[str]:
    """`send` with these options, without end unless they say one. It pins its own sender; None: nobody is."""
    place = ["--queue", str(queue), "--mode", engine_mode()]
    place += [] if cpu is None else ["--cpu", str(cpu)]
    return [sys.executable, "-m", "xsk_engine", "send", TX, *place, *what]


def application(how: str, *, queue: int = 0, payload_bytes: int = 64) -> list[str]:
    """A program that uses the library, or does the same without it: bench/library_arms.py. It pins itself."""
    script = str(ROOT / "bench/library_arms.py")
    return [sys.executable, script, how, str(queue), str(SENDER_CPU), str(payload_bytes)]

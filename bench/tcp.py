"""``make bench-tcp``: a TCP connection of the engine beside the kernel's TCP. First half, on the emulated
machine: what a packet costs its sender in zero-copy (tcp_instructions.py). Second half, on veth: goodput, and
the CPU time for it (tcp_goodput.py).

``python -m bench.tcp instructions``, or ``goodput``, is one half alone. ROUNDS in the environment: fewer, to
try it, or more.
"""

from __future__ import annotations

import os
import sys

from rich.console import Console

from bench import tcp_instructions

HALVES = {"instructions": (tcp_instructions.run, 5)}
"""and their rounds"""
COLUMNS = 100


def main() -> None:
    """Both halves, or those named: the second wants a machine that does nothing else."""
    console = Console(width=COLUMNS)
    for half in sys.argv[1:] or HALVES:
        run, rounds = HALVES[half]
        run(console, int(os.environ.get("ROUNDS") or rounds))


if __name__ == "__main__":
    main()

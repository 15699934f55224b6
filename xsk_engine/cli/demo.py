"""``xsk-engine demo``."""

from __future__ import annotations

import signal
import subprocess
import sys

import click

from xsk_engine.cli import options


@click.command("demo", short_help="Frames through a private laboratory, every one checked.")
@click.option("--seconds", type=options.SECONDS, default="3", show_default=True, help="Of each phase.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end.")
def command(seconds: float, as_json: bool) -> int:
    """Send frames between two private network namespaces and check every one. No root needed.

    First 100 kpps of 512-byte frames to a kernel UDP socket, where nothing may be lost or corrupt (else exit
    code 1), then as fast as it goes. Exit code 3 where user namespaces do not work.
    """
    helper = [sys.executable, "-m", "xsk_engine.demo", str(seconds), *(["json"] if as_json else [])]
    # Ctrl-C reaches the helper as well; this process only waits for its summary and hands SIGTERM on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(helper)
    signal.signal(signal.SIGTERM, lambda number, _frame: process.send_signal(number))
    signal.signal(signal.SIGINT, lambda number, _frame: None)
    return process.wait()

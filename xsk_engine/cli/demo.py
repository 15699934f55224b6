"""``xsk-engine demo``."""

from __future__ import annotations

import os
import signal
import subprocess

import click

from xsk_engine import child
from xsk_engine.cli import options
from xsk_engine.signals import ending


@click.command("demo", short_help="Frames through a private laboratory, every one checked.")
@click.option(
    "--seconds",
    type=options.SECONDS,
    default="3",
    show_default=True,
    help="Of the paced phase; the other takes a second at most.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end.")
@click.option(
    "--picture", type=options.FILE, metavar="FILE", help="Write the latencies' histogram as an SVG picture."
)
def command(seconds: float, as_json: bool, picture: str | None) -> int:
    """Send frames between two private network namespaces and check every one. No root needed.

    First 100 kpps of 512-byte frames to a sink, where nothing may be lost, duplicated, reordered or corrupted
    (else exit code 1), then as fast as it goes for a second. The sink is an XDP program's for root, a packet
    socket for others. At the end there are the latencies, too. Exit code 3 where user namespaces do not work.
    """
    words = [str(os.getpid()), str(seconds), "json" if as_json else "text", picture or ""]
    helper = child.python("xsk_engine.demo", *words)
    # A session of its own, so that a signal reaches it through this process and only once.
    signals: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, _frame: object) -> None:
        signals.append(number)
        if process is not None:
            process.send_signal(number)

    for number in ending():
        signal.signal(number, hand_on)
    # Its own imports are not to end in Python's traceback either: it unblocks.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    process = subprocess.Popen(helper, start_new_session=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    for early in signals:  # before it was there
        process.send_signal(early)
    code = process.wait()
    return 128 - code if code < 0 else code

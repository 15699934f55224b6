"""``xsk-engine bench``: the benchmark is no part of the package; this finds it in the sources beside it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from xsk_engine.errors import UnavailableError

SOURCES = Path(__file__).resolve().parents[2]
"""where the package lies in a development install"""


def find(sources: Path) -> click.Command:
    """The command of bench/cli.py there, or one that says what is missing whatever its arguments."""
    if not (sources / "bench/cli.py").is_file() or not (sources / "native").is_dir():
        return _unavailable(sources)
    if sys.path[:1] != [str(sources)]:
        sys.path.insert(0, str(sources))  # before the folder we are in, which may have another "bench"
    command: click.Command = importlib.import_module("bench.cli").command
    return command


def _unavailable(sources: Path) -> click.Command:
    @click.command("bench", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        """The engine beside the kernel and everybody else. Needs the source tree."""
        raise UnavailableError(
            "bench",
            " ".join(arguments),
            f"the benchmark needs the source tree, and {sources} is none; get the sources of xsk-engine and "
            "call `make bench` there, or `make bench-quick` for a few minutes",
        )

    return command


command = find(SOURCES)

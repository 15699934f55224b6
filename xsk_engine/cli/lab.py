"""``xsk-engine lab``: up, down, list, exec, run, peer, wire."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from xsk_engine.lab.topology import LabOptions

_WIRE_SETTLES_S = 1.0
_COMMAND = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group("lab", short_help="Laboratories: two network namespaces and a veth pair.")
def command() -> None:
    """Laboratories: network namespaces tx and rx, joined by the veth pair vtx (10.77.0.1, fd77::1) and
    vrx (10.77.0.2, fd77::2). With --wire a third one stands between them, in which packets are lost, doubled,
    reordered, corrupted and delayed, and counted."""


_mtu = click.option("--mtu", type=int, default=1500, show_default=True, help="bytes")
_queues = click.option("--queues", type=int, default=1, show_default=True, help="per end")
_wire = click.option(
    "--wire",
    metavar="FAULTS",
    help="A wire between the ends: clean, or some of drop=P,dup=P,reorder=P,corrupt=P (chances from 0 to 1), "
    "delay=TIME, seed=N, direction=forward|back|both (of the faults; forward: tx to rx), reorder_by=N.",
)


def _options(mtu: int, queues: int, wire: str | None) -> LabOptions:
    from xsk_engine.lab.topology import LabOptions
    from xsk_engine.lab.wirespec import parse_wire

    return LabOptions(mtu, queues, parse_wire(wire) if wire is not None else None)


@command.command()
@click.argument("name")
@_mtu
@_queues
@_wire
def up(name: str, mtu: int, queues: int, wire: str | None) -> None:
    """Make laboratory NAME (root). Again with the same options: nothing happens."""
    from xsk_engine.lab import named

    made = named.up(name, _options(mtu, queues, wire))
    click.echo(f"{name} is {'up' if made else 'up already'}: {name}-tx (vtx), {name}-rx (vrx)", err=True)


@command.command()
@click.argument("name")
def down(name: str) -> None:
    """Remove laboratory NAME (root)."""
    from xsk_engine.lab import named

    named.down(name)


@command.command("list")
def list_() -> None:
    """The laboratories that are up, a line each."""
    from xsk_engine.lab import named

    for name in named.names():
        options = named.options_of(name)
        if options is None:
            click.echo(f"{name}  incomplete")
            continue
        wire = f"  wire {options.wire}" if options.wire else ""
        click.echo(f"{name}  mtu {options.mtu}  queues {options.queues}{wire}")


def _exec(replace: Callable[[list[str]], None], program: tuple[str, ...]) -> int:
    """Replaces this process; what comes back is a shell's code for a command that cannot run."""
    # Behind the first argument click leaves the -- that ends the options where it is.
    words = list(program[1:] if program[0] == "--" else program)
    if not words:
        raise click.UsageError("no command after --")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and so by what it becomes
        signal.signal(number, signal.SIG_DFL)
    try:
        replace(words)
    except (FileNotFoundError, PermissionError) as error:
        if error.errno == errno.EPERM:  # of a namespace, not of the program
            raise
        click.echo(f"xsk-engine: exec({words[0]}): {error.strerror}", err=True)
        return 127 if isinstance(error, FileNotFoundError) else 126
    return 0


@command.command("exec", context_settings=_COMMAND)
@click.argument("name")
@click.argument("side", type=click.Choice(["tx", "rx", "wire"]))
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, side: str, program: tuple[str, ...]) -> int:
    """Run a program on one side of laboratory NAME, or in its wire (root)."""
    from xsk_engine.lab import named

    return _exec(lambda words: named.exec_in(name, side, words), program)


@command.command(context_settings=_COMMAND)
@_mtu
@_queues
@_wire
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def run(mtu: int, queues: int, wire: str | None, program: tuple[str, ...]) -> int:
    """Run a program on the tx side of a laboratory of its own, as root or not."""
    from xsk_engine.lab import private

    options = _options(mtu, queues, wire)
    return _exec(lambda words: private.exec_in_new(options, words), program)


@command.command(context_settings=_COMMAND)
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def peer(program: tuple[str, ...]) -> int:
    """Run a program at the other end (vrx) of the laboratory in which this is called, one of `lab run`."""
    from xsk_engine.lab import private

    return _exec(private.exec_at_peer, program)


def _table(report: dict[str, Any]) -> str:
    names = list(report["forward"])
    width = max(map(len, names))
    lines = [f"wire {report['wire']}", f"{'':{width}} {'tx to rx':>15} {'rx to tx':>15}"]
    lines += [f"{name:{width}} {report['forward'][name]:>15,} {report['back'][name]:>15,}" for name in names]
    return "\n".join(lines)


@command.command("wire")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def wire_(name: str | None, as_json: bool) -> None:
    """What the wire of laboratory NAME (root) has counted, or that of the one in which this is called.

    Waits for up to a second until the wire holds nothing any more and nothing new comes.
    """
    from xsk_engine.lab import named, private

    page = named.wire_page(name) if name else private.wire_page()
    report = page.settled(_WIRE_SETTLES_S)
    click.echo(json.dumps(report) if as_json else _table(report))

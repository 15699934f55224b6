"""``xsk-engine lab``: up, down, list, exec, run, peer."""

from __future__ import annotations

import errno
from collections.abc import Callable

import click

_COMMAND = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group("lab", short_help="Laboratories: two network namespaces and a veth pair.")
def command() -> None:
    """Laboratories: network namespaces tx and rx, joined by the veth pair vtx (10.77.0.1, fd77::1) and
    vrx (10.77.0.2, fd77::2)."""


_mtu = click.option("--mtu", type=int, default=1500, show_default=True, help="bytes")
_queues = click.option("--queues", type=int, default=1, show_default=True, help="per end")


@command.command()
@click.argument("name")
@_mtu
@_queues
def up(name: str, mtu: int, queues: int) -> None:
    """Make laboratory NAME (root). Again with the same options: nothing happens."""
    from xsk_engine.lab import named
    from xsk_engine.lab.topology import LabOptions

    made = named.up(name, LabOptions(mtu, queues))
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
        click.echo(
            f"{name}  mtu {options.mtu}  queues {options.queues}" if options else f"{name}  incomplete"
        )


def _exec(replace: Callable[[list[str]], None], program: tuple[str, ...]) -> int:
    """Replaces this process; what comes back is a shell's code for a command that cannot run."""
    # Behind the first argument click leaves the -- that ends the options where it is.
    words = list(program[1:] if program[0] == "--" else program)
    if not words:
        raise click.UsageError("no command after --")
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
@click.argument("side", type=click.Choice(["tx", "rx"]))
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, side: str, program: tuple[str, ...]) -> int:
    """Run a program on one side of laboratory NAME (root)."""
    from xsk_engine.lab import named

    return _exec(lambda words: named.exec_in(name, side, words), program)


@command.command(context_settings=_COMMAND)
@_mtu
@_queues
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def run(mtu: int, queues: int, program: tuple[str, ...]) -> int:
    """Run a program on the tx side of a laboratory of its own, as root or not."""
    from xsk_engine.lab import private
    from xsk_engine.lab.topology import LabOptions

    options = LabOptions(mtu, queues)
    return _exec(lambda words: private.exec_in_new(options, words), program)


@command.command(context_settings=_COMMAND)
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def peer(program: tuple[str, ...]) -> int:
    """Run a program at the other end (vrx) of the laboratory in which this is called, one of `lab run`."""
    from xsk_engine.lab import private

    return _exec(private.exec_at_peer, program)

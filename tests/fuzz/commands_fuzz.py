"""Command lines: every command's arguments and options are parsed, and dry runs run; exit 0, 2 or 3, and one
line that says why."""

import contextlib
import io
import os
import sys
import tempfile

import click
from fuzzing import Input, instrumented, main
from values_fuzz import (
    ADDRESSES,
    FIELDS,
    LAYER_WORDS,
    NUMBERS,
    PAYLOADS,
    SETTINGS,
    SIZES,
    UNITS,
    VALUES,
    WIRE,
)

with instrumented():
    from xsk_engine import cli
    from xsk_engine.cli import run_options

GROUP = cli._group
COMMANDS = [name for name in GROUP.list_commands(click.Context(GROUP)) if name != "bench"]
MOST_PACKETS = 64
PLAIN = [
    "lo", "eth0", "nothing0", "-", "--", "--help", "-h", "", "@", "max", "imix", "nest", "tcp", "icmp",
    "offload", "tx", "skip", "copy", "zerocopy", "bash", "udp dst=1-9", "ip dst=10.0.0.1 / udp",
    "ipv4.id=sequence", "10.0.0.1",
]  # fmt: skip
WORDS = [
    *NUMBERS,
    *ADDRESSES,
    *UNITS,
    *VALUES,
    *SIZES,
    *PAYLOADS,
    *WIRE,
    *FIELDS[::5],
    *LAYER_WORDS[::3],
    *SETTINGS,
]
FILES = ("pcap_out", "jsonl", "csv", "flows", "file", "plot", "picture")


def _options(command):
    found = [
        name for param in command.params for name in (*param.opts, *param.secondary_opts) if name[:1] == "-"
    ]
    subcommands = list(command.commands) if isinstance(command, click.Group) else []
    return found + subcommands


OPTIONS = {name: _options(GROUP.get_command(None, name)) for name in COMMANDS}


def _arguments(given):
    name = given.pick(COMMANDS + 12 * ["send"])
    arguments = [name, "--dry-run"] if name == "send" else [name]
    while given and len(arguments) < 16:
        what = given.byte()
        if what < 128 and OPTIONS[name]:
            arguments.append(OPTIONS[name][what % len(OPTIONS[name])])
        elif what < 192:
            arguments.append(given.pick(PLAIN))
        else:
            arguments.append(given.text(WORDS, 12))
    return [one.replace("file:", "") for one in arguments]


def _may_run(arguments):
    """A dry run that prints little and writes nothing; everything else is only parsed."""
    command = GROUP.get_command(None, arguments[0])
    context = command.make_context(arguments[0], arguments[1:], parent=click.Context(GROUP))
    params = context.params
    many = max(params.get("count") or 0, params.get("batch") or 0, params.get("burst") or 0)
    return (
        arguments[0] == "send"
        and params["dry_run"]
        and many <= MOST_PACKETS
        and not params["duration"]
        and not any(params.get(name) for name in FILES)
    )


def _run(arguments):
    """As the console script does it; its exit code and what it says."""
    sys.argv = ["xsk-engine", *arguments]
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as ended:
            return ended.code, said.getvalue()
    raise AssertionError("main() came back")


def one(data):
    arguments = _arguments(Input(data))
    if any("/dev/" in word or "/proc/" in word for word in arguments):
        return
    # Also parsed where it is not to be run: --help and errors end it before anything happens.
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runs = _may_run(arguments)
    except (click.ClickException, click.exceptions.Exit, ValueError):
        runs = True
    if not runs:
        return
    code, said = _run(arguments)
    assert code in (0, 2, 3), f"{arguments}: exit {code}: {said!r}"
    if code and "Usage:" not in said and "Commands:" not in said:
        assert said.find("\n") == len(said) - 1, f"{arguments}: {said!r}"


def _warm_up():
    os.chdir(tempfile.mkdtemp())
    run_options.open_pcap = lambda _: open(os.devnull, "wb", buffering=0)  # noqa: SIM115 nothing is written anywhere


one.warm_up = _warm_up

if __name__ == "__main__":
    main(one)

"""``xsk-engine tcp``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

import click

from xsk_engine.cli import options, tcp_options

_UMEM_MB = 4
# Of silence, when nobody has said how long. Lower: a peer that works on the answer is cut off; higher: one
# that has forgotten to close holds us up.
_WAIT_S = 60.0


@click.command("tcp", short_help="A TCP connection from stdin to stdout, sent by the engine.")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@options.in_sections(
    (
        "What",
        [
            click.option(
                "--file", type=options.FILE, metavar="FILE", help="Send this instead of what stdin gives."
            ),
            click.option(
                "--wait",
                type=options.SECONDS,
                help="When all is sent and the peer silent for so long, that is a good end  "
                "[default: 60s, and a bad one]",
            ),
        ],
    ),
    (
        "Where",
        [
            tcp_options.interface("-i"),
            click.option(
                "--source-port",
                type=click.IntRange(1, 65535),
                help="To send from  [default: the kernel's choice]",
            ),
        ],
    ),
)
@tcp_options.tcp_options
@options.in_sections(
    (
        "What it tells",
        [
            click.option(
                "--live/--no-live",
                default=None,
                help="Figures while it runs  [default: when stderr is a terminal, and stdin and stdout are "
                "none]",
            ),
            click.option(
                "--json",
                "as_json",
                is_flag=True,
                help="The summary as one JSON object, on stderr; nothing else is written there.",
            ),
        ],
    ),
)
def command(**arguments: Any) -> int:
    """Open a TCP connection to PORT of HOST (an address or a name), send what stdin gives, and write to
    stdout what comes back. The connection is the engine's, not the kernel's: root, and the interface's
    driver or veth (docs/tcp.md).

    At the end of the input our stream ends, and the peer's goes on until the peer ends it; with --wait until
    it is silent. A peer that ends its stream first still gets the rest of the input, unless that is a
    terminal. The summary goes to stderr.

    Exit codes: 0 both streams have ended, all is acknowledged; 1 refused, reset, no answer, unreachable, a
    peer that does not end its stream, or a file that gives or takes no more; 2 usage; 3 the environment lacks
    something or refuses: no capability, no route, no neighbour, a port that is taken; 130 after Ctrl-C, 143
    after SIGTERM, 129 after SIGHUP.
    """
    from xsk_engine import outfd
    from xsk_engine.signals import Interrupted, until_told
    from xsk_engine.tcppipe import run

    _check_descriptors(arguments)
    target = tcp_options.target("tcp", arguments, umem_mb=_UMEM_MB, source_port=arguments["source_port"] or 0)
    with until_told(), contextlib.ExitStack() as stack:
        source = 0
        if arguments["file"] not in (None, "-"):
            source = stack.enter_context(_opened(arguments["file"]))
        sink = outfd.own(1)
        stack.callback(os.close, sink)
        try:
            watches = _watches(arguments, source, stack)
            outcome = run(target, source, sink, arguments["wait"] or _WAIT_S, watches)
        except Interrupted as interrupted:
            return 128 + interrupted.number
        return _tell(outcome, arguments)


def _check_descriptors(arguments: dict[str, Any]) -> None:
    """Where stdin or stdout is closed, its number is soon something else's. UsageError, OSError."""
    if sys.stdin is None and arguments["file"] in (None, "-"):
        raise click.UsageError("stdin is closed; give --file FILE")
    if sys.stdout is None:
        raise OSError("stdout is closed")


@contextlib.contextmanager
def _opened(path: str) -> Any:
    """A descriptor. UsageError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise click.UsageError(f"--file {path}: {error.strerror}") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _watches(arguments: dict[str, Any], source: int, stack: contextlib.ExitStack) -> list[Any]:
    live = arguments["live"]
    if live is None:
        live = not arguments["as_json"] and sys.stderr.isatty() and not os.isatty(source) and not os.isatty(1)
    if not live:
        return []
    from rich.console import Console

    from xsk_engine import outfd
    from xsk_engine.tcplive import show

    console = Console(file=stack.enter_context(outfd.shown()))
    return [lambda pipe: show(pipe, console)]


def _tell(outcome: Any, arguments: dict[str, Any]) -> int:
    from xsk_engine.cli import EXIT_DONE, EXIT_FAILED, fail
    from xsk_engine.tcpreport import as_text

    as_json = arguments["as_json"]
    print(json.dumps(outcome.report) if as_json else as_text(outcome.report), file=sys.stderr)
    if outcome.error is not None:
        return EXIT_FAILED if as_json else fail(outcome.error, EXIT_FAILED)
    if outcome.signal:
        return int(128 + outcome.signal)
    if outcome.report["end"] == "wait" and arguments["wait"] is None:
        text = f"tcp: the peer has not ended its stream within {_WAIT_S:g} s; say --wait TIME if it need not"
        return EXIT_FAILED if as_json else fail(RuntimeError(text), EXIT_FAILED)
    return EXIT_DONE

"""``xsk-engine iperf3``."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import click

from xsk_engine import iperf3protocol, outfd
from xsk_engine.cli import options, tcp_options

# For one stream, and for each further one: some 600 KiB of send buffer for each of 16. Less: a stream has no
# room for what is on the way; more: they leave the cache.
_UMEM_MB, _UMEM_MB_EACH = 4, 1
_SEND_BUFFER_SHARE = 0.75
_BYTES = options.Parsed("bytes", iperf3protocol.parse_bytes)


def _no_reverse(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        raise click.UsageError(
            "-R: the engine sends; to measure what comes back, run iperf3 -c at the other end, or iperf3 -R"
        )


@click.command(
    "iperf3", short_help="A client for an unmodified iperf3 server, its streams sent by the engine."
)
@click.argument("host")
@options.in_sections(
    (
        "What",
        [
            click.option(
                "-p",
                "--port",
                type=click.IntRange(1, 65535),
                default=iperf3protocol.PORT,
                show_default=True,
                help="The server's.",
            ),
            click.option(
                "-t",
                "--time",
                "duration",
                type=click.IntRange(1, 86400),
                default=10,
                show_default=True,
                help="Seconds to send.",
            ),
            click.option(
                "-n", "--bytes", "count", type=_BYTES, help="Send so much instead: 100M; K is 1024."
            ),
            click.option(
                "-P",
                "--parallel",
                type=click.IntRange(1, iperf3protocol.MOST_STREAMS),
                default=1,
                show_default=True,
                help="Streams.",
            ),
            click.option(
                "-l",
                "--length",
                type=_BYTES,
                default="128K",
                show_default=True,
                help="Of a block; up to 1M.",
            ),
            click.option(
                "-R", "--reverse", is_flag=True, expose_value=False, callback=_no_reverse, hidden=True
            ),
        ],
    ),
    ("Where", [tcp_options.interface()]),
)
@tcp_options.tcp_options
@options.in_sections(
    (
        "What it tells",
        [
            click.option(
                "-i",
                "--interval",
                type=click.FloatRange(0, 3600),
                default=1.0,
                show_default=True,
                help="Seconds from one line to the next; 0: only the end.",
            ),
            click.option("-J", "--json", "as_json", is_flag=True, help="JSON with iperf3's names."),
        ],
    ),
)
def command(**arguments: Any) -> int:
    """Measure how fast the engine's TCP sends to HOST, where `iperf3 -s` runs as it is. The control
    connection is the kernel's; the streams, which are what is measured, are the engine's. Lines and JSON are
    iperf3's.

    What a sender is said to have sent has been acknowledged. There is no -R: the engine is a sender.

    Exit codes: 0 done; 1 refused, reset, the server is busy, or failed while running; 2 usage; 3 the
    environment lacks something or refuses; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    from xsk_engine import iperf3session
    from xsk_engine.signals import until_told

    test = _test(arguments)
    umem_mb = arguments["umem_mb"] or _UMEM_MB + _UMEM_MB_EACH * (test.streams - 1)
    share = int(umem_mb * (1 << 20) * _SEND_BUFFER_SHARE / test.streams)
    target = tcp_options.target(
        "iperf3", arguments, umem_mb=umem_mb, send_buffer_bytes=max(min(share, 4 << 20), 64 << 10)
    )
    with until_told(), contextlib.ExitStack() as stack:
        stdout = outfd.own(1)
        stack.callback(os.close, stdout)
        lines = _Lines(outfd.Outlet(stdout))
        tell = _silent if arguments["as_json"] else lines
        outcome = iperf3session.run(target, arguments["host"], test, tell)
        try:
            lines.end()
        except OSError:
            if outcome.error is None and not outcome.signal:
                raise
        return _tell(outcome, arguments)


def _test(arguments: dict[str, Any]) -> iperf3protocol.Iperf3Test:
    if arguments["length"] > iperf3protocol.MOST_BLOCK_BYTES:
        raise click.UsageError(f"-l {arguments['length']}: at most {iperf3protocol.MOST_BLOCK_BYTES} bytes")
    return iperf3protocol.Iperf3Test(
        streams=arguments["parallel"],
        duration_s=arguments["duration"],
        count_bytes=arguments["count"],
        block_bytes=arguments["length"],
        interval_s=arguments["interval"],
        congestion=arguments["congestion"],
        nodelay=arguments["nodelay"],
    )


def _silent(_what: str, _part: dict[str, Any]) -> None:
    pass


class _Lines:
    """Writes each part as it comes; nobody is waited for before the end."""

    def __init__(self, outlet: outfd.Outlet) -> None:
        self._outlet = outlet
        self._first = True

    def __call__(self, what: str, part: dict[str, Any]) -> None:
        from xsk_engine import iperf3report

        if what == "start":
            lines = [*iperf3report.start_lines(part), iperf3report.INTERVAL_HEAD]
        elif what == "interval":
            lines = iperf3report.interval_lines(part, first=self._first)
            self._first = False
        else:
            lines = iperf3report.end_lines(part)
        self._outlet.waiting += "\n".join([*lines, ""]).encode()
        with contextlib.suppress(OSError):  # its reader is gone, and end() says so
            self._outlet.push()

    def end(self) -> None:
        """OSError when not all could be written."""
        self._outlet.push_all()


def _tell(outcome: Any, arguments: dict[str, Any]) -> int:
    from xsk_engine import iperf3report
    from xsk_engine.cli import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_FAILED, fail
    from xsk_engine.errors import UnavailableError

    if arguments["as_json"]:
        print(json.dumps(outcome.report, indent="\t"))
    if outcome.signal:
        fail(InterruptedError(iperf3report.INTERRUPTED), EXIT_FAILED)
        return int(128 + outcome.signal)
    if outcome.error is None:
        if not arguments["as_json"]:
            print(f"\n{iperf3report.DONE}")
        return EXIT_DONE
    is_lacking = isinstance(outcome.error, UnavailableError)
    return fail(outcome.error, EXIT_ENVIRONMENT if is_lacking else EXIT_FAILED)

"""The options of every command that sends: where, how, and what it tells; and the run itself."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from xsk_engine.cli import options

MIB = 1 << 20
_STRICT_PERCENT = 1.0

# Of every command that opens an interface, or tells what happens.
MODE = click.option(
    "--mode", type=click.Choice(["auto", "copy", "zerocopy"]), default="auto", show_default=True
)
LINK_TIMEOUT = click.option("--link-timeout", type=options.SECONDS, default="5s", show_default=True)
DEFAULT_ROUTE = click.option(
    "--allow-default-route", is_flag=True, help="Also on the interface of the default route."
)
SANDBOX = click.option(
    "--sandbox",
    is_flag=True,
    help="Refuse files, sockets and programs to the threads that handle packets (seccomp).",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end.")
JSONL = click.option(
    "--jsonl",
    type=options.FILE,
    metavar="FILE",
    help="A JSON object per interval, a line each; - is stdout.",
)
CSV = click.option("--csv", type=options.FILE, metavar="FILE", help="The same as a table; - is stdout.")
METRICS = click.option(
    "--metrics",
    type=options.METRICS,
    metavar="[HOST:]PORT",
    help="Answer Prometheus there while it runs (OpenMetrics; default host: loopback).",
)

_WHERE = (
    click.option(
        "--cpu", "cpus", type=options.CPUS, help="i-th CPU for the i-th queue  [default: not pinned]"
    ),
    MODE,
    click.option("--umem-mb", type=click.IntRange(1, 65536), help="MiB  [default: 4, or what is needed]"),
    click.option(
        "--opener",
        type=options.FILE,
        metavar="PROGRAM",
        help="Let it open the sockets, where you may not: xsk-engine-open, or its path.",
    ),
    LINK_TIMEOUT,
    DEFAULT_ROUTE,
    SANDBOX,
)
_TELLING = (
    click.option("--strict-rate", is_flag=True, help="Exit 1 when the rate is missed by more than 1 %."),
    click.option(
        "--live/--no-live", default=None, help="Figures while it runs  [default: when stderr is a terminal]"
    ),
    AS_JSON,
    JSONL,
    CSV,
    click.option(
        "--interval", type=options.SECONDS, default="1s", show_default=True, help="Of --jsonl and --csv."
    ),
    METRICS,
    click.option(
        "--pcap-out",
        type=options.FILE,
        metavar="FILE",
        help="Write the packets, as they are sent, as pcap; - is stdout.",
    ),
    click.option(
        "--pcap-count", type=options.COUNT, help="Only the first packets, of each queue  [default: all]"
    ),
)


run_options = options.in_sections(("Where", _WHERE), ("What it tells", _TELLING))
"""All of them, in the order of the help."""


def link_bits_per_s(interface: str | None) -> int | None:
    """Its speed, if it says one."""
    import psutil

    stats = psutil.net_if_stats().get(interface or "")
    return stats.speed * 10**6 or None if stats else None


def check(arguments: Mapping[str, Any], queues: Sequence[int], file: str | None = None) -> None:
    """What options say together. UsageError. `file`: what is read, which nobody may write."""
    _check_files(arguments, file)
    cpus = arguments["cpus"]
    if cpus and len(cpus) != len(queues):
        raise click.UsageError(f"--cpu: {len(cpus)} CPUs for {len(queues)} queues; give one per queue")
    if arguments["pcap_count"] and not arguments["pcap_out"]:
        raise click.UsageError("--pcap-count: into which file? give --pcap-out")
    on_stdout = [
        f"--{name.replace('_', '-')} -" for name in ("jsonl", "csv", "pcap_out") if arguments[name] == "-"
    ]
    on_stdout += ["--json"] if arguments["as_json"] else []
    if len(on_stdout) > 1:
        raise click.UsageError(f"{', '.join(on_stdout)}: only one of them can go to stdout")


def _check_files(arguments: Mapping[str, Any], file: str | None) -> None:
    """No two of them may be the same."""
    named = {f"--{name.replace('_', '-')}": arguments[name] for name in ("jsonl", "csv", "pcap_out")}
    seen = {_identity(file): "FILE"} if file is not None else {}
    for option, path in named.items():
        if path is None or path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
            continue
        if (there := seen.setdefault(_identity(path), option)) != option:
            raise click.UsageError(f"{option} {path}: this is the file of {there}")


def _identity(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def device_for(operation: str, arguments: Mapping[str, Any]) -> Any:
    """The interface, unless it must be left alone."""
    from xsk_engine import netdev, route
    from xsk_engine.errors import UnavailableError

    interface = arguments["interface"]
    device = netdev.get(interface)
    if not arguments["allow_default_route"] and route.has_default_route(device.ifindex):
        raise UnavailableError(
            operation,
            interface,
            "it carries the default route; if that is what you want, say --allow-default-route",
        )
    return device


def may_lock(length: int) -> bool:
    """Is the locked-memory limit above it?"""
    import resource

    from xsk_engine import doctor

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return soft == resource.RLIM_INFINITY or length <= soft // 2 or doctor.may_lock_without_limit()


def open_pcap(path: str) -> Any:
    """An unbuffered file for packets that holds up nobody; ``-`` is stdout. UsageError."""
    from xsk_engine import outfd

    try:
        return open(path, "wb", buffering=0, opener=lambda path, _: outfd.opened(path))
    except OSError as error:
        raise click.UsageError(f"--pcap-out {path!r}: {error.strerror}") from None


def run(
    config: Any, plan: Any, watches: Sequence[Any], arguments: Mapping[str, Any], round_trip: Any = None
) -> int:
    """Sends, shows and writes what was asked for; the exit code. `round_trip` is open, if there is one."""
    from xsk_engine import session
    from xsk_engine.signals import until_told

    with until_told(), contextlib.ExitStack() as stack:
        pcap_out = None
        if arguments["pcap_out"] is not None:
            pcap_out = stack.enter_context(open_pcap(arguments["pcap_out"]))
        records = _records(arguments, plan)
        stack.callback(records.close)
        beside = [records.watch, *_watches(arguments, plan, stack)]
        if round_trip is not None:
            beside.append(round_trip.watch)

        def at_end(report: dict[str, Any]) -> Any:
            failure = _add_round_trip(round_trip, report)
            failure = records.finish(report) or failure
            stack.close()
            return failure

        outcome = session.run(config, plan, [*watches, *beside], pcap_out=pcap_out, at_end=at_end)
        return _print(outcome, arguments)


def _add_round_trip(round_trip: Any, report: dict[str, Any]) -> Any:
    """What went wrong, or None."""
    from xsk_engine.errors import XskError

    if round_trip is None:
        return None
    try:
        report["rtt"] = round_trip.report(report["submitted_packets"])
    except XskError as error:
        return error
    return None


def _records(arguments: Mapping[str, Any], plan: Any) -> Any:
    from xsk_engine.outputs import Csv, JsonLines, Records

    made: list[Any] = []
    try:
        for name, kind in (("jsonl", JsonLines), ("csv", Csv)):
            if arguments[name] is not None:
                made.append(kind(arguments[name]))
    except ValueError as error:
        for output in made:
            output.close()
        raise click.UsageError(str(error)) from None
    return Records(made, plan, arguments["interval"])


def _watches(arguments: Mapping[str, Any], plan: Any, stack: contextlib.ExitStack) -> list[Any]:
    watches: list[Any] = []
    if arguments["metrics"] is not None:
        from xsk_engine.metrics import MetricsServer

        server = MetricsServer(arguments["metrics"])
        stack.callback(server.close)
        watches.append(lambda engine: server.watch(engine, plan))
    live = sys.stderr.isatty() if arguments["live"] is None else arguments["live"]
    if live:
        from rich.console import Console

        from xsk_engine import outfd
        from xsk_engine.live import show

        console = Console(file=stack.enter_context(outfd.shown()))
        watches.append(lambda engine: show(engine, plan, console))
    return watches


def _print(outcome: Any, arguments: Mapping[str, Any]) -> int:
    from xsk_engine import report
    from xsk_engine.cli import EXIT_FAILED

    if arguments["as_json"]:
        import json

        print(json.dumps(outcome.report))
    else:
        width = os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else None
        print(report.as_text(outcome.report, width), file=sys.stderr)
    if outcome.error is not None:
        print(f"xsk-engine: {outcome.error}", file=sys.stderr)
    if outcome.signal:
        return int(128 + outcome.signal)
    missed = outcome.report["rate_error_percent"]
    if arguments["strict_rate"] and missed is not None and abs(missed) > _STRICT_PERCENT:
        print(f"xsk-engine: strict-rate: the rate was missed by {missed:+.3f} %", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_FAILED if outcome.error else 0

"""``xsk-engine sink``."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from typing import Any, TextIO

import click

from xsk_engine.cli import options, run_options
from xsk_engine.units import parse_int_list


def _ports(text: str) -> list[int]:
    return parse_int_list(text, "port")


_PORTS = options.Parsed("list", _ports)


@click.command("sink", short_help="Receive, check and measure what a sender with --signature sends.")
@click.argument("interface", shell_complete=options.complete_interface)
@options.in_sections(
    (
        "What",
        [
            click.option(
                "--port",
                "ports",
                type=_PORTS,
                metavar="LIST",
                help="Also all UDP to these ports, 9000,9100-9109: corrupt signatures are seen only so.",
            ),
            click.option(
                "--reflect",
                is_flag=True,
                help="Send packets with a signature back instead, for round trips.",
            ),
            click.option(
                "--flows",
                type=click.IntRange(1, 1 << 20),
                default=16384,
                show_default=True,
                help="Flow ids told apart; 4 KiB each, once it is seen.",
            ),
            click.option("--count", type=options.COUNT, help="Stop after so many received packets."),
            click.option("--duration", type=options.SECONDS, help="Stop after so long."),
            click.option(
                "--idle",
                type=options.SECONDS,
                help="Stop when nothing has come for so long, after the first.",
            ),
        ],
    ),
    (
        "Where",
        [
            click.option("--queue", "queues", type=options.QUEUES, help="0,2-3  [default: all]"),
            click.option(
                "--method",
                type=click.Choice(["auto", "xdp", "packet"]),
                default="auto",
                show_default=True,
                help="xdp: the kernel does not see the packets; packet: it sees them, too.",
            ),
            run_options.MODE,
            click.option(
                "--busy-poll",
                is_flag=True,
                help="Poll the driver, do not wait for interrupts (SO_PREFER_BUSY_POLL); takes a core.",
            ),
            click.option(
                "--ring",
                type=click.IntRange(64, 65536),
                default=2048,
                show_default=True,
                help="Entries of each receive ring, a power of two.",
            ),
            run_options.LINK_TIMEOUT,
            run_options.DEFAULT_ROUTE,
            run_options.SANDBOX,
        ],
    ),
    (
        "What it tells",
        [
            click.option(
                "--expect", type=click.Choice(["lossless"]), help="Exit 1 unless all came, once, intact."
            ),
            run_options.AS_JSON,
            run_options.JSONL,
            run_options.CSV,
            click.option(
                "--interval",
                type=options.SECONDS,
                default="1s",
                show_default=True,
                help="Of the live line, --jsonl, --csv.",
            ),
            click.option(
                "--live/--no-live",
                default=None,
                help="A line per interval  [default: when stderr is a terminal]",
            ),
            run_options.METRICS,
            click.option(
                "--pcap", type=options.FILE, metavar="FILE", help="Write the packets as pcap; - is stdout."
            ),
        ],
    ),
)
def command(**arguments: Any) -> int:
    """Receive on INTERFACE the packets of a sender with --signature, check them, and tell what was lost,
    duplicated, reordered or corrupted, and how long they took. Everything else passes to the kernel. With
    --reflect they go back to their sender instead, who measures (send --rtt, measure --reflector).

    Until --count, --duration, --idle, Ctrl-C, SIGTERM or SIGHUP, which are all a good end.

    Exit codes: 0 done; 1 failed while running, or not as --expect has it; 2 usage; 3 the environment lacks
    something or refuses."""
    from xsk_engine import outfd, sinkreport, sinksession
    from xsk_engine.signals import until_told
    from xsk_engine.sink import SinkConfig
    from xsk_engine.steering import Match

    _check(arguments)
    config = SinkConfig(
        arguments["interface"],
        match=Match(ports=tuple(arguments["ports"] or ())),
        queues=arguments["queues"],
        method=arguments["method"],
        mode=arguments["mode"],
        max_flows=arguments["flows"],
        ring_size=arguments["ring"],
        capture=arguments["pcap"] is not None,
        reflect=arguments["reflect"],
        link_timeout_s=arguments["link_timeout"],
        busy_poll=arguments["busy_poll"],
        drop_privileges=True,
        sandbox=arguments["sandbox"],
    )
    run_options.device_for("sink", arguments)
    until = sinksession.Until(arguments["duration"], arguments["count"], arguments["idle"])
    with until_told(), contextlib.ExitStack() as stack:
        shown = stack.enter_context(outfd.shown())
        pcap = stack.enter_context(run_options.open_pcap(arguments["pcap"])) if arguments["pcap"] else None
        collector = _metrics(arguments, stack)

        def on_open(sink: Any) -> None:
            if collector is not None:
                collector.figures = functools.partial(sinksession.figures_of, sink, flows=False)
                stack.callback(setattr, collector, "figures", None)
            _say_open(shown, sink)

        outcome = sinksession.run(
            config,
            until,
            outputs=_outputs(arguments, stack),
            interval_s=arguments["interval"],
            pcap_out=pcap,
            on_open=on_open,
            show=functools.partial(_show, shown) if _is_live(arguments) else None,
        )
        stack.close()
        if arguments["as_json"]:
            print(json.dumps(outcome.report))
        else:
            print(sinkreport.as_text(outcome.report), file=sys.stderr)
        return _code(arguments, outcome)


def _check(arguments: dict[str, Any]) -> None:
    if arguments["reflect"]:
        names = ("ports", "queues", "expect", "pcap", "busy_poll")
        given = [f"--{name.rstrip('s').replace('_', '-')}" for name in names if arguments[name]]
        if given:
            raise click.UsageError(f"{', '.join(given)}: not with --reflect, which receives nothing")
    on_stdout = [f"--{name} -" for name in ("jsonl", "csv", "pcap") if arguments[name] == "-"]
    on_stdout += ["--json"] if arguments["as_json"] else []
    if len(on_stdout) > 1:
        raise click.UsageError(f"{', '.join(on_stdout)}: only one of them can go to stdout")
    if arguments["busy_poll"] and arguments["method"] == "packet":
        raise click.UsageError("--busy-poll: not with --method packet, which has no AF_XDP sockets")
    files = [arguments[name] for name in ("jsonl", "csv", "pcap") if arguments[name] not in (None, "-")]
    if len({os.path.realpath(file) for file in files}) < len(files):
        raise click.UsageError("--jsonl, --csv, --pcap: two of them name the same file")


def _is_live(arguments: dict[str, Any]) -> bool:
    return bool(sys.stderr.isatty() if arguments["live"] is None else arguments["live"])


def _outputs(arguments: dict[str, Any], stack: contextlib.ExitStack) -> list[Any]:
    from xsk_engine import sinkreport
    from xsk_engine.outputs import Csv, JsonLines

    made: list[Any] = []
    if arguments["jsonl"]:
        made.append(JsonLines(arguments["jsonl"]))
    if arguments["csv"]:
        made.append(Csv(arguments["csv"], sinkreport.COLUMNS, sinkreport.rows))
    for output in made:
        stack.callback(output.close)
    return made


def _metrics(arguments: dict[str, Any], stack: contextlib.ExitStack) -> Any:
    if arguments["metrics"] is None:
        return None
    from xsk_engine.metrics import MetricsServer, SinkCollector

    collector = SinkCollector()
    stack.callback(MetricsServer(arguments["metrics"], collector).close)
    return collector


def _say_open(file: TextIO, sink: Any) -> None:
    way = sink.way
    verb = "reflecting" if sink.config.reflect else "receiving"
    file.write(
        f"{verb} on {sink.config.interface}: {sink.config.match}; {way.method} {way.mode} ({way.reason})\n"
    )


def _show(file: TextIO, record: dict[str, Any]) -> None:
    from xsk_engine.units import format_ns, format_si

    words = [f"{record['time_s']:7.1f} s", f"{format_si(record['pps'], 'pps'):>10}"]
    if record["reflected_packets"]:
        words += [f"{record['reflected_packets']:>12,} reflected"]
    words += [f"{record['received_packets']:>12,} received"]
    for name in ("lost", "duplicate", "reordered", "corrupt"):
        words.append(f"{record[f'{name}_packets']:,} {name}")
    if record["latency_count"]:
        words.append(f"p50 {format_ns(record['latency_p50_ns'])} p99 {format_ns(record['latency_p99_ns'])}")
    file.write("  ".join(words) + "\n")


def _code(arguments: dict[str, Any], outcome: Any) -> int:
    from xsk_engine import sinkreport
    from xsk_engine.cli import EXIT_DONE, EXIT_FAILED, fail

    if outcome.error is not None:
        return fail(outcome.error, EXIT_FAILED)
    found = sinkreport.faults(outcome.figures) if arguments["expect"] else []
    if found:
        return fail(ValueError(f"--expect lossless: {', '.join(found)}"), EXIT_FAILED)
    return EXIT_DONE

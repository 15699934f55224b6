"""``xsk-engine measure``."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from fractions import Fraction
from typing import Any, TextIO

import click

from xsk_engine.cli import options, run_options
from xsk_engine.rfc2544 import SIZES, TESTS
from xsk_engine.units import parse_int_list


def _percent(text: str) -> Fraction:
    """``0.1%``, also without the sign."""
    number = text.strip().removesuffix("%").strip()
    if not re.fullmatch(r"\d{1,30}(\.\d{0,30})?|\.\d{1,30}", number):
        raise ValueError(f"{text!r} is no percentage, as 0.1%")
    return Fraction(number) / 100


def _percents(text: str) -> tuple[float, ...]:
    return tuple(float(_percent(part) * 100) for part in text.split(","))


def _tests(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if unknown := [name for name in names if name not in TESTS]:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(TESTS)}")
    return names


def _address(text: str) -> str:
    import ipaddress

    return str(ipaddress.ip_address(text))


def _mac(text: str) -> str:
    from xsk_engine.packet import parse_mac

    parse_mac(text)
    return text


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(parse_int_list(text, "size"))
    if not all(60 <= size <= 9014 for size in sizes):
        raise ValueError(f"size: {text!r}: from 60 to 9014 bytes are possible")
    return sizes


_WHAT = (
    click.option(
        "--size",
        "sizes",
        type=options.Parsed("list", _sizes),
        default=",".join(map(str, SIZES)),
        show_default=True,
        help="Bytes without FCS, from 60 to 9014. The default is RFC 2544's for Ethernet.",
    ),
    click.option(
        "--tests",
        type=options.Parsed("list", _tests, begins=TESTS),
        default=",".join(TESTS),
        show_default=True,
        help="latency also searches the throughput, of which its loads are parts.",
    ),
    click.option(
        "--load",
        "loads",
        type=options.Parsed("percents", _percents),
        default="10,50,90",
        show_default=True,
        help="Percent of the throughput, at which latency is measured.",
    ),
    click.option(
        "--loss",
        type=options.Parsed("percent", _percent),
        default="0",
        show_default=True,
        help="That the throughput may have, as 0.1%.",
    ),
    click.option(
        "--resolution",
        type=options.Parsed("percent", _percent),
        default="1%",
        show_default=True,
        help="Of the maximum, to which the throughput is searched; of its length, a burst.",
    ),
    click.option(
        "--rate",
        type=options.RATE,
        default="max",
        show_default=True,
        help="Where searches begin, as send has it: 100kpps, 1Gbps_l1, 50%.",
    ),
    click.option("--dst-ip", type=options.Parsed("address", _address), help="[default: the receiver's]"),
    click.option("--dst-mac", type=options.Parsed("mac", _mac), help="[default: the receiver's]"),
)
_HOW_LONG = (
    click.option(
        "--trial",
        type=options.SECONDS,
        default="300ms",
        show_default=True,
        help="Of sending, each; the longest burst. RFC 2544 has 60s.",
    ),
    click.option(
        "--settle",
        type=options.SECONDS,
        default="100ms",
        show_default=True,
        help="Without a packet, until a trial is over for which some are missing. RFC 2544 has 2s.",
    ),
    click.option(
        "--warm-up", type=options.SECONDS, default="500ms", show_default=True, help="Before the first trial."
    ),
)
_WHERE = (
    click.option(
        "--reflector",
        type=options.Parsed("address", _address),
        metavar="HOST",
        help="In place of RX_INTERFACE: its sink --reflect sends back, and round trips are measured.",
    ),
    click.option(
        "--queue", type=click.IntRange(0, 4095), default=0, show_default=True, help="Of the sender."
    ),
    click.option(
        "--mode",
        type=click.Choice(["auto", "copy", "zerocopy"]),
        default="auto",
        show_default=True,
        help="Of both.",
    ),
    click.option(
        "--method",
        type=click.Choice(["auto", "xdp", "packet"]),
        default="auto",
        show_default=True,
        help="Of the sink.",
    ),
    click.option(
        "--ring",
        type=click.IntRange(64, 65536),
        help="Entries of each receive ring of the sink, a power of two  [default: 16384; 2048 "
        "where that much memory may not be locked, or queues are many]",
    ),
    click.option("--link-timeout", type=options.SECONDS, default="5s", show_default=True),
    click.option("--allow-default-route", is_flag=True, help="Also on the interface of the default route."),
    run_options.SANDBOX,
)
_TELLS = (
    click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end."),
    click.option(
        "--plot",
        type=options.FILE,
        metavar="FILE",
        help="A picture, .png or .svg; needs matplotlib (extra bench).",
    ),
    click.option(
        "--live/--no-live", default=None, help="A line per trial  [default: when stderr is a terminal]"
    ),
)


@click.command("measure", short_help="Throughput, latency, loss and bursts between two interfaces.")
@click.argument("tx_interface", shell_complete=options.complete_interface)
@click.argument("rx_interface", required=False, shell_complete=options.complete_interface)
@options.in_sections(("What", _WHAT), ("How long", _HOW_LONG), ("Where", _WHERE), ("What it tells", _TELLS))
def command(**arguments: Any) -> int:
    """Measure what lies between TX_INTERFACE and RX_INTERFACE with the tests of RFC 2544, section 26: send at
    the one, check every packet at the other. In a laboratory of lab run, RX_INTERFACE may be at its other
    end. Without RX_INTERFACE, with --reflector HOST: there and back, with nobody's clock but this machine's.

    What each figure is: docs/measuring.md.

    Exit codes: 0 done; 1 failed while running; 2 usage; 3 the environment lacks something or refuses;
    130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, each with what there is."""
    from xsk_engine import measurereport, measuring, outfd
    from xsk_engine.signals import Interrupted, until_told

    config, software = _config(arguments), _software()
    options: dict[str, Any] = {}
    with until_told(), contextlib.ExitStack() as stack:
        shown = stack.enter_context(outfd.shown())
        if arguments["live"] or (arguments["live"] is None and sys.stderr.isatty()):
            options["on_trial"] = functools.partial(_say_trial, shown)
        plot = None
        if arguments["plot"]:
            plot = stack.enter_context(_opened(arguments["plot"]))
            options["keep"] = ("CAP_DAC_READ_SEARCH",)  # matplotlib reads fonts when it draws
        try:
            measured = measuring.run(config, on_open=functools.partial(_say_open, shown), **options)
        except Interrupted as interrupted:
            return 128 + interrupted.number
        report = measurereport.as_json(
            sizes=measured.sizes,
            trials=measured.trials,
            notes=measured.notes,
            topology=measured.topology,
            latency_kind=measured.latency_kind,
            settings=_settings(config),
            software=software,
            duration_s=measured.duration_s,
            signal=measured.signal,
            error=measured.error,
        )
        return _tell(report, measured, arguments, plot)


def _config(arguments: dict[str, Any]) -> Any:
    from xsk_engine.trials import MeasureConfig

    rate = arguments["rate"][1]
    if rate is not None:
        rate = rate.of_link(run_options.link_bits_per_s(arguments["tx_interface"]))
    return MeasureConfig(
        arguments["tx_interface"],
        arguments["rx_interface"],
        sizes=arguments["sizes"],
        tests=arguments["tests"],
        trial_s=arguments["trial"],
        settle_s=arguments["settle"],
        warm_up_s=arguments["warm_up"],
        allowed_loss=arguments["loss"],
        resolution=float(arguments["resolution"]),
        loads=arguments["loads"],
        rate=rate,
        **{
            name: arguments[name]
            for name in (
                "reflector",
                "queue",
                "mode",
                "method",
                "dst_ip",
                "dst_mac",
                "allow_default_route",
                "sandbox",
            )
        },
        drop_privileges=True,
        ring_size=arguments["ring"],
        link_timeout_s=arguments["link_timeout"],
    )


def _opened(path: str) -> Any:
    """For the picture; what is there stays until then. UsageError."""
    from xsk_engine import measureplot

    measureplot.check(path)
    try:
        return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666), "wb")
    except OSError as error:
        raise click.UsageError(f"--plot {path}: {error.strerror}") from None


def _say_open(file: TextIO, link: Any) -> None:
    tx, rx = link.engine, link.sink
    first = (
        f"measuring {tx.config.interface} ({tx.mode}) to {link.far_end} "
        f"({rx.way.method} {rx.way.mode}); sizes {', '.join(map(str, link.sizes))}"
    )
    file.write("\n".join([first, *link.notes, ""]))


def _say_trial(file: TextIO, trial: Any) -> None:
    from xsk_engine.measurereport import trial_line

    file.write(f"{trial_line(trial)}\n")


def _tell(report: dict[str, Any], measured: Any, arguments: dict[str, Any], plot: Any) -> int:
    from xsk_engine import measurereport
    from xsk_engine.cli import EXIT_DONE, EXIT_FAILED, fail

    if arguments["as_json"]:
        print(json.dumps(report))
    else:
        print(measurereport.as_text(report), file=sys.stderr)
    if plot is not None:
        from xsk_engine import measureplot

        measureplot.draw(report, plot, arguments["plot"].rpartition(".")[2])
    if measured.error is not None:
        return fail(measured.error, EXIT_FAILED)
    return 128 + measured.signal if measured.signal else EXIT_DONE


def _settings(config: Any) -> dict[str, Any]:
    return {
        "tests": list(config.tests),
        "trial_s": config.trial_s,
        "settle_s": config.settle_s,
        "warm_up_s": config.warm_up_s,
        "allowed_loss_percent": float(config.allowed_loss * 100),
        "resolution_percent": config.resolution * 100,
        "loads_percent": list(config.loads),
        "rate": str(config.rate) if config.rate else "max",
    }


def _software() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    return {
        "xsk_engine": version("xsk-engine"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "command_line": sys.argv,
    }

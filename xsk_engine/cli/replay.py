"""``xsk-engine replay``."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import click

from xsk_engine.cli import options, run_options
from xsk_engine.cli.config_file import ConfigCommand
from xsk_engine.edits import FIELDS
from xsk_engine.units import whole

_STREAM_UMEM = 4 * run_options.MIB
_ANY = 1 << 20
_TAG_BYTES = 8
"""of two VLAN tags, which do not count in the MTU"""
_AVAILABLE_PART = 4
"""of the memory that is free, a file may take one part in so many; larger ones are streamed"""


def _speed(text: str) -> Any:
    """A number of times the recorded speed, or None for max."""
    if text == "max":
        return None
    if not re.fullmatch(r"\d{1,7}(\.\d{1,9})?x?", text):
        raise ValueError(f"speed: {text[:40]!r} is neither max nor a number as 2x or 0.5")
    if not (speed := Fraction(text.removesuffix("x"))):
        raise ValueError("speed: 0 sends nothing")
    return speed


def _loops(text: str) -> int:
    number = whole(text)
    if number is None or number >= 1 << 32:
        raise ValueError(f"loop: {text!r} is not a number of passes; 0 is without end")
    return number


_FAST = (
    click.option(
        "--speed",
        type=options.Parsed("speed", lambda text: (text, _speed(text))),
        help="Recorded gaps: 1, 2x (twice as fast), 0.1; or max  [default: 1]",
    ),
    click.option(
        "--rate",
        type=options.RATE,
        help="Instead: N[kMG]pps, N[kMG]bps (frames without FCS), N[kMG]bps_l1, N% (of the link).",
    ),
    click.option(
        "--loop",
        "loops",
        type=options.Parsed("number", _loops),
        default="1",
        show_default=True,
        help="Passes over the file; 0 is without end.",
    ),
    click.option("--limit", type=options.COUNT, help="Only the first packets of the file."),
    click.option("--duration", type=options.SECONDS, help="Stop after this time; s, ms, us."),
    click.option("--max-gap", type=options.SECONDS, help="Shorten longer gaps to this."),
    click.option("--batch", type=click.IntRange(1, 4096), default=64, show_default=True),
)
_CONTENT = (
    click.option(
        "--edit",
        "edits",
        metavar="FIELD=VALUE",
        type=options.EDIT,
        multiple=True,
        help=f"Rewrite in every packet that has it, checksums too: {', '.join(FIELDS)}.",
    ),
    click.option(
        "--map-mac",
        is_flag=True,
        help="From this interface's MAC address to that of its neighbour, whatever the file has.",
    ),
    click.option(
        "--neighbour",
        metavar="ADDRESS",
        help="The same, to the one with this IP address, where there are several.",
    ),
    click.option(
        "--fix-checksums", is_flag=True, help="Compute them anew, also those that were recorded wrong."
    ),
    click.option(
        "--oversize",
        type=click.Choice(["refuse", "skip", "truncate"]),
        default="refuse",
        show_default=True,
        help="Packets longer than the interface takes.",
    ),
)
_WHERE = (
    click.option("--queue", "queues", type=options.QUEUES, default="0", show_default=True, help="One."),
)


@click.command("replay", cls=ConfigCommand, short_help="Send the packets of a capture file again.")
@click.argument("interface", shell_complete=options.complete_interface)
@click.argument("file", type=click.Path(readable=False))
@options.in_sections(("How often, how fast", _FAST), ("What is changed", _CONTENT), ("Where", _WHERE))
@run_options.run_options
def command(**arguments: Any) -> int:
    """Send the packets of FILE through INTERFACE, in its order, with its gaps.

    FILE is pcap or pcapng with Ethernet packets, as it is or compressed by gzip, bzip2 or xz; - is stdin.
    It is loaded into the umem once and posted from there; one that does not fit is streamed.

    Exit codes: 0 done; 1 failed while running; 2 usage; 3 the environment lacks something or refuses;
    130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    from xsk_engine.signals import Interrupted

    try:
        return _replay(arguments)
    except Interrupted as interrupted:
        return 128 + interrupted.number


def _replay(arguments: dict[str, Any]) -> int:
    from xsk_engine import pcapfile
    from xsk_engine.replay import Replay

    if len(arguments["queues"]) != 1:
        raise click.UsageError("--queue: a file goes out of one queue, in its order")
    run_options.check(arguments, arguments["queues"], arguments["file"])
    replay = Replay(
        arguments["file"], loops=arguments["loops"] or None, **_pace(arguments), **_rest(arguments)
    )
    if arguments["strict_rate"] and replay.speed is None and replay.rate is None:
        raise click.UsageError("--strict-rate: which rate? give --speed or --rate")
    twice = pcapfile.can_be_read_twice(replay.path)
    if not twice and replay.loops != 1:
        raise click.UsageError(f"--loop: {replay.path} can be read only once")
    with pcapfile.opened(replay.path) as fd:
        return _run(arguments, replace(replay, fd=fd), twice=twice)


def _run(arguments: dict[str, Any], replay: Any, *, twice: bool) -> int:
    from xsk_engine import pcapfile, trace
    from xsk_engine.config import EngineConfig
    from xsk_engine.plan import plan_replay
    from xsk_engine.replay import TraceSummary

    if twice:
        pcapfile.PcapFile(replay.path, fd=replay.fd).close()  # what cannot be is said before anything else
    device = run_options.device_for("replay", arguments)
    replay = replace(replay, edits=(*replay.edits, *_map_mac(arguments, device)))
    summary = TraceSummary()
    if twice:
        summary = trace.survey(replay, device.max_frame_bytes)
        if summary.refused:
            raise trace.too_long(replay, summary)
        if not summary.packets:
            raise ValueError(trace.nothing_to_send(replay, summary).message)
    umem_bytes = _umem_bytes(arguments["umem_mb"], summary.chunks * 4096)
    replay = replace(replay, stream=not twice or summary.chunks * 4096 > umem_bytes)
    config = EngineConfig(
        interface=arguments["interface"],
        queues=arguments["queues"],
        cpus=arguments["cpus"] or (),
        mode=arguments["mode"],
        opener=arguments["opener"],
        umem_bytes=umem_bytes,
        link_timeout_s=arguments["link_timeout"],
        max_frame_bytes=min(summary.longest_bytes or _ANY, device.max_frame_bytes + _TAG_BYTES),
        capture_packets=None if arguments["pcap_out"] is None else arguments["pcap_count"] or 0,
        drop_privileges=True,
        sandbox=arguments["sandbox"],
    )
    return run_options.run(config, plan_replay(replay, summary), [], arguments)


def _pace(arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments["rate"] is not None:
        if arguments["speed"] is not None:
            raise click.UsageError("--speed, --rate: one or the other")
        rate = arguments["rate"][1]
        if rate is not None:
            rate = rate.of_link(run_options.link_bits_per_s(arguments["interface"]))
        return {"speed": None, "rate": rate}
    return {"speed": Fraction(1) if arguments["speed"] is None else arguments["speed"][1]}


def _rest(arguments: dict[str, Any]) -> dict[str, Any]:
    gap = arguments["max_gap"]
    return {
        "edits": tuple(one for _, edits in arguments["edits"] for one in edits),
        "max_gap_s": None if gap is None else Fraction(gap).limit_denominator(10**9),
        "duration_s": arguments["duration"],
        **{name: arguments[name] for name in ("limit", "oversize", "fix_checksums", "batch")},
    }


def _map_mac(arguments: dict[str, Any], device: Any) -> Any:
    import ipaddress

    from xsk_engine import route
    from xsk_engine.edits import to_neighbour

    wanted = arguments["neighbour"]
    if wanted is None:
        if not arguments["map_mac"]:
            return ()
        return to_neighbour(route.only_neighbour(device.name, device.ifindex), device.mac)
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError:
        raise click.UsageError(f"--neighbour: {wanted!r} is no IP address") from None
    if address.is_multicast:
        raise click.UsageError(f"--neighbour: {wanted} is a group")
    mac = route.resolve(device.name, device.ifindex, address, instead="--edit eth.dst=MAC").dst_mac
    return to_neighbour(mac, device.mac)


def _umem_bytes(umem_mb: int | None, needed: int) -> int:
    """Room for the whole file where it is reasonable."""
    import psutil

    if umem_mb is not None:
        return umem_mb * run_options.MIB
    needed = -(-needed // run_options.MIB) * run_options.MIB
    fits = needed <= psutil.virtual_memory().available // _AVAILABLE_PART and run_options.may_lock(needed)
    return max(needed, run_options.MIB) if fits else _STREAM_UMEM

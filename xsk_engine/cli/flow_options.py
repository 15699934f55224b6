"""The options that say what to send, and the Traffic they make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from xsk_engine.cli import options
from xsk_engine.cli.config_file import WrittenFlow
from xsk_engine.flow import ADVANCES, CHECKSUMS, DEFAULT_BATCH
from xsk_engine.textfile import read_lines

_FIELDS = {
    "dst_ip": "ip.dst",
    "src_ip": "ip.src",
    "dst_port": "port.dst",
    "src_port": "port.src",
    "dst_mac": "eth.dst",
    "src_mac": "eth.src",
    "dscp": "ip.dscp",
    "ttl": "ip.ttl",
    "flow_label": "ip.flow",
    "tcp_flags": "tcp.flags",
}
_PACKETS = (
    click.option("--dst-ip", metavar="VALUES", help="Destination, IPv4 or IPv6; several: A-B or A,B,C."),
    click.option("--src-ip", metavar="VALUES", help="[default: the kernel's choice for the route]"),
    click.option("--dst-port", metavar="VALUES", help="[default: 9]"),
    click.option("--src-port", metavar="VALUES", help="[default: 9]"),
    click.option("--dst-mac", metavar="VALUES", help="[default: the neighbour on the route]"),
    click.option("--src-mac", metavar="VALUES", help="[default: the interface's]"),
    click.option("--protocol", type=click.Choice(["udp", "tcp", "icmp"]), default="udp", show_default=True),
    click.option(
        "--vlan", metavar="VALUES", multiple=True, help="VLAN id; twice for QinQ, the outer one first."
    ),
    click.option("--dscp", metavar="VALUES", help="0 to 63."),
    click.option("--ttl", metavar="VALUES", help="Of IPv6 the hop limit."),
    click.option("--flow-label", metavar="VALUES", help="Of IPv6."),
    click.option("--tcp-flags", metavar="VALUES", help="Letters of FSRPAUEC."),
    click.option(
        "--field", metavar="FIELD=VALUES", multiple=True, help="Any other: ipv4.id=sequence, @42/4=random."
    ),
    click.option(
        "--packet",
        metavar="LAYERS",
        multiple=True,
        help="A flow: 'vlan id=7 / ip dst=10.0.0.1 / udp ; size=imix'.",
    ),
    click.option(
        "--flows",
        type=options.FILE,
        metavar="FILE",
        help="Flows as --packet writes them, one per line.",
    ),
)
_CONTENT = (
    click.option(
        "--size",
        type=options.SIZES,
        metavar="SIZES",
        help="Bytes without FCS: 60, 60-1514, random(60-1514), 60:7,1514:1, imix, @FILE  "
        "[default: 60, or what the headers need]",
    ),
    click.option(
        "--payload",
        type=options.PAYLOAD,
        metavar="DATA",
        default="zeros",
        show_default=True,
        help="zeros, text:..., hex:..., pattern[:HEX], random, file:PATH.",
    ),
    click.option("--signature", is_flag=True, help="Flow, sequence and time in the last 24 bytes."),
    click.option(
        "--advance",
        type=click.Choice(ADVANCES),
        default="together",
        show_default=True,
        help="Ranges and lists step together, or nest: the last in the packet is the fastest.",
    ),
    click.option("--checksum", type=click.Choice(CHECKSUMS), default="software", show_default=True),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63),
        default=1,
        show_default=True,
        help="The same seed, the same packets.",
    ),
)
_PACE = (
    click.option("--count", type=options.COUNT, help="Packets in all; k, M, G."),
    click.option("--duration", type=options.SECONDS, help="From the first post; s, ms, us."),
    click.option(
        "--rate",
        type=options.RATE,
        default="max",
        show_default=True,
        help="max, N[kMG]pps, N[kMG]bps (frames without FCS), N[kMG]bps_l1, N% (of the link), in all.",
    ),
    click.option("--burst", type=options.COUNT, help="So many packets at once."),
    click.option(
        "--burst-gap",
        type=options.SECONDS,
        help="From a burst's last packet to the next burst; s, ms, us  [default: what keeps the rate]",
    ),
    click.option("--poisson", is_flag=True, help="Exponential gaps."),
    click.option(
        "--timestamps",
        is_flag=True,
        help="Take the kernel's tx timestamps: gaps between them, latency from the post to them.",
    ),
    click.option("--batch", type=click.IntRange(1, 4096), default=DEFAULT_BATCH, show_default=True),
)

flow_options = options.in_sections(
    ("Packets", _PACKETS), ("Sizes and content", _CONTENT), ("How many, how fast", _PACE)
)
"""All of them, in the order of the help."""


def make_traffic(arguments: dict[str, Any], link_bits_per_s: int | None) -> Any:
    """The Traffic they describe. ValueError (click's UsageError where options contradict each other)."""
    from xsk_engine.flow import Traffic

    flows = _flows(arguments)
    return Traffic(
        [_resolve_percent(flow, link_bits_per_s) for flow in flows],
        count=arguments["count"],
        duration_s=arguments["duration"],
        rate=_pace(arguments, link_bits_per_s),
        seed=arguments["seed"],
        batch=arguments["batch"],
        timestamps=arguments["timestamps"],
    )


def _pace(arguments: dict[str, Any], link_bits_per_s: int | None) -> Any:
    from fractions import Fraction

    from xsk_engine.flow import Pace

    rate, gap = arguments["rate"][1], arguments["burst_gap"]
    return Pace(
        rate.of_link(link_bits_per_s) if rate is not None else None,
        burst=arguments["burst"] or 0,
        burst_gap_s=Fraction(gap).limit_denominator(10**9) if gap is not None else None,
        poisson=arguments["poisson"],
    )


def _resolve_percent(flow: Any, link_bits_per_s: int | None) -> Any:
    if flow.pace is None or flow.pace.rate is None:
        return flow
    return replace(flow, pace=replace(flow.pace, rate=flow.pace.rate.of_link(link_bits_per_s)))


def _defaults(arguments: dict[str, Any]) -> Any:
    from xsk_engine.flow import Flow

    return Flow(
        (),
        fields=_extra_fields(arguments["field"]),
        sizes=arguments["size"],
        payload=arguments["payload"],
        signature=arguments["signature"],
        advance=arguments["advance"],
        checksum=arguments["checksum"],
    )


def _extra_fields(texts: tuple[str, ...]) -> dict[str, Any]:
    from xsk_engine.layers import LAYERS, integer
    from xsk_engine.values import parse_values

    fields = {}
    for text in texts:
        path, equals, values = text.partition("=")
        path = " ".join(path.split())
        if not equals:
            raise ValueError(f"field: {text!r} is not FIELD=VALUES, as ipv4.id=sequence")
        layer, dot, name = path.partition(".")
        layer = layer.split("[")[0]
        parse = LAYERS[layer].find(name).parse if dot and layer in LAYERS and layer != "gre" else integer
        try:
            fields[path] = parse_values(values, parse)
        except ValueError as error:
            raise ValueError(f"field {path}: {error}") from None
    return fields


def _flows(arguments: dict[str, Any]) -> list[Any]:
    from xsk_engine.spec import parse_flow, simple_packet

    given = {path: arguments[name] for name, path in _FIELDS.items() if arguments[name] is not None}
    written = arguments["flows"] or []
    if isinstance(written, str):
        written = _lines(written)
    defaults = _defaults(arguments)
    if arguments["packet"] or written:
        if arguments["protocol"] != "udp":
            raise click.UsageError("--protocol: with --packet or --flows, write it into the flow")
        if given or arguments["vlan"]:
            names = [f"--{name.replace('_', '-')}" for name, path in _FIELDS.items() if path in given]
            names += ["--vlan"] if arguments["vlan"] else []
            raise click.UsageError(f"{', '.join(names)}: with --packet or --flows, write it into the flow")
        return [parse_flow(text, defaults) for text in arguments["packet"]] + [
            _written_flow(flow, defaults) for flow in written
        ]
    if "ip.dst" not in given:
        raise click.UsageError("where to? give --dst-ip, or a whole flow with --packet")
    return [replace(defaults, template=_plain(given, arguments, simple_packet))]


def _plain(given: dict[str, str], arguments: dict[str, Any], simple_packet: Any) -> Any:
    protocol = arguments["protocol"]
    if protocol == "icmp" and any(path.startswith("port.") for path in given):
        raise click.UsageError(
            "--src-port, --dst-port: icmp has no ports; --field icmp.id=... is what tells it apart"
        )
    if "tcp.flags" in given and protocol != "tcp":
        raise click.UsageError("--tcp-flags needs --protocol tcp")
    if "ip.flow" in given and ":" not in given["ip.dst"]:
        raise click.UsageError("--flow-label: IPv4 has none")
    return simple_packet({**given, "vlan": arguments["vlan"]}, protocol)


def _written_flow(flow: WrittenFlow, defaults: Any) -> Any:
    from xsk_engine.spec import make_flow, parse_flow

    try:
        if flow.settings:
            return make_flow(flow.packet, flow.settings, defaults)
        return parse_flow(flow.packet, defaults)
    except ValueError as error:
        raise ValueError(f"{flow.where}: {error}") from None


def _lines(path: str) -> list[WrittenFlow]:
    """The flows of a file."""
    try:
        lines = [(number, line.strip()) for number, line in enumerate(read_lines(path), 1)]
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--flows {path}: {getattr(error, 'strerror', None) or error}") from None
    found = [WrittenFlow(f"{path}:{n}", line) for n, line in lines if line and not line.startswith("#")]
    if not found:
        raise click.UsageError(f"--flows {path}: there is no flow in it")
    return found

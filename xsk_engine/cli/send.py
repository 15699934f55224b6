"""``xsk-engine send``: one UDP flow."""

from __future__ import annotations

import sys
from typing import Any

import click

from xsk_engine.cli import options
from xsk_engine.flow import DEFAULT_BATCH

MIB = 1 << 20


@click.command("send", short_help="Send a UDP flow through an interface.")
@click.argument("interface")
@click.option("--dst-ip", type=options.IP, required=True, help="Destination, IPv4 or IPv6.")
@click.option("--src-ip", type=options.IP, help="Source  [default: the kernel's choice for the route]")
@click.option("--dst-port", type=options.PORT, default=9, show_default=True)
@click.option("--src-port", type=options.PORT, default=9, show_default=True)
@click.option("--dst-mac", type=options.MAC, help="[default: the neighbour on the route]")
@click.option("--src-mac", type=options.MAC, help="[default: the interface's]")
@click.option("--size", type=options.BYTES, help="Ethernet frame without FCS, bytes  [default: 60, IPv6 62]")
@click.option("--count", type=options.COUNT, help="Packets in all; k, M, G.")
@click.option("--duration", type=options.SECONDS, help="From the first post; s, ms, us.")
@click.option("--rate", type=options.RATE, default="max", show_default=True, help="max or N[kMG]pps, in all.")
@click.option("--queue", "queues", type=options.QUEUES, default="0", show_default=True, help="0,2-3")
@click.option("--cpu", "cpus", type=options.CPUS, help="i-th CPU for the i-th queue  [default: not pinned]")
@click.option("--mode", type=click.Choice(["auto", "copy", "zerocopy"]), default="auto", show_default=True)
@click.option("--batch", type=click.IntRange(1, 4096), default=DEFAULT_BATCH, show_default=True)
@click.option("--umem-mb", type=click.IntRange(1, 65536), default=4, show_default=True, help="MiB")
@click.option("--link-timeout", type=options.SECONDS, default="5s", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end.")
@click.option("--allow-default-route", is_flag=True, help="Also on the interface of the default route.")
def command(**arguments: Any) -> int:
    """Send one UDP/IPv4 or IPv6 flow through INTERFACE, until --count or --duration is reached, or Ctrl-C.

    Exit codes: 0 done; 1 failed while running; 2 usage; 3 the environment lacks something or refuses;
    130 after Ctrl-C, 143 after SIGTERM.
    """
    from xsk_engine.session import Interrupted

    try:
        return _send(**arguments)
    except Interrupted as interrupted:
        return 128 + interrupted.number


def _send(
    *,
    interface: str,
    rate: tuple[str, Any],
    count: int | None,
    duration: float | None,
    queues: list[int],
    cpus: list[int] | None,
    mode: str,
    batch: int,
    umem_mb: int,
    link_timeout: float,
    as_json: bool,
    **address: Any,
) -> int:
    from xsk_engine import session
    from xsk_engine.engine import EngineConfig
    from xsk_engine.flow import Flow

    if cpus and len(cpus) != len(queues):
        raise click.UsageError(f"--cpu: {len(cpus)} CPUs for {len(queues)} queues; give one per queue")
    frame = _build_frame(interface, **address)
    flow = Flow(frame, count=count, duration_s=duration, rate=rate[1], batch=batch)
    config = EngineConfig(
        interface=interface,
        queues=queues,
        cpus=cpus or (),
        mode=mode,
        umem_bytes=umem_mb * MIB,
        link_timeout_s=link_timeout,
        max_frame_bytes=len(frame),
    )
    outcome = session.run(config, flow, rate[0])
    return _print(outcome, as_json)


def _build_frame(
    interface: str,
    *,
    dst_ip: Any,
    src_ip: Any,
    dst_port: int,
    src_port: int,
    dst_mac: bytes | None,
    src_mac: bytes | None,
    size: int | None,
    allow_default_route: bool,
) -> bytes:
    """The frame to send; asks the kernel for what was not given."""
    from xsk_engine import netdev, packet, route
    from xsk_engine.errors import UnavailableError

    if src_ip is not None and src_ip.version != dst_ip.version:
        raise click.UsageError(f"--src-ip {src_ip} and --dst-ip {dst_ip} are of different IP versions")
    headers = packet.udp_header_bytes(dst_ip.version)
    size = max(packet.MIN_FRAME_BYTES, headers) if size is None else size
    if size < headers:
        raise click.UsageError(f"--size {size}: the headers alone have {headers} bytes")
    device = netdev.get(interface)
    if size > device.max_frame_bytes:
        raise click.UsageError(
            f"--size {size}: {interface} takes frames up to {device.max_frame_bytes} bytes (MTU {device.mtu})"
        )
    if not allow_default_route and route.has_default_route(device.ifindex):
        raise UnavailableError(
            "send",
            interface,
            "it carries the default route; if that is what you want, say --allow-default-route",
        )
    if dst_mac is None or src_ip is None:
        hop = route.resolve(interface, device.ifindex, dst_ip, need_mac=dst_mac is None, src_ip=src_ip)
        src_ip = src_ip or hop.src_ip
        dst_mac = dst_mac or packet.parse_mac(hop.dst_mac)
    return packet.udp_frame(
        dst_mac,
        src_mac or packet.parse_mac(device.mac),
        src_ip,
        dst_ip,
        src_port,
        dst_port,
        bytes(size - headers),
    )


def _print(outcome: Any, as_json: bool) -> int:
    from xsk_engine import report
    from xsk_engine.cli import EXIT_FAILED

    if as_json:
        import json

        print(json.dumps(outcome.report))
    else:
        print(report.as_text(outcome.report), file=sys.stderr)
    if outcome.error is not None:
        print(f"xsk-engine: {outcome.error}", file=sys.stderr)
    if outcome.signal:
        return int(128 + outcome.signal)
    return EXIT_FAILED if outcome.error else 0

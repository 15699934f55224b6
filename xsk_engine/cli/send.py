"""``xsk-engine send``."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from xsk_engine.cli import flow_options, options, run_options
from xsk_engine.cli.config_file import ConfigCommand

_DRY_RUN_PACKETS, _ALL = 10, 1 << 62
_AUTO_UMEM_MOST = 64 * run_options.MIB


@click.command("send", cls=ConfigCommand, short_help="Send traffic through an interface.")
@click.argument("interface", required=False, shell_complete=options.complete_interface)
@flow_options.flow_options
@options.in_sections(
    (
        "Where",
        [
            click.option(
                "--queue", "queues", type=options.QUEUES, default="0", show_default=True, help="0,2-3"
            )
        ],
    ),
)
@run_options.run_options
@options.in_sections(
    (
        "What it tells",
        [
            click.option(
                "--dry-run",
                is_flag=True,
                help="Print packets instead of sending: --count of them, or for --duration  [default: 10]",
            ),
            click.option(
                "--rtt",
                is_flag=True,
                help="With --signature: the round trip of what sink --reflect sends back at the other end.",
            ),
        ],
    ),
)
def command(**arguments: Any) -> int:
    """Send traffic through INTERFACE, until --count or --duration is reached, or Ctrl-C.

    VALUES of a field: 7, 1000-1999 (/2: every second one), a,b,c, random(1000-1999), random, sequence,
    flow-id.

    Layers, fields, settings and paces: docs/traffic.md.

    Exit codes: 0 done; 1 failed while running; 2 usage; 3 the environment lacks something or refuses;
    130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    from xsk_engine.signals import Interrupted

    try:
        return _dry_run(arguments) if arguments["dry_run"] else _send(arguments)
    except Interrupted as interrupted:
        return 128 + interrupted.number


def _refuse(arguments: dict[str, Any], *names: str) -> None:
    """Options that say nothing about a dry run."""
    given = [
        f"--{name.removeprefix('as_').replace('_', '-').replace('cpus', 'cpu')}"
        for name in names
        if arguments[name]
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: not with --dry-run")


def _dry_run(arguments: dict[str, Any]) -> int:
    from xsk_engine import capture, dryrun, netdev, resolve
    from xsk_engine.dissect import in_words

    interface = arguments["interface"]
    shown = arguments["count"] or (_ALL if arguments["duration"] else _DRY_RUN_PACKETS)
    _refuse(arguments, "strict_rate", "as_json", "jsonl", "csv", "metrics", "live", "cpus", "umem_mb", "rtt")
    if arguments["pcap_count"] and not arguments["pcap_out"]:
        raise click.UsageError("--pcap-count: into which file? give --pcap-out")
    traffic = flow_options.make_traffic(arguments | {"count": None}, run_options.link_bits_per_s(interface))
    if interface is not None:
        traffic = resolve.resolve(traffic, netdev.get(interface)).traffic
    else:
        traffic = resolve.placeholders(traffic)
    if arguments["pcap_out"] is not None:
        most = arguments["pcap_count"] or shown
        with run_options.open_pcap(arguments["pcap_out"]) as file:
            written = capture.write_blocks(file, dryrun.blocks(traffic, most))
        print(f"{written:,} bytes written to {arguments['pcap_out']}", file=sys.stderr)
        return 0
    for number, (time_ns, frame) in enumerate(dryrun.packets(traffic, shown)):
        print(f"{number:<4} {time_ns / 1e9:.9f} s  {len(frame)} bytes  {in_words(frame)}")
        for at in range(0, len(frame), 32):
            print(f"     {at:04x}  {frame[at : at + 32].hex(' ', 2)}")
    return 0


def _send(arguments: dict[str, Any]) -> int:
    from xsk_engine import follow, mixprogram, resolve
    from xsk_engine._ffi.native import TX_METADATA_BYTES
    from xsk_engine.config import EngineConfig
    from xsk_engine.plan import plan_traffic

    interface, queues = arguments["interface"], arguments["queues"]
    if interface is None:
        raise click.UsageError("which INTERFACE? (without one: --dry-run)")
    run_options.check(arguments, queues)
    asked = flow_options.make_traffic(arguments, run_options.link_bits_per_s(interface))
    if arguments["strict_rate"] and not any(
        p.rate for p in (asked.pace, *(f.pace for f in asked.flows)) if p
    ):
        raise click.UsageError("--strict-rate: which rate? give --rate")
    if arguments["rtt"] and not all(flow.signature for flow in asked.all_flows):
        raise click.UsageError("--rtt: only packets with a signature come back; give --signature")
    mixprogram.compile_traffic(
        resolve.placeholders(asked)
    )  # what cannot be is said before anything is asked for
    device = run_options.device_for("send", arguments)
    resolved = resolve.resolve(asked, device)
    programs = mixprogram.compile_traffic(resolved.traffic)[0]
    flows = [flow for mix in programs for flow in mix.flows]
    longest = max(flow.sizes.longest for flow in flows)
    if longest > device.max_frame_bytes + _tag_bytes(flows):
        raise click.UsageError(
            f"--size {longest}: {interface} takes frames up to {device.max_frame_bytes} bytes "
            f"(MTU {device.mtu})"
        )
    metadata = {"checksum"} if any(flow.offload[0] for flow in flows) else set()
    metadata |= {"timestamp"} if resolved.traffic.timestamps else set()
    config = EngineConfig(
        interface=interface,
        queues=queues,
        cpus=arguments["cpus"] or (),
        mode=arguments["mode"],
        opener=arguments["opener"],
        umem_bytes=_umem_bytes(arguments["umem_mb"], flows, len(queues)),
        tx_metadata_len=TX_METADATA_BYTES if metadata else 0,
        tx_metadata=frozenset(metadata),
        link_timeout_s=arguments["link_timeout"],
        max_frame_bytes=longest,
        capture_packets=None if arguments["pcap_out"] is None else arguments["pcap_count"] or 0,
        drop_privileges=True,
        sandbox=arguments["sandbox"],
    )
    watches = [lambda engine: follow.follow(engine, resolved.followed)] if resolved.followed else []
    with contextlib.ExitStack() as stack:
        back = None
        if arguments["rtt"]:
            from xsk_engine.roundtrip import RoundTrip

            back = stack.enter_context(RoundTrip(device, resolved.traffic.all_flows, config))
        return run_options.run(config, plan_traffic(resolved.traffic, programs), watches, arguments, back)


def _tag_bytes(flows: list[Any]) -> int:
    """VLAN tags do not count in the MTU (IEEE 802.1Q; two of them pass where a driver allows it)."""
    tags = 0
    for flow in flows:
        at, n = 12, 0
        while flow.frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
            at, n = at + 4, n + 4
        tags = max(tags, n)
    return tags


def _umem_bytes(umem_mb: int | None, flows: list[Any], queues: int) -> int:
    if umem_mb is not None:
        return umem_mb * run_options.MIB
    needed = 2 * queues * sum(flow.umem_bytes(4096, 24) for flow in flows)
    needed = -(-needed // run_options.MIB) * run_options.MIB
    return (
        4 * run_options.MIB
        if needed <= 4 * run_options.MIB or needed > _AUTO_UMEM_MOST or not run_options.may_lock(needed)
        else needed
    )

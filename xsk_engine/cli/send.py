"""``xsk-engine send``."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from xsk_engine.cli import flow_options, options

MIB = 1 << 20
_DRY_RUN_PACKETS, _ALL = 10, 1 << 62
_AUTO_UMEM_MOST = 64 * MIB
_STRICT_PERCENT = 1.0


@click.command("send", short_help="Send traffic through an interface.")
@click.argument("interface", required=False)
@flow_options.flow_options
@click.option("--queue", "queues", type=options.QUEUES, default="0", show_default=True, help="0,2-3")
@click.option("--cpu", "cpus", type=options.CPUS, help="i-th CPU for the i-th queue  [default: not pinned]")
@click.option("--mode", type=click.Choice(["auto", "copy", "zerocopy"]), default="auto", show_default=True)
@click.option(
    "--umem-mb", type=click.IntRange(1, 65536), help="MiB  [default: 4, or what the templates need]"
)
@click.option("--link-timeout", type=options.SECONDS, default="5s", show_default=True)
@click.option("--strict-rate", is_flag=True, help="Exit 1 when the rate is missed by more than 1 %.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print packets instead of sending: --count of them, or for --duration  [default: 10]",
)
@click.option(
    "--pcap-out", metavar="FILE", help="Write what is sent, or with --dry-run would be, as pcap; - is stdout."
)
@click.option(
    "--pcap-count", type=options.COUNT, help="Only the first packets, of each queue  [default: all]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end.")
@click.option("--allow-default-route", is_flag=True, help="Also on the interface of the default route.")
def command(**arguments: Any) -> int:
    """Send traffic through INTERFACE, until --count or --duration is reached, or Ctrl-C.

    VALUES of a field: 7, 1000-1999 (/2: every second one), a,b,c, random(1000-1999), random, sequence,
    flow-id.

    Layers, fields, settings and paces: docs/traffic.md.

    Exit codes: 0 done; 1 failed while running; 2 usage; 3 the environment lacks something or refuses;
    130 after Ctrl-C, 143 after SIGTERM.
    """
    from xsk_engine.session import Interrupted

    try:
        return _dry_run(arguments) if arguments["dry_run"] else _send(arguments)
    except Interrupted as interrupted:
        return 128 + interrupted.number


def _link_bits_per_s(interface: str | None) -> int | None:
    import psutil

    stats = psutil.net_if_stats().get(interface or "")
    return stats.speed * 10**6 or None if stats else None


def _refuse(arguments: dict[str, Any], *names: str) -> None:
    """Options that say nothing about a dry run."""
    given = [
        f"--{name.removeprefix('as_').replace('_', '-').replace('cpus', 'cpu')}"
        for name in names
        if arguments[name]
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: not with --dry-run")


def _output(path: str) -> Any:
    if path == "-":
        return open(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    try:
        return open(path, "wb", buffering=0)
    except OSError as error:
        raise click.UsageError(f"--pcap-out {path!r}: {error.strerror}") from None


def _dry_run(arguments: dict[str, Any]) -> int:
    from xsk_engine import capture, dryrun, netdev, resolve
    from xsk_engine.dissect import in_words

    interface = arguments["interface"]
    shown = arguments["count"] or (_ALL if arguments["duration"] else _DRY_RUN_PACKETS)
    _refuse(arguments, "strict_rate", "as_json", "cpus", "umem_mb")
    if arguments["pcap_count"] and not arguments["pcap_out"]:
        raise click.UsageError("--pcap-count: into which file? give --pcap-out")
    traffic = flow_options.make_traffic(arguments | {"count": None}, _link_bits_per_s(interface))
    if interface is not None:
        traffic = resolve.resolve(traffic, netdev.get(interface)).traffic
    else:
        traffic = resolve.placeholders(traffic)
    if arguments["pcap_out"] is not None:
        most = arguments["pcap_count"] or shown
        with _output(arguments["pcap_out"]) as file:
            written = capture.write_blocks(file, dryrun.blocks(traffic, most))
        print(f"{written:,} bytes written to {arguments['pcap_out']}", file=sys.stderr)
        return 0
    for number, (time_ns, frame) in enumerate(dryrun.packets(traffic, shown)):
        print(f"{number:<4} {time_ns / 1e9:.9f} s  {len(frame)} bytes  {in_words(frame)}")
        for at in range(0, len(frame), 32):
            print(f"     {at:04x}  {frame[at : at + 32].hex(' ', 2)}")
    return 0


def _send(arguments: dict[str, Any]) -> int:
    from xsk_engine import follow, mixprogram, netdev, resolve, route, session
    from xsk_engine._ffi.native import TX_METADATA_BYTES
    from xsk_engine.config import EngineConfig
    from xsk_engine.errors import UnavailableError

    interface, queues, cpus = arguments["interface"], arguments["queues"], arguments["cpus"]
    if interface is None:
        raise click.UsageError("which INTERFACE? (without one: --dry-run)")
    if cpus and len(cpus) != len(queues):
        raise click.UsageError(f"--cpu: {len(cpus)} CPUs for {len(queues)} queues; give one per queue")
    if arguments["pcap_count"] and not arguments["pcap_out"]:
        raise click.UsageError("--pcap-count: into which file? give --pcap-out")
    if arguments["as_json"] and arguments["pcap_out"] == "-":
        raise click.UsageError("--json, --pcap-out -: both to stdout")
    asked = flow_options.make_traffic(arguments, _link_bits_per_s(interface))
    if arguments["strict_rate"] and not any(
        p.rate for p in (asked.pace, *(f.pace for f in asked.flows)) if p
    ):
        raise click.UsageError("--strict-rate: which rate? give --rate")
    mixprogram.compile_traffic(
        resolve.placeholders(asked)
    )  # what cannot be is said before anything is asked for
    device = netdev.get(interface)
    if not arguments["allow_default_route"] and route.has_default_route(device.ifindex):
        raise UnavailableError(
            "send",
            interface,
            "it carries the default route; if that is what you want, say --allow-default-route",
        )
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
        cpus=cpus or (),
        mode=arguments["mode"],
        umem_bytes=_umem_bytes(arguments["umem_mb"], flows, len(queues)),
        tx_metadata_len=TX_METADATA_BYTES if metadata else 0,
        tx_metadata=frozenset(metadata),
        link_timeout_s=arguments["link_timeout"],
        max_frame_bytes=longest,
        capture_packets=None if arguments["pcap_out"] is None else arguments["pcap_count"] or 0,
    )
    watches = [lambda engine: follow.follow(engine, resolved.followed)] if resolved.followed else []
    with contextlib.ExitStack() as stack:
        path = arguments["pcap_out"]
        pcap_out = None if path is None else stack.enter_context(_output(path))
        outcome = session.run(config, resolved.traffic, watches, pcap_out=pcap_out)
    return _print(outcome, arguments)


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
        return umem_mb * MIB
    needed = 2 * queues * sum(flow.umem_bytes(4096, 24) for flow in flows)
    needed = -(-needed // MIB) * MIB
    return 4 * MIB if needed <= 4 * MIB or needed > _AUTO_UMEM_MOST or not _may_lock(needed) else needed


def _may_lock(length: int) -> bool:
    """Is the locked-memory limit above it? (With CAP_IPC_LOCK the kernel does not count.)"""
    import resource

    from xsk_engine import doctor

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return soft == resource.RLIM_INFINITY or length <= soft // 2 or doctor.has_capability("CAP_IPC_LOCK")


def _print(outcome: Any, arguments: dict[str, Any]) -> int:
    from xsk_engine import report
    from xsk_engine.cli import EXIT_FAILED

    if arguments["as_json"]:
        import json

        print(json.dumps(outcome.report))
    else:
        print(report.as_text(outcome.report), file=sys.stderr)
    if outcome.error is not None:
        print(f"xsk-engine: {outcome.error}", file=sys.stderr)
    if outcome.signal:
        return int(128 + outcome.signal)
    missed = outcome.report["rate_error_percent"]
    if arguments["strict_rate"] and missed is not None and abs(missed) > _STRICT_PERCENT:
        print(f"xsk-engine: strict-rate: the rate was missed by {missed:+.3f} %", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_FAILED if outcome.error else 0

"""The options of every command that opens TCP connections: where they go out, and how they behave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from xsk_engine.cli import options, run_options
from xsk_engine.tcpoptions import CONGESTION


def interface(*short: str) -> options.Decorator:
    """The option, with this short name if it has one."""
    return click.option(
        *short,
        "--interface",
        shell_complete=options.complete_interface,
        metavar="INTERFACE",
        help="To send through  [default: that of the route to HOST]",
    )


_WHERE = (
    click.option("--source", metavar="ADDRESS", help="To send from  [default: the kernel's choice]"),
    run_options.MODE,
    click.option("--umem-mb", type=click.IntRange(1, 65536), help="MiB  [default: what is needed, from 4]"),
    run_options.LINK_TIMEOUT,
    run_options.DEFAULT_ROUTE,
    run_options.SANDBOX,
)
_CONNECTION = (
    click.option(
        "-C",
        "--congestion",
        type=click.Choice(CONGESTION),
        default=CONGESTION[0],
        show_default=True,
        help="Congestion control.",
    ),
    click.option("--nodelay", is_flag=True, help="Small segments at once (no Nagle)."),
    click.option("--pacing", is_flag=True, help="Segments spread over the round-trip time."),
    click.option(
        "--connect-timeout",
        type=options.SECONDS,
        default="10s",
        show_default=True,
        help="Until a peer that does not answer is given up.",
    ),
    click.option(
        "--timeout",
        type=options.SECONDS,
        default="120s",
        show_default=True,
        help="Without an acknowledgement of what was sent.",
    ),
)

tcp_options = options.in_sections(("Where", _WHERE), ("How", _CONNECTION))
"""All but the interface, in the order of the help."""


def target(
    operation: str,
    arguments: Mapping[str, Any],
    *,
    umem_mb: int,
    source_port: int = 0,
    send_buffer_bytes: int | None = None,
) -> Any:
    """What these options open, once the interface is known, there, and not to be left alone. ValueError,
    UnavailableError."""
    import ipaddress

    from xsk_engine.config import EngineConfig
    from xsk_engine.tcptarget import TcpTarget, address_of, interface_to

    source = arguments["source"]
    if source is not None:
        try:
            ipaddress.ip_address(source)
        except ValueError:
            raise click.UsageError(f"--source: {source!r} is not an IP address") from None
    address = address_of(arguments["host"], source)
    interface = interface_to(address, arguments["interface"])
    run_options.device_for(operation, {**arguments, "interface": interface})
    names = ("congestion", "nodelay", "pacing")
    chosen: dict[str, Any] = {name: arguments[name] for name in names}
    if send_buffer_bytes is not None:
        chosen["send_buffer_bytes"] = send_buffer_bytes
    config = EngineConfig(
        interface,
        mode=arguments["mode"],
        umem_bytes=(arguments["umem_mb"] or umem_mb) * run_options.MIB,
        tcp=True,
        link_timeout_s=arguments["link_timeout"],
        drop_privileges=True,
        sandbox=arguments["sandbox"],
    )
    return TcpTarget(
        config,
        str(address),
        arguments["port"],
        source,
        source_port,
        {
            **chosen,
            "connect_timeout_s": arguments["connect_timeout"],
            "user_timeout_s": arguments["timeout"],
        },
    )

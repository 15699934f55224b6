"""Option types: each parses what a user writes and says in one line what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from xsk_engine import units


class Parsed(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """An option whose text goes through a parser that raises ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _payload(text: str) -> Any:
    from xsk_engine.payload import parse_payload

    return parse_payload(text)


def _sizes(text: str) -> Any:
    from xsk_engine.sizes import parse_sizes

    return parse_sizes(text)


def _edit(text: str) -> Any:
    from xsk_engine.edits import parse_edit

    return text, parse_edit(text)


def complete_interface(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """For a shell: the interfaces whose name begins so."""
    import socket

    return [name for _, name in socket.if_nameindex() if name.startswith(incomplete)]


COUNT = Parsed("count", units.parse_count)
SECONDS = Parsed("time", units.parse_seconds)
QUEUES = Parsed("list", lambda text: units.parse_int_list(text, "queue"))
CPUS = Parsed("list", lambda text: units.parse_int_list(text, "cpu"))
METRICS = Parsed("address", units.parse_address)
RATE = Parsed("rate", lambda text: (text, units.parse_rate(text)))
SIZES = Parsed("sizes", _sizes)
EDIT = Parsed("edit", _edit)
PAYLOAD = Parsed("payload", _payload)

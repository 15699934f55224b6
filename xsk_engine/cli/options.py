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


COUNT = Parsed("count", units.parse_count)
SECONDS = Parsed("time", units.parse_seconds)
QUEUES = Parsed("list", lambda text: units.parse_int_list(text, "queue"))
CPUS = Parsed("list", lambda text: units.parse_int_list(text, "cpu"))
RATE = Parsed("rate", lambda text: (text, units.parse_rate(text)))
SIZES = Parsed("sizes", _sizes)
PAYLOAD = Parsed("payload", _payload)

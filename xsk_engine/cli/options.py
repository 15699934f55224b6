"""Option types: each parses what a user writes and says in one line what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from xsk_engine import units
from xsk_engine.edits import FIELDS


class Parsed(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """An option whose text goes through a parser that raises ValueError."""

    def __init__(
        self, name: str, parse: Callable[[str], Any], *, is_file: bool = False, begins: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._parse = parse
        self._is_file = is_file
        self._begins = begins

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if self._is_file:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(word) for word in self._begins if word.startswith(incomplete)]


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def in_sections(*sections: tuple[str, Sequence[Decorator]]) -> Decorator:
    """Options in their order, each under its title in the help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for title, decorators in reversed(sections):
            for decorator in reversed(decorators):
                command = decorator(command)
                command.__click_params__[-1].section = title  # type: ignore[attr-defined]
        return command

    return decorate


def sections_of(command: click.Command, ctx: click.Context) -> dict[str, list[click.Option]]:
    """A command's options by the titles they stand under."""
    found: dict[str, list[click.Option]] = {}
    for param in command.get_params(ctx):
        if isinstance(param, click.Option):
            found.setdefault(getattr(param, "section", "Options"), []).append(param)
    rest = found.pop("Options", [])
    return {**found, "Options": rest}


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


FILE = Parsed("file", str, is_file=True)
COUNT = Parsed("count", units.parse_count)
SECONDS = Parsed("time", units.parse_seconds)
QUEUES = Parsed("list", lambda text: units.parse_int_list(text, "queue"))
CPUS = Parsed("list", lambda text: units.parse_int_list(text, "cpu"))
METRICS = Parsed("address", units.parse_address)
RATE = Parsed("rate", lambda text: (text, units.parse_rate(text)))
SIZES = Parsed("sizes", _sizes)
EDIT = Parsed("edit", _edit, begins=[f"{name}=" for name in FIELDS])
PAYLOAD = Parsed("payload", _payload)

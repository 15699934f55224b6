"""``--config FILE`` and ``--show-config``: the command line as YAML. The options are the schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import click
from click.core import ParameterSource

from xsk_engine import textfile
from xsk_engine.cli import options

_OWN = ("config", "show_config", "help")
# As YAML a hundred times as much in memory, and seconds.
_MOST_MIB = 4


@dataclass(frozen=True)
class WrittenFlow:
    """A flow of a file: where it stands, its layers, and the settings beside them as (name, text)."""

    where: str
    packet: str
    settings: tuple[tuple[str, str], ...] = ()


class ConfigCommand(click.Command):
    """A command whose arguments and options may also stand in a file, under their long names. What the
    command line says goes first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(
                ["--config"],
                type=options.FILE,
                metavar="FILE",
                is_eager=True,
                expose_value=False,
                callback=_load,
                help="Arguments and options from a YAML file: rate: 10kpps; the command line goes first.",
            ),
            click.Option(
                ["--show-config"],
                is_flag=True,
                expose_value=False,
                callback=_ask_to_show,
                help="Print the configuration in effect as such a file, and do nothing.",
            ),
        ]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, params in options.sections_of(self, ctx).items():
            records = list(filter(None, (param.get_help_record(ctx) for param in params)))
            with formatter.section(title):
                formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        written, _, _ = self.make_parser(ctx).parse_args(list(args))
        rest = super().parse_args(ctx, args)
        ctx.meta["written"] = written
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.meta.get("show config"):
            click.echo(_show(ctx), nl=False)
            return 0
        return super().invoke(ctx)


def _ask_to_show(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta["show config"] = value


def _key(param: click.Parameter) -> str:
    if isinstance(param, click.Argument):
        return str(param.name)
    return next(name for name in param.opts if name.startswith("--"))[2:]


# -- writing -----------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """As YAML has it: numbers without quotes."""
    if isinstance(value, WrittenFlow):
        return (
            {"packet": value.packet, **{k: _plain(v) for k, v in value.settings}}
            if value.settings
            else value.packet
        )
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, str) and re.fullmatch(r"0|[1-9]\d{0,17}", value):
        return int(value)
    return value


def _show(ctx: click.Context) -> str:
    """Every argument and option with what it is set to; those that are not set as comments."""
    import yaml

    lines = []
    for param in ctx.command.params:
        name = str(param.name)
        if name in _OWN:
            continue
        source = ctx.get_parameter_source(name)
        if source is ParameterSource.COMMANDLINE:
            value = ctx.meta["written"][name]
        elif source is ParameterSource.DEFAULT_MAP:
            value = ctx.lookup_default(name)
        else:
            value = None if ctx.params[name] in (None, ()) else param.get_default(ctx)
        if value is None or value in ([], ()):
            lines.append(f"# {_key(param)}:\n")
        else:
            lines.append(yaml.safe_dump({_key(param): _plain(value)}, sort_keys=False, width=1000))
    return "".join(lines)


# -- reading -----------------------------------------------------------------------------------------------


def _load(ctx: click.Context, _param: click.Parameter, path: str | None) -> None:
    if path is None or ctx.resilient_parsing:
        return
    root = _compose(path)
    params = {_key(param): param for param in ctx.command.params if param.name not in _OWN}
    values: dict[str, Any] = {}
    for key, node in _pairs(path, root).items():
        if key not in params:
            raise _complaint(path, node, f"unknown key {key!r}; {_nearest(key, params)}")
        values[str(params[key].name)] = _value(ctx, path, key, node, params[key])
    ctx.default_map = values


def _compose(path: str) -> Any:
    import yaml

    try:
        root = yaml.compose(textfile.read(path, _MOST_MIB, is_stdin=path == "-"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise click.UsageError(f"--config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"--config {path}: it is no text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = "; quote a text that has a colon in it" if "mapping values" in str(error.problem) else ""
        raise click.UsageError(f"--config {path}:{line}: {error.problem or error.context}{hint}") from None
    except RecursionError:
        raise click.UsageError(f"--config {path}: it is nested too deep") from None
    except yaml.YAMLError as error:
        raise click.UsageError(f"--config {path}: {error}") from None
    if root is None:
        raise click.UsageError(f"--config {path}: it is empty")
    return root


def _complaint(path: str, node: Any, text: str) -> click.UsageError:
    return click.UsageError(f"--config {path}:{node.start_mark.line + 1}: {text}")


def _about(key: str, message: str) -> str:
    """Parsers name what they parse, which is mostly the key."""
    while message.startswith(f"{key}: "):
        message = message.removeprefix(f"{key}: ")
    return f"{key}: {message}"


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(key, known, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"


def _pairs(path: str, node: Any) -> dict[str, Any]:
    """A mapping's keys with the nodes of their values."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise _complaint(path, node, "lines of key: value are expected here")
    pairs: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _complaint(path, key, "a key is a word")
        if key.value in pairs:
            raise _complaint(path, key, f"{key.value}: it is given twice")
        pairs[key.value] = value
    return pairs


def _text(path: str, key: str, node: Any) -> str:
    import yaml

    if not isinstance(node, yaml.ScalarNode):
        listed = isinstance(node, yaml.SequenceNode) and all(
            isinstance(v, yaml.ScalarNode) for v in node.value
        )
        hint = f"; several are written as {','.join(v.value for v in node.value)}" if listed else ""
        what = "a list of flows, or a file's name," if key == "flows" else "one value"
        raise _complaint(path, node, f"{key}: {what} is expected here{hint}")
    return str(node.value)


def _value(ctx: click.Context, path: str, key: str, node: Any, param: click.Parameter) -> Any:
    """What the option would have got from the command line, checked by it."""
    import yaml

    value: Any
    if key == "flows" and isinstance(node, yaml.SequenceNode):
        return [_flow(path, one) for one in node.value]
    if param.multiple:
        many = node.value if isinstance(node, yaml.SequenceNode) else [node]
        value = [_text(path, key, one) for one in many]
    else:
        value = _text(path, key, node)
        if isinstance(param, click.Option) and param.is_bool_flag:
            value = _switch(path, key, node)
    try:
        param.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise _complaint(path, node, _about(key, error.message)) from None
    return value


def _switch(path: str, key: str, node: Any) -> bool:
    try:
        return bool(click.BOOL.convert(node.value, None, None))
    except click.BadParameter:
        raise _complaint(path, node, f"{key}: {node.value!r} is neither true nor false") from None


def _flow(path: str, node: Any) -> WrittenFlow:
    """``packet`` with settings beside it, or as one text."""
    import yaml

    from xsk_engine.flow import Traffic
    from xsk_engine.mixprogram import compile_traffic
    from xsk_engine.resolve import placeholders
    from xsk_engine.spec import SETTINGS, make_flow, parse_flow, parse_setting

    def check_flow(flow: Any) -> None:
        compile_traffic(placeholders(Traffic(flow)))

    where = f"{path}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        try:
            check_flow(parse_flow(node.value))
        except ValueError as error:
            raise _complaint(path, node, f"flows: {error}") from None
        return WrittenFlow(where, node.value)
    pairs = _pairs(path, node)
    if "packet" not in pairs:
        raise _complaint(path, node, "flows: a flow needs packet: LAYERS")
    for key, value in pairs.items():
        if key != "packet" and not key.startswith("@") and key not in SETTINGS:
            raise _complaint(
                path, value, f"flows: unknown key {key!r}; {_nearest(key, {'packet': 0, **SETTINGS})}"
            )
        try:
            if key == "packet":
                make_flow(_text(path, key, value), ())
            else:
                parse_setting(key, _text(path, key, value))
        except ValueError as error:
            raise _complaint(path, value, f"flows: {_about(key, str(error))}") from None
    settings = tuple((key, _text(path, key, value)) for key, value in pairs.items() if key != "packet")
    try:
        check_flow(make_flow(pairs["packet"].value, settings))
    except ValueError as error:
        raise _complaint(path, node, f"flows: {error}") from None
    return WrittenFlow(where, pairs["packet"].value, settings)

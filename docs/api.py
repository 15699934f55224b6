"""What api.md says: the public names with the types and docstrings of the source, which is only parsed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent

import xsk_engine

PACKAGE = Path(xsk_engine.__file__).parent

INTRODUCTION = """\
# The library

Made by `make docs` from the docstrings. Everything here is in `xsk_engine` itself, but for what is only a
base or only returned. The examples run as tests in a laboratory (`xsk-engine lab run`), where `vtx` is the
interface and 10.77.0.2 the peer. What an example does not make itself is there: an open `engine`, of asyncio
where something is awaited, and with `tcp=True` where that is needed; `endpoint`,
`engine.udp(("10.77.0.2", 9000))`; `frags` of it, `alloc(64, 1000)`; `connection`,
`engine.tcp("10.77.0.2", 9001)`, to a peer that has answered and takes whatever else comes;
`flow`, `xsk_engine.parse_flow("ip dst=10.77.0.2 / udp dst=9000")`; `running`, that flow started at 10kpps;
`transport`, what `create_datagram_endpoint` or, for TCP, `create_connection` returns; the
modules `xsk_engine`, `numpy` and `asyncio`.

Bad arguments are ValueError or TypeError, everything else is an `XskError`. Lengths are bytes, frames are
without FCS.
"""
# What a reader needs first comes first. "module:name" is not in xsk_engine itself.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Opening an engine": ("open", "Engine", "enginefacts:EngineFacts", "EngineConfig"),
    "Sending": ("UdpEndpoint", "RawEndpoint", "endpoints:BlockingEndpoint", "endpoint:Endpoint"),
    "TCP": (
        *("TcpConnection", "AsyncTcpConnection", "tcpconn:Connection", "tcphandle:TcpHandle"),
        *("TcpOptions", "TcpInfo", "KernelTcpInfo", "TcpCounters"),
    ),
    "TCP like a socket": ("open_connection", "create_connection", "connect", "XskTcpTransport"),
    "Frags and trackers": ("Frags", "Frag", "Tracker"),
    "Flows": (
        "parse_flow",
        "Flow",
        "Traffic",
        "Pace",
        "RunningTraffic",
        "Header",
        "Sizes",
        "Payload",
        "Rate",
    ),
    "Values of a field": ("Range", "Choice", "Random", "Sequence", "FlowId"),
    "asyncio": (
        "aopen",
        "AsyncEngine",
        "AsyncUdpEndpoint",
        "AsyncRawEndpoint",
        "async_endpoints:AsyncEndpoint",
    ),
    "A transport for asyncio": ("create_datagram_endpoint", "XskDatagramTransport"),
    "Statistics": (
        *("Snapshot", "EndpointStats", "history"),
        *("stats:Gaps", "stats:Histogram", "xsk:KernelStats"),
    ),
    "Errors": (
        *("XskError", "UnavailableError", "QueueTakenError", "BrokenError"),
        *("WouldBlockError", "DeadlineError", "BusyError", "ClosedError"),
        *("TcpError", "TcpRefusedError", "TcpResetError", "TcpAbortedError", "TcpTimeoutError"),
    ),
    "What signatures name": ("remote:Address", "endpoint:BytesLike", "stats:FlowCounts"),
}
# No underscore, because other modules of the package call it; not for applications.
PLUMBING = {
    "Engine": {
        *("stop", "stop_deadline", "join_workers", "run", "update", "holdings", "after_fork_in_child"),
    },
    "EngineFacts": {
        *("open_workers", "audit", "flow_counts", "mixes", "trace", "open_tcp", "tcp_stack", "final"),
    },
    "TcpHandle": {
        *("name", "failed", "ended", "why_over", "late", "using", "timeout_of", "not_received", "announce"),
        "still_awaits",
        *("state_number", "is_opening", "is_sent_off", "is_over", "is_flushed", "set_mac"),
        *("check_connected", "check_closed"),
    },
    "Connection": {
        *("try_send", "try_alloc", "try_submit", "try_recv", "try_recv_into", "check_submit"),
        *("start", "begin_shutdown", "begin_close", "check_closed", "release", "forget"),
    },
    "TcpConnection": {"wait_connected", "at_close", "forget_file"},
    "AsyncTcpConnection": {
        *("wait_connected", "bell", "stream", "try_send_first", "close_with_progress"),
        *("try_send", "try_submit", "is_flushed"),
    },
    "TcpOptions": {"quota_chunks"},
    "Endpoint": {
        *("set_datagram", "set_mac", "head", "at_close", "failed", "why_over", "too_long", "late"),
        *("try_send", "try_alloc", "alloc_error", "using", "check_open", "is_flushed", "is_drained"),
        *("sent_so_far", "park", "ask_for_chunks", "forget"),
    },
    "AsyncEndpoint": {"bell", "ready", "ask_again", "announce"},
    "AsyncEngine": {"bell", "endpoint_for", "connect_later", "close_now"},
    "Tracker": {"handle", "close"},
    "RunningTraffic": {"set_mac", "close", "followers", "at_end", "sweep", "forget"},
    "Rate": {"of_link", "pps"},
}
# Others are made by the package only.
CONSTRUCTED = {"Engine", "AsyncEngine"}
# Everything else that is called has an example. Dataclasses, exceptions, properties and types need none.
NO_EXAMPLE = {
    "BlockingEndpoint": "a base; UdpEndpoint and RawEndpoint have them",
    "Endpoint": "as BlockingEndpoint",
    "AsyncEndpoint": "as BlockingEndpoint",
    "Engine.open": "xsk_engine.open()'s",
    "Engine.close": "the context manager does it",
    "AsyncEngine.open": "xsk_engine.aopen()'s",
    "AsyncEngine.close": "the context manager does it",
    "Endpoint.close": "the context manager does it, or the engine's",
    "EngineFacts": "a base; Engine has one",
    "EngineFacts.raise_failure": "no arguments, no result",
    "EngineFacts.failure": "as EngineFacts.raise_failure",
    "EngineFacts.snapshot": "Snapshot's",
    "EngineFacts.queue_snapshots": "as EngineFacts.snapshot",
    "EngineFacts.kernel_stats": "KernelStats's",
    "EngineFacts.gaps": "Gaps's",
    "EngineFacts.tcp_counters": "TcpCounters's",
    "Connection": "a base; TcpConnection has one",
    "TcpHandle": "as Connection",
    "TcpConnection.close": "the context manager does it",
    "AsyncTcpConnection.close": "as TcpConnection.close",
    "TcpConnection.abort": "Connection.abort's",
    "AsyncEngine.snapshot": "as Engine.snapshot",
    "AsyncEndpoint.close": "as Endpoint.close",
    "AsyncEndpoint.flush": "as AsyncEndpoint.drain",
    "XskDatagramTransport.connected": "create_datagram_endpoint() has waited",
    "AsyncUdpEndpoint": "AsyncEngine.udp()'s",
    "AsyncRawEndpoint": "AsyncEngine.raw()'s",
    **{
        f"XskDatagramTransport.{name}": "asyncio's own interface"
        for name in (
            *("get_extra_info", "get_protocol", "set_protocol", "is_closing", "close", "abort"),
            *("get_write_buffer_size", "get_write_buffer_limits", "set_write_buffer_limits"),
        )
    },
    **{
        f"XskTcpTransport.{name}": "asyncio's own interface"
        for name in (
            *("get_extra_info", "get_protocol", "set_protocol", "is_closing", "close", "abort", "write"),
            *("get_write_buffer_size", "get_write_buffer_limits", "set_write_buffer_limits"),
            *("is_reading", "pause_reading", "resume_reading", "can_write_eof", "write_eof"),
        )
    },
}


@dataclass(frozen=True)
class Entry:
    """A public name: ``kind`` is class, dataclass, exception, function, method, property, field or type."""

    name: str
    kind: str
    signature: str
    doc: str
    untyped: tuple[str, ...] = ()
    """parameters without a type; ``return`` for what it returns"""
    bases: tuple[str, ...] = ()
    members: tuple[Entry, ...] = field(default=())


@cache
def _module(name: str) -> tuple[str, ast.Module]:
    source = (PACKAGE / f"{name}.py").read_text()
    return source, ast.parse(source)


def _where(item: str) -> tuple[str, str]:
    module, colon, name = item.partition(":")
    return (module, name) if colon else (xsk_engine._MODULE[item], item)


def entry(item: str) -> Entry:
    """Of "name" in xsk_engine, or of "module:name"."""
    module, name = _where(item)
    source, tree = _module(module)
    for node, doc in _documented(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _Class(source, module, node).entry()
        if isinstance(node, FUNCTIONS) and node.name == name:
            return _function(source, node, name, "function")
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return Entry(name, "type", _text(source, node), doc)
    raise LookupError(item)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _documented(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Each statement with the string literal below it."""
    for node, below in zip(body, [*body[1:], None], strict=True):
        literal = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        yield node, cleandoc(below.value.value) if literal and isinstance(below.value.value, str) else ""


def _text(source: str, node: ast.AST) -> str:
    """As it is written, on one line."""
    text = re.sub(r"\s+", " ", ast.get_source_segment(source, node) or "")
    text = re.sub(r",? ([\])])", r"\1", re.sub(r"([\[(]) ", r"\1", text))
    return re.sub(r"^([A-Z]\w+_\w+)$|(?<= = )([A-Z]\w+_\w+)$", lambda name: _constant(name[0]), text)


@cache
def _constant(name: str) -> str:
    """What a default that has a name is."""
    for path in sorted(PACKAGE.glob("*.py")):
        source, tree = _module(path.stem)
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
                return _text(source, node.value)
    raise LookupError(name)


def _function(source: str, node: ast.AST, name: str, kind: str) -> Entry:
    assert isinstance(node, FUNCTIONS)
    given, untyped = node.args, []
    positional = [*given.posonlyargs, *given.args]
    if kind == "method":
        positional = positional[1:]  # self
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults

    def one(arg: ast.arg, default: ast.expr | None, stars: str = "") -> str:
        if arg.annotation is None:
            untyped.append(arg.arg)
            return stars + arg.arg
        text = f"{stars}{arg.arg}: {_text(source, arg.annotation)}"
        return text if default is None else f"{text} = {_text(source, default)}"

    parts = [one(arg, default) for arg, default in zip(positional, defaults, strict=True)]
    if given.vararg:
        parts.append(one(given.vararg, None, "*"))
    elif given.kwonlyargs:
        parts.append("*")
    parts += [one(arg, default) for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        parts.append(one(given.kwarg, None, "**"))
    if node.returns is None:
        untyped.append("return")
    returns = f" -> {_text(source, node.returns)}" if node.returns else ""
    before = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    line = f"{before}{node.name}({', '.join(parts)}){returns}"
    if len(line) > 100:
        line = "\n".join([f"{before}{node.name}(", *(f"    {part}," for part in parts), f"){returns}"])
    return Entry(name, kind, line, ast.get_docstring(node) or "", tuple(untyped))


class _Class:
    def __init__(self, source: str, module: str, node: ast.ClassDef) -> None:
        self.source, self.module, self.node = source, module, node
        self.plumbing = PLUMBING.get(node.name, set())

    def entry(self) -> Entry:
        node, name = self.node, self.node.name
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        is_data = any("dataclass" in _text(self.source, one) for one in node.decorator_list)
        is_error = name.endswith("Error")
        kind = "dataclass" if is_data else "exception" if is_error else "class"
        made = [one for one in node.body if isinstance(one, FUNCTIONS) and one.name == "__init__"]
        signature, untyped = f"class {name}" + (f"({', '.join(bases)})" if bases else ""), ()
        if name in CONSTRUCTED:
            init = _function(self.source, made[0], name, "method")
            signature, untyped = init.signature.replace("__init__", f"class {name}", 1), init.untyped
            signature = signature.removesuffix(" -> None")
        own = tuple(self._members(made, is_data))
        return Entry(name, kind, signature, ast.get_docstring(node) or "", untyped, tuple(bases), own)

    def _members(self, made: list[ast.stmt], is_data: bool) -> Iterator[Entry]:
        name = self.node.name
        for node, doc in _documented(self.node.body):
            if isinstance(node, ast.AnnAssign) and self._is_public(getattr(node.target, "id", "_")):
                yield Entry(f"{name}.{node.target.id}", "field", _text(self.source, node), doc)
        for init in made:
            for node, doc in _documented(init.body):
                target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
                if doc and isinstance(target, ast.Attribute) and self._is_public(target.attr):
                    yield Entry(f"{name}.{target.attr}", "field", self._attribute(node, target, init), doc)
        for node in self.node.body:
            if not isinstance(node, FUNCTIONS) or not self._is_public(node.name, ast.get_docstring(node)):
                continue
            marks = [_text(self.source, one) for one in node.decorator_list]
            if any(mark.endswith(".setter") for mark in marks):
                continue
            if "property" not in marks:
                yield _function(self.source, node, f"{name}.{node.name}", "method")
                continue
            made_of = _function(self.source, node, f"{name}.{node.name}", "method")
            kind_of = made_of.signature.partition("-> ")[2]
            line = f"{node.name}: {kind_of}" + ("  # may be set" if self._has_setter(node.name) else "")
            yield Entry(made_of.name, "property", line, made_of.doc, made_of.untyped)

    def _attribute(self, node: ast.stmt, target: ast.Attribute, init: ast.AST) -> str:
        """With its type, where the constructor says it."""
        if isinstance(node, ast.AnnAssign):
            return f"{target.attr}: {_text(self.source, node.annotation)}"
        value = node.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            return f"{target.attr}: {value.func.id}"
        if isinstance(value, ast.Constant):
            return f"{target.attr}: {type(value.value).__name__}"
        owner = getattr(getattr(value, "value", None), "id", "")
        for arg in init.args.args:
            if arg.annotation is None:
                continue
            if arg.arg == getattr(value, "id", ""):
                return f"{target.attr}: {_text(self.source, arg.annotation)}"
            if arg.arg == owner:  # self.x = config.x
                fields = _fields(self.source, self.module, _text(self.source, arg.annotation))
                return f"{target.attr}: {fields[value.attr]}"
        raise LookupError(f"{self.node.name}.{target.attr}: say its type")

    def _has_setter(self, name: str) -> bool:
        marks = [
            mark for node in self.node.body if isinstance(node, FUNCTIONS) for mark in node.decorator_list
        ]
        return any(_text(self.source, mark) == f"{name}.setter" for mark in marks)

    def _is_public(self, name: str, dunder: object = None) -> bool:
        special = name.startswith("__") and bool(dunder)
        return (special or not name.startswith("_")) and name not in self.plumbing


def _fields(source: str, module: str, name: str) -> dict[str, str]:
    """The types of a dataclass's fields, by their names."""
    for node in _module(module)[1].body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            lines = [one for one in node.body if isinstance(one, ast.AnnAssign)]
            return {one.target.id: _text(source, one.annotation) for one in lines}
    raise LookupError(f"{module}: {name}")


def entries() -> dict[str, list[Entry]]:
    """By section."""
    return {title: [entry(item) for item in items] for title, items in SECTIONS.items()}


@cache
def everything() -> list[Entry]:
    """Names and their members, in order."""
    tops = [one for many in entries().values() for one in many]
    return [one for top in tops for one in (top, *top.members)]


def blocks(doc: str) -> list[tuple[bool, str]]:
    """Paragraphs and indented examples of a docstring: (it is an example, text)."""
    found: list[tuple[bool, list[str]]] = []
    for line in doc.splitlines():
        is_code = line.startswith("    ")
        if line.strip() and (not found or found[-1][0] != is_code):
            found.append((is_code, []))
        if found:
            found[-1][1].append(line)
    return [(is_code, dedent("\n".join(lines)).strip()) for is_code, lines in found]


def examples(doc: str) -> list[str]:
    return [text for is_code, text in blocks(doc) if is_code]


def missing() -> list[str]:
    """What a public name lacks."""
    placed = {item for items in SECTIONS.values() for item in items if ":" not in item}
    faults = [f"{name}: in no section" for name in sorted(set(xsk_engine.__all__) ^ placed)]
    known = {one.name: one for one in everything()}
    for one in known.values():
        called = one.kind in ("class", "function", "method") and ".__" not in one.name
        if not one.doc and one.kind != "field":
            faults.append(f"{one.name}: no docstring")
        faults += [f"{one.name}: no type for {name}" for name in one.untyped]
        of_error = getattr(known.get(one.name.partition(".")[0]), "kind", "") in ("exception", "dataclass")
        if re.search(r"(?m)^\S.*\n    ", one.doc):
            faults.append(f"{one.name}: an example that does not stand by itself")
        if called and not of_error and not examples(one.doc) and one.name not in NO_EXAMPLE:
            faults.append(f"{one.name}: no example")
    unused = [name for name in NO_EXAMPLE if name not in known or examples(known[name].doc)]
    return faults + [f"{name}: needs no exception" for name in unused]


# -- the page ------------------------------------------------------------------------------------------------


def _markdown(doc: str) -> Iterator[str]:
    for is_code, text in blocks(doc):
        if is_code:
            yield from ("```python", *text.splitlines(), "```", "")
        else:
            text = re.sub(r":\w+:`[.~]?([^`]+)`", r"`\1`", text).replace("``", "`")
            yield from (*text.splitlines(), "")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _link(name: str) -> str:
    return f"[{name}](#{_anchor(name)})"


def _show(one: Entry, shown: set[str]) -> Iterator[str]:
    yield from (f"### {one.name}", "", "```python", one.signature, "```", "", *_markdown(one.doc))
    if links := [_link(base) for base in one.bases if base in shown and one.kind != "exception"]:
        yield from (f"And everything of {', '.join(links)}.", "")
    plain = [member for member in one.members if member.kind == "field"]
    if plain:
        yield "| field | |"
        yield "|---|---|"
        for member in plain:
            text = " ".join(" ".join(_markdown(member.doc)).split())
            yield " ".join(f"| `{_cell(member.signature)}` | {_cell(text)} |".split())
        yield ""
    for member in one.members:
        if member.kind != "field":
            yield from (f"#### {member.name}", "", "```python", member.signature, "```", "")
            yield from _markdown(member.doc)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page() -> str:
    sections = entries()
    shown = {one.name for many in sections.values() for one in many}
    lines = [INTRODUCTION]
    for title, many in sections.items():
        lines.append(f"- [{title}](#{_anchor(title)}): {', '.join(_link(one.name) for one in many)}")
    for title, many in sections.items():
        lines += ["", f"## {title}", ""]
        for one in many:
            lines += _show(one, shown)
        lines.pop()
    return "\n".join(lines) + "\n"

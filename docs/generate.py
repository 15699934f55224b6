"""Writes cli.md, figures.md, api.md, the man pages, and what README.md says of bench/results, from what is in
the source; ``--check`` compares."""

import sys
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

import api
import click
from click_man.core import generate_man_page

from xsk_engine import figures, report
from xsk_engine.cli import _group, options

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))
from bench import results  # noqa: E402
from bench.report import pictures, readme, writing  # noqa: E402

VERSION = "xsk-engine"
DATE = " "
"""none: the pages change when the options do"""


@dataclass(frozen=True)
class Named:
    name: str
    command: click.Command
    ctx: click.Context


def commands() -> list[Named]:
    """All of them, the program itself first, groups before their members."""

    def walk(command: click.Command, ctx: click.Context) -> list[Named]:
        found = [Named(ctx.command_path, command, ctx)]
        if isinstance(command, click.Group):
            for name in command.list_commands(ctx):
                member = command.get_command(ctx, name)
                assert member is not None
                found += walk(member, click.Context(member, info_name=name, parent=ctx))
        return found

    return walk(_group, click.Context(_group, info_name="xsk-engine", terminal_width=80))


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(rows: list[tuple[str, ...]], *heads: str) -> list[str]:
    lines = [heads, ("---",) * len(heads), *rows]
    return ["| " + " | ".join(map(cell, line)) + " |" for line in lines] + [""]


def paragraphs(text: str) -> list[str]:
    """A command's help; what click is told not to wrap stays as it is."""
    lines = []
    for part in cleandoc(text).split("\n\n"):
        verbatim = part.startswith("\b\n")
        lines += ["```", *part[2:].splitlines(), "```"] if verbatim else part.splitlines()
        lines.append("")
    return lines


def cli() -> str:
    lines = ["# The command line", "", "Made by `make docs` from the options' own definitions.", ""]
    for one in commands():
        usage = " ".join([one.name, *one.command.collect_usage_pieces(one.ctx)])
        lines += [f"## {one.name}", "", "```", usage, "```", "", *paragraphs(one.command.help or "")]
        for title, params in options.sections_of(one.command, one.ctx).items():
            records = [record for param in params if (record := param.get_help_record(one.ctx))]
            if len(records) > 1:  # more than --help
                lines += table([(f"`{name}`", text) for name, text in records], title, "")
    return "\n".join(lines)


def figure_tables() -> str:
    mark = {True: "x", False: ""}
    scopes = (figures.TOTAL, figures.QUEUE, figures.FLOW)
    rows = [
        (
            f"`{one.name}`",
            one.unit,
            one.kind,
            *(mark[scope in one.scopes] for scope in scopes),
            metric(one),
            one.text,
        )
        for one in figures.FIGURES
    ]
    lines = [
        "# The figures",
        "",
        "Made by `make docs`. The same names everywhere: in the summary of `--json`, in a line of `--jsonl`,",
        "as a column of `--csv`, and behind `xsk_engine_` in `--metrics`. A *counter* grows; a *gauge* is a",
        "state; a *rate* belongs to the interval, in the summary and in the last record to the whole run; a",
        "*fact* stays.",
        "",
        *table(rows, "figure", "unit", "kind", "all", "queue", "flow", "metric", "what it is"),
        "A record of an interval (`--jsonl`, `--csv`) also has `kind` (interval; final for the last one,",
        "which says what the summary says of the whole run), `time_s` (since the run began) and `unix_s`; in",
        "JSON `per_queue` and `flows`, in CSV a row for all, for each queue and for each flow, told apart by",
        "`scope` (total, queue or flow), `id` and `name`.",
        "",
        "The summary of `--json` has besides:",
        "",
        *table([(f"`{name}`", text) for name, text in report.FIELDS.items()], "value", "what it is"),
    ]
    return "\n".join(lines)


def metric(one: figures.Figure) -> str:
    if one.kind == "rate":
        return "(what `rate()` makes of the counters)"
    suffix = "_total" if one.kind == "counter" else ""
    prefixes = {figures.QUEUE: "", figures.FLOW: "flow_"}
    return ", ".join(f"`{prefixes[s]}{one.name}{suffix}`" for s in one.scopes if s in prefixes)


def pages() -> dict[Path, str]:
    made = {HERE / "cli.md": cli(), HERE / "figures.md": figure_tables(), HERE / "api.md": api.page()}
    made[ROOT / "README.md"] = benchmark()
    for one in commands():
        made[HERE / "man" / f"{dashed(one.name)}.1"] = man_page(one)
    return made


def benchmark() -> str:
    """README.md with what bench/results says now."""
    found, folder = results.load(results.REFERENCE), results.REFERENCE
    block = readme.block(
        found, folder.relative_to(ROOT).as_posix(), has_report=(folder / writing.MARKDOWN).exists()
    )
    return readme.into((ROOT / "README.md").read_text(), block)


def overview(check: bool) -> Path | None:
    """Draws README's picture if it shows other figures than bench/results has; its path if it still does."""
    found, path = results.load(results.REFERENCE), results.REFERENCE / readme.PICTURE
    if not readme.panels(found) or (path.exists() and readme.digest(found) in path.read_text()):
        return None
    if check or not pictures.available():
        return path
    path.write_text(readme.picture(found) or "")
    return None


def dashed(name: str) -> str:
    return name.replace(" ", "-")


def man_page(one: Named) -> str:
    """With what click-man cannot know of commands that are imported when they are called."""
    command = one.command
    if isinstance(command, click.Group):
        command.commands = {
            name: command.get_command(one.ctx, name) for name in command.list_commands(one.ctx)
        }
    command.short_help = command.short_help or (command.help or "").split(".")[0].replace("\n", " ") + "."
    text = generate_man_page(one.ctx, version=VERSION, date=DATE).replace("\b\n", ".nf\n")
    others = ", ".join(f"{dashed(other.name)}(1)" for other in commands() if other.name != one.name)
    return f"{text}.SH SEE ALSO\n{others}\n"


def main(check: bool) -> int:
    made = pages()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    stale += [path for path in (HERE / "man").glob("*") if path not in made]
    if check:
        stale += [path for path in (overview(check=True),) if path]
        for path in stale:
            print(f"{path.relative_to(ROOT)}: not what the program says; run make docs", file=sys.stderr)
        return bool(stale)
    (HERE / "man").mkdir(exist_ok=True)
    for path in stale:
        path.unlink(missing_ok=True)
        if path in made:
            path.write_text(made[path])
    if missing := overview(check=False):
        print(f"{missing.relative_to(ROOT)}: cannot be drawn without matplotlib", file=sys.stderr)
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))

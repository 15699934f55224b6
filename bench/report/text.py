"""Results on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from bench.report.tables import Head, Result, Row, Section, Table, section

_STYLES = {True: "green", False: "bold red", None: ""}


def show(results: Iterable[Result], console: Console) -> None:
    """Every experiment's tables. What is not a terminal is as wide as it takes; on one, minor columns go
    where there is no room for them."""
    for result in results:
        _show(section(result), console)


def _show(one: Section, console: Console) -> None:
    console.print()
    console.print(Text(one.title, "bold"), Text(f"({one.name})", "dim"))
    console.print(Text(one.question))
    print_table(one.table, console)
    if one.targets:
        print_table(one.targets, console)
    for arm, why in _absent(one.table):
        console.print(Text(f"{arm} is absent: {why}", "dim"))
    for note in one.notes:
        console.print(Text(note))
    for title, text in one.sentences:
        console.print(Text(f"{title}: {text}.", "dim"))
    for warning in one.warnings:
        console.print(Text(f"Noisy: {warning}", "yellow"))


def _absent(table: Table) -> list[tuple[str, str]]:
    """Arms and why they have no row of figures, each reason once."""
    return list(dict.fromkeys((row.cells[1][0].text, row.absent) for row in table.rows if row.absent))


def print_table(table: Table, console: Console) -> None:
    grid = _grid(table, keep_minor=True)
    width = Measurement.get(console, console.options.update(max_width=10_000), grid).maximum
    if not console.is_terminal:
        console.width = max(console.width, width)
    elif width > console.width:
        grid = _grid(table, keep_minor=False)
    console.print(grid)


def _grid(table: Table, *, keep_minor: bool) -> Grid:
    kept = [at for at, head in enumerate(table.heads) if keep_minor or not head.minor]
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for at in kept:
        head = table.heads[at]
        grid.add_column(Text(head.text), justify="right" if head.number else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*_cells(table.heads, row, kept))
    return grid


def _cells(heads: tuple[Head, ...], row: Row, kept: list[int]) -> list[Text]:
    cells = []
    for at in kept:
        lines = row.cells[at] if at < len(row.cells) else ()
        text = Text("\n").join(Text(line.text, _STYLES[line.met]) for line in lines)
        if at == 0 and len(heads) > 3 and not row.begins:
            text = Text()  # the case of the row above
        if row.absent and at == 1:
            text.append(" (absent)", "dim")
        cells.append(text)
    return cells

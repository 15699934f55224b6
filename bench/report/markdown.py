"""report.md: all experiments of a folder, to be read as it is or where Markdown is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from bench.report.tables import Cell, Result, Row, Section, Table, section

TITLE = "The benchmark"
HOW_TO_READ = (
    "Figures are medians of rounds in which all arms take turns. A ratio is the median of the rounds' "
    "ratios, in brackets the interval in which that median lies with 95 % (bootstrap). Figures of two "
    "machines cannot be compared; ratios taken in one run can."
)
NO_PICTURES = "There are no pictures: matplotlib is not installed (pip install 'xsk-engine[bench]')."


def report(results: Iterable[Result], pictures: Mapping[str, str], missing: str = "") -> str:
    """`results` in their order; `pictures`: their files by experiment, as seen from the report; `missing`:
    why there are none."""
    sections = [section(result) for result in results]
    lines = [f"# {TITLE}", "", HOW_TO_READ, ""]
    if missing:
        lines += [missing, ""]
    lines += [f"- [{escaped(one.question)}](#{anchor(one.name)})" for one in sections]
    for one in sections:
        lines += ["", *_section(one, pictures.get(one.name))]
    return "\n".join(lines) + "\n"


def anchor(name: str) -> str:
    """Of an experiment; also of its picture's file."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


def escaped(text: str) -> str:
    """Plain text, as it is to be read, within a line."""
    text = re.sub(r"([\\`*\[\]<&|~$])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def code(text: str) -> str:
    """A code span that may hold backticks."""
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * (max(runs, default=0) + 1)
    return f"{fence} {text} {fence}" if runs else f"{fence}{text}{fence}"


def _section(one: Section, picture: str | None) -> list[str]:
    lines = [f'<a id="{anchor(one.name)}"></a>', "", f"## {escaped(one.question)}", ""]
    lines += [f"{escaped(one.title)} ({code(one.name)}).", ""]
    lines += [line for warning in one.warnings for line in (f"**Noisy:** {escaped(warning)}.", "")]
    lines += [*table(one.table), ""]
    if one.targets:
        lines += [*table(one.targets), ""]
    if one.notes:
        lines += [*(f"- {escaped(note)}" for note in one.notes), ""]
    if picture:
        lines += [f"![{escaped(one.title)}]({picture})", ""]
    lines += [line for title, text in one.sentences for line in (f"{title}: {escaped(text)}.", "")]
    for title, text in one.facts:
        lines.append(f"- {title}: {code(text) if title == 'Command' else escaped(text)}")
    return lines


def table(of: Table) -> list[str]:
    heads = [escaped(head.text) for head in of.heads]
    lines = [_line(heads), _line(["---:" if head.number else "---" for head in of.heads])]
    return lines + [_line(_cells(row, len(heads))) for row in of.rows]


def _cells(row: Row, columns: int) -> list[str]:
    cells = [_cell(cell) for cell in row.cells]
    if not row.begins and columns > 3:
        cells[0] = ""  # the case of the row above
    if row.absent:
        cells.append(f"absent: {escaped(row.absent)}")
    return cells[:columns] + [""] * (columns - len(cells))


def _cell(cell: Cell) -> str:
    return "<br>".join(
        f"**{escaped(line.text)}**" if line.met is False else escaped(line.text) for line in cell
    )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"

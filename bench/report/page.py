"""report.html: one page that needs nothing else, with pictures, and every round behind what may be opened."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape

from bench.report import markdown
from bench.report.pictures import GRID, INK, PAPER
from bench.report.tables import Cell, Result, Row, Section, Table, section

STYLE = """
:root{color-scheme:light dark;--ink:#1f2933;--faint:#52606d;--grid:#d8dee4;--paper:#fefefe;--band:#f3f5f7;
--good:#1a6b3c;--bad:#a3261b;--link:#0b5cad}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ec;--faint:#a5b0bb;--grid:#3a444e;--paper:#14181c;
--band:#1d2329;--good:#6fcf97;--bad:#ff8a7a;--link:#7db8f5}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:72rem;font:1rem/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1,h2{line-height:1.25}h2{margin-top:3rem}a{color:var(--link)}nav ul{padding-left:1.2rem}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.875rem;overflow-wrap:normal}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--grid);text-align:left;vertical-align:top}
th{border-bottom-color:var(--faint)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.begins td{border-top:1px solid var(--faint)}
td.absent,.facts,small{color:var(--faint)}
.met{color:var(--good)}.missed{color:var(--bad);font-weight:600}
.noisy{border-left:.3rem solid var(--bad);padding:.2rem .8rem;background:var(--band)}
figure{margin:1rem 0;overflow-x:auto}figure svg{max-width:100%;min-width:34rem;height:auto}
figure svg text{font-family:system-ui,sans-serif}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;font-size:.875rem}
dt{font-weight:600}dd{margin:0}
details{margin:.4rem 0}summary{cursor:pointer}td.rounds{font-variant-numeric:tabular-nums}
"""
_COLOURS = {INK: "var(--ink)", GRID: "var(--grid)", PAPER: "var(--paper)"}


def page(results: Iterable[Result], pictures: Mapping[str, str], missing: str = "") -> str:
    """`results` in their order; `pictures`: SVG by experiment; `missing`: why there are none."""
    sections = [section(result) for result in results]
    contents = "".join(
        f'<li><a href="#{markdown.anchor(one.name)}">{escape(one.question)}</a></li>' for one in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(markdown.TITLE)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(markdown.TITLE)}</h1>\n<p>{escape(markdown.HOW_TO_READ)}</p>\n"
        + (f"<p>{escape(missing)}</p>\n" if missing else "")
        + f"<nav><ul>{contents}</ul></nav>\n<main>\n"
        + "".join(_section(one, pictures.get(one.name)) for one in sections)
        + "</main>\n</body>\n</html>\n"
    )


def _section(one: Section, picture: str | None) -> str:
    parts = [
        f'<section id="{markdown.anchor(one.name)}">',
        f"<h2>{escape(one.question)}</h2>",
        f"<p>{escape(one.title)} <small>({escape(one.name)})</small></p>",
        *(f'<p class="noisy">Noisy: {escape(text)}.</p>' for text in one.warnings),
        _table(one.table),
        _table(one.targets) if one.targets else "",
        _list(one.notes),
        _figure(picture, one) if picture else "",
        *(f"<p>{escape(title)}: {escape(text)}.</p>" for title, text in one.sentences),
        '<dl class="facts">',
        *(f"<dt>{escape(title)}</dt><dd>{escape(text)}</dd>" for title, text in one.facts),
        "</dl>",
        *(
            f"<details><summary>Rounds: {escape(case)}</summary>{_table(table)}</details>"
            for case, table in one.rounds
        ),
        "</section>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def _figure(svg: str, one: Section) -> str:
    return f'<figure role="img" aria-label="{escape(one.title)}">{inline(svg)}</figure>'


def inline(svg: str) -> str:
    """A picture as part of the page, in its colours: without the head of a file of its own, and without names
    that nothing refers to, as other pictures have the same."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.S)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    for there, here in _COLOURS.items():
        svg = svg.replace(there, here)
    return svg


def _table(of: Table) -> str:
    heads = "".join(f'<th scope="col"{_number(head.number)}>{escape(head.text)}</th>' for head in of.heads)
    rows = "".join(_row(of, row) for row in of.rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _number(is_number: bool) -> str:
    return ' class="n"' if is_number else ""


def _row(of: Table, row: Row) -> str:
    cells = "".join(
        f"<td{_number(head.number)}>{_cell(cell)}</td>"
        for head, cell in zip(of.heads, row.cells, strict=False)
    )
    if row.absent:
        span = len(of.heads) - len(row.cells)
        cells += f'<td class="absent" colspan="{span}">absent: {escape(row.absent)}</td>'
    begins = ' class="begins"' if row.begins else ""
    return f"<tr{begins}>{cells}</tr>"


def _cell(cell: Cell) -> str:
    marks = {True: "met", False: "missed"}
    return "<br>".join(
        escape(line.text)
        if line.met is None
        else f'<span class="{marks[line.met]}">{escape(line.text)}</span>'
        for line in cell
    )

"""The files of a report: report.md, report.html and a picture for each experiment, beside the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.report import markdown, page, pictures, tables

MARKDOWN, PAGE = "report.md", "report.html"


def write(folder: Path, results: Mapping[str, dict[str, Any]], order: Iterable[str]) -> Path:
    """Of all `results`, experiments as `order` has them. The page's path. OSError."""
    chosen = tables.in_order(results, order)
    missing, drawn = markdown.NO_PICTURES, {}
    if pictures.available():
        missing = ""
        drawn = {result["experiment"]: svg for result in chosen if (svg := pictures.draw(result))}
    files = {name: f"{markdown.anchor(name)}.svg" for name in drawn}
    for name, svg in drawn.items():
        (folder / files[name]).write_text(svg)
    (folder / MARKDOWN).write_text(markdown.report(chosen, files, missing))
    (folder / PAGE).write_text(page.page(chosen, drawn, missing))
    return folder / PAGE

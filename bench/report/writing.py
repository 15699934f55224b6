"""The files of a report: report.md and what belongs to it, in the folder of the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.report import markdown, tables

MARKDOWN, PAGE = "report.md", "report.html"


def write(folder: Path, results: Mapping[str, dict[str, Any]], order: Iterable[str]) -> Path:
    """Of all `results`, experiments as `order` has them. The path of what is to be opened. OSError."""
    chosen = tables.in_order(results, order)
    path = folder / MARKDOWN
    path.write_text(markdown.report(chosen, {}))
    return path

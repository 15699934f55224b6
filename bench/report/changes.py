"""What ``bench compare`` prints."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from bench.compare import BETTER, SAME, UNJUDGED, UNSURE, WORSE, Change, Comparison
from bench.report import wording
from bench.report.tables import Head, Line, Row, Table
from bench.report.text import print_table
from bench.report.wording import plain

_HEADS = (
    Head("case"),
    Head("arm"),
    Head("figure"),
    Head("before", number=True),
    Head("after", number=True),
    Head("change", number=True),
    Head(""),
)
_MET = {WORSE: False, BETTER: True}
_SAID = {SAME: "", UNSURE: "unsure: intervals overlap", UNJUDGED: "cannot be judged"}


def table(changes: Iterable[Change]) -> Table:
    """A row for each, in their order."""
    rows: list[Row] = []
    case = ""
    for one in changes:
        shown = wording.times if one.is_ratio else wording.number
        name = wording.heading(one.figure, one.unit)
        texts = (one.case, one.arm, name, shown(one.before), shown(one.after), wording.change(one.percent))
        verdict = Line(_SAID.get(one.verdict, one.verdict), _MET.get(one.verdict))
        rows.append(Row((*((Line(plain(text)),) for text in texts), (verdict,)), begins=one.case != case))
        case = one.case
    return Table(_HEADS, tuple(rows))


def show(found: Comparison, console: Console, *, only_changed: bool) -> None:
    """Tables by experiment, then what vanished and appeared, then how many became worse and better."""
    for name in dict.fromkeys(one.experiment for one in found.changes):
        mine = [one for one in found.changes if one.experiment == name]
        shown = [one for one in mine if not only_changed or one.verdict in (WORSE, BETTER)]
        if shown:
            console.print(Text(f"\n{plain(name)}", "bold"))
            print_table(table(shown), console)
    for title, texts in (
        ("Vanished", found.vanished),
        ("New", found.appeared),
        ("Target", found.targets),
        ("Note", found.apart),
    ):
        for text in texts:
            console.print(Text(f"{title}: {plain(text)}"))
    counts = [len(found.of(verdict)) for verdict in (WORSE, BETTER, SAME, UNSURE, UNJUDGED)]
    console.print(
        Text(
            "{} worse, {} better, {} the same, {} unsure, {} that cannot be judged".format(*counts),
            "bold red" if counts[0] else "bold",
        )
    )

"""A result as tables and sentences, the same for a terminal, Markdown and the page. Pure.

All text is one line and printable, and not escaped yet: that is for who writes it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report import wording
from bench.report.wording import plain

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """Of a cell. ``met``: what it says of a target."""

    text: str
    met: bool | None = None


Cell = tuple[Line, ...]
EMPTY: Cell = ()


@dataclass(frozen=True)
class Head:
    """Of a column. ``number``: to the right. ``minor``: the first to go where there is no room."""

    text: str
    number: bool = False
    minor: bool = False


@dataclass(frozen=True)
class Row:
    """``absent``: why there are no figures; its cells are the first ones only. ``begins``: a new case."""

    cells: tuple[Cell, ...]
    absent: str = ""
    begins: bool = False


@dataclass(frozen=True)
class Table:
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Section:
    """One experiment. ``sentences`` and ``facts``: title and text. ``rounds``: a table for each case."""

    name: str
    title: str
    question: str
    sentences: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    table: Table
    targets: Table | None
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    rounds: tuple[tuple[str, Table], ...]


def section(result: Result) -> Section:
    name = plain(result["experiment"])
    return Section(
        name=name,
        title=plain(result.get("title", name)),
        question=plain(result.get("question", name)),
        sentences=tuple(
            (title, plain(result[key]))
            for title, key in (
                ("Held equal", "held_equal"),
                ("Not claimed", "not_claimed"),
                ("Counted by", "counted_by"),
            )
            if result.get(key)
        ),
        warnings=tuple(map(plain, result.get("noisy", ()))),
        table=figures_table(result),
        targets=targets_table(result),
        notes=tuple(_notes(result)),
        facts=tuple(_facts(result)),
        rounds=tuple(
            (plain(case["name"]), table) for case in result["cases"] if (table := rounds_table(result, case))
        ),
    )


def _notes(result: Result) -> Iterable[str]:
    """Each once, with the cases that it is about, unless it is about all of them."""
    cases_of: dict[str, list[str]] = {}
    for case in result["cases"]:
        for note in case.get("notes", ()):
            cases_of.setdefault(plain(note), []).append(plain(case["name"]))
    for note, cases in cases_of.items():
        about_all = 1 < len(cases) == len(result["cases"])
        yield note if about_all else f"{'; '.join(cases)}: {note}"


def in_order(results: Mapping[str, Result], names: Iterable[str] = ()) -> list[Result]:
    """As `names` has them, what is not among them behind, by name."""
    known = [name for name in names if name in results]
    return [results[name] for name in [*known, *sorted(set(results) - set(known))]]


def pictured(result: Result) -> str | None:
    """The figure that a reader wants first: what the experiment says, or its first that was measured."""
    measured = _measured(result)
    chosen = result.get("picture")
    return chosen if chosen in measured else next(iter(measured), None)


def _measured(result: Result) -> list[str]:
    """Figures that some arm has, in the experiment's order."""
    seen = {name for case in result["cases"] for arm in case.get("arms", {}).values() for name in arm}
    seen |= {of["figure"] for case in result["cases"] for of in case.get("ratios", ())}
    return [name for name in result["figures"] if name in seen]


def label(result: Result, figure: str) -> str:
    return wording.heading(figure, str(result["figures"].get(figure, {}).get("unit", "")))


def figures_table(result: Result) -> Table:
    """A row for each arm of each case: figures' medians, the first one's extremes, ratios, targets."""
    figures, first = _measured(result), pictured(result)
    ratios = [of for case in result["cases"] for of in case.get("ratios", ())]
    compared = [name for name in figures if any(of["figure"] == name for of in ratios)]
    aimed = any("target" in of for of in ratios)
    heads = [Head("case"), Head("arm")]
    for name in figures:
        heads.append(Head(label(result, name), number=True, minor=name != first))
        if name == first:
            heads.append(Head("min to max", number=True, minor=True))
    for name in compared:
        ours = {of["ours"] for of in ratios if of["figure"] == name}
        whose = plain(next(iter(ours))) if len(ours) == 1 else "ours"
        heads.append(Head(f"{whose} : this ({label(result, name)})", number=True))
    if aimed:
        heads.append(Head("target"))
    rows: list[Row] = []
    for case in result["cases"]:
        rows += _rows_of_case(case, figures, first, compared, aimed, ratios)
    return Table(tuple(heads), tuple(rows))


def _rows_of_case(
    case: Mapping[str, Any],
    figures: Sequence[str],
    first: str | None,
    compared: Sequence[str],
    aimed: bool,
    ratios: Sequence[Mapping[str, Any]],
) -> list[Row]:
    arms, absent = case.get("arms", {}), case.get("absent", {})
    of_case = case.get("ratios", ())
    names = list(dict.fromkeys([*arms, *(of["theirs"] for of in of_case)]))
    rows: list[Row] = []
    for arm in names:
        cells = [_text(case["name"]), _text(arm)]
        for name in figures:
            spread = arms.get(arm, {}).get(name)
            cells.append(_text(wording.number(spread["median"])) if spread else EMPTY)
            if name == first:
                cells.append(_extremes(spread))
        mine = [of for name in compared for of in of_case if of["theirs"] == arm and of["figure"] == name]
        for name in compared:
            several = len({of["ours"] for of in ratios if of["figure"] == name}) > 1
            cells.append(
                tuple(
                    Line((f"{plain(of['ours'])}: " if several else "") + wording.ratio(of))
                    for of in mine
                    if of["figure"] == name
                )
            )
        if aimed:
            cells.append(tuple(_target(of["target"], of["met"]) for of in mine if "target" in of))
        rows.append(Row(tuple(cells), begins=not rows))
    for arm, why in absent.items():
        rows.append(Row((_text(case["name"]), _text(arm)), plain(why) or "absent", begins=not rows))
    return rows


def _text(text: object) -> Cell:
    return (Line(plain(text)),)


def _extremes(spread: Mapping[str, Any] | None) -> Cell:
    if not spread or spread["min"] == spread["max"]:
        return EMPTY
    return _text(f"{wording.number(spread['min'])} to {wording.number(spread['max'])}")


def _target(bound: str, met: bool) -> Line:
    return Line(f"{plain(bound)}: {wording.verdict(met)}", met)


def targets_table(result: Result) -> Table | None:
    """Of figures that are no ratio of two arms."""
    rows = []
    for case in result["cases"]:
        for number, of in enumerate(case.get("targets", ())):
            cells = (_text(case["name"]), _text(of["what"]), _text(wording.number(of["value"])))
            rows.append(Row((*cells, (_target(of["bound"], of["met"]),)), begins=number == 0))
    heads = (Head("case"), Head("what"), Head("value", number=True), Head("target"))
    return Table(heads, tuple(rows)) if rows else None


def rounds_table(result: Result, case: Mapping[str, Any]) -> Table | None:
    """Every round's figure, in their order; ratios behind. None: none were kept."""
    rows = []
    for arm, figures in case.get("arms", {}).items():
        for name, spread in figures.items():
            if spread.get("rounds"):
                rows.append(Row((_text(arm), _text(label(result, name)), _text(_values(spread)))))
    for of in case.get("ratios", ()):
        if of.get("rounds"):
            whose = f"{of['ours']} : {of['theirs']}"
            rows.append(Row((_text(whose), _text(label(result, of["figure"])), _text(_values(of)))))
    return Table((Head("arm"), Head("figure"), Head("rounds")), tuple(rows)) if rows else None


def _values(spread: Mapping[str, Any]) -> str:
    return "  ".join(map(wording.number, spread["rounds"]))


def _facts(result: Result) -> Iterable[tuple[str, str]]:
    yield "Command", plain(result.get("command", "unknown"))
    yield "When", plain(result.get("when", "unknown"))
    yield "Machine", wording.machine(result.get("machine", {}))
    if result.get("rounds"):
        yield "Rounds", plain(result["rounds"])
    for name, ends in result.get("scene", {}).items():
        tx = ends.get("tx", {})
        on = [plain(offload) for offload, state in tx.get("offloads", {}).items() if state == "on"]
        text = f"{tx.get('driver')}, MTU {tx.get('mtu')}; on at the sender: {', '.join(on) or 'no offload'}"
        yield "Wire" + (f" ({plain(name)})" if name else ""), plain(text)
    if versions := result.get("versions"):
        yield "Versions", plain(", ".join(f"{name} {text}" for name, text in versions.items()))

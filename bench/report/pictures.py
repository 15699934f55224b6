"""A picture of each result, as SVG whose bytes are those of the result alone. Needs matplotlib.

Cases that stand on an axis are lines; others are bars, a group for each case, with the ratios beside them.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.report import palette, tables, wording
from bench.report.tables import Result
from bench.report.wording import plain

INK, GRID, PAPER = "#1f2933", "#d8dee4", "#fefefe"
"""no other colour is any of these: the page puts its own in their place"""
MOST_BARS = 44
"""in one panel, or it is higher than a screen; of more, each case has a panel of its own"""
ROW_INCHES = 0.23
_WIDTH_INCHES = 10.0
_DECADE = 10.0
_LEAST_POINTS = 3
"""of a line; fewer are bars"""


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(result: Result) -> str | None:
    """SVG, or None where there is nothing to see. RuntimeError without matplotlib."""
    figure = tables.pictured(result)
    if figure is None or result.get("picture") == "":
        return None
    with svg_of(str(result["experiment"])) as canvas:
        if points := lines_of(result, figure):
            _lines(canvas.axes(1, 1, 4.4)[0][0], result, figure, points)
        else:
            _all_bars(canvas, result, figure)
    return canvas.svg


@dataclass(frozen=True)
class Bar:
    """A row of a picture. ``ratio``: of ours to it: median, low, high."""

    arm: str
    median: float | None
    low: float
    high: float
    ratio: tuple[float, float, float] | None = None


Points = dict[str, list[tuple[float, float, float, float]]]
"""by arm: x, median, min, max, ascending"""


def lines_of(result: Result, figure: str) -> Points:
    """Empty: these are no lines."""
    at = [case.get("x") for case in result["cases"]]
    if None in at or len(set(at)) != len(at) or len(at) < _LEAST_POINTS:
        return {}
    found: Points = {}
    for case in sorted(result["cases"], key=lambda case: case["x"]):
        for arm, figures in case.get("arms", {}).items():
            if spread := figures.get(figure):
                values = (case["x"], spread["median"], spread["min"], spread["max"])
                found.setdefault(arm, []).append(values)
    return found


def bars_of(case: Mapping[str, Any], figure: str) -> list[Bar]:
    """In the order of the table: those that were measured, then those that are only compared."""
    ratios = {
        of["theirs"]: (of["median"], of.get("low", of["median"]), of.get("high", of["median"]))
        for of in reversed(case.get("ratios", ()))
        if of["figure"] == figure
    }
    bars = []
    for arm, figures in case.get("arms", {}).items():
        if spread := figures.get(figure):
            bars.append(Bar(arm, spread["median"], spread["min"], spread["max"], ratios.get(arm)))
    measured = {bar.arm for bar in bars}
    return bars + [Bar(arm, None, 0, 0, ratio) for arm, ratio in ratios.items() if arm not in measured]


def axis_name(names: Sequence[str]) -> str:
    """What the cases' names say besides their number: "bytes" of "60 bytes", "MTU" of "MTU 1500"."""
    words = {plain(re.sub(r"[\d.,]+[kMG]?\b", " ", name)) for name in names}
    return words.pop() if len(words) == 1 else ""


class Canvas:
    """One drawing. ``svg`` is there once it was left."""

    svg = ""

    def __init__(self, pyplot: Any) -> None:
        self._pyplot = pyplot
        self.figure: Any = None

    def axes(self, rows: int, columns: int, inches: float, **more: Any) -> Any:
        """rows x columns of them, so many inches high together."""
        size = (_WIDTH_INCHES, inches)
        self.figure, found = self._pyplot.subplots(
            rows, columns, figsize=size, layout="constrained", squeeze=False, **more
        )
        for axes in found.flat:
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
        return found


@contextmanager
def svg_of(salt: str) -> Iterator[Canvas]:
    """`salt`: no other picture of the page has it, or their identifiers would be the same."""
    if not available():
        raise RuntimeError("matplotlib is not installed")
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    style = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",  # texts stay texts: small, to be searched, and read aloud
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # metrics that come with matplotlib; readers have their own
        "font.size": 9,
        "figure.facecolor": PAPER,
        "axes.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        **{f"{name}color": INK for name in ("text.", "axes.label", "xtick.", "ytick.")},
        "axes.edgecolor": GRID,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
    }
    canvas = Canvas(pyplot)
    with matplotlib.rc_context(style):
        yield canvas
        out = io.StringIO()
        try:
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            canvas.figure.savefig(out, format="svg", metadata=nothing)
        finally:
            pyplot.close(canvas.figure)
        canvas.svg = out.getvalue()


def _spans(values: Sequence[float], times: float = _DECADE) -> bool:
    return min(values) > 0 and max(values) / min(values) > times


def _lines(axes: Any, result: Result, figure: str, points: Points) -> None:
    dashes = iter(("-", "--", ":", "-."))
    for number, (arm, of) in enumerate(points.items()):
        at, medians, lows, highs = zip(*of, strict=True)
        ours = palette.is_ours(arm)
        axes.fill_between(at, lows, highs, color=palette.colour(arm), alpha=0.15, linewidth=0)
        axes.plot(
            at,
            medians,
            marker=palette.MARKERS[number % len(palette.MARKERS)],
            color=palette.colour(arm),
            linestyle=next(dashes, "-") if ours else "-",  # ours have one colour
            linewidth=2.4 if ours else 1.4,
            markersize=6 if ours else 4.5,
            zorder=3 if ours else 2,
            label=literal(arm),
        )
    cases = result["cases"]
    ticks = sorted(case["x"] for case in cases)
    if _spans(ticks):
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(ticks, [f"{x:,g}" if x < 1e6 else f"{x:.3g}" for x in ticks])
    if _spans([one[1] for of in points.values() for one in of], 3 * _DECADE):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: wording.number(value))
    axes.grid(axis="y")
    axes.set_xlabel(literal(axis_name([case["name"] for case in cases])))
    axes.set_ylabel(literal(with_direction(result, figure)))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def literal(text: str) -> str:
    """matplotlib takes what is between dollars for mathematics, and a first underscore for "no label"."""
    return " ".join(plain(text).replace("$", r"\$").split()).lstrip("_")


def with_direction(result: Result, figure: str) -> str:
    better = result["figures"].get(figure, {}).get("better")
    return tables.label(result, figure) + (f" ({better} is better)" if better else "")


def _all_bars(canvas: Canvas, result: Result, figure: str) -> None:
    groups = [(plain(case["name"]), bars_of(case, figure)) for case in result["cases"]]
    groups = [(name, bars) for name, bars in groups if bars]
    crowded = sum(len(bars) for _, bars in groups) > MOST_BARS
    panels = [[group] for group in groups] if crowded else [groups]
    rows = [sum(len(bars) + 1 for _, bars in panel) for panel in panels]
    compared = any(bar.ratio for _, bars in groups for bar in bars)
    grid = canvas.axes(
        len(panels),
        2 if compared else 1,
        ROW_INCHES * sum(rows) + 0.8 * len(panels),
        height_ratios=rows,
        width_ratios=(3, 2) if compared else (1,),
        sharey="row",
    )
    for of_row, panel in zip(grid, panels, strict=True):
        bars(of_row[0], panel)
        of_row[0].set_xlabel(literal(with_direction(result, figure)))
        if compared:
            ratios(of_row[1], panel)
            whose = {of["ours"] for case in result["cases"] for of in case.get("ratios", ())}
            ours = plain(next(iter(whose))) if len(whose) == 1 else "ours"
            of_row[1].set_xlabel(literal(f"{ours} : it, {tables.label(result, figure)}"))


Panel = Sequence[tuple[str, Sequence[Bar]]]


def _places(panel: Panel) -> Iterator[tuple[int, str, Bar | None]]:
    """Row, its text, its bar: a heading for each case, its bars below."""
    row = 0
    for name, group in panel:
        yield row, name, None
        for number, bar in enumerate(group, start=1):
            yield row + number, plain(bar.arm), bar
        row += len(group) + 1


def bars(axes: Any, panel: Panel) -> None:
    """The figure's medians, with whiskers from min to max."""
    places = list(_places(panel))
    top = 0.0
    for row, _, bar in places:
        if bar is None or bar.median is None:
            continue
        axes.barh(row, bar.median, 0.72, color=palette.colour(bar.arm))
        if bar.low < bar.high:
            axes.plot([bar.low, bar.high], [row, row], color=INK, linewidth=0.9)
        end = max(bar.high, bar.median)
        axes.annotate(
            wording.number(bar.median), (end, row), (4, 0), textcoords="offset points", va="center", size=8
        )
        top = max(top, end)
    axes.set_yticks([row for row, _, _ in places], [literal(text) for _, text, _ in places])
    for tick, (_, _, bar) in zip(axes.get_yticklabels(), places, strict=True):
        tick.set_fontweight("bold" if bar is None or palette.is_ours(bar.arm) else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(row for row, _, _ in places) + 0.6, -0.6)
    axes.set_xlim(0, top * 1.18 or 1)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: wording.number(value))
    axes.grid(axis="x")


def ratios(axes: Any, panel: Panel) -> None:
    """Ours to each, with the interval, beside the bars of the same rows; from 1, where both are equal."""
    found = [(row, bar.arm, bar.ratio) for row, _, bar in _places(panel) if bar is not None and bar.ratio]
    ends = [value for _, _, of in found for value in of] + [1.0]
    is_log = _spans(ends)
    for row, arm, (median, low, high) in found:
        start = 1.0 if is_log else 0.0
        axes.barh(row, median - start, 0.72, left=start, color=palette.colour(arm), alpha=0.75)
        axes.plot([low, high], [row, row], color=INK, linewidth=1.6)
        axes.annotate(
            wording.times(median),
            (max(median, high, 1.0), row),
            (4, 0),
            textcoords="offset points",
            va="center",
            size=8,
        )
    if is_log:
        axes.set_xscale("log")
        axes.minorticks_off()
        low, high = min(ends) / 1.3, max(ends) * 2
        axes.set_xlim(low, high)
        steps = (1, 2, 5) if high / low < _DECADE**2 else (1,)
        ticks = [step * _DECADE**power for power in range(-4, 7) for step in steps]
        axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    else:
        axes.set_xlim(0, max(ends) * 1.25)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(1, color=INK, linewidth=1)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.grid(axis="x")

"""The latency histogram as a picture: SVG that needs nothing else, with a background of its own. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from xsk_engine.units import format_ns

WIDTH, HEIGHT = 960, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 820, 170, 400
"""of the plot; right of it is room for the label of a mark at its very end"""
_ROW = 18
_CHARACTER = 0.62
"""of a character's width, of its size: the widest usual sans-serif"""
_MARKS = (
    ("p50", "p50_ns"),
    ("p90", "p90_ns"),
    ("p99", "p99_ns"),
    ("p99.9", "p99_9_ns"),
    ("max", "max_ns"),
)
_QUARTERS = (16, 19, 23, 27)
"""sixteenths of a power of two where bars begin: buckets' edges, nearest to four equal ratios"""
_LEAST_RATIO = 10.0
_INK, _FAINT, _GRID, _BAR, _MARK = "#1f2933", "#52606d", "#dde3e9", "#7aade0", "#b4441c"


def _bar_of(top_ns: int) -> int:
    """Number of the bar of a bucket, by its largest ns."""
    power = max(top_ns, 1).bit_length() - 1
    sixteenths = (max(top_ns, 1) << 4) >> power
    return 4 * power + sum(sixteenths >= edge for edge in _QUARTERS[1:])


def _edge_ns(bar: int) -> float:
    """Where a bar begins; 1 ns, the first one's, takes what is below, too."""
    return float((1 << bar // 4) * _QUARTERS[bar % 4]) / 16


def bars(latency: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """(first ns, ns it ends before, packets) of each bar that has some, ascending: four per power of two."""
    found: dict[int, int] = {}
    for top, n in latency["buckets"]:
        found[_bar_of(top)] = found.get(_bar_of(top), 0) + n
    return [(_edge_ns(bar), _edge_ns(bar + 1), found[bar]) for bar in sorted(found) if found[bar]]


def _fitted(text: str, size: float, room: float) -> str:
    most = int(room / (size * _CHARACTER))
    return text if len(text) <= most else text[: most - 1].rstrip() + "\u2026"


class _Drawing:
    """Elements, written one after the other."""

    def __init__(self) -> None:
        self.elements: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 13,
        at: str = "start",
        ink: str = _INK,
        more: str = "",
    ) -> None:
        self.elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{at}" fill="{ink}"{more}>'
            f"{escape(text)}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, ink: str, more: str = "") -> None:
        self.elements.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{ink}"{more}/>'
        )


class _Axis:
    """ns to x, logarithmic, from the shortest to the longest with a margin."""

    def __init__(self, low: float, high: float) -> None:
        low, high = max(low, 1.0), max(high, low, 1.0)
        more = max(math.sqrt(_LEAST_RATIO / (high / low)), 1.0)
        self.low, self.high = low / more / 1.1, high * more * 1.1

    def x(self, ns: float) -> float:
        part = math.log(max(ns, self.low) / self.low) / math.log(self.high / self.low)
        return _LEFT + min(part, 1.0) * (_RIGHT - _LEFT)

    def ticks(self) -> list[tuple[float, bool]]:
        """(ns, whether there is room for a label): 1, 2 and 5 of each power of ten."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = [m * 10.0**d for d in decades for m in (1, 2, 5)]
        inside = [ns for ns in every if self.low <= ns <= self.high]
        tens = (_RIGHT - _LEFT) / math.log10(self.high / self.low)
        if tens * math.log10(2) >= 64:  # pixels from 1 to 2, the nearest
            return [(ns, True) for ns in inside]
        step = math.ceil(72 / tens)
        return [
            (ns, f"{ns:e}"[0] == "1" and round(math.log10(ns)) % step == 0)
            for ns in inside
            if tens >= 24 or f"{ns:e}"[0] == "1"
        ]


def _share_ticks(most: float) -> list[float]:
    """Of the other axis: some four round steps up to the highest bar."""
    raw = most / 4
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(m * base for m in (1, 2, 5, 10) if m * base >= raw * 0.999)
    return [i * step for i in range(int(most / step * 1.001) + 1)]


def _draw_bars(drawing: _Drawing, axis: _Axis, latency: Mapping[str, Any]) -> None:
    many = bars(latency)
    total = sum(n for _, _, n in many)
    most = max(n for _, _, n in many) / total
    height = (_BOTTOM - _TOP - 8) / most
    for share in _share_ticks(most):
        y = _BOTTOM - share * height
        drawing.line(_LEFT, y, _RIGHT, y, _GRID)
        drawing.text(_LEFT - 8, y + 4, f"{share * 100:.3g} %", size=12, at="end", ink=_FAINT)
    for begin, end, n in many:
        left, right = axis.x(begin), axis.x(end)
        tall = max(n / total * height, 1.0)  # the few, at the far end, are what one looks for
        told = f"{format_ns(begin)} to {format_ns(end)}: {n:,} packets, {n / total:.3%}"
        drawing.elements.append(
            f'<rect class="bar" data-packets="{n}" x="{left:.2f}" y="{_BOTTOM - tall:.2f}" '
            f'width="{max(right - left - 1, 0.8):.2f}" height="{tall:.2f}" fill="{_BAR}">'
            f"<title>{escape(told)}</title></rect>"
        )


def _draw_marks(drawing: _Drawing, axis: _Axis, latency: Mapping[str, Any]) -> None:
    """Each in a row of its own, its label to the right of its line: none crosses another."""
    for row, (name, key) in enumerate(_MARKS):
        x, y = axis.x(latency[key]), _TOP - 10 - _ROW * (len(_MARKS) - 1 - row)
        drawing.line(x, y - 11, x, _BOTTOM, _MARK, ' stroke-dasharray="3 3"')
        drawing.text(x + 4, y, f"{name} {format_ns(latency[key])}", size=12, ink=_MARK)


def latency_svg(latency: Mapping[str, Any], title: str, subtitle: str = "") -> str:
    """An SVG document: the histogram of ``latency`` (``Latency.as_dict()``) over a logarithmic axis of time,
    with its percentiles marked. Too long a title is cut.

        Path("latency.svg").write_text(latency_svg(arrivals.latency.as_dict(), "eth1, 100 kpps"))
    """
    drawing = _Drawing()
    drawing.text(24, 34, _fitted(title, 18, WIDTH - 48), size=18, more=' font-weight="600"')
    drawing.text(24, 57, _fitted(subtitle, 13, WIDTH - 48), ink=_FAINT)
    many = bars(latency)
    if many:
        axis = _Axis(min(many[0][0], latency["min_ns"] or many[0][0]), max(many[-1][1], latency["max_ns"]))
        for ns, labelled in axis.ticks():
            drawing.line(axis.x(ns), _BOTTOM, axis.x(ns), _BOTTOM + (7 if labelled else 4), _FAINT)
            if labelled:
                drawing.text(axis.x(ns), _BOTTOM + 21, format_ns(ns), size=12, at="middle", ink=_FAINT)
        _draw_bars(drawing, axis, latency)
        _draw_marks(drawing, axis, latency)
    else:
        drawing.text(
            (_LEFT + _RIGHT) / 2, (_TOP + _BOTTOM) / 2, "no packets", size=16, at="middle", ink=_FAINT
        )
    drawing.line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, _FAINT)
    drawing.text((_LEFT + _RIGHT) / 2, HEIGHT - 14, "one-way latency", at="middle")
    upright = f' transform="rotate(-90 22 {(_TOP + _BOTTOM) / 2})"'
    drawing.text(22, (_TOP + _BOTTOM) / 2, "share of the packets", at="middle", more=upright)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img" aria-label={quoteattr(title)} '
            'font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, Arial, sans-serif">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *drawing.elements,
            "</svg>",
            "",
        ]
    )

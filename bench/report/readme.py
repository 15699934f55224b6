"""What README.md shows of bench/results: a few tables, losses like gains, and one picture. Pure but for the
drawing. A line whose experiment has no result is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.report import markdown, pictures, wording
from bench.report.pictures import Bar
from bench.report.tables import Result

BEGIN, END = "<!-- bench/results: begin; made by make docs -->", "<!-- bench/results: end -->"
PICTURE = "overview.svg"
_SIZES = ("60 bytes", "1514 bytes")
_ENGINE_TCP, _KERNEL_TCP = "engine TCP", "kernel TCP"
_IOMMU = "IOMMU strict"
_IN_MACHINE = (
    *("engine", "minimal C AF_XDP sender", "kernel UDP sendto"),
    *("engine TCP", "engine TCP, in place"),
    *("kernel TCP, TSO off", "kernel TCP, TSO on"),
    *("kernel TCP, MSG_ZEROCOPY, TSO off", "kernel TCP, MSG_ZEROCOPY, TSO on"),
)
"""of the many that `premap` and `instructions` have"""

Results = Mapping[str, Result]


def into(text: str, block: str) -> str:
    """README's text with `block` between its marks. ValueError: they are not there, or not once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README.md: not once {BEGIN!r} and behind it {END!r}")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{block}{END}{rest.partition(END)[2]}"


def block(results: Results, folder: str, *, has_report: bool) -> str:
    """`folder`: of the results, as seen from README.md. Empty: there are no such results."""
    parts = [part for part in (_rate(results), _goodput(results), _machine(results)) if part]
    if not parts:
        return ""
    lines = [f"![the engine beside other senders]({folder}/{PICTURE})", ""]
    lines += [line for part in parts for line in part]
    if has_report:
        lines += [f"Everything that was measured, and how: [{folder}/report.md]({folder}/report.md).", ""]
    return "\n" + "\n".join(lines) + "\n"


def _case(result: Result | None, name: str) -> Mapping[str, Any] | None:
    return next((case for case in result["cases"] if case["name"] == name), None) if result else None


def _median(case: Mapping[str, Any], arm: str, figure: str) -> float | None:
    spread = case.get("arms", {}).get(arm, {}).get(figure)
    return float(spread["median"]) if spread else None


def _ratio(case: Mapping[str, Any], ours: str, theirs: str, figure: str) -> str:
    """Empty: it was not compared."""
    for of in case.get("ratios", ()):
        if (of["ours"], of["theirs"], of["figure"]) == (ours, theirs, figure):
            return wording.ratio(of)
    return ""


def _lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[markdown.escaped(wording.plain(text)) for text in row] for row in (heads, *rows)]
    cells.insert(1, ["---", *("---:" for _ in heads[1:])])
    return ["| " + " | ".join(row) + " |" for row in cells] + [""]


def _about(result: Result, what: str) -> list[str]:
    """The sentence above a table."""
    where = f"{wording.machine(result.get('machine', {}))}, {result.get('when', 'unknown')}"
    noisy = "; a noisy machine" if result.get("noisy") else ""
    return [markdown.escaped(f"{what} ({where}{noisy}).") + f" Not claimed: {_sentence(result)}.", ""]


def _sentence(result: Result) -> str:
    return markdown.escaped(wording.plain(result.get("not_claimed", "")))


def _rate(results: Results) -> list[str]:
    result = results.get("rate")
    cases = [(name, case) for name in _SIZES if (case := _case(result, name))]
    if not result or not cases:
        return []
    senders = dict.fromkeys(
        arm for _, case in cases for part in ("arms", "absent") for arm in case.get(part, {})
    )
    heads = ["sender"]
    for name, _ in cases:
        heads += [f"{name}, packets/s", "engine : it"]
    rows = [[arm, *(cell for _, case in cases for cell in _sent(case, arm))] for arm in senders]
    what = "Packets per second of one stream, as the other end of a veth pair counts them"
    return [*_about(result, what), *_lines(heads, rows)]


def _sent(case: Mapping[str, Any], arm: str) -> tuple[str, str]:
    pps = _median(case, arm, "pps")
    if pps is None:
        return ("absent" if arm in case.get("absent", {}) else "", "")
    return wording.number(pps), _ratio(case, "engine", arm, "pps")


def _wires(result: Result | None) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Cases by wire, and by what the receiver does: "MTU 1500, TSO on: plain"."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for case in result["cases"] if result else ():
        wire, _, intake = case["name"].partition(": ")
        found.setdefault(wire, {})[intake] = case
    return found


def _goodput(results: Results) -> list[str]:
    result = results.get("goodput")
    wires = _wires(result)
    if not result or not wires:
        return []
    intakes = list(dict.fromkeys(intake for cases in wires.values() for intake in cases))
    first = intakes[0]
    heads = ["wire", "engine TCP, Gbit/s", "kernel TCP, Gbit/s", "engine : kernel"]
    heads += [f"receiver: {intake}" for intake in intakes[1:]]
    rows = []
    for wire, cases in wires.items():
        medians = [_median(cases.get(first, {}), arm, "gbps") for arm in (_ENGINE_TCP, _KERNEL_TCP)]
        shown = ["" if value is None else wording.number(value) for value in medians]
        ratios = [_ratio(cases.get(one, {}), _ENGINE_TCP, _KERNEL_TCP, "gbps") for one in intakes]
        rows.append([wire, *shown, *ratios])
    what = "Goodput of one TCP connection into a kernel's socket, on veth"
    return [*_about(result, what), *_lines(heads, rows)]


def _machine_cases(results: Results) -> Iterator[tuple[Result, Mapping[str, Any]]]:
    for name in ("premap", "instructions"):
        result = results.get(name)
        if result and result["cases"]:
            yield result, _case(result, _IOMMU) or result["cases"][0]


def _maps(result: Result, case: Mapping[str, Any], arm: str) -> float | None:
    """DMA maps per packet, of what counts them per 1000."""
    for figure in ("dma_maps_per_1000", "dma_maps"):
        maps = _median(case, arm, figure)
        if maps is not None:
            return maps / 1000 if "1000" in result["figures"][figure]["unit"] else maps
    return None


def _counted(case: Mapping[str, Any], arm: str) -> str:
    """Kernel's and user's instructions; one is there where the other is."""
    parts = [_median(case, arm, figure) for figure in ("kernel_instructions", "user_instructions")]
    return " + ".join(wording.number(round(part)) for part in parts if part is not None)


def _instructions_ratio(case: Mapping[str, Any], arm: str) -> str:
    """Of both's, or the kernel's alone; it says whose where there are several of ours."""
    for figure in ("instructions", "kernel_instructions"):
        of_figure = [of for of in case.get("ratios", ()) if of["figure"] == figure]
        several = len({of["ours"] for of in of_figure}) > 1
        for of in of_figure:
            if of["theirs"] == arm:
                return (f"{of['ours']}: " if several else "") + wording.ratio(of)
    return ""


def _machine(results: Results) -> list[str]:
    heads = ["sender", "instructions per packet, kernel + user", "DMA maps per packet", "engine : it"]
    lines = []
    for result, case in _machine_cases(results):
        rows = []
        for arm in _IN_MACHINE:
            counted, maps = _counted(case, arm), _maps(result, case, arm)
            if counted or maps is not None:
                shown = "" if maps is None else wording.number(maps)
                rows.append([arm, counted, shown, _instructions_ratio(case, arm)])
        if rows:
            what = f"What a packet costs its sender in the emulated machine, {case['name']}"
            lines += [*_about(result, what), *_lines(heads, rows)]
    return lines


Panel = tuple[str, list[tuple[str, list[Bar]]]]


def panels(results: Results) -> list[Panel]:
    """Of the picture: what its axis says, and groups of bars."""
    found: list[Panel] = []
    if case := _case(results.get("rate"), _SIZES[0]):
        found.append(_panel(results["rate"], "pps", [(f"{_SIZES[0]}, veth", case)]))
    if wires := _wires(results.get("goodput")):
        plain = [(wire, next(iter(cases.values()))) for wire, cases in wires.items()]
        found.append(_panel(results["goodput"], "gbps", plain, (_ENGINE_TCP, _KERNEL_TCP)))
    for result, case in _machine_cases(results):
        summed = any("instructions" in figures for figures in case.get("arms", {}).values())
        figure = "instructions" if summed else "kernel_instructions"
        found.append(_panel(result, figure, [(f"emulated NIC, {case['name']}", case)], _IN_MACHINE))
    return [(label, groups) for label, groups in found if groups]


def _panel(
    result: Result, figure: str, cases: Iterable[tuple[str, Mapping[str, Any]]], arms: Sequence[str] = ()
) -> Panel:
    groups = []
    for name, case in cases:
        bars = [
            Bar(bar.arm, bar.median, bar.low, bar.high)
            for bar in pictures.bars_of(case, figure)
            if bar.median is not None and (not arms or bar.arm in arms)
        ]
        if bars:
            groups.append((name, bars))
    return pictures.with_direction(result, figure), groups


def digest(results: Results) -> str:
    """Of what the picture shows, which it carries."""
    return "figures: " + hashlib.sha256(repr(panels(results)).encode()).hexdigest()[:16]


def picture(results: Results) -> str | None:
    """SVG; None: there is nothing to see. RuntimeError without matplotlib."""
    shown = panels(results)
    if not shown:
        return None
    heights = [sum(len(bars) + 1 for _, bars in groups) + 2.5 for _, groups in shown]
    with pictures.svg_of("overview") as canvas:
        grid = canvas.axes(len(shown), 1, pictures.ROW_INCHES * sum(heights), height_ratios=heights)
        for axes, (label, groups) in zip(grid[:, 0], shown, strict=True):
            pictures.bars(axes, groups)
            axes.set_xlabel(pictures.literal(label))
    return canvas.svg.replace("</svg>", f"<!-- {digest(results)} -->\n</svg>")

"""What a person sees while traffic runs: flows, queues, how far it is. Four times a second, on a terminal."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xsk_engine.engine import Engine
from xsk_engine.plan import Plan
from xsk_engine.sampling import Sampler
from xsk_engine.units import format_si

INTERVAL_S = 0.25
_HISTORY = 60
_MOST_ROWS = 12
"""flows shown; more do not fit beside the rest"""
_TICKS = "▁▂▃▄▅▆▇█"
_WORDS = 44
_OTHER_LINES = 6
"""head, two headings, "and more", progress, and the cursor's"""


def sparkline(values: Sequence[float]) -> str:
    """One character per value, from 0 to the highest."""
    top = max(values, default=0) or 1
    return "".join(_TICKS[min(int(value / top * len(_TICKS)), len(_TICKS) - 1)] for value in values)


def _progress(record: dict[str, Any], plan: Plan) -> RenderableType | None:
    """By packets or by time, whichever is further."""
    parts = []
    if plan.packets:
        parts.append(record["submitted_packets"] / plan.packets)
    if plan.duration_s:
        parts.append(record["time_s"] / plan.duration_s)
    if not parts:
        return None
    done = min(max(parts), 1.0)
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=1.0, completed=done, width=40), f"{done:.0%}")
    return line


def _flows(rows: Sequence[dict[str, Any]], plan: Plan, most: int) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("flow", justify="right")
    table.add_column("", no_wrap=True, max_width=_WORDS)
    for heading in ("asked pps", "posted pps", "packets"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row, facts in list(zip(rows, plan.flows, strict=True))[:most]:
        asked = "max" if facts.asked_pps is None else f"{facts.asked_pps:,.0f}"
        table.add_row(
            str(row["flow"]),
            Text(facts.name or facts.description),
            asked,
            f"{row['posted_pps']:,.0f}",
            f"{row['submitted_packets']:,}",
        )
    if len(rows) > most:
        table.add_row("", f"and {len(rows) - most:,} more")
    return table


def _queues(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("queue", "pps", "layer 2", "completed", "dropped", "inflight"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["queue"]),
            f"{row['pps']:,.0f}",
            format_si(row["bps_l2"], "bit/s"),
            f"{row['completed_packets']:,}",
            f"{row['dropped_packets']:,}",
            f"{row['inflight_descs']:,}",
        )
    return table


def render(
    record: dict[str, Any],
    plan: Plan,
    history: Sequence[float],
    *,
    link_is_down: bool = False,
    most_flows: int = _MOST_ROWS,
) -> Group:
    """The whole picture of one moment."""
    elapsed = f"{record['time_s']:.0f} s" if record["time_s"] >= 10 else f"{record['time_s']:.1f} s"
    rates = f"{format_si(record['pps'], 'pps'):>9}  {format_si(record['bps_l2'], 'bit/s')} layer 2"
    parts: list[RenderableType] = [
        Text(f"{elapsed:>7}  {'the link is down' if link_is_down else rates}  {sparkline(history)}"),
        _flows(record["flows"], plan, most_flows),
        _queues(record["per_queue"]),
    ]
    if (bar := _progress(record, plan)) is not None:
        parts.append(bar)
    return Group(*parts)


async def show(engine: Engine, plan: Plan, console: Console) -> None:
    """Until it is cancelled; then nothing of it stays on the terminal."""
    sampler = Sampler(engine, plan.flows, plan.asked_pps)
    history: deque[float] = deque(maxlen=_HISTORY)
    down_s = 0.0
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            await asyncio.sleep(INTERVAL_S)
            record = sampler.take()
            history.append(record["pps"])
            room = console.height - len(record["per_queue"]) - _OTHER_LINES
            picture = render(
                record,
                plan,
                history,
                link_is_down=record["link_down_s"] > down_s,
                most_flows=max(min(room, _MOST_ROWS), 1),
            )
            live.update(picture, refresh=True)
            down_s = record["link_down_s"]

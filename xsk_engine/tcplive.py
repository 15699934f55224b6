"""What a person sees while a TCP connection sends: how far it is, how fast. Four times a second, on a
terminal."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xsk_engine.live import INTERVAL_S, sparkline
from xsk_engine.tcpinfo import TcpInfo
from xsk_engine.tcppipe import TcpPipe
from xsk_engine.units import format_ns, format_si

_HISTORY = 40


def render(seconds: float, info: TcpInfo, size_bytes: int | None, history: Sequence[float]) -> Group:
    """One moment of it; `history`: bit/s of the last intervals."""
    rate = format_si(history[-1] if history else 0.0, "bit/s")
    words = [
        f"{seconds:7.1f} s",
        f"{rate:>12}",
        f"{info.acked_bytes:,} bytes acknowledged",
        f"{info.received_bytes:,} received",
        f"{info.retransmitted_segments:,} again",
        f"rtt {format_ns(info.srtt_ns)}" if info.srtt_ns else "",
    ]
    parts: list[RenderableType] = [Text(f"{'  '.join(filter(None, words))}  {sparkline(history)}")]
    if size_bytes:
        done = min(info.acked_bytes / size_bytes, 1.0)
        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(total=1.0, completed=done, width=40), f"{done:.0%}")
        parts.append(line)
    return Group(*parts)


async def show(pipe: TcpPipe, console: Console) -> None:
    """Until it is cancelled; then nothing of it stays on the terminal."""
    history: deque[float] = deque(maxlen=_HISTORY)
    before_s, before_bytes = pipe.seconds, pipe.connection.info().acked_bytes
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            await asyncio.sleep(INTERVAL_S)
            seconds, info = pipe.seconds, pipe.connection.info()
            history.append((info.acked_bytes - before_bytes) * 8 / max(seconds - before_s, 1e-9))
            before_s, before_bytes = seconds, info.acked_bytes
            live.update(render(seconds, info, pipe.size_bytes, history), refresh=True)

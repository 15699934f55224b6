"""A picture of a measurement: throughput by size, latency by load, loss by rate. Needs matplotlib."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from xsk_engine.errors import BrokenError, UnavailableError
from xsk_engine.measurereport import far_end

SUFFIXES = (".png", ".svg")
_LATENCIES = (("p50", "p50_ns", "-"), ("p99", "p99_ns", "--"), ("max", "max_ns", ":"))


def check(path: str) -> None:
    """Before anything is measured. ValueError: another kind of file; UnavailableError: no matplotlib."""
    if not path.endswith(SUFFIXES):
        raise ValueError(f"plot: {path!r} does not end in {' or '.join(SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UnavailableError(
            "plot", path, "matplotlib is not installed; pip install 'xsk-engine[bench]', or leave out --plot"
        )


def draw(report: Mapping[str, Any], file: BinaryIO, kind: str) -> None:
    """Of a report (measurereport.as_json), into a file, in place of what was in it; ``kind``: "png" or "svg".
    OSError; BrokenError: matplotlib cannot draw it, and the file is as it was."""
    try:
        picture = _drawn(report, kind)
    except Exception as error:  # whatever it is that its settings, its fonts and its back ends have
        raise BrokenError("plot", kind, repr(error)) from error
    file.truncate(0)
    file.write(picture)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Not in the current directory, which may be anybody's: matplotlib reads its settings there before all
    others, and they name programs (text.usetex)."""
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir("/")
        try:
            yield
        finally:
            os.fchdir(here)
    finally:
        os.close(here)


def _drawn(report: Mapping[str, Any], kind: str) -> bytes:
    with _elsewhere():
        import matplotlib

    matplotlib.use("svg" if kind == "svg" else "agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(17, 4.6), layout="constrained")
    _throughput(left, report)
    _latency(middle, report)
    _loss(right, report)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    tx = report["topology"].get("tx") or {}
    figure.suptitle(
        f"{tx.get('interface')} ({tx.get('driver')}, {tx.get('mode')}) to {far_end(report)}, "
        f"trials of {report['settings'].get('trial_s'):g} s, Linux {report['software'].get('kernel')}",
        fontsize=10,
    )
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, metadata={"Date": None} if kind == "svg" else {}, dpi=120)
    pyplot.close(figure)
    return picture.getvalue()


def _throughput(axes: Any, report: Mapping[str, Any]) -> None:
    found = [one for one in report["sizes"] if one["throughput"]]
    at = [one["size_bytes"] for one in found]
    kpps = [one["throughput"]["pps"] / 1e3 for one in found]
    axes.plot(
        at, [one["maximum_pps"] / 1e3 for one in found], "o:", color="#888888", label="sender's maximum"
    )
    axes.plot(at, kpps, "o-", color="#4a7ba6", label="throughput")
    axes.set(xlabel="frame, bytes without FCS", ylabel="kpps", title="Throughput (RFC 2544, 26.1)")
    axes.set_ylim(bottom=0)


def _latency(axes: Any, report: Mapping[str, Any]) -> None:
    trials, kind = report["trials"], report["latency_kind"].capitalize()
    for number, one in enumerate(report["sizes"]):
        filled = [entry for entry in one["latency"] if trials[entry["trial"]]["latency"]["count"]]
        if not filled:
            continue
        loads = [entry["load_percent"] for entry in filled]
        for _, name, style in _LATENCIES:
            us = [trials[entry["trial"]]["latency"][name] / 1e3 for entry in filled]
            axes.plot(loads, us, style, marker=".", color=f"C{number % 10}")
        axes.plot([], [], color=f"C{number % 10}", label=f"{one['size_bytes']} bytes")
    axes.set(xlabel="load, % of the throughput", ylabel="us", title=f"{kind} latency of every packet (26.2)")
    if axes.lines:
        axes.set_yscale("log")
        for word, _, style in _LATENCIES:
            axes.plot([], [], style, color="#333333", label=word)


def _loss(axes: Any, report: Mapping[str, Any]) -> None:
    trials = report["trials"]
    lossy = any(trials[at]["lost_packets"] for one in report["sizes"] for at in one["loss"])
    for number, one in enumerate(report["sizes"]):
        mine = sorted((trials[at] for at in one["loss"]), key=lambda trial: trial["achieved_pps"])
        if mine:
            kpps = [trial["achieved_pps"] / 1e3 for trial in mine]
            percent = [100 * trial["lost_ratio"] for trial in mine]
            label = f"{one['size_bytes']} bytes"
            axes.plot(kpps, percent, ".-", color=f"C{number % 10}", label=label)
    axes.set(xlabel="rate achieved, kpps", ylabel="lost, %", title="Frame loss (26.3)")
    axes.set_ylim(bottom=0, top=None if lossy else 1)

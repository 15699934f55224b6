"""What watching a run costs it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import threading
import urllib.request
from collections.abc import Iterator

from bench import ours
from bench.arm import FunctionArm, Sample
from bench.experiment import Experiment, Outcome, Plan
from bench.figures import value
from bench.ratios import Target
from bench.result import Case
from bench.rounds import interleave
from bench.scene import Scene, everywhere

ENGINE, LIVE, RECORDS = "engine", "engine, live view", "engine, records and scrapes"
SECONDS = 3
METRICS_PORT = 9187
INTERVAL_S = 0.25
TARGET = Target(0.99, True)


def send(*more: str) -> Sample:
    """By its summary, with stderr on a terminal."""
    two = ["--packet", ours.fixed(60)] * 2
    command = ours.send(*two, "--duration", f"{SECONDS}s", "--json", *more)
    with _terminal() as terminal, everywhere():
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True, timeout=60)
    return {"pps": float(json.loads(done.stdout)["pps"])}


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    """A descriptor of one that somebody reads."""
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=_swallow, args=(ours,))
    reader.start()
    try:
        yield theirs
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)


def _swallow(fd: int) -> None:
    with contextlib.suppress(OSError):  # nobody has the other end any more
        while os.read(fd, 65536):
            pass


def scraped() -> Sample:
    """With records and metrics, and somebody who asks for them."""
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(INTERVAL_S):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=2).read()

    records = ["--jsonl", os.devnull, "--csv", os.devnull, "--interval", f"{INTERVAL_S}s"]
    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        return send("--no-live", *records, "--metrics", str(METRICS_PORT))
    finally:
        stop.set()
        thread.join()


def measure(scene: Scene, plan: Plan, _laboratory: str) -> Outcome:
    rounds = plan.choose(9, 3)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
    arms = [
        FunctionArm(ENGINE, lambda: send("--no-live"), ours=True),
        FunctionArm(LIVE, lambda: send("--live"), ours=True),
        FunctionArm(RECORDS, scraped, ours=True),
    ]
    case_name = "two flows of 60 bytes"
    measured = interleave([arm for arm in arms if plan.wants(arm.name)], rounds, scene.watch.look, case_name)
    case = Case.of(case_name, measured.samples, EXPERIMENT.figures, absent=measured.absent)
    for arm in (LIVE, RECORDS):
        case.compare(arm, ENGINE, "pps", TARGET)
    return Outcome([case], rounds)


EXPERIMENT = Experiment(
    name="live",
    title="Watching a run",
    question="What does it cost a run to be watched?",
    held_equal="two flows of 60 bytes for 3 s as fast as it goes, the engine's thread on a CPU of its own, "
    "stderr on a terminal that somebody reads; views, records and scrapes four times a second",
    not_claimed="that it costs nothing where there is one CPU: what watches runs on the other",
    counted_by="the engine's own summary, which is of completed packets",
    figures=(value("pps", "packets/s"),),
    measure=measure,
    in_quick=False,
    minutes=2,
)

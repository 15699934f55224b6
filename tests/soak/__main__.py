"""``make soak``: everything at once, for as long as is wanted, and then: was anything lost, wrong, or kept?

xsk-engine lab run --queues 2 -- python -m tests.soak --seconds 1800
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import faulthandler
import gc
import json
import logging
import os
import random
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

import xsk_engine
from tests.soak import judge
from tests.soak.judge import Finding
from tests.soak.pattern import DATAGRAM_PORT
from tests.soak.receiver import Receiver
from tests.soak.work import Scene, everything
from xsk_engine.lab import namespaces, private, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.lab.topology import LabOptions

SAMPLE_S = 5.0
REST_S = 15.0
"""until all memory is back and every completion there; a busy machine, and TIME-WAIT"""
JOIN_S = 60.0
"""longer than any call of theirs may wait"""


class Soak:
    """One run; `problems` is what went wrong."""

    def __init__(self, seconds: float, seed: int, log: TextIO, leak: str | None) -> None:
        self.seconds, self.seed, self.leak = seconds, seed, leak
        self.log = log
        self.lab = PrivateLab.from_environment()
        self.done: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.rests: list[dict[str, Any]] = []
        self.submitted = self.completed = 0
        self.leaked: list[Any] = []
        self.start = time.monotonic()
        self.lock = threading.Lock()

    def at_s(self) -> float:
        return time.monotonic() - self.start

    def run(self) -> None:
        logging.getLogger("asyncio").addHandler(_Noting(self.problems))
        sys.unraisablehook = lambda raised: self.problems.append(f"{raised.object}: {raised.exc_value!r}")
        threading.excepthook = lambda raised: self.problems.append(f"{raised.thread}: {raised.exc_value!r}")
        round_s = min(10.0, self.seconds / 6)
        lives = max(2, 2 * round(self.seconds / 600))
        with contextlib.ExitStack() as stack:
            with namespaces.entered(self.lab.rx_fd):
                self.receiver = Receiver(topology.RX_IPV4)
            stack.callback(self.receiver.close)
            self.beside, self.beside_ears = stack.enter_context(_beside())
            before = self._errors_at_peer()
            for life in range(lives):
                end_s = self.seconds * (life + 1) / lives
                self._live(life, end_s, round_s)
                if self.problems:
                    break
            time.sleep(0.5)
            self.received = self.receiver.counts()
            self.wrong_at_peer = {
                name: n - before[name] for name, n in self._errors_at_peer().items() if n > before[name]
            }

    def _live(self, life: int, end_s: float, round_s: float) -> None:
        """An engine from its opening to its end; every second one with TCP, where that is allowed."""
        tcp = life % 2 == 1 and _is_real_root()
        umem_mb = 4 if _is_real_root() else 2
        with xsk_engine.open(
            "vtx", queues=(0, 1), tcp=tcp, timestamps=life % 4 == 2, umem_mb=umem_mb
        ) as engine:
            rounds = 0
            while not rounds or (self.at_s() < end_s and not self.problems):
                self._round(engine, f"{self.seed}/{life}/{rounds}", round_s)
                rounds += 1
                self._rest(engine, tcp)
            gc.collect()
        last = engine.snapshot()
        self.submitted += last.submitted_descs
        self.completed += last.completed_descs
        if last.submitted_descs != last.completed_descs or last.bad_completions:
            self.problems.append(f"after the engine's end: {last}")
        del engine
        gc.collect()
        self._sample("closed", rest=True)

    def _round(self, engine: xsk_engine.Engine, name: str, seconds: float) -> None:
        scene = Scene(engine, self.lab, self.beside, self.beside_ears, self.receiver.port, name)
        threads = [
            threading.Thread(target=self._work, args=(scene, what, work), name=f"soak {what}", daemon=True)
            for what, work in everything(engine).items()
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not scene.stop.wait(min(left, SAMPLE_S)):
            gc.collect()
            self._sample("tcp" if engine.tcp_stack else "plain", engine)
        scene.stop.set()
        deadline = time.monotonic() + JOIN_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                faulthandler.dump_traceback(all_threads=True)
                print(f"soak: {thread.name} does not end ({name})", file=sys.stderr)
                os._exit(1)  # closing would hang, too

    def _work(self, scene: Scene, what: str, work: Any) -> None:
        own = dataclasses.replace(scene, done=collections.Counter())
        try:
            work(own, random.Random(f"{scene.seed}/{what}"))
        except BaseException:
            self.problems.append(f"{what}, {scene.seed}:\n{traceback.format_exc()}")
            scene.stop.set()
        finally:
            with self.lock:
                self.done += own.done

    # -- looking ---------------------------------------------------------------------------------------

    def _rest(self, engine: xsk_engine.Engine, tcp: bool) -> None:
        """Nobody uses it: everything comes back."""
        if self.leak == "fd":
            self.leaked.append(os.dup(0))
        elif self.leak == "memory":
            self.leaked.append(os.urandom(200_000))
        elif self.leak == "chunk":
            self.leaked.append(engine.raw().alloc(1, 60))
        gc.collect()
        deadline = time.monotonic() + REST_S
        while not _is_at_rest(engine):
            if time.monotonic() > deadline:
                audit = engine.umem.audit(strict=False)
                self.problems.append(f"at rest, {self.at_s():.0f} s: {audit}, {engine.snapshot()}")
                return
            time.sleep(0.01)
        engine.raise_failure()
        engine.umem.audit()
        self._sample("tcp" if tcp else "plain", engine, rest=True)

    def _sample(self, place: str, engine: xsk_engine.Engine | None = None, *, rest: bool = False) -> None:
        counts, untrimmed = self.receiver.counts(), judge.held()["rss_bytes"]
        if rest:
            judge.trim()
        sample: dict[str, Any] = {"at_s": round(self.at_s(), 1), "place": place, "rest": rest} | judge.held()
        sample["untrimmed_rss_bytes"] = untrimmed
        if engine is not None:
            now, audit = engine.snapshot(), engine.umem.audit(strict=False)
            sample |= {
                "submitted_descs": self.submitted + now.submitted_descs,
                "completed_descs": self.completed + now.completed_descs,
                "pooled_chunks": audit.pooled,
                "referenced_chunks": audit.referenced,
                "arenas": audit.arenas,
                "link_down_s": now.link_down_s,
            }
        print(json.dumps(sample | {"received": counts, "done": self.done}), file=self.log, flush=True)
        if rest:
            self.rests.append(sample)

    def _errors_at_peer(self) -> dict[str, int]:
        with namespaces.entered(self.lab.rx_fd):
            lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        return {
            f"{names.split(':')[0]}{name}": int(value)
            for names, values in zip(lines[::2], lines[1::2], strict=True)
            for name, value in zip(names.split()[1:], values.split()[1:], strict=True)
            if "Csum" in name or name == "InHdrErrors"
        }

    # -- judging ---------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        received = self.received
        wrong = {name: n for name, n in received.items() if name.startswith("wrong")} | self.wrong_at_peer
        sent = self.done["datagrams"]
        found = [
            Finding("problems", str(len(self.problems)), "0", not self.problems),
            Finding(
                "descs completed",
                f"{self.completed:,}",
                "as many as submitted",
                0 < self.completed == self.submitted,
            ),
            Finding("wrong at the peer", str(wrong or 0), "0", not wrong),
            Finding(
                "datagrams received",
                f"{received.get('datagrams', 0):,} of {sent:,}",
                "some, and no more than sent",
                0 < received.get("datagrams", 0) <= sent,
            ),
            Finding(
                "flows' packets received",
                f"{received.get('flow_packets', 0):,}",
                "some",
                "flow_packets" in received,
            ),
        ]
        return found + judge.findings(self.rests)


class _Noting(logging.Handler):
    """What tasks have raised and nobody has seen."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        self._problems.append(self.format(record))


def _is_at_rest(engine: xsk_engine.Engine) -> bool:
    kept = 0
    if engine.tcp_stack is not None:
        kept = engine.tcp_stack.rx_chunks
        if engine.tcp_counters().connections:
            return False
        engine.tcp_stack.reap()  # as the next one to connect does
    audit, now = engine.umem.audit(strict=False), engine.snapshot()
    return (
        audit.pooled == audit.chunks - kept
        and audit.referenced == kept
        and now.submitted_descs == now.completed_descs
        and not now.active_flows
    )


def _is_real_root() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


@contextlib.contextmanager
def _beside() -> Iterator[tuple[PrivateLab, socket.socket]]:
    """One more laboratory, and a socket at its peer."""
    lab, _ = private.make(LabOptions())
    with namespaces.entered(lab.rx_fd):
        ears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ears.bind((topology.RX_IPV4, DATAGRAM_PORT))
    ears.setblocking(False)
    try:
        yield lab, ears
    finally:
        ears.close()
        os.close(lab.tx_fd)
        os.close(lab.rx_fd)


@click.command()
@click.option("--seconds", type=float, default=1800.0, show_default=True)
@click.option("--seed", type=int, help="The same one draws the same numbers.  [default: another each time]")
@click.option("--out", type=click.Path(path_type=Path), default="build/soak", show_default=True)
@click.option("--leak", type=click.Choice(["fd", "memory", "chunk"]), help="Lose one at every rest.")
def main(seconds: float, seed: int | None, out: Path, leak: str | None) -> None:
    """Everything at once in a laboratory of lab run --queues 2, and then: was anything lost, wrong, or kept?
    Exit code 1 if so."""
    faulthandler.enable()
    judge.few_arenas()
    warnings.simplefilter("ignore", ResourceWarning)  # frags that are let go
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    out.mkdir(parents=True, exist_ok=True)
    path = out / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}.jsonl")
    print(f"seed {seed}, {seconds:g} s; samples in {path}", flush=True)
    with path.open("w") as log:
        soak = Soak(seconds, seed, log, leak)
        soak.run()
    found = soak.findings()
    for problem in soak.problems:
        print(problem)
    print("\n".join(f"{name:32} {n:>14,}" for name, n in sorted(soak.done.items())))
    print("\n".join(f"received: {name:22} {n:>14,}" for name, n in sorted(soak.received.items())))
    for one in found:
        print(
            f"{'ok ' if one.ok else 'BAD'} {one.what:26} {one.found}{f' ({one.bound})' if one.bound else ''}"
        )
    sys.exit(0 if all(one.ok for one in found) else 1)


if __name__ == "__main__":
    main()

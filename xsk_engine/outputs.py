"""Files that get a record per interval while traffic runs: JSON lines and CSV."""

from __future__ import annotations

import asyncio
import csv
import errno
import io
import json
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

from xsk_engine.engine import Engine
from xsk_engine.errors import BrokenError, XskError
from xsk_engine.figures import COLUMNS, flat
from xsk_engine.plan import Plan
from xsk_engine.sampling import Sampler

_AT_ONCE_BYTES = 4096
"""PIPE_BUF: what a pipe that is ready takes without making us wait (pipe(7))"""
_MOST_WAITING_BYTES = 16 << 20
"""for a reader that does not read; lower: lost to a short pause of his; higher: memory"""
_PATIENCE_S = 1.0
"""for a reader at the end"""


class LineFile:
    """A file or stdout (``-``) that never holds its writer up. BrokenError: it takes no more."""

    def __init__(self, what: str, path: str) -> None:
        self._what = what
        self._path = path
        self._waiting = bytearray()
        self._failed = False
        try:
            self._fd = (
                os.dup(1)
                if path == "-"
                else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            )
        except OSError as error:
            raise ValueError(f"--{what} {path}: {error.strerror}") from None

    def write(self, text: str) -> None:
        """As much of it, and of what was written before, as the file takes now."""
        if self._failed:
            return
        self._waiting += text.encode()
        self._flush()
        if len(self._waiting) > _MOST_WAITING_BYTES:
            self._fail(errno.ETIMEDOUT)

    def _flush(self, timeout_s: float = 0) -> None:
        while self._waiting and select.select([], [self._fd], [], timeout_s)[1]:
            try:
                written = os.write(self._fd, self._waiting[:_AT_ONCE_BYTES])
            except OSError as error:
                self._fail(error.errno or errno.EIO)
            del self._waiting[:written]

    def _fail(self, number: int) -> None:
        self._failed = True
        self._waiting.clear()
        raise BrokenError(self._what, self._path, "the file is not complete", errno=number) from None

    def close(self) -> None:
        """Waits a moment for a slow reader. Idempotent."""
        fd = self._fd
        if fd < 0:
            return
        deadline = time.monotonic() + _PATIENCE_S
        try:
            while self._waiting and time.monotonic() < deadline:
                self._flush(_PATIENCE_S / 10)
            if self._waiting:
                self._fail(errno.ETIMEDOUT)
        finally:
            self._fd = -1
            os.close(fd)


class JsonLines:
    """One JSON object per line."""

    def __init__(self, path: str) -> None:
        self._file = LineFile("jsonl", path)
        self.close = self._file.close

    def write(self, record: dict[str, Any]) -> None:
        """A line. BrokenError when the file takes no more."""
        self._file.write(json.dumps(record) + "\n")


class Csv:
    """A table of these columns; `rows` makes a record's rows, by default one for all, per queue and per flow.
    What a row does not have is empty."""

    def __init__(
        self,
        path: str,
        columns: Sequence[str] = COLUMNS,
        rows: Callable[[dict[str, Any]], list[dict[str, Any]]] = flat,
    ) -> None:
        self._file = LineFile("csv", path)
        self.close = self._file.close
        self._columns = columns
        self._rows = rows
        self._begun = False

    def write(self, record: dict[str, Any]) -> None:
        """The rows of a record. BrokenError when the file takes no more."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        if not self._begun:
            writer.writeheader()
            self._begun = True
        writer.writerows(self._rows(record))
        self._file.write(text.getvalue())


class Records:
    """What is written every ``interval_s`` seconds, and at the end; each output gets every record."""

    def __init__(self, outputs: Sequence[JsonLines | Csv], plan: Plan, interval_s: float) -> None:
        self._outputs = outputs
        self._plan = plan
        self._interval_s = interval_s
        self._sampler: Sampler | None = None

    async def watch(self, engine: Engine) -> None:
        """Writes until it is cancelled, or an output takes no more (BrokenError)."""
        if not self._outputs:
            return
        self._sampler = sampler = Sampler(engine, self._plan.flows, self._plan.asked_pps)
        due = sampler.started
        while True:
            due += self._interval_s
            await asyncio.sleep(max(due - time.monotonic(), 0))
            self._write(sampler.take())

    def _write(self, record: dict[str, Any]) -> None:
        for output in self._outputs:
            output.write(record)

    def finish(self, report: dict[str, Any]) -> XskError | None:
        """The rest of the last interval and the whole run; closes the outputs. The first thing that goes
        wrong."""
        failure = None
        try:
            if self._sampler is not None:
                self._write(self._sampler.take())
                self._write(self._sampler.last(report))
        except XskError as error:
            failure = error
        return self.close() or failure

    def close(self) -> XskError | None:
        """Idempotent."""
        failures = []
        for output in self._outputs:
            try:
                output.close()
            except XskError as error:
                failures.append(error)
        return failures[0] if failures else None

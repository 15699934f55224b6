"""Files that get a record per interval while traffic runs: JSON lines and CSV."""

from __future__ import annotations

import asyncio
import csv
import errno
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from xsk_engine import outfd
from xsk_engine.engine import Engine
from xsk_engine.errors import BrokenError, XskError
from xsk_engine.figures import COLUMNS, flat
from xsk_engine.plan import Plan
from xsk_engine.sampling import Sampler

_MOST_WAITING_BYTES = 16 << 20
"""for a reader that does not read; lower: lost to a short pause of his; higher: memory"""
_PATIENCE_S = 1.0
"""for a reader at the end"""


class LineFile:
    """A file or stdout (``-``) that never holds its writer up. BrokenError: it takes no more."""

    def __init__(self, what: str, path: str) -> None:
        self._what = what
        self._path = path
        self._failed = self._closed = False
        try:
            self._outlet = outfd.Outlet(outfd.opened(path))
        except OSError as error:
            raise ValueError(f"--{what} {path}: {error.strerror}") from None

    def write(self, text: str) -> None:
        """As much of it, and of what was written before, as the file takes now."""
        if self._failed:
            return
        self._outlet.waiting += text.encode()
        self._push()
        if len(self._outlet.waiting) > _MOST_WAITING_BYTES:
            self._fail(errno.ETIMEDOUT)

    def _push(self, timeout_s: float = 0) -> None:
        try:
            self._outlet.push(timeout_s)
        except OSError as error:
            self._fail(error.errno or errno.EIO)

    def _fail(self, number: int) -> None:
        self._failed = True
        self._outlet.waiting.clear()
        raise BrokenError(self._what, self._path, "the file is not complete", errno=number) from None

    def close(self) -> None:
        """Waits a moment for a slow reader. Idempotent."""
        if self._closed:
            return
        deadline = time.monotonic() + _PATIENCE_S
        try:
            while self._outlet.waiting and time.monotonic() < deadline:
                self._push(_PATIENCE_S / 10)
            if self._outlet.waiting:
                self._fail(errno.ETIMEDOUT)
        finally:
            self._closed = self._failed = True
            os.close(self._outlet.fd)


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


class Output(Protocol):
    """A file of records."""

    def write(self, record: dict[str, Any]) -> None:
        """BrokenError when it takes no more, once; then nothing more is written."""

    @property
    def close(self) -> Callable[[], None]:
        """Idempotent. BrokenError: not all of it has been written."""


def write_to_all(outputs: Sequence[Output], *records: dict[str, Any]) -> XskError | None:
    """Each gets every one, whatever becomes of the others. The first thing that goes wrong."""
    failures = []
    for output in outputs:
        try:
            for record in records:
                output.write(record)
        except XskError as error:
            failures.append(error)
    return failures[0] if failures else None


def close_all(outputs: Sequence[Output]) -> XskError | None:
    """Likewise."""
    failures = []
    for output in outputs:
        try:
            output.close()
        except XskError as error:
            failures.append(error)
    return failures[0] if failures else None


class Records:
    """What is written every ``interval_s`` seconds, and at the end; each output gets every record."""

    def __init__(self, outputs: Sequence[Output], plan: Plan, interval_s: float) -> None:
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
            failure = write_to_all(self._outputs, sampler.take())
            if failure is not None:
                raise failure

    def finish(self, report: dict[str, Any]) -> XskError | None:
        """The rest of the last interval and the whole run; closes the outputs. The first thing that goes
        wrong."""
        failure = None
        if self._sampler is not None:
            failure = write_to_all(self._outputs, self._sampler.take(), self._sampler.last(report))
        closed = self.close()
        return failure or closed

    def close(self) -> XskError | None:
        """Idempotent."""
        return close_all(self._outputs)

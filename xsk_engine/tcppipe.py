"""One connection between two file descriptors, as nc has it: open, send what comes in, write what comes back,
end both streams, summary, whatever happens on the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from xsk_engine import privileges
from xsk_engine.aio import AsyncEngine
from xsk_engine.asynctcp import AsyncTcpConnection
from xsk_engine.errors import BrokenError, DeadlineError, WouldBlockError, XskError
from xsk_engine.outside import command_loop
from xsk_engine.signals import Interrupted, handled, told_to
from xsk_engine.tcpreport import TcpFigures, as_json
from xsk_engine.tcptarget import TcpTarget

# What one read asks for, and one call copies into blocks. Not read straight into them: at an MTU of 1500 a
# block is one segment, and Python would wake for each. Less: it wakes more often; more: it leaves the cache
# before it is copied.
_READ_BYTES = 256 << 10
# Of a pipe that poll() calls writable (PIPE_BUF, pipe(7)): a write of so much does not wait.
_PIPE_BYTES = 4096
_RECV_BYTES = 64 << 10
# How often what waits for a descriptor looks after the connection. Lower: an idle one takes more time;
# higher: a reset is noticed later.
_LOOK_S = 0.25
# After a signal: what is written has so long to be acknowledged. As the engine's own drain, for a longer way.
_GRACE_S = 2.0
# net.ipv4.ip_unprivileged_port_start, unless somebody has changed it
_FIRST_FREE_PORT = 1024
_TO_CONNECT = ("CAP_NET_BIND_SERVICE",)

Watch = Callable[["TcpPipe"], Awaitable[None]]
"""Runs beside it (a live view, say), until it is cancelled"""


@dataclass
class Outcome:
    """``report`` is the summary; ``error`` what went wrong, ``signal`` what stopped it (or 0)."""

    report: dict[str, Any]
    error: XskError | None
    signal: int


class TcpPipe:
    """From `source` to the connection, and from it to `sink`: descriptors that are left open. `wait_s`: how
    long the peer may be silent once all has been sent, before it has ended its stream."""

    def __init__(self, connection: AsyncTcpConnection, source: int, sink: int, wait_s: float) -> None:
        self.connection = connection
        self.written_bytes = 0
        """taken from the source"""
        self.size_bytes = _size(source)
        """that the source will give; None: nobody knows"""
        self._source, self._sink = source, sink
        self._wait_s = wait_s
        self._started = self.heard = time.monotonic()
        self._sent = 0.0
        self.end = "error"

    @property
    def seconds(self) -> float:
        """Since it was established."""
        return time.monotonic() - self._started

    @property
    def sending_s(self) -> float:
        """Until all was acknowledged, or now."""
        return self._sent or self.seconds

    async def run(self) -> None:
        """Until both streams have ended, or the peer has been silent for too long. XskError: what has ended
        it before."""
        sending, receiving = asyncio.ensure_future(self._send()), asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done() and not sending.done() and receiving.result() and os.isatty(self._source):
                self.end = "peer"
                return
            await sending
            self.end = await receiving
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)

    async def _send(self) -> None:
        buffer = bytearray(_READ_BYTES)
        while True:
            await self._ready(self._source, select.POLLIN)
            try:
                n = os.readv(self._source, [buffer])
            except BlockingIOError:
                continue
            except OSError as error:
                raise BrokenError("read", "the input", str(error.strerror), errno=error.errno) from None
            if not n:
                break
            left = memoryview(buffer)[:n]
            while left:
                with contextlib.suppress(WouldBlockError):  # a peer may pause for as long as it likes
                    sent = await self.connection.send(left)
                    self.written_bytes += sent
                    left = left[sent:]
            await asyncio.sleep(0)  # what comes back has its turn
        self.connection.shutdown()
        while not self._sent:
            with contextlib.suppress(DeadlineError):  # its options say when it is too long
                await self.connection.flush()
                self.heard, self._sent = time.monotonic(), self.seconds

    async def _receive(self) -> str:
        """Why it is over, as ENDS has it."""
        while True:
            try:
                data = await self.connection.recv(_RECV_BYTES, _LOOK_S)
            except DeadlineError:
                if self._sent and time.monotonic() - self.heard > self._wait_s:
                    return "wait"
                continue
            self.heard = time.monotonic()
            if not data:
                return "done"
            await self._write(memoryview(data))

    async def _write(self, data: memoryview) -> None:
        most = len(data) if _is_file(self._sink) else _PIPE_BYTES
        while data:
            await self._ready(self._sink, select.POLLOUT)
            try:
                data = data[os.write(self._sink, data[:most]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise BrokenError("write", "the output", str(error.strerror), errno=error.errno) from None

    async def _ready(self, fd: int, event: int) -> None:
        """Until a call on it does not wait, or the connection has failed: then its error."""
        poll = select.poll()
        poll.register(fd, event)
        while not poll.poll(0):
            if self.connection.error or self.connection.is_over:
                raise self.connection.why_over("send" if event == select.POLLIN else "recv")
            await _event(fd, event)


async def _event(fd: int, event: int) -> None:
    """Of this descriptor; or after some time. A file has none, and is always ready."""
    loop = asyncio.get_running_loop()
    happened = asyncio.Event()
    add, remove = (
        (loop.add_reader, loop.remove_reader)
        if event == select.POLLIN
        else (loop.add_writer, loop.remove_writer)
    )
    add(fd, happened.set)
    try:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(happened.wait(), _LOOK_S)
    finally:
        remove(fd)


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _size(fd: int) -> int | None:
    """Of what a file has left."""
    if not _is_file(fd):
        return None
    return max(os.fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR), 0)


class _Stop:
    """What a signal does: at first it cancels a task, then it resets the connection."""

    def __init__(self, task: asyncio.Future[Any]) -> None:
        self.task = task
        self.connection: AsyncTcpConnection | None = None
        self.signals: list[int] = []
        self._asked = False

    def on_signal(self) -> None:
        if not self._asked:
            self._asked = True
            self.task.cancel()
        elif self.connection is not None:
            self.connection.abort()


async def _close(connection: AsyncTcpConnection, timeout_s: float | None) -> XskError | None:
    """Within so long; what was not acknowledged then, never will be."""
    try:
        await connection.close(timeout_s)
    except DeadlineError as late:
        connection.abort()
        return late
    except XskError as error:
        return error
    return None


async def _run(
    target: TcpTarget, source: int, sink: int, wait_s: float, watches: Sequence[Watch], stop: _Stop
) -> Outcome:
    error: XskError | None = None
    engine = await AsyncEngine(target.engine).open()
    drops = target.engine.drop_privileges
    try:
        if drops:
            low = _TO_CONNECT if 0 < target.source_port < _FIRST_FREE_PORT else ()
            privileges.drop((*engine.engine.keeps, *low))
        connection = await engine.tcp(target.remote, target.port, **target.ends)
        if drops:
            privileges.drop(engine.engine.keeps)
        stop.connection = connection
        pipe = TcpPipe(connection, source, sink, wait_s)
        stop.task = running = asyncio.ensure_future(pipe.run())
        watchers = [asyncio.ensure_future(watch(pipe)) for watch in watches]
        try:
            await running
        except XskError as failure:
            error = failure
            connection.abort()
        except asyncio.CancelledError:
            pipe.end = "signal"
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        sending_s = pipe.sending_s
        failure_at_end = await _close(connection, _GRACE_S if stop.signals else None)
        if error is None and not stop.signals:
            error = failure_at_end
        seconds, info, binding = pipe.seconds, connection.info(), engine.engine.binding
        assert binding is not None
    except BaseException:
        await engine.close()
        raise
    try:
        await engine.close()
    except XskError as failure:
        error = error or failure
    figures = TcpFigures(
        target.engine.interface,
        binding.mode,
        binding.reason,
        connection.local,
        connection.remote,
        seconds,
        sending_s,
        pipe.written_bytes,
        info,
        "error" if error is not None else pipe.end,
        error.as_dict() if error is not None else None,
    )
    return Outcome(as_json(figures), error, stop.signals[0] if stop.signals else 0)


def run(target: TcpTarget, source: int, sink: int, wait_s: float, watches: Sequence[Watch] = ()) -> Outcome:
    """Sends what `source` gives and writes into `sink` what comes back. Main thread only: it handles the
    signals that end it. UnavailableError, TcpError: there was no connection; Interrupted: a signal
    while opening.
    """
    stopped: list[int] = []

    async def main() -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        stop = _Stop(task)
        try:
            with handled(told_to(loop, stop.signals, stop.on_signal)):
                return await _run(target, source, sink, wait_s, watches, stop)
        finally:
            stopped.extend(stop.signals)

    with command_loop() as loop:
        try:
            outcome: Outcome = loop.run_until_complete(main())
        except asyncio.CancelledError:
            raise Interrupted(stopped[0]) from None
    return outcome

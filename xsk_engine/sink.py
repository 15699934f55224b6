"""The sink: receives what a sender with signatures sends, and counts what became of it."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xsk_engine import netdev as netdevs
from xsk_engine import privileges, shortage
from xsk_engine.arrivals import Arrivals, Reflected
from xsk_engine.capture import Capture
from xsk_engine.checking import Checker
from xsk_engine.config import MODES
from xsk_engine.errors import ClosedError, UnavailableError
from xsk_engine.receiver import ReceiveStats
from xsk_engine.receiving import PacketReceiving, Receiving, XdpReceiving
from xsk_engine.reflecting import Reflecting
from xsk_engine.steering import Match

if TYPE_CHECKING:
    from xsk_engine.netdev import NetDev

METHODS = ("auto", "xdp", "packet")
# Where no program may be attached, the package has none, or there is no locked memory for the rings.
_NO_XDP = (errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENOBUFS)


@dataclass(frozen=True)
class SinkConfig:
    """What is received, where and how. ``queues`` None: all. ``method``: "xdp" (an XDP program and AF_XDP
    sockets), "packet" (a packet socket, beside the kernel), "auto": the first where it may be had. ``mode``
    as of an engine. ``max_flows``: ids from 0 on; 4 KiB for each that is seen. ``ring_size``: entries of each
    receive ring, power of two. ``check`` False: packets are only counted. ``capture``: they are kept for a
    file, too. ``busy_poll``: the kernel polls the device in the sink's thread, which never sleeps; not with
    packet sockets. ``reflect``: those with a signature are sent back instead of received, by an XDP program,
    and only that is counted. ``drop_privileges``, ``sandbox``: of its thread, as an engine's. ValueError."""

    interface: str
    match: Match = field(default_factory=Match)
    queues: Sequence[int] | None = None
    method: str = "auto"
    mode: str = "auto"
    max_flows: int = 16384
    ring_size: int = 2048
    check: bool = True
    capture: bool = False
    busy_poll: bool = False
    reflect: bool = False
    drop_privileges: bool = False
    sandbox: bool = False
    link_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        for name, value, known in (("method", self.method, METHODS), ("mode", self.mode, MODES)):
            if value not in known:
                raise ValueError(f"{name}: {value!r} is not one of {', '.join(known)}")
        if self.ring_size & (self.ring_size - 1) or not 64 <= self.ring_size <= 1 << 16:
            raise ValueError(f"ring_size: {self.ring_size} is not a power of two from 64 to 65536")
        if self.busy_poll and self.method == "packet":
            raise ValueError("busy_poll: it is for AF_XDP sockets, not for method 'packet'")
        if not 1 <= self.max_flows <= 1 << 20:
            raise ValueError(f"flows: {self.max_flows} is not in 1 to {1 << 20}")
        if self.reflect and (
            self.capture or self.queues is not None or self.match != Match() or self.busy_poll
        ):
            raise ValueError(
                "reflect: what has a signature is sent back, from all queues, and nothing else is received: "
                "no ports, no queues, no file, no busy polling"
            )


@dataclass(frozen=True)
class SinkSnapshot:
    """The figures of one moment; the last ones after close()."""

    arrivals: Arrivals
    """what was checked"""
    receive: ReceiveStats
    """what was received"""
    overrun_packets: int
    """that were there for us and found no room: lost by the sink itself, not on the way"""
    reflected: Reflected | None
    """what was sent back; None: it receives"""
    time_ns: int
    """CLOCK_MONOTONIC when these were read"""


class Sink:
    """Receives and counts from open() on. A context manager; open and close in one thread, snapshot() from
    any.

    UnavailableError for what the environment lacks or refuses: another XDP program is attached, a queue is
    taken. Nothing stays attached, however the process ends. Close it after the sender has stopped. A forked
    child cannot close it, and until it has ended, or become another program, the interface stays taken.

        with Sink(SinkConfig("vrx")) as sink:
            print(sink.snapshot().arrivals.received_packets)
    """

    def __init__(self, config: SinkConfig) -> None:
        self.config = config
        self.netdev: NetDev | None = None
        self.capture: Capture | None = None
        self._way: Receiving | None = None
        self._checker: Checker | None = None
        self._stopped = False
        self._final: SinkSnapshot | None = None
        self._reading = threading.RLock()
        """held by who reads figures: a scrape, in its thread, while close() frees what they are read from"""
        self._stack = contextlib.ExitStack()
        self._pid = os.getpid()

    def open(self) -> Sink:
        """Everything or nothing, in the network namespace of this thread."""
        config = self.config
        if config.sandbox:
            privileges.check_sandbox()
        with shortage.named("open", config.interface), contextlib.ExitStack() as stack:
            self.netdev = netdevs.wait_for_link(config.interface, config.link_timeout_s)
            self._checker = Checker(config.max_flows, reflected=config.match.reflected)
            stack.callback(self._checker.close)
            if config.capture:
                self.capture = Capture(0, clock=time.CLOCK_TAI)
                stack.callback(self.capture.close)
            self._way = self._open_way(self.netdev)
            self._stack = stack.pop_all()
        return self

    def _open_way(self, netdev: NetDev) -> Receiving:
        if self.config.reflect:
            return self._begin(self._reflecting(netdev))
        if self.config.method == "packet":
            return self._begin(self._packet(netdev, "as asked"))
        try:
            return self._begin(self._xdp(netdev))
        except UnavailableError as error:
            if self.config.method == "xdp" or self.config.busy_poll or error.errno not in _NO_XDP:
                raise
            return self._begin(self._packet(netdev, f"not by XDP here: {error}"))

    @staticmethod
    def _begin(way: Receiving) -> Receiving:
        try:
            way.begin()
        except BaseException:
            way.close()
            raise
        return way

    def _xdp(self, netdev: NetDev) -> Receiving:
        config = self.config
        return XdpReceiving(
            netdev,
            config.match,
            config.queues,
            config.mode,
            config.ring_size,
            config.link_timeout_s,
            self._checker if config.check else None,
            self.capture,
            busy_poll=config.busy_poll,
            at_start=self._at_start(),
        )

    def _at_start(self) -> Callable[[], None]:
        config = self.config
        return privileges.at_start(drop_privileges=config.drop_privileges, sandbox=config.sandbox)

    def _reflecting(self, netdev: NetDev) -> Receiving:
        if self.config.method == "packet":
            raise UnavailableError(
                "reflect",
                netdev.name,
                "a packet socket sends nothing back; that needs an XDP program (--method xdp)",
            )
        return Reflecting(netdev, self.config.match, self.config.link_timeout_s)

    def _packet(self, netdev: NetDev, reason: str) -> Receiving:
        checker = self._checker if self.config.check else None
        match, at_start = self.config.match, self._at_start()
        return PacketReceiving(netdev, match, reason, checker, self.capture, at_start=at_start)

    @property
    def way(self) -> Receiving:
        """How it receives: its ``method``, ``mode`` and ``reason``. ClosedError before open()."""
        if self._way is None:
            raise ClosedError("sink", self.config.interface, "it is not open")
        return self._way

    def snapshot(self, *, flows: bool = True) -> SinkSnapshot:
        """Its figures now, each flow's among them unless told otherwise. A system call for each queue."""
        with self._reading:
            if self._final is not None:
                return self._final
            if self._checker is None:
                raise ClosedError("sink", self.config.interface, "it is not open")
            overrun = self.way.overrun_packets()
            arrivals = self._checker.read(flows=flows)
            way = self.way
            return SinkSnapshot(arrivals, way.receiver.stats(), overrun, way.reflected(), time.monotonic_ns())

    def receive_stats(self) -> ReceiveStats:
        """What came off the rings. No system call."""
        return self.way.receiver.stats()

    def raise_failure(self) -> None:
        """BrokenError when it has ended by itself: the device is gone."""
        failure = self.way.receiver.failure()
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Takes what has arrived, then nothing more; off the interface. Idempotent. BrokenError when the
        audit finds a fault."""
        if self._way is None or self._stopped or os.getpid() != self._pid:
            return
        self._stopped = True
        self._way.end()

    def close(self) -> None:
        """stop(), and everything goes. Idempotent."""
        if self._way is None or self._final is not None or os.getpid() != self._pid:
            return
        try:
            self.stop()
        finally:
            with self._reading:
                self._final = self.snapshot()
            self._way.close()
            self._stack.close()

    def __enter__(self) -> Sink:
        return self if self._way is not None else self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

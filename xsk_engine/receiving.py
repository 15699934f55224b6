"""The two ways to receive: AF_XDP sockets that a program steers to, and a packet socket beside the kernel."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Sequence
from typing import Protocol

from xsk_engine import busypoll, privileges
from xsk_engine import netdev as netdevs
from xsk_engine.arrivals import Reflected
from xsk_engine.busypoll import BusyPoll
from xsk_engine.capture import Capture
from xsk_engine.checking import Checker
from xsk_engine.errors import BrokenError, QueueTakenError, UnavailableError, errno_name
from xsk_engine.netdev import NetDev
from xsk_engine.receiver import Receiver, ReceiveStats
from xsk_engine.steering import MOST_QUEUES, Match, Steering
from xsk_engine.umem import Umem
from xsk_engine.xsk import RxXsk, bind_rx_queues, is_bound_here

_CHUNK_BYTES = 4096
# bind() of what has no zero-copy, and of what has none with these rings or this MTU.
_NO_ZEROCOPY = (errno.EOPNOTSUPP, errno.EINVAL)


class Counting(Protocol):
    """What comes, as the sink sees it: a Receiver, or what stands in its place."""

    def stats(self) -> ReceiveStats:
        """So far."""

    def failure(self) -> BrokenError | None:
        """Why it has ended by itself, or None."""


class Receiving(Protocol):
    """One of them, open: what the sink needs of it."""

    method: str
    mode: str
    reason: str

    @property
    def receiver(self) -> Counting:
        """Counts."""

    @property
    def keeps(self) -> tuple[str, ...]:
        """Capabilities of whoever uses it from begin() on, until it is closed."""

    def begin(self) -> None:
        """Packets come from now on. UnavailableError."""

    def busy_poll(self) -> BusyPoll | None:
        """What of it is in effect; None: not asked for."""

    def reflected(self) -> Reflected | None:
        """What it has sent back; None: it receives."""

    def overrun_packets(self) -> int:
        """That were there for us and found no room."""

    def end(self) -> None:
        """No more come; what has come is looked at. BrokenError when the audit finds a fault."""

    def close(self) -> None:
        """Idempotent."""


class XdpReceiving:
    """AF_XDP sockets on `queues`, their umem, and the steering program. UnavailableError, QueueTakenError;
    ValueError for queues that are not there. Open and close in one thread."""

    method = "xdp"

    def __init__(
        self,
        netdev: NetDev,
        match: Match,
        queues: Sequence[int] | None,
        mode: str,
        ring_size: int,
        link_timeout_s: float,
        checker: Checker | None,
        capture: Capture | None,
        *,
        busy_poll: bool = False,
        at_start: Callable[[], None] = lambda: None,
    ) -> None:
        most = min(netdev.queues, MOST_QUEUES)
        self._queues = tuple(range(most) if queues is None else queues)
        if (
            not self._queues
            or len(set(self._queues)) < len(self._queues)
            or not set(self._queues) <= set(range(most))
        ):
            raise ValueError(f"queues: {list(self._queues)}; {netdev.name} has 0 to {most - 1}")
        self._netdev = netdev
        self._match = match
        self._link_timeout_s = link_timeout_s
        self._xsks: tuple[RxXsk, ...] = ()
        self._overrun = 0
        self._steering: Steering | None = None
        with contextlib.ExitStack() as stack:
            chunks = ring_size * len(self._queues)
            self._umem = Umem(chunks * _CHUNK_BYTES, _CHUNK_BYTES, numa_node=netdev.numa_node)
            stack.callback(self._umem.close)
            self._bind(mode, ring_size)
            stack.callback(self._close_sockets)
            self._busy_poll = busypoll.start(netdev, self._xsks) if busy_poll else None
            self.receiver = Receiver(
                netdev,
                checker,
                capture,
                umem=self._umem,
                xsks=self._xsks,
                close_sockets=self._close_sockets,
                busy_poll=busy_poll,
                at_start=at_start,
            )
            stack.callback(self.receiver.close)
            stack.callback(self._take_off)
            self._stack = stack.pop_all()

    def _bind(self, mode: str, ring_size: int) -> None:
        several = self._netdev.max_frame_bytes > self._umem.usable_bytes
        self.reason = "as asked"
        for one in ("zerocopy", "copy") if mode == "auto" else (mode,):
            try:
                self._xsks = bind_rx_queues(
                    self._umem, self._netdev, self._queues, one, ring_size=ring_size, multi_buffer=several
                )
                self.mode = one
                return
            except OSError as error:
                if one == mode or one == "copy" or error.errno not in _NO_ZEROCOPY:
                    raise self._describe(error, one) from None
                driver = self._netdev.driver
                self.reason = f"driver {driver} has no zero-copy here ({errno_name(error.errno or 0)})"

    def _describe(self, error: OSError, mode: str) -> UnavailableError:
        queue = int(error.filename or self._queues[0])
        arguments, number = f"{self._netdev.name}, queue {queue}, {mode}", error.errno or 0
        if number == errno.EBUSY:
            owner = "this process" if is_bound_here(self._netdev.ifindex, queue) else "another process"
            text = f"an AF_XDP socket of {owner} holds this queue; stop it or use another queue"
            return QueueTakenError("bind", arguments, text, errno=number)
        hints = {
            errno.EPERM: privileges.needs("CAP_NET_RAW"),
            errno.ENOBUFS: f"{self._umem.area.length} bytes exceed the locked-memory limit (ulimit -l)",
            errno.EOPNOTSUPP: "the driver has no zero-copy; use --mode copy",
        }
        return UnavailableError("bind", arguments, hints.get(number, "the kernel refused"), errno=number)

    @property
    def keeps(self) -> tuple[str, ...]:
        return self._steering.keeps if self._steering is not None else ()

    def begin(self) -> None:
        self.receiver.start()
        self._steering = Steering(self._netdev, self._match, self._xsks)
        if self._steering.mode != "driver":
            self.reason += f", its program in {self._steering.mode} mode"
        # Attaching resets a real NIC.
        netdevs.wait_for_link(self._netdev.name, self._link_timeout_s)

    def busy_poll(self) -> BusyPoll | None:
        if self._busy_poll is not None and self._xsks:
            with contextlib.suppress(OSError):  # the device is gone: as it was
                self._busy_poll = busypoll.again(self._busy_poll, self._netdev, self._xsks)
        return self._busy_poll

    def reflected(self) -> Reflected | None:
        return None

    def overrun_packets(self) -> int:
        if self._xsks:
            with contextlib.suppress(OSError):  # the device is gone: as it was
                self._overrun = sum(xsk.lost_packets() for xsk in self._xsks)
        return self._overrun

    def end(self) -> None:
        self._take_off()
        self.receiver.stop()
        self.overrun_packets()
        if self.receiver.failure() is None:
            self.receiver.audit()

    def _take_off(self) -> None:
        steering, self._steering = self._steering, None
        if steering is not None:
            steering.close()

    def _close_sockets(self) -> None:
        for xsk in self._xsks:
            xsk.close()
        self._xsks = ()
        self._umem.unregister()

    def close(self) -> None:
        try:
            self.receiver.stop()
        except BrokenError:
            self._stack.pop_all()  # leaking is the lesser evil
            raise
        self._stack.close()


class PacketReceiving:
    """A packet socket: the kernel sees the packets, too. UnavailableError. Open and close in one thread."""

    method = "packet"
    mode = "copy"
    keeps = ()

    def __init__(
        self,
        netdev: NetDev,
        match: Match,
        reason: str,
        checker: Checker | None,
        capture: Capture | None,
        *,
        at_start: Callable[[], None] = lambda: None,
    ) -> None:
        from xsk_engine._ffi.libpcap import compile_filter

        self.reason = reason
        try:
            self.receiver = Receiver(
                netdev,
                checker,
                capture,
                packet_filter=compile_filter(match.expression),
                at_start=at_start,
            )
        except OSError as error:
            hints = {errno.EPERM: privileges.needs("CAP_NET_RAW")}
            text = hints.get(error.errno or 0, "no packet socket with a ring of 32 MiB is to be had")
            raise UnavailableError("packet socket", netdev.name, text, errno=error.errno) from None

    def begin(self) -> None:
        self.receiver.start()

    def busy_poll(self) -> BusyPoll | None:
        return None

    def reflected(self) -> Reflected | None:
        return None

    def overrun_packets(self) -> int:
        return self.receiver.stats().overrun_packets

    def end(self) -> None:
        self.receiver.stop()

    def close(self) -> None:
        self.receiver.stop()
        self.receiver.close()

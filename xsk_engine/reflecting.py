"""The third way of a sink: packets go back where they come from, in the XDP program; nothing is received."""

from __future__ import annotations

import errno

from xsk_engine import netdev as netdevs
from xsk_engine.arrivals import Reflected
from xsk_engine.errors import BrokenError
from xsk_engine.netdev import NetDev
from xsk_engine.receiver import ReceiveStats
from xsk_engine.steering import Match, Steering


class Reflector:
    """What stands where the other ways have a receiver: as many have come as have gone back."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self.steering: Steering | None = None
        """once it is on, also when it is off again"""

    def stats(self) -> ReceiveStats:
        """As of a receiver. A system call."""
        now = self.steering.reflected() if self.steering is not None else Reflected()
        return ReceiveStats(now.packets, now.bytes, 0, 0, 0, now.first_ns, now.last_ns)

    def failure(self) -> BrokenError | None:
        """Why it has ended by itself, or None."""
        if self.steering is None or not self.steering.is_gone():
            return None
        return BrokenError("reflect", self._interface, "the device is gone", errno=errno.ENXIO)


class Reflecting:
    """The steering program alone, on all queues. UnavailableError where none may be attached. Open and close
    in one thread."""

    method = "xdp"

    def __init__(self, netdev: NetDev, match: Match, link_timeout_s: float) -> None:
        self._netdev = netdev
        self._match = match
        self._link_timeout_s = link_timeout_s
        self.mode = "none"
        self.reason = "not on yet"
        self.receiver = Reflector(netdev.name)

    @property
    def keeps(self) -> tuple[str, ...]:
        """As of the other ways."""
        return self.receiver.steering.keeps if self.receiver.steering is not None else ()

    def begin(self) -> None:
        """Packets go back from now on. UnavailableError."""
        steering = Steering(self._netdev, self._match, (), reflect=True)
        self.receiver.steering = steering
        self.mode = steering.mode
        self.reason = "sent back by an XDP program"
        # Attaching resets a real NIC.
        netdevs.wait_for_link(self._netdev.name, self._link_timeout_s)

    def busy_poll(self) -> None:
        """There is no socket."""

    def reflected(self) -> Reflected:
        """So far. A system call."""
        steering = self.receiver.steering
        return steering.reflected() if steering is not None else Reflected()

    def overrun_packets(self) -> int:
        """Nothing is received, so nothing finds no room."""
        return 0

    def end(self) -> None:
        """Off the interface."""
        self.close()

    def close(self) -> None:
        """Idempotent."""
        if self.receiver.steering is not None:
            self.receiver.steering.close()

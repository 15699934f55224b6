"""The engine's hold on an interface for TCP: sockets on all its queues receive, because the peers' segments
may come to any, and the steering program sends them those of the connections' tuples."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from dataclasses import replace

from xsk_engine import netdev as netdevs
from xsk_engine import netdevgenl
from xsk_engine._ffi.native import TX_METADATA_BYTES
from xsk_engine.binding import Binding, Refused
from xsk_engine.config import EngineConfig
from xsk_engine.errors import UnavailableError, errno_name
from xsk_engine.netdev import NetDev
from xsk_engine.steering import MOST_QUEUES, Match, Steering
from xsk_engine.umem import Umem
from xsk_engine.xsk import RxXsk, Xsk, bind_both

# Entries of each receive and fill ring, and so chunks that it has, in copy mode: twice veth's own ring of 256
# (VETH_RING_SIZE), so that what a whole one brings fits while the loop is at work. ACKs are cumulative: one
# that finds no room costs nothing. Lower: a peer's data is lost, which it sends again; higher: 2 MiB of umem
# more for each queue and doubling.
_RX_ENTRIES = 512
# A driver in zero-copy keeps as many chunks as its receive ring has entries; the others are for the loop.
_RX_SHARE = 2
_XDP_HEADROOM_BYTES = 256  # XDP_PACKET_HEADROOM, include/uapi/linux/bpf.h: in front of every received packet


def rx_entries(netdev: NetDev, mode: str, most: int) -> int:
    """Of each queue's fill ring; power of two."""
    wanted = _RX_SHARE * netdev.rx_ring if mode != "copy" else 0
    entries = _RX_ENTRIES
    while entries < min(wanted, most):
        entries *= 2
    return entries


class SteeredBinding(Binding):
    """``xsks`` send on the engine's queues, ``rx_xsks`` receive on all of the interface's: a queue with both
    has one socket. ``steering``: its program. ``multi_buffer``: packets may be of several descs;
    ``offload``: the device finishes checksums.

    `mode` is "copy" or "zerocopy"; Refused when the driver has no zero-copy. UnavailableError: without
    CAP_BPF and CAP_NET_ADMIN, or beside another XDP program. Open and close in one thread."""

    needs = ("CAP_NET_RAW", "CAP_BPF", "CAP_NET_ADMIN")

    def __init__(self, umem: Umem, netdev: NetDev, config: EngineConfig, mode: str, entries: int) -> None:
        self.rx_xsks: tuple[RxXsk, ...] = ()
        self.steering: Steering | None = None
        self._entries = entries
        self._attempt = mode
        self.offload = "checksum" in config.tx_metadata
        longest = config.max_frame_bytes or netdev.max_frame_bytes
        self.multi_buffer = longest > umem.chunk_size - _XDP_HEADROOM_BYTES
        super().__init__(
            umem,
            netdev,
            config.queues,
            config.mode,
            ring_size=config.ring_size,
            max_frame_bytes=longest,
            link_timeout_s=config.link_timeout_s,
            rx_chunks=entries,
        )
        self.rx_chunks = entries * len(self.rx_xsks)

    @property
    def keeps(self) -> tuple[str, ...]:
        """As Binding's."""
        return self.steering.keeps if self.steering is not None else ()

    @property
    def may_fall_back(self) -> bool:
        """Only while it is opened: the loop keeps its receive rings."""
        return False

    def fds(self) -> list[int]:
        """As Binding's."""
        program = [self.steering.fileno()] if self.steering is not None else []
        return [fd for fd in (*(xsk.fd for xsk in self.rx_xsks), *program) if fd >= 0]

    def close(self) -> None:
        """As Binding's."""
        for xsk in self.rx_xsks:
            xsk.close()
        super().close()
        steering, self.steering = self.steering, None
        if steering is not None:
            steering.close()

    def _open(self) -> None:
        if self._attempt == "copy":
            self._open_copy()
        else:
            self._open_zerocopy()

    def _sockets(self, mode: str) -> tuple[Xsk, ...]:
        all_queues = range(self._netdev.queues)
        for queue in self._queues:
            if queue not in all_queues:
                raise OSError(errno.EINVAL, "no such queue", str(queue))
        sending, self.rx_xsks = bind_both(
            self._umem,
            self._netdev,
            all_queues,
            self._queues,
            mode,
            ring_size=self._ring_size,
            rx_entries=self._entries,
            multi_buffer=self.multi_buffer,
            # Before they are bound: igb looks when it starts, and then not before a packet has come.
            stock=self._stock.put,
        )
        return sending

    def _open_copy(self) -> None:
        self._bind("copy")
        self._steer()
        # Attaching resets a real NIC.
        netdevs.wait_for_link(self._netdev.name, self._link_timeout_s)

    def _open_zerocopy(self) -> None:
        self._bind("zerocopy")
        self._steer()
        if number := self._wakeup_error_after_reset():
            driver = self._netdev.driver
            raise Refused(f"driver {driver} binds in zero-copy and then refuses to send", number)

    def _steer(self) -> None:
        self.steering = Steering(self._netdev, Match(signature=False, tuples=True), self.rx_xsks)

    def _to_receive(self) -> str:
        size = self._entries * self._netdev.queues * self._umem.chunk_size
        return f" ({size} of them to receive into)"


def open_steered(
    stack: contextlib.ExitStack, config: EngineConfig, netdev: NetDev
) -> tuple[Umem, SteeredBinding]:
    """As open_binding(), for an engine with TCP. Checksums are the device's where it, or copy mode on a
    kernel with tx metadata (Linux 6.11), finishes them."""
    if netdev.queues > MOST_QUEUES:
        what = f"it has {netdev.queues} queues, and TCP receives on at most {MOST_QUEUES}; see ethtool -L"
        raise UnavailableError("open", config.interface, what)
    reason = "as asked"
    attempts = _attempts(config, netdev)
    for number, (mode, metadata) in enumerate(attempts):
        last = number == len(attempts) - 1
        try:
            umem, binding = _open(stack, config, netdev, mode, metadata)
        except Refused as refusal:
            if last:
                raise refusal.as_asked(netdev, config.queues[0]) from None
            reason = f"{refusal} ({errno_name(refusal.errno)})"
        except UnavailableError as error:
            if last or error.errno != errno.EINVAL:  # a kernel that knows no tx metadata
                raise
        else:
            if mode == "zerocopy" and config.mode == "auto":
                reason = f"driver {netdev.driver} has zero-copy"
            binding.reason = reason
            return umem, binding
    raise AssertionError("the last attempt returns or raises")


def _attempts(config: EngineConfig, netdev: NetDev) -> Sequence[tuple[str, frozenset[str]]]:
    """Modes in the order in which they are tried, and what each is to do through tx metadata."""
    checksum = frozenset({"checksum"})
    made: list[tuple[str, frozenset[str]]] = []
    if config.mode != "copy":
        has = netdevgenl.tx_metadata_features(netdev.ifindex)
        lacking = sorted(config.tx_metadata - has)
        if not lacking:
            made.append(("zerocopy", config.tx_metadata | (checksum & has)))
        elif config.mode == "zerocopy":
            what = f"the driver has no tx {' and '.join(lacking)} in zero-copy; use --mode copy"
            raise UnavailableError("open", config.interface, what)
    if config.mode != "zerocopy":
        made.append(("copy", config.tx_metadata | checksum))
        if not config.tx_metadata:
            made.append(("copy", frozenset()))
    return made


def _open(
    stack: contextlib.ExitStack,
    config: EngineConfig,
    netdev: NetDev,
    mode: str,
    metadata: frozenset[str],
) -> tuple[Umem, SteeredBinding]:
    entries = rx_entries(netdev, mode, config.ring_size)
    with contextlib.ExitStack() as both:
        umem = Umem(
            config.umem_bytes + entries * netdev.queues * config.chunk_size,
            config.chunk_size,
            tx_metadata_len=max(config.tx_metadata_len, TX_METADATA_BYTES if metadata else 0),
            numa_node=netdev.numa_node,
        )
        both.callback(umem.close)
        umem.audit()
        binding = SteeredBinding(umem, netdev, replace(config, tx_metadata=metadata), mode, entries)
        both.callback(binding.close)
        stack.push(both.pop_all())
    return umem, binding

"""The engine's hold on one interface: the sockets of its queues in the best mode the driver has, and the pass
program where the driver asks for one."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from xsk_engine import netdev as netdevs
from xsk_engine import netdevgenl, privileges
from xsk_engine.config import MODES, EngineConfig
from xsk_engine.errors import QueueTakenError, UnavailableError, XskError, errno_name
from xsk_engine.netdev import NetDev
from xsk_engine.opener import Refusal
from xsk_engine.program import PassProgram
from xsk_engine.rx import RxStock
from xsk_engine.umem import Umem
from xsk_engine.xsk import PASSING, Xsk, bind_queues, is_bound_here

# What drivers answer to a kick in zero-copy without an XDP program: igb, ixgbe, i40e, ice and stmmac EINVAL,
# igc ENXIO, mlx5 ENETDOWN (their ndo_xsk_wakeup).
_WANTS_PROGRAM = (errno.EINVAL, errno.ENXIO, errno.ENETDOWN)
# Drivers that look for chunks to receive into when they bind, and then only when something arrives
# (drivers/net/virtio_net.c, virtnet_xsk_wakeup: the send queue's NAPI alone): without any they starve.
_STARVES_UNSTOCKED = ("virtio_net",)
# A driver that is still resetting after its carrier has come back.
_WAKEUP_DEADLINE_S = 2.0
_WAKEUP_POLL_S = 0.02

# What bind says in every mode; anything else may be about zero-copy, and then copy is worth a try.
_ANY_MODE = (*PASSING, errno.EPERM, errno.EACCES, errno.ENODEV, errno.ENETDOWN, errno.EAFNOSUPPORT)


class Refused(Exception):
    """No zero-copy here, and why."""

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(reason)
        self.errno = number

    def as_asked(self, netdev: NetDev, queue: int) -> UnavailableError:
        """For who insists on it."""
        return UnavailableError(
            "bind", f"{netdev.name}, queue {queue}, zerocopy", f"{self}; use --mode copy", errno=self.errno
        )


class Binding:
    """``xsks``, their common ``mode`` ("copy" or "zerocopy") and the ``reason`` for it.

    `mode`: what is asked; "auto" takes zero-copy where it works. `max_frame_bytes`: longer than a chunk means
    packets of several descs (XDP_USE_SG). Constructor, fall_back and close from one thread at a time.
    UnavailableError says what is missing, ValueError an unknown mode.
    """

    needs: tuple[str, ...] = ("CAP_NET_RAW",)

    def __init__(
        self,
        umem: Umem,
        netdev: NetDev,
        queues: Sequence[int],
        mode: str,
        *,
        ring_size: int,
        max_frame_bytes: int,
        link_timeout_s: float,
        rx_chunks: int = 0,
        fds: Sequence[int] = (),
        opener: str | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode: {mode!r} is not one of {', '.join(MODES)}")
        self.mode = mode
        self.reason = "as asked"
        self.xsks: tuple[Xsk, ...] = ()
        self._asked = mode
        self._umem = umem
        self._netdev = netdev
        self._queues = queues
        self._ring_size = ring_size
        self._fds = fds
        self._opener = opener
        self._max_frame_bytes = max_frame_bytes
        self._link_timeout_s = link_timeout_s
        self.rx_chunks = rx_chunks * len(queues)
        """of the umem's, set aside for what the driver receives"""
        self._stock = RxStock(umem, rx_chunks)
        self._program: PassProgram | None = None
        self.falls_back = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def keeps(self) -> tuple[str, ...]:
        """Capabilities of whoever uses it, until it is closed."""
        return ()

    @property
    def may_fall_back(self) -> bool:
        """Zero-copy that nobody insisted on."""
        return self._asked == "auto" and self.mode == "zerocopy"

    def fall_back(self, reason: str, stop: Callable[[], bool] = lambda: False) -> None:
        """Binds all queues anew, in copy mode; once only. UnavailableError when that fails, or when `stop`
        says so while it waits for the link: then nothing is bound."""
        self.close()
        self.mode, self.falls_back = "copy", True
        try:
            netdevs.wait_for_link(self._netdev.name, self._link_timeout_s, stop)
            self._open_copy()
        finally:
            self.falls_back = False
        self.reason = reason

    def fds(self) -> list[int]:
        """All it holds, for a forked child to close: sockets, and the link that keeps the program there."""
        program = [self._program.fileno()] if self._program is not None else []
        return [fd for fd in (*(xsk.fd for xsk in self.xsks), *program) if fd >= 0]

    def close(self) -> None:
        """Closes the sockets, forgets the umem, takes the program off. Idempotent."""
        for xsk in self.xsks:
            xsk.close()
        self.xsks = ()
        self._umem.unregister()
        if self._program is not None:
            self._program.close()
            self._program = None

    # -- opening ---------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._asked == "copy":
            self._open_copy()
            return
        try:
            self._open_zerocopy()
        except Refused as refusal:
            if self._asked == "zerocopy":
                raise refusal.as_asked(self._netdev, self._queues[0]) from None
            self.fall_back(f"{refusal} ({errno_name(refusal.errno)})")

    def _open_copy(self) -> None:
        self._bind("copy")

    def _sockets(self, mode: str) -> tuple[Xsk, ...]:
        return bind_queues(
            self._umem,
            self._netdev,
            self._queues,
            mode,
            ring_size=self._ring_size,
            multi_buffer=self._max_frame_bytes > self._umem.usable_bytes,
            stock=self._stock.put if mode == "zerocopy" and self.rx_chunks else None,
            fds=self._fds,
            opener=self._opener,
        )

    def _bind(self, mode: str) -> None:
        zerocopy = mode == "zerocopy"
        try:
            self.xsks = self._sockets(mode)
        except OSError as error:
            queue = int(error.filename or self._queues[0])
            number = error.errno or 0
            said = error.strerror if isinstance(error, Refusal) else None
            if zerocopy and number not in _ANY_MODE and queue < self._netdev.queues:
                raise Refused(said or self._why_not(number), number) from None
            # Some errors have nothing to do with the mode, so what was asked is what is named.
            named = self._asked if said or number in PASSING else mode
            raise self._describe(number, queue, named, said) from None
        self.mode = self.xsks[0].mode

    def _why_not(self, number: int) -> str:
        driver, usable = self._netdev.driver, self._umem.usable_bytes
        if self._netdev.lacks_iommu_platform:
            return "this virtio NIC has no iommu_platform, without which it refuses zero-copy"
        if number != errno.EOPNOTSUPP:
            return f"driver {driver} refuses zero-copy with these rings, this MTU or this chunk size"
        if self._max_frame_bytes > usable and self._has_zerocopy():
            return (
                f"frames of {self._max_frame_bytes} bytes need several descs, "
                f"which driver {driver} does not send in zero-copy; up to {usable} bytes it does"
            )
        return f"driver {driver} has no zero-copy"

    def _has_zerocopy(self) -> bool:
        from xsk_engine import netdevgenl  # imports pyroute2, which takes longer than all the rest

        return bool(netdevgenl.facts(self._netdev.ifindex).zerocopy)

    def _open_zerocopy(self) -> None:
        driver = self._netdev.driver
        if self._opener is not None and driver in _STARVES_UNSTOCKED:
            raise Refused(
                f"driver {driver} looks for chunks to receive into when it binds; an opener has none then, "
                "and nobody would receive anything on the queue",
                errno.EOPNOTSUPP,
            )
        self._bind("zerocopy")
        self.reason = f"driver {driver} has zero-copy" if self._asked == "auto" else "as asked"
        number = self._wakeup_error()
        if number in _WANTS_PROGRAM:
            try:
                self._program = PassProgram(self._netdev)
            except UnavailableError as error:
                raise Refused(
                    f"driver {driver} sends in zero-copy only with an XDP program, "
                    f"and none can be attached: {error.message}",
                    error.errno or number,
                ) from None
            self.reason += ", with an XDP program that it asks for"
            number = self._wakeup_error_after_reset()
        if number:
            raise Refused(f"driver {driver} binds in zero-copy and then refuses to send", number)

    def _wakeup_error(self) -> int:
        """Of the first queue that has one; what passes by itself is none."""
        errors = (xsk.try_wakeup() for xsk in self.xsks)
        return next((number for number in errors if number not in (0, errno.EAGAIN, *PASSING)), 0)

    def _wakeup_error_after_reset(self) -> int:
        try:
            netdevs.wait_for_link(self._netdev.name, self._link_timeout_s)
        except UnavailableError as error:
            raise Refused(
                f"{self._netdev.name} was reset for an XDP program and did not come back: {error.message}",
                errno.ENETDOWN,
            ) from None
        deadline = time.monotonic() + _WAKEUP_DEADLINE_S
        while (number := self._wakeup_error()) and time.monotonic() < deadline:
            time.sleep(_WAKEUP_POLL_S)
        return number

    def _to_receive(self) -> str:
        size = self.rx_chunks * self._umem.chunk_size
        return f" ({size} of them to receive into; --mode copy needs none)" if size else ""

    def _describe(self, number: int, queue: int, mode: str, said: str | None) -> XskError:
        netdev, umem = self._netdev, self._umem
        arguments = f"{netdev.name}, queue {queue}, {mode}"
        if number == errno.EBUSY:
            owner = (
                "this process (an engine that was not closed?)"
                if is_bound_here(netdev.ifindex, queue)
                else "another process"
            )
            return QueueTakenError(
                "bind",
                arguments,
                f"an AF_XDP socket of {owner} holds this queue; close it or use another queue",
                errno=number,
            )
        hints = {
            errno.EINVAL: (
                f"{netdev.name} has {netdev.queues} queue(s), 0 to {netdev.queues - 1}; "
                f"see ethtool -l {netdev.name}, more with ethtool -L {netdev.name} combined N"
                if queue >= netdev.queues
                else "the kernel refuses this combination of flags"
                if not umem.tx_metadata_len
                else "the kernel has no tx metadata (Linux 6.11), which timestamps and checksum offload need"
            ),
            errno.EPERM: privileges.needs(*self.needs),
            errno.ENOBUFS: (
                f"the umem of {umem.area.length} bytes exceeds the locked-memory limit{self._to_receive()}; "
                "raise it (ulimit -l), use a smaller --umem-mb, or run with CAP_IPC_LOCK"
            ),
            errno.ENODEV: "the interface is gone",
            errno.ENETDOWN: f"the interface is down; ip link set {netdev.name} up",
            errno.EAFNOSUPPORT: "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
        }
        message = said or hints.get(number, "the kernel refused; see xsk-engine doctor")
        return UnavailableError("bind", arguments, message, errno=number)


def open_binding(stack: contextlib.ExitStack, config: EngineConfig, netdev: NetDev) -> tuple[Umem, Binding]:
    """A umem and what is bound to it, both or nothing, closed by the stack. UnavailableError."""
    if config.fds and config.mode == "auto":
        # One try is all that a given socket allows.
        has = bool(netdevgenl.facts(netdev.ifindex).zerocopy)
        config = replace(config, mode="zerocopy" if has else "copy")
    lacking = sorted(config.tx_metadata - netdevgenl.tx_metadata_features(netdev.ifindex))
    if lacking and config.mode != "copy":
        what = f"the driver has no tx {' and '.join(lacking)} in zero-copy"
        if config.mode == "zerocopy":
            raise UnavailableError("open", config.interface, f"{what}; use --mode copy")
        return _bind(stack, config, netdev, "copy", 0, what)
    rx_chunks = 0 if config.mode == "copy" else min(netdev.rx_ring, config.ring_size)
    try:
        return _bind(stack, config, netdev, config.mode, rx_chunks)
    except UnavailableError as error:
        if error.errno != errno.ENOBUFS or config.mode != "auto" or not rx_chunks:
            raise
        limit = "locked-memory limit" if config.opener is None else "locked-memory limit, or max_umem_mb,"
        what = f"the {limit} has no room for what a driver in zero-copy receives"
        return _bind(stack, config, netdev, "copy", 0, what)


def _bind(
    stack: contextlib.ExitStack,
    config: EngineConfig,
    netdev: NetDev,
    mode: str,
    rx_chunks: int,
    reason: str | None = None,
) -> tuple[Umem, Binding]:
    """The driver's receive rings get `rx_chunks` each, beside what was asked for."""
    with contextlib.ExitStack() as both:
        umem = Umem(
            config.umem_bytes + rx_chunks * len(config.queues) * config.chunk_size,
            config.chunk_size,
            tx_metadata_len=config.tx_metadata_len,
            numa_node=netdev.numa_node,
            shared=config.opener is not None,
        )
        both.callback(umem.close)
        umem.audit()
        binding = Binding(
            umem,
            netdev,
            config.queues,
            mode,
            ring_size=config.ring_size,
            max_frame_bytes=config.max_frame_bytes or netdev.max_frame_bytes,
            link_timeout_s=config.link_timeout_s,
            rx_chunks=rx_chunks,
            fds=config.fds,
            opener=config.opener,
        )
        both.callback(binding.close)
        binding.reason = reason or binding.reason
        stack.push(both.pop_all())
    return umem, binding

"""Which received packets go to AF_XDP sockets: the program of native/bpf/steer.bpf.c and its maps."""

from __future__ import annotations

import contextlib
import errno
import importlib.resources
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from xsk_engine import privileges
from xsk_engine.arrivals import Reflected
from xsk_engine.errors import ClosedError, UnavailableError
from xsk_engine.netdev import NetDev
from xsk_engine.packet import IPAddress
from xsk_engine.payload import MAGIC, REFLECTED_MAGIC, SIGNATURE_BYTES
from xsk_engine.program import NEEDS, AttachedProgram
from xsk_engine.xsk import RxXsk

# native/bpf/steer.h; tests/ffi compares them.
_PROGRAM = "steer.bpf.o"
BY_SIGNATURE, BY_PORT, BY_TUPLE, REFLECT, BY_REFLECTED = 1, 2, 4, 8, 16
MOST_QUEUES, MOST_PORTS, MOST_TUPLES = 64, 4096, 65536
_COUNTERS = struct.Struct("=5Q")  # struct steer_counters
_TUPLE = struct.Struct("!16s16sHHBBxx")  # struct steer_tuple
_IPPROTO_TCP = 6
_PRESENT = struct.pack("=I", 1)  # the program looks at keys alone


@dataclass(frozen=True)
class Tuple:
    """One TCP connection, as this end names it: its own address and port first. ValueError."""

    local: IPAddress
    local_port: int
    remote: IPAddress
    remote_port: int

    def __post_init__(self) -> None:
        if self.local.version != self.remote.version:
            raise ValueError(f"addresses: {self.local} and {self.remote} are of different IP versions")
        for port in (self.local_port, self.remote_port):
            if not 0 < port < 1 << 16:
                raise ValueError(f"port: {port} is not in 1 to 65535")

    @property
    def packed(self) -> bytes:
        """struct steer_tuple: as a packet that comes in has it, so the far end is its source."""
        src, dst = (address.packed.rjust(16, b"\0") for address in (self.remote, self.local))
        return _TUPLE.pack(src, dst, self.remote_port, self.local_port, _IPPROTO_TCP, self.local.version)

    def __str__(self) -> str:
        form = "[{}]:{}" if self.local.version == 6 else "{}:{}"
        return f"{form.format(self.local, self.local_port)} to {form.format(self.remote, self.remote_port)}"


@dataclass(frozen=True)
class Match:
    """What is received: packets with the signature (payload.py), UDP to these ports, or both.
    ``reflected``: the signature is that of packets which a reflector has sent back. ``tuples``: also what
    Steering.add_tuple() names, and the ICMP errors about it. ValueError."""

    signature: bool = True
    ports: tuple[int, ...] = ()
    reflected: bool = False
    tuples: bool = False

    def __post_init__(self) -> None:
        if not self.signature and not self.ports and not self.tuples:
            raise ValueError("match: nothing is to be received; give ports, tuples, or the signature")
        if len(self.ports) > MOST_PORTS or not all(0 <= port < 1 << 16 for port in self.ports):
            raise ValueError(f"ports: at most {MOST_PORTS}, from 0 to 65535")

    @property
    def rules(self) -> int:
        """For the program."""
        signature = BY_REFLECTED if self.reflected else BY_SIGNATURE
        return (
            (signature if self.signature else 0)
            | (BY_PORT if self.ports else 0)
            | (BY_TUPLE if self.tuples else 0)
        )

    @property
    def expression(self) -> str:
        """The same for libpcap (pcap-filter(7)); the kernel keeps VLAN tags apart from what it looks at.
        ValueError with tuples: they come and go, a filter does not."""
        if self.tuples:
            raise ValueError("match: tuples are for the XDP program, not for a packet filter")
        magic = REFLECTED_MAGIC if self.reflected else MAGIC
        signature = [f"ether[len - {SIGNATURE_BYTES}:4] = {magic:#x}"] if self.signature else []
        return " or ".join([*signature, *(f"udp dst port {port}" for port in self.ports)])

    def __str__(self) -> str:
        named = [f"UDP port {', '.join(map(str, self.ports))}"] if self.ports else []
        signature = "the signature, sent back" if self.reflected else "the signature"
        tuples = ["TCP connections by tuple"] if self.tuples else []
        return " and ".join([*([signature] if self.signature else []), *named, *tuples])


def _sum_up(counters: Sequence[bytes]) -> Reflected:
    """The program's counters, one of each CPU."""
    packets, size, refused, first, last = zip(*map(_COUNTERS.unpack, counters), strict=True)
    return Reflected(
        sum(packets), sum(size), sum(refused), min((ns for ns in first if ns), default=0), max(last)
    )


class Steering:
    """The program on an interface, with what it sends to which sockets; everything else passes to the kernel.
    ``reflect``: it sends back what has the signature, instead. Gone with this process, however that ends.

    UnavailableError: no capability (CAP_BPF and CAP_NET_ADMIN), another program is attached, or the package
    was built without clang. Open and close in one thread; tuples come and go in any, at any time."""

    def __init__(self, netdev: NetDev, match: Match, xsks: Sequence[RxXsk], *, reflect: bool = False) -> None:
        from xsk_engine._ffi.libbpf import BpfObject

        self._last: Reflected | None = None
        self._lock = threading.Lock()  # the map must not go while a thread is in a call on it
        self._match = match
        rules = match.rules | (REFLECT if reflect else 0)
        path = _program_file()
        try:
            self._object = BpfObject(path)
        except OSError as error:
            hint = privileges.needs(*NEEDS) if error.errno in (errno.EPERM, errno.EACCES) else str(error)
            raise UnavailableError("load", _PROGRAM, hint, errno=error.errno) from None
        try:
            for port in match.ports:
                self._object.update("steer_ports", struct.pack("=I", port), _PRESENT)
            for xsk in xsks:
                self._object.update("steer_xsks", struct.pack("=I", xsk.queue), struct.pack("=I", xsk.fd))
            self._object.update("steer_rules", struct.pack("=I", 0), struct.pack("=I", rules))
            self._program = AttachedProgram(
                netdev, lambda: self._object.program_fd("xske_steer"), or_generic=True
            )
        except BaseException:
            self._object.close()
            raise
        self.mode = self._program.mode
        """"driver", or "generic": copied once more"""
        self.keeps: tuple[str, ...] = ()
        """capabilities that every call takes, until it is closed: older kernels, where unprivileged BPF is
        disabled, want CAP_BPF for maps that are open, too"""
        try:
            with privileges.without_effective():
                self.reflected()
        except PermissionError:
            self.keeps = ("CAP_BPF",)

    def add_tuple(self, connection: Tuple) -> None:
        """What comes of this connection goes to the sockets from now on, and so do ICMP errors about what it
        has sent. It may be there already. A system call. ValueError when the match has no tuples;
        UnavailableError beyond MOST_TUPLES; ClosedError."""
        if not self._match.tuples:
            raise ValueError(f"add_tuple: {connection}, but this match has no tuples: {self._match}")
        with self._lock:
            if self._last is not None:
                raise ClosedError("add_tuple", str(connection), "the steering is closed")
            try:
                self._object.update("steer_tuples", connection.packed, _PRESENT)
            except OSError as error:
                hints = {errno.E2BIG: f"{MOST_TUPLES} are there; remove some, or use another interface"}
                hint = hints.get(error.errno or 0, "the kernel refuses it")
                raise UnavailableError("add_tuple", str(connection), hint, errno=error.errno) from None

    def remove_tuple(self, connection: Tuple) -> None:
        """Its packets pass to the kernel from now on. Idempotent, also after close(). A system call."""
        with self._lock:
            if self._last is None:
                with contextlib.suppress(FileNotFoundError):  # ENOENT: it is not there
                    self._object.delete("steer_tuples", connection.packed)

    def reflected(self) -> Reflected:
        """So far, or until close()."""
        if self._last is not None:
            return self._last
        size = _COUNTERS.size
        return _sum_up(self._object.lookup_on_cpus("steer_reflected", struct.pack("=I", 0), size))

    def fileno(self) -> int:
        """Of the link that keeps the program attached; -1 after close()."""
        return self._program.fileno()

    def is_gone(self) -> bool:
        """With its interface, before close()."""
        return self._last is None and not self._program.is_attached()

    def close(self) -> None:
        """Off the interface. Idempotent."""
        with self._lock:
            if self._last is None:
                self._program.close()
                self._last = self.reflected()
                self._object.close()


def _program_file() -> str:
    try:
        with importlib.resources.as_file(importlib.resources.files("xsk_engine") / _PROGRAM) as path:
            return str(path)
    except FileNotFoundError:
        raise UnavailableError(
            "load",
            _PROGRAM,
            "this package was built without it; install clang and build again",
            errno=errno.ENOENT,
        ) from None

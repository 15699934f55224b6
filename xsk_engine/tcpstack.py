"""The TCP of an engine: it lives in the first worker's loop, receives on all queues, and knows its
connections."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import threading
from ctypes import byref
from typing import TypeVar

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi import nativetcp as tcp
from xsk_engine.config import EngineConfig
from xsk_engine.errors import BrokenError, BusyError, DeadlineError, UnavailableError, XskError
from xsk_engine.neighbours import Hop
from xsk_engine.netdev import ETHERNET_HEADER_BYTES, NetDev
from xsk_engine.remote import Remote
from xsk_engine.steering import Steering, Tuple
from xsk_engine.tcpbinding import SteeredBinding
from xsk_engine.tcpconn import Connection
from xsk_engine.tcphandle import Ends
from xsk_engine.tcpinfo import TcpCounters
from xsk_engine.tcpoptions import TcpOptions
from xsk_engine.tcpport import hold_port
from xsk_engine.umem import Umem
from xsk_engine.waiting import wait_until
from xsk_engine.worker import Worker

_IPPROTO_TCP = 6
_LEAST_MTU = {4: 576, 6: 1280}
"""RFC 9293, 3.7.1, and RFC 8200, 5"""
# Of the umem's chunks, one in so many is left to the loop, which needs some for headers and ACKs whatever
# applications have written. More: smaller send buffers; fewer: it may have none.
_LOOPS_SHARE = 8

C = TypeVar("C", bound=Connection)


class TcpStack:
    """Of one engine whose loops do not run yet. Connections come and go in any thread; the rest in the one
    that opens and closes the engine."""

    def __init__(
        self, umem: Umem, worker: Worker, binding: SteeredBinding, netdev: NetDev, config: EngineConfig
    ):
        assert binding.steering is not None
        self.owner: object = None
        """lives as long as one of its connections is held"""
        self.umem = umem
        self.worker = worker
        self.interface = config.interface
        self.debug = config.debug
        self.rx_chunks = binding.rx_chunks
        self.steering: Steering = binding.steering
        chunks = umem.area.length // umem.chunk_size - binding.rx_chunks
        self.most_chunks = max(chunks - chunks // _LOOPS_SHARE, 1)
        """that a connection may own"""
        self._binding = binding
        self._netdev = netdev
        self._mtu = (config.max_frame_bytes or netdev.max_frame_bytes) - ETHERNET_HEADER_BYTES
        self._counters = tcp.TcpCounters()
        self._lock = threading.RLock()
        self._open: set[Connection] = set()
        self._retired: set[Connection] = set()
        """closed, and not over yet"""
        self.handle = ffi.create(tcp.native.create, byref(self._config(config)))

    def _config(self, config: EngineConfig) -> tcp.TcpConfig:
        xsks = self._binding.rx_xsks
        queues = (ffi.RxqConfig * len(xsks))(*(ffi.RxqConfig(x.rx, x.fill, x.fd) for x in xsks))
        offload = tcp.OFFLOAD if self._binding.offload else 0
        return tcp.TcpConfig(
            loop=self.worker.loop,
            receive_arena=None,  # the binding has filled the rings
            queues=queues,
            queue_count=len(xsks),
            max_connections=config.tcp_connections,
            flags=offload | (tcp.MULTI_BUFFER if self._binding.multi_buffer else 0),
            counters=ctypes.pointer(self._counters),
        )

    def counters(self) -> TcpCounters:
        """No system call; any thread."""
        return TcpCounters(*(getattr(self._counters, name) for name in TcpCounters.__dataclass_fields__))

    # -- connections -----------------------------------------------------------------------------------

    def connect(self, kind: type[C], where: Remote, port: int, hop: Hop | None, options: TcpOptions) -> C:
        """One of this kind that has sent its SYN. `port`: the local one, 0: the kernel's choice; `hop`: what
        `where` leaves open. UnavailableError, ClosedError."""
        datagram = where.datagram(self._netdev.mac, hop)
        mtu = self._mtu if hop is None or hop.mtu is None else min(self._mtu, hop.mtu)
        if mtu < _LEAST_MTU[datagram.dst.version]:
            text = f"packets of {mtu} bytes at most; TCP needs {_LEAST_MTU[datagram.dst.version]}"
            raise UnavailableError("connect", f"{datagram.dst}, {self.interface}", text, errno=errno.EMSGSIZE)
        holder = hold_port(datagram.src, port, self._netdev.ifindex)
        try:
            ends = Ends(
                Tuple(datagram.src, holder.getsockname()[1], datagram.dst, datagram.dst_port),
                datagram.network_header(_IPPROTO_TCP),
                datagram.ip_offset,
                mtu,
                holder,
            )
            made = kind(self, ends, options)
        except BaseException:
            holder.close()
            raise
        try:
            self.steering.add_tuple(ends.tuple)
            made.start()
            with self._lock:
                self._open.add(made)
        except OSError as error:
            made.abort()
            self.retire(made)
            if error.errno == errno.EPIPE:
                raise made.why_over("connect") from None
            if error.errno == errno.ENOBUFS:
                text = "there are as many connections as tcp_connections says; close one, or raise it"
                raise UnavailableError("connect", made.name, text, errno=error.errno) from None
            if error.errno != errno.EAGAIN:
                raise
            raise BusyError(
                "connect", made.name, "the loop's command ring is full", errno=error.errno
            ) from None
        except BaseException:  # a signal's handler has raised, and the loop may have it
            made.abort()
            self.retire(made)
            raise
        return made

    def retire(self, connection: Connection) -> None:
        """Its application has closed it; it goes when it is over, with who reaps then."""
        with self.umem.inside.here(), self._lock:
            self._retired.add(connection)
            self._open.discard(connection)

    def reap(self) -> None:
        """Frees those that are over. Whoever comes along does it, but in the middle of a call: no connection
        needs a thread for its end."""
        if not self._retired or self.umem.inside.has_me:
            return
        with self.umem.inside.here():
            with self._lock:
                retired = list(self._retired)
            for one in retired:
                if one.is_over:
                    one.release()
                    with self._lock:
                        self._retired.discard(one)

    def _all(self) -> list[Connection]:
        with self._lock:
            return list(self._open | self._retired)

    # -- the end ---------------------------------------------------------------------------------------

    def finish(self, timeout_s: float) -> None:
        """Before the loop ends: an orderly end for all connections, within so many seconds; then RST."""
        for one in self._all():
            with contextlib.suppress(BusyError):  # its thread hears of it
                one.begin_close()

        def done() -> bool:
            return not self.worker.alive or all(one.is_sent_off for one in self._all())

        try:
            wait_until(
                done, timeout_s, lambda: DeadlineError("close", self.interface, "connections are left")
            )
        except DeadlineError:
            for one in self._all():
                if not one.is_sent_off:
                    one.abort()

    def release(self) -> None:
        """All connections, when the loop has ended."""
        for one in self._all():
            one.release()
        with self._lock:
            self._open.clear()
            self._retired.clear()

    def failure(self) -> XskError | None:
        """What the kernel has done wrong, if anything."""
        if not self._counters.bad_descs:
            return None
        descs, addr = self._counters.bad_descs, self._counters.bad_addr
        text = f"the kernel gave {descs} descs that no kernel may give, the last with addr {addr:#x}"
        return BrokenError("receive", self.interface, text)

    def close(self) -> None:
        """When the loop has ended. The sockets close first: until then the kernel writes into chunks."""
        self.release()
        self._binding.close()
        tcp.native.destroy(self.handle)

    def forget(self) -> list[int]:
        """In a forked child; fds for it to close."""
        self._lock = threading.RLock()  # another thread may have had it
        return [one.forget() for one in (*self._open, *self._retired)]

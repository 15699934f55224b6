"""What applications have of an engine: endpoints, running traffic, and the neighbours they send to."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from xsk_engine import privileges, shortage
from xsk_engine.config import EndpointConfig
from xsk_engine.endpoint import Endpoint
from xsk_engine.errors import BusyError, ClosedError, XskError
from xsk_engine.flow import Flow, Pace, Traffic
from xsk_engine.neighbours import Hop, Neighbours
from xsk_engine.outside import outside_event_loop
from xsk_engine.remote import Remote
from xsk_engine.run import compile_for
from xsk_engine.running import FollowingFlows, RunningTraffic, as_pace
from xsk_engine.tcpoptions import TcpOptions
from xsk_engine.units import Rate

if TYPE_CHECKING:
    from xsk_engine.engine import Engine
    from xsk_engine.resolve import Resolved
    from xsk_engine.tcpconn import Connection

# A call that copies a million payloads takes a tenth of a second.
_CLOSE_S, _POLL_S = 2.0, 0.001

Changed = Callable[[float], "asyncio.Future[None]"]
"""awaits an event of the loops, at most so many seconds"""
E = TypeVar("E", bound=Endpoint)
C = TypeVar("C", bound="Connection")


class Holdings:
    """Of one engine; any thread while it is open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Nothing is made any more once the engine has begun to close.
        self._making = threading.Lock()
        self._stopped = False
        self._endpoints: dict[int, weakref.ref[Endpoint]] = {}
        """by id; until they are closed"""
        self._let_go: dict[int, Endpoint] = {}
        """of those: nobody else holds them any more"""
        self._failure: XskError | None = None
        self._running: set[RunningTraffic] = set()
        self._neighbours: Neighbours | None = None

    def endpoint(self, kind: type[E], queue: int | None, tag_bytes: int, **options: Any) -> E:
        """One of this kind, not connected yet."""
        engine = self._engine
        workers, queues = engine.open_workers(), list(engine.config.queues)
        if queue is not None and queue not in queues:
            raise ValueError(f"queue: {queue} is not one of the engine's, {queues}")
        worker = workers[queues.index(queue) if queue is not None else 0]
        known = [name for name in EndpointConfig.__dataclass_fields__ if name != "debug"]
        if unknown := set(options) - set(known):
            raise TypeError(f"endpoint: there is no option {unknown.pop()!r}; there are {', '.join(known)}")
        config = EndpointConfig(**{"debug": engine.config.debug, **options})
        assert engine.umem is not None
        assert engine.netdev is not None
        most = engine.netdev.max_frame_bytes + tag_bytes
        self._sweep()
        with self._inside(), self._making:
            self._check_making()
            made = kind(engine.umem, worker, engine.config.interface, most, config)
            made.owner = self._engine
            self._endpoints[id(made)] = weakref.ref(made)
            made.at_close, made.at_end = self._forget_endpoint, self._keep
        return made

    def _keep(self, endpoint: Endpoint) -> None:
        """In whatever thread collects it: no lock."""
        self._let_go[id(endpoint)] = endpoint

    def _forget_endpoint(self, endpoint: Endpoint) -> None:
        self._endpoints.pop(id(endpoint), None)
        self._let_go.pop(id(endpoint), None)

    def _sweep(self) -> None:
        """Closes what was let go and has nothing more to send, where a loop is there to answer."""
        for key in list(self._let_go):
            endpoint = self._let_go.pop(key, None)  # from now on this thread's alone
            if endpoint is None:
                continue
            try:
                with self._inside(), endpoint.using("close"):  # the engine may be closing it
                    is_done = not endpoint.worker.outside and (
                        endpoint.closed or endpoint.is_flushed(endpoint.sent_so_far())
                    )
                if is_done:
                    self._close_endpoint(endpoint)
            except BusyError:
                pass
            finally:
                if not endpoint.gone:
                    self._let_go[key] = endpoint

    def _close_endpoint(self, endpoint: Endpoint) -> None:
        """BusyError."""
        try:
            endpoint.close()
        except BusyError:
            raise
        except XskError as error:  # it leaks; the others do not
            self._failure = self._failure or error

    def tcp_remote(
        self, remote: str, port: int, source: str | None, dst_mac: str | None, ttl: int | None, dscp: int
    ) -> Remote:
        """Where a connection goes. ValueError, TypeError; ClosedError."""
        self._engine.open_workers()
        self._engine.open_tcp()
        where = Remote.of((remote, port), (source, 0), dst_mac, ttl=ttl, dscp=dscp)
        if not where.dst_port:
            raise ValueError("tcp: port 0; 1 to 65535 are possible")
        if where.dst.is_multicast or where.dst.is_unspecified or str(where.dst) == "255.255.255.255":
            raise ValueError(f"tcp: {where.dst} is no address of one peer")
        return where

    def tcp(self, kind: type[C], where: Remote, port: int, hop: Hop | None, options: dict[str, Any]) -> C:
        """A connection of this kind that is being opened, and follows its neighbour."""
        if not 0 <= port < 1 << 16:
            raise ValueError(f"source_port: {port} is not in 0 to 65535")
        if unknown := set(options) - set(TcpOptions.__dataclass_fields__):
            known = ", ".join(TcpOptions.__dataclass_fields__)
            raise TypeError(f"tcp: there is no option {unknown.pop()!r}; there are {known}")
        chosen = TcpOptions(**options)
        self._engine.raise_failure()
        stack = self._engine.open_tcp()
        stack.reap()
        naming = shortage.named("tcp", f"{where.dst} port {where.dst_port}")
        try:
            with self._inside(), self._making, naming:
                self._check_making()
                made = stack.connect(kind, where, port, hop, chosen)
        except BaseException:
            stack.reap()
            raise
        if where.dst_mac is None and hop is not None:
            with self._inside():
                self.neighbours.follow(where.dst, where.src, hop, made)
        return made

    def _check_making(self) -> None:
        """Under the lock, which the engine waits for when it closes. ClosedError: it does."""
        if self._stopped:
            raise ClosedError("engine", self._engine.config.interface, "it is closing")

    def _inside(self) -> AbstractContextManager[bool]:
        """Around what takes locks."""
        assert self._engine.umem is not None
        return self._engine.umem.inside.here()

    @property
    def neighbours(self) -> Neighbours:
        """Made when they are first needed."""
        self._engine.open_workers()
        assert self._engine.netdev is not None
        with self._inside(), self._making:
            self._check_making()
            if self._neighbours is None:
                drops = self._engine.config.drop_privileges
                at_start = privileges.at_start(drop_privileges=drops, sandbox=False)
                with shortage.named("resolve", self._engine.config.interface):
                    self._neighbours = Neighbours(self._engine.netdev, at_start)
            return self._neighbours

    def ask(self, where: Remote) -> Future[Hop]:
        """For what `where` leaves open."""
        with self._inside():
            return where.ask(self.neighbours)

    def connect(self, endpoint: Endpoint, where: Remote, hop: Hop | None) -> None:
        """Gives a UDP endpoint its header, and follows the neighbour."""
        assert self._engine.netdev is not None
        endpoint.set_datagram(where.datagram(self._engine.netdev.mac, hop))
        if where.dst_mac is None and hop is not None:
            with self._inside():
                self.neighbours.follow(where.dst, where.src, hop, endpoint)

    def resolve(
        self,
        traffic: Traffic | Flow | Sequence[Flow],
        rate: Pace | Rate | Fraction | int | str | None,
        count: int | None,
        duration: float | None,
    ) -> Resolved:
        """What Engine.start() sends; waits for neighbours."""
        from xsk_engine.resolve import resolve

        self._engine.open_workers()
        self._engine.raise_failure()
        assert self._engine.netdev is not None
        if not isinstance(traffic, Traffic):
            traffic = Traffic(traffic, count=count, duration_s=duration, rate=as_pace(rate))
        elif (rate, count, duration) != (None, None, None):
            raise ValueError("start: a Traffic has rate, count and duration of its own")
        ask = functools.partial(resolve, traffic, self._engine.netdev, "eth(dst=) and ip(src=)")
        with shortage.named("resolve", self._engine.config.interface):
            return outside_event_loop(ask)

    def launch(self, resolved: Resolved, changed: Changed | None) -> RunningTraffic:
        """Starts it; `changed` for who awaits its end."""
        engine, traffic = self._engine, resolved.traffic
        assert engine.umem is not None
        if traffic.timestamps and "timestamp" not in engine.config.tx_metadata:
            raise ValueError("timestamps: the engine was not opened with timestamps=True")
        for running in list(self._running):
            running.sweep()
        workers = list(engine.open_workers())
        compiled = compile_for(engine, traffic)
        with self._inside(), self._making:
            self._check_making()
            loaded = [
                (worker, worker.load_mixes(programs), programs)
                for worker, programs in zip(workers, compiled, strict=True)
                if programs
            ]
            try:
                running = RunningTraffic(loaded, traffic.seed, changed, engine.umem.inside)
            except ClosedError:
                engine.raise_failure()
                raise
            running.owner = engine
            self._running.add(running)  # goes on, followed, also when its caller forgets it
            running.at_end = self._running.discard
        for address, flows in resolved.followed.items():
            follower = FollowingFlows(running, flows)
            running.followers.append(follower)
            with self._inside():
                self.neighbours.watch(address, follower)
        return running

    def stop(self) -> None:
        """Makes nothing, asks and follows nobody any more. Idempotent."""
        with self._making:
            self._stopped = True
            neighbours, self._neighbours = self._neighbours, None
        if neighbours is not None:
            neighbours.close()

    def close(self) -> XskError | None:
        """When the loops have ended. Idempotent. The first endpoint's error, if any. BusyError: another
        thread does not leave an endpoint."""
        for running in list(self._running):
            running.close()
        deadline = time.monotonic() + _CLOSE_S
        while self._endpoints:
            key, of = list(self._endpoints.items())[0]  # noqa: RUF015 - others change it meanwhile
            endpoint = self._let_go.get(key) or of()
            busy: BusyError | None = None
            if endpoint is not None:
                endpoint.ending = True
                try:
                    self._close_endpoint(endpoint)
                except BusyError as error:
                    busy = error
            if key in self._endpoints:  # another thread is just leaving, closing or collecting it
                if time.monotonic() > deadline:
                    raise busy or BusyError("close", repr(endpoint), "another thread is closing it")
                time.sleep(_POLL_S)
        return self._failure

    def forget(self) -> list[int]:
        """In a forked child: nothing is its own; the fds that it has copies of."""
        for endpoint in filter(None, (of() for of in self._endpoints.values())):
            endpoint.forget()
        for running in self._running:
            running.forget()
        return self._neighbours.fds() if self._neighbours is not None else []

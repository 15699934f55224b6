"""Next hops, asked for and followed in a thread of their own: nobody who sends waits for rtnetlink, and a
gateway that changes its MAC gets the next packets."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

from xsk_engine import shortage
from xsk_engine._ffi.libc import new_eventfd
from xsk_engine.errors import BusyError, ClosedError, UnavailableError, XskError
from xsk_engine.netdev import NetDev
from xsk_engine.packet import IPAddress, parse_mac

# include/uapi/linux/rtnetlink.h
_RTMGRP_NEIGH, _RTMGRP_IPV4_ROUTE, _RTMGRP_IPV6_ROUTE = 0x4, 0x40, 0x400

_ANSWER_S = 3.0
"""a neighbour has so long to answer: three questions, a second apart, as net.ipv4.neigh has it"""
_POLL_S = 0.02
"""lower: asked more often than needed; higher: the first datagrams wait longer"""
_SETTLE_S = 0.05
"""events come in bunches; lower: asked more often than needed, higher: later"""
_REST_S = 10.0
"""nobody needs it; a bound on every wait all the same"""

INSTEAD = "dst_mac= and source="
"""what a caller may say himself, so that nobody has to be asked"""


class Follower(Protocol):
    """Whose packets go there."""

    def set_mac(self, mac: bytes) -> None:
        """Called by the neighbours' thread."""


@dataclass(frozen=True)
class Hop:
    """Where packets go first: the source address the kernel would use, and the MAC of 6 bytes. ``mtu``: as
    route.NextHop's."""

    src: IPAddress
    mac: bytes
    mtu: int | None = None


@dataclass
class _Question:
    dst: IPAddress
    src: IPAddress | None
    need_mac: bool
    until: float
    answer: Future[Hop]
    asked: bool = False

    def fail(self, error: XskError) -> None:
        """Unless nobody wants to know any more."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)


@dataclass
class _Known:
    hop: Hop | None
    """None: somebody else has asked"""
    mac: bytes
    followers: weakref.WeakSet[Follower] = field(default_factory=weakref.WeakSet)


def _events() -> socket.socket:
    """Has something to read when a neighbour or a route changes."""
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, _RTMGRP_NEIGH | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE))
    except BaseException:
        sock.close()
        raise
    return sock


class Neighbours:
    """Of one interface, in the network namespace of the thread that makes it. Any thread may ask. `at_start`:
    what its own does first."""

    def __init__(self, netdev: NetDev, at_start: Callable[[], None] = lambda: None) -> None:
        self._netdev = netdev
        self._lock = threading.Lock()
        self._questions: list[_Question] = []
        self._known: dict[tuple[IPAddress, IPAddress | None, bool], _Known] = {}
        self._behind: dict[Follower, bytes] = {}
        """who could not be told of a new MAC yet; by the thread"""
        self._closed = False
        self._over: str | None = None
        """why its thread has ended"""
        self._at_start = at_start
        with contextlib.ExitStack() as stack:
            self._wake_fd = new_eventfd()
            stack.callback(os.close, self._wake_fd)
            self._events = stack.enter_context(_events())
            self._thread = threading.Thread(target=self._run, name="xsk-neighbours", daemon=True)
            self._thread.start()
            self._stack = stack.pop_all()

    def ask(self, dst: IPAddress, src: IPAddress | None, *, need_mac: bool) -> Future[Hop]:
        """The hop to `dst`; its UnavailableError when there is no route, or nobody answers within 3 s."""
        with self._lock:
            answer: Future[Hop] = Future()
            known = self._known.get((dst, src, need_mac))
            if self._closed or self._over:
                why = self._over or "the engine is closed"
                answer.set_exception(ClosedError("resolve", str(dst), why))
            elif (
                known is not None and known.hop is not None and known.followers
            ):  # kept right as long as somebody goes there
                answer.set_result(known.hop)
            else:
                until = time.monotonic() + _ANSWER_S
                self._questions.append(_Question(dst, src, need_mac, until, answer))
                os.write(self._wake_fd, (1).to_bytes(8, "little"))
            return answer

    def follow(self, dst: IPAddress, src: IPAddress | None, hop: Hop, follower: Follower) -> None:
        """Tells `follower` when its MAC changes, for as long as it lives."""
        with self._lock:
            known = self._known.setdefault((dst, src, True), _Known(hop, hop.mac))
            if known.hop is None or not known.followers:
                known.hop, known.mac = hop, hop.mac
            known.followers.add(follower)
            mac = known.mac
        if mac != hop.mac:
            follower.set_mac(mac)

    def watch(self, dst: IPAddress, follower: Follower) -> None:
        """As follow, for who has got the hop elsewhere."""
        with self._lock:
            self._known.setdefault((dst, None, True), _Known(None, b"")).followers.add(follower)
            os.write(self._wake_fd, (1).to_bytes(8, "little"))

    def close(self) -> None:
        """Joins the thread. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.write(self._wake_fd, (1).to_bytes(8, "little"))
        self._thread.join(_ANSWER_S)
        if not self._thread.is_alive():
            self._stack.close()

    def fds(self) -> list[int]:
        """For a forked child to close."""
        return [self._wake_fd, self._events.fileno()]

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        why = "the engine is closed"
        try:
            self._serve()
        except Exception as error:  # whatever it is: nobody waits for an answer that cannot come
            why = f"the thread that asks has died: {error!r}"
        with self._lock:
            self._over = why
            for question in self._questions:
                question.fail(ClosedError("resolve", str(question.dst), why))

    def _serve(self) -> None:
        self._at_start()
        poll = select.poll()
        poll.register(self._events.fileno(), select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        while not self._closed:
            is_busy = self._questions or self._behind
            ready = dict(poll.poll((_POLL_S if is_busy else _REST_S) * 1000))
            if self._wake_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_fd, 8)
            if self._events.fileno() in ready:
                self._drop_events()
                if not self._questions:
                    time.sleep(_SETTLE_S)
                    self._drop_events()
                self._look_again()
            for follower, mac in list(self._behind.items()):
                self._tell(follower, mac)
            self._answer()

    def _drop_events(self) -> None:
        with contextlib.suppress(OSError):  # ENOBUFS: some were lost, which is an event too
            while self._events.recv(1 << 16):
                pass

    def _answer(self) -> None:
        with self._lock:
            questions = list(self._questions)
        for question in questions:
            if question.answer.cancelled() or self._settle(question):
                with self._lock:
                    self._questions.remove(question)

    def _settle(self, question: _Question) -> bool:
        """False: it has not answered yet."""
        from xsk_engine import route  # pyroute2 takes longer to import than all the rest

        try:
            found = route.resolve(
                self._netdev.name,
                self._netdev.ifindex,
                question.dst,
                need_mac=question.need_mac,
                src_ip=question.src,
                timeout_s=0,
                instead=INSTEAD,
                ask=not question.asked,
            )
        except UnavailableError as error:
            question.asked = True
            if route.is_unanswered(error) and time.monotonic() < question.until:
                return False
            question.fail(self._late(question) if route.is_unanswered(error) else error)
            return True
        except Exception as error:  # pyroute2's own: the interface went away meanwhile
            what = ("resolve", f"{question.dst}, {self._netdev.name}")
            question.fail(shortage.unavailable(error, *what) or UnavailableError(*what, repr(error)))
            return True
        hop = Hop(found.src_ip, parse_mac(found.dst_mac) if found.dst_mac else b"", found.mtu)
        if question.answer.set_running_or_notify_cancel():
            question.answer.set_result(hop)
        return True

    def _late(self, question: _Question) -> UnavailableError:
        return UnavailableError(
            "resolve",
            f"{question.dst}, {self._netdev.name}",
            f"nobody answered within {_ANSWER_S:g} s; check the address, or give {INSTEAD}",
            errno=errno.EHOSTUNREACH,
        )

    def _look_again(self) -> None:
        from xsk_engine import route

        with self._lock:
            self._known = {key: known for key, known in self._known.items() if known.followers}
            known = list(self._known.items())
        for (dst, _, _), one in known:
            text = route.current_mac(self._netdev.name, self._netdev.ifindex, dst)
            if text is None or parse_mac(text) == one.mac:
                continue
            with self._lock:
                one.mac = parse_mac(text)
                one.hop = replace(one.hop, mac=one.mac) if one.hop is not None else None
                followers = list(one.followers)
            for follower in followers:
                self._tell(follower, one.mac)

    def _tell(self, follower: Follower, mac: bytes) -> None:
        self._behind.pop(follower, None)
        try:
            follower.set_mac(mac)
        except BusyError:  # its loop's command ring is full; soon again
            self._behind[follower] = mac
        except XskError:  # it has ended, and says so itself
            return

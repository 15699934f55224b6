"""Endpoints whose calls wait: for applications without an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from xsk_engine.batch import Batch, Post
from xsk_engine.endpoint import AGAIN, DRAIN_S, BytesLike, Endpoint, check_alloc
from xsk_engine.frag import Frag, Frags
from xsk_engine.tracker import Tracker
from xsk_engine.waiting import check_timeout, pauses, wait_until

if TYPE_CHECKING:
    import numpy
    import numpy.typing

Self = TypeVar("Self", bound="BlockingEndpoint")
# Chunks that other endpoints have and do not use are asked for after so long.
_PARK_AFTER_S = 0.005


class _Patience:
    """Waits for room with a deadline that moves with every progress."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.moved()

    def moved(self) -> None:
        self._start = time.monotonic()
        self._pauses = pauses()
        self._asked = False

    def again(self) -> bool:
        """False: waited long enough."""
        waited = time.monotonic() - self._start
        if waited >= self._endpoint.timeout:
            return False
        if waited > _PARK_AFTER_S and not self._asked:
            self._asked = True
            self._endpoint.ask_for_chunks()
        time.sleep(min(next(self._pauses), self._endpoint.timeout - waited))
        return True


class BlockingEndpoint(Endpoint):
    """An endpoint whose calls wait, at most ``timeout`` seconds without progress, then WouldBlockError."""

    def send(self, payload: BytesLike) -> None:
        """Copies one payload into the umem and hands it to the loop.

        ValueError: longer than a packet may be. WouldBlockError: no room within ``timeout``, nothing was
        sent. BrokenError: the engine has failed. ClosedError after close(). One thread at a time.

            endpoint.send(b"hello")
        """
        result = self.try_send(payload)
        if result:
            self._send_slowly(payload, result)

    def _send_slowly(self, payload: BytesLike, result: int) -> None:
        patience = _Patience(self)
        while result:
            if result != AGAIN or not patience.again():
                raise self.failed("send", result, len(payload))
            result = self.try_send(payload)

    def send_many(
        self,
        payloads: Sequence[BytesLike] | numpy.ndarray,
        lengths: numpy.typing.ArrayLike | None = None,
    ) -> int:
        """Copies many payloads in one call: a list, or a uint8 array of shape (n, size) whose row i is sent
        up to ``lengths[i]``. Returns how many, which is all.

        As send(); whatever it raises, ``error.sent`` says how many were sent before.

            endpoint.send_many([b"one", b"two"])
            endpoint.send_many(numpy.zeros((1000, 64), dtype=numpy.uint8))
        """
        batch = Batch(payloads, lengths)
        patience = _Patience(self)
        with batch.telling():
            while batch.left:
                result = batch.send(self, batch.left)
                if result > 0:
                    patience.moved()
                elif result != AGAIN or not patience.again():
                    raise batch.failed(self, result)
        return batch.sent

    def alloc(self, n: int, size: int) -> Frags:
        """``n`` frags for payloads of ``size`` bytes, headers in front already, to be filled in place and
        posted here. They lie side by side in the umem.

        ValueError: more than fit into the quota, or longer than a frag may be (a chunk less the header).
        WouldBlockError: no such room within ``timeout``. As send() in everything else.

            frags = endpoint.alloc(64, 1000)
            frags.array[:] = 7
            endpoint.post(frags)
        """
        n, size = check_alloc(n, size)
        patience = _Patience(self)
        while True:
            frags = self.try_alloc(n, size)
            if isinstance(frags, Frags):
                return frags
            if frags != AGAIN or not patience.again():
                raise self.alloc_error(frags, n, size)

    @overload
    def post(self, frags: Frags | Frag | Sequence[Frag], *, track: Literal[True]) -> Tracker: ...

    @overload
    def post(self, frags: Frags | Frag | Sequence[Frag], *, track: bool = False) -> Tracker | None: ...

    def post(self, frags: Frags | Frag | Sequence[Frag], *, track: bool = False) -> Tracker | None:
        """Hands frags of this endpoint to the loop and uses them up: their memoryviews are released. With
        ``track`` returns a Tracker for them.

        When it raises, what was not posted is still held, and posting the same object again goes on there.
        ClosedError for a frag that is gone already, ValueError for one of another endpoint.
        WouldBlockError: no room within ``timeout``. As send() in everything else.

            frags = endpoint.alloc(2, 100)
            endpoint.post(frags, track=True).wait()
        """
        post = Post(self, frags, self._tracker if track else None)
        patience = _Patience(self)
        try:
            while post.left:
                result = post.run(self)
                if result > 0:
                    patience.moved()
                elif result != AGAIN or not patience.again():
                    raise self.failed("post", result)
        finally:
            post.close()
        return post.tracker

    def _tracker(self, n: int) -> Tracker:
        return Tracker(n, lambda: self.why_over("tracker"), lambda: not self.worker.alive, None)

    def flush(self, timeout: float = DRAIN_S) -> None:
        """Waits until everything sent so far is on the tx ring, and gives unused memory back. DeadlineError
        after ``timeout`` seconds. As send() in everything else.

            endpoint.flush(1.0)
        """
        self._wait("flush", self.is_flushed, timeout)
        self.park()

    def drain(self, timeout: float = DRAIN_S) -> None:
        """Waits until everything sent so far has completed, and gives unused memory back. DeadlineError
        after ``timeout`` seconds says what is missing. As send() in everything else.

            endpoint.drain(1.0)
        """
        self._wait("drain", self.is_drained, timeout)
        self.park()

    def _wait(self, operation: str, condition: Callable[[int], bool], timeout: float) -> None:
        check_timeout("timeout", timeout)
        self.check_open(operation)
        target = self.sent_so_far()

        def done() -> bool:
            if condition(target):
                return True
            self.check_open(operation)
            if not self.worker.alive:
                raise self.why_over(operation)
            return False

        wait_until(done, timeout, lambda: self.late(operation, timeout))

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RawEndpoint(BlockingEndpoint):
    """Sends whole Ethernet frames, without FCS, as they are: a payload is a frame of 14 bytes or more. One
    thread at a time.

        with engine.raw() as raw:
            raw.send(bytes.fromhex("027700000002 027700000001 88b5") + bytes(46))
    """


class UdpEndpoint(BlockingEndpoint):
    """Sends UDP datagrams to one address.

    ``remote`` and ``source``: (address, port). Shorter ones are padded to Ethernet's 60 bytes. IPv4 packets
    may not be fragmented (DF). The neighbour's MAC is followed. One thread at a time.

        with engine.udp(("10.77.0.2", 9000), source=(None, 4000)) as udp:
            udp.send(b"hello")
            udp.drain()
    """

    remote: tuple[str, int]
    source: tuple[str, int]

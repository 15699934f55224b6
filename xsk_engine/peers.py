"""The addresses that a transport sends to."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from xsk_engine.aio import AsyncEngine
from xsk_engine.async_endpoints import AsyncUdpEndpoint
from xsk_engine.remote import Address, Remote

# Destinations of a transport without remote_addr; the least recently used is forgotten. Higher: 17 KiB each;
# lower: asked for again more often.
_MOST_PEERS = 1024
# For what was sent to one that is forgotten.
_FLUSH_S = 1.0


class Peer:
    """An address that datagrams go to, and those that wait for its neighbour; ``queued``: those in the
    transport's buffer."""

    def __init__(self, endpoint: AsyncUdpEndpoint) -> None:
        self.endpoint = endpoint
        self.waiting: deque[bytes] = deque()
        self.queued = 0


class Peers:
    """Those of a transport from `source` without remote_addr, each with an endpoint of its own.

    `watch` is told of a new one, `drop` of one that is forgotten. In the event loop's thread.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        source: Address,
        options: dict[str, Any],
        watch: Callable[[Peer], None],
        drop: Callable[[Peer], None],
    ) -> None:
        self._engine = engine
        self._source = source
        self._options = options
        self._watch = watch
        self._drop = drop
        self._known: dict[Address, Peer] = {}
        """the least recently used first"""

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._known.values())

    def make(self, remote: Remote) -> Peer:
        """Not one of them: the transport's only one."""
        host, port = self._source
        here = remote.src
        if host not in ("0.0.0.0", "::") and here is None:
            here = Remote.of((host, port)).dst
        peer = Peer(self._engine.endpoint_for(replace(remote, src=here, src_port=port)))
        self._watch(peer)
        return peer

    def find(self, address: Any) -> Peer:
        """ValueError, TypeError for what is no address, or one of the other IP version."""
        if isinstance(address, str) or not isinstance(address, Sequence) or len(address) < 2:
            raise TypeError(f"addr: {address!r}; (address, port) is needed")
        key = (address[0], address[1])
        if isinstance(key[0], str) and (":" in key[0]) != (":" in self._source[0]):
            raise ValueError(
                f"addr: {key[0]} is not of the IP version of {self._source[0]}, where this comes from"
            )
        found = self._known.pop(key, None) or self.make(Remote.of(key, **self._options))
        self._known[key] = found
        if len(self._known) > _MOST_PEERS:
            self._forget_oldest()
        return found

    def _forget_oldest(self) -> None:
        """One that nothing is buffered for, or the very oldest with what waits for its neighbour."""
        idle = (key for key, peer in self._known.items() if not peer.waiting and not peer.queued)
        waits = (key for key, peer in self._known.items() if not peer.queued)
        key = next(idle, None) or next(waits, None)
        if key is None:
            return  # the buffer holds something for each of them; it is bounded itself
        peer = self._known.pop(key)
        self._drop(peer)
        drained = peer.endpoint.is_drained(peer.endpoint.sent_so_far())
        loop = asyncio.get_running_loop()
        close = functools.partial(loop.run_in_executor, None, peer.endpoint.close)
        loop.call_later(0 if drained else _FLUSH_S, close)

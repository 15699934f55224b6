"""Round trips: a sink at the interface that sends, for what a reflector (`sink --reflect`) has sent back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from xsk_engine.errors import UnavailableError
from xsk_engine.flow import Flow, headers_of
from xsk_engine.headers import representative
from xsk_engine.layers import LAYERS
from xsk_engine.netdev import NetDev
from xsk_engine.program import PassProgram
from xsk_engine.sink import Sink, SinkConfig, SinkSnapshot
from xsk_engine.steering import Match
from xsk_engine.values import Choice, Range, Values

if TYPE_CHECKING:
    from xsk_engine.config import EngineConfig
    from xsk_engine.engine import Engine

# How often it is looked whether all has come. Lower: takes time from sender and receiver; higher: takes
# longer.
_LOOK_S = 0.005
# However slowly they come, packets are not waited for longer.
_STRAGGLERS_S = 5.0
# Without a packet, until what is missing is lost. RFC 2544, section 23, has 2 s, which each run would take.
_QUIET_S = 0.5
_MOST_PORTS = 64
_VETH_NOTE = (
    "veth takes what its peer's XDP program sends back only while it has a program itself, and none may be "
    "attached here"
)


def settle(
    sink: Sink,
    target: int | None,
    *,
    quiet_s: float,
    look: Callable[[], None],
    is_busy: Callable[[], bool] = lambda: False,
) -> bool:
    """Until the sender is not busy any more and no more packets come; or until the sink has received
    `target` in all, then False. `look` may raise."""
    last, since = -1, time.monotonic()
    end = since + quiet_s + _STRAGGLERS_S
    while (now := time.monotonic()) < end:
        look()
        if target is not None and sink.snapshot(flows=False).arrivals.received_packets >= target:
            return False
        packets = sink.receive_stats().packets
        if packets != last or is_busy():
            last, since = packets, now
        elif now - since >= quiet_s:
            break
        time.sleep(min(_LOOK_S, quiet_s))
    return True


@contextlib.contextmanager
def unanswered(addresses: Iterable[tuple[str, int]]) -> Iterator[list[int]]:
    """This host's kernel does not answer UDP to these addresses and ports (0: any free one) with ICMP: a
    socket that nobody reads has them. Yields the ports. What somebody else has is his to answer."""
    with contextlib.ExitStack() as stack:
        ports = []
        for address, port in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            with contextlib.suppress(OSError):
                sock.bind((address, port))
            ports.append(sock.getsockname()[1] or port)
        yield ports


def _some(values: Values) -> list[int]:
    if isinstance(values, (Range, Choice)):
        return [values[i] for i in range(min(values.count, _MOST_PORTS))]
    return [representative(values)]


def udp_sources(flows: Iterable[Flow]) -> list[tuple[str, int]]:
    """The addresses and ports that resolved flows' UDP comes from: the first 64. Pure."""
    found: dict[tuple[str, int], None] = {}
    for flow in flows:
        stack = headers_of(flow) or ()
        for ip, udp in itertools.pairwise(stack):
            if ip.name not in ("ipv4", "ipv6") or udp.name != "udp" or "src" not in ip.values:
                continue
            kind = ipaddress.IPv4Address if ip.name == "ipv4" else ipaddress.IPv6Address
            address = str(kind(representative(ip.values["src"])))
            ports = _some(udp.values.get("src", LAYERS["udp"].find("src").default))
            found |= {(address, port): None for port in ports}
            break
        if len(found) >= _MOST_PORTS:
            break
    return list(found)[:_MOST_PORTS]


class ReturnSink:
    """The sink for what comes back to the interface that sends: a packet socket, for a queue has one umem,
    which is the sender's. On veth a program that lets all pass is attached, without which veth takes nothing
    that is sent back. A context manager, in one thread; UnavailableError.

    ``notes``: what the user should know."""

    def __init__(
        self,
        netdev: NetDev,
        *,
        max_flows: int,
        link_timeout_s: float,
        drop_privileges: bool = False,
        sandbox: bool = False,
    ) -> None:
        self._netdev = netdev
        self.notes: list[str] = []
        self.sink = Sink(
            SinkConfig(
                netdev.name,
                Match(reflected=True),
                method="packet",
                max_flows=max_flows,
                link_timeout_s=link_timeout_s,
                drop_privileges=drop_privileges,
                sandbox=sandbox,
            )
        )
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> ReturnSink:
        with contextlib.ExitStack() as stack:
            if self._netdev.driver == "veth":
                self._open_veth(stack)
            stack.enter_context(self.sink)
            self._stack = stack.pop_all()
        return self

    def _open_veth(self, stack: contextlib.ExitStack) -> None:
        try:
            stack.callback(PassProgram(self._netdev, frags=True).close)
        except UnavailableError as error:
            if error.errno != errno.EBUSY:  # somebody else's program does, too
                self.notes.append(f"{_VETH_NOTE}: {error}")
        except OSError as error:
            self.notes.append(f"{_VETH_NOTE}: {error}")

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class RoundTrip:
    """Measures the round trips of one run of an engine: open it before, let it :meth:`watch`, and ask for
    the :meth:`report` when the engine is closed.

    ``flows``: resolved, all with a signature. ``config``: of the engine that sends. A
    context manager; UnavailableError."""

    def __init__(self, netdev: NetDev, flows: Iterable[Flow], config: EngineConfig) -> None:
        flows = list(flows)
        ids = [i if flow.signature_id is None else flow.signature_id for i, flow in enumerate(flows)]
        self._sources = udp_sources(flows)
        self._back = ReturnSink(
            netdev,
            max_flows=max(ids) + 1,
            link_timeout_s=config.link_timeout_s,
            drop_privileges=config.drop_privileges,
            sandbox=config.sandbox,
        )
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RoundTrip:
        with contextlib.ExitStack() as stack:
            stack.enter_context(unanswered(self._sources))
            stack.enter_context(self._back)
            self._stack = stack.pop_all()
        return self

    async def watch(self, engine: Engine) -> None:
        """Beside the traffic; once cancelled, until what was sent has come back or nothing comes any more.
        BrokenError when the sink ends by itself."""
        sink = self._back.sink
        try:
            while True:
                await asyncio.sleep(_LOOK_S * 10)
                sink.raise_failure()
        except asyncio.CancelledError:
            sent = engine.snapshot().submitted_packets
            if sent:
                await asyncio.to_thread(settle, sink, sent, quiet_s=_QUIET_S, look=sink.raise_failure)
            raise

    def report(self, sent_packets: int) -> dict[str, Any]:
        """What has come back; closes the sink. BrokenError."""
        self._back.sink.close()
        return as_dict(self._back.sink.snapshot(), sent_packets) | {"notes": self._back.notes}

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def as_dict(snapshot: SinkSnapshot, sent_packets: int) -> dict[str, Any]:
    """Of a report: counts both ways together, times there and back. Pure."""
    arrivals = snapshot.arrivals
    counts = ("received", "duplicate", "reordered", "late", "corrupt")
    weighted = sum(flow.jitter_ns * flow.received_packets for flow in arrivals.flows)
    return {
        "sent_packets": sent_packets,
        **{f"{name}_packets": getattr(arrivals, f"{name}_packets") for name in counts},
        "lost_packets": max(sent_packets - arrivals.received_packets, 0),
        "overrun_packets": snapshot.overrun_packets,
        "jitter_ns": round(weighted / arrivals.received_packets) if arrivals.received_packets else 0,
        "latency": arrivals.latency.as_dict(),
    }

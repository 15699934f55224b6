"""Trials between two interfaces, an engine at one and a sink at the other."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from xsk_engine import netdev as netdevs
from xsk_engine import rfc2544, roundtrip, route
from xsk_engine import sizes as sizes_of
from xsk_engine.arrivals import FlowArrivals
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import BrokenError, UnavailableError
from xsk_engine.flow import Pace, Traffic
from xsk_engine.lab import namespaces
from xsk_engine.lab.private import RX_FD_VARIABLE
from xsk_engine.netdev import NetDev
from xsk_engine.packet import IPAddress
from xsk_engine.payload import SIGNATURE_BYTES
from xsk_engine.rfc2544 import Trial
from xsk_engine.running import RunningTraffic
from xsk_engine.sink import Sink, SinkConfig, SinkSnapshot
from xsk_engine.spec import parse_flow
from xsk_engine.stats import Gaps
from xsk_engine.units import Rate

# How often it is looked whether a trial is over. Lower: takes time from sender and receiver; higher: the run
# takes longer.
_LOOK_S = 0.005
# A trial that ends so much later than it should has failed.
_GRACE_S = 10.0
_MOST_TRIALS = 1 << 16
_RING, _ROOMY_RING, _FEW_QUEUES = 2048, 16384, 4
_HEADERS_BYTES = {4: 14 + 20 + 8, 6: 14 + 40 + 8}
# RFC 2544, C.2.2; RFC 5180, section 8: for who has no address of his own.
_NOBODYS = {4: ("198.18.0.1", "198.18.0.2"), 6: ("2001:2::1", "2001:2::2")}
_SLOWEST_PPS = Fraction(1, 1000)


@dataclass(frozen=True)
class MeasureConfig:
    """What is measured, and how. Times in seconds, lengths in bytes without FCS, ``loads`` in percent of the
    throughput, ``allowed_loss`` and ``resolution`` as parts. ``rate``: the maximum, None for what the sender
    can do. ValueError."""

    tx: str
    rx: str | None = None
    """where they come out; None: back at ``tx``, from the ``reflector``"""
    reflector: str | None = None
    """the address of a host that runs `sink --reflect`"""
    sizes: tuple[int, ...] = rfc2544.SIZES
    tests: tuple[str, ...] = rfc2544.TESTS
    trial_s: float = 0.3
    settle_s: float = 0.1
    warm_up_s: float = 0.5
    allowed_loss: Fraction = Fraction(0)
    resolution: float = 0.01
    loads: tuple[float, ...] = (10, 50, 90)
    rate: Rate | None = None
    queue: int = 0
    mode: str = "auto"
    method: str = "auto"
    ring_size: int | None = None
    """entries of each receive ring; None: what there is room for"""
    dst_ip: str | None = None
    dst_mac: str | None = None
    link_timeout_s: float = 5.0
    allow_default_route: bool = False
    drop_privileges: bool = False
    sandbox: bool = False

    def __post_init__(self) -> None:
        if (self.rx is None) == (self.reflector is None):
            raise ValueError("RX_INTERFACE, reflector: one of them is needed, and not both")
        if self.reflector is not None and (self.dst_ip is not None or self.method == "xdp"):
            raise ValueError(
                "reflector: its address is the destination, and what comes back is received by a packet "
                "socket, for the queue's umem is the sender's: no dst-ip, no method xdp"
            )
        if unknown := [name for name in self.tests if name not in rfc2544.TESTS]:
            raise ValueError(f"tests: {unknown[0]!r} is none of {', '.join(rfc2544.TESTS)}")
        if not self.tests or not self.sizes or not self.loads:
            raise ValueError("tests, size, load: at least one of each is needed")
        if not all(0 < load <= 100 for load in self.loads):
            raise ValueError("load: percentages above 0 and up to 100 are possible")
        if not 0 <= self.allowed_loss < 1:
            raise ValueError("loss: from 0% to less than 100% is possible")
        if not 0 < self.resolution <= 0.5:
            raise ValueError("resolution: above 0% and up to 50% is possible")
        for name in ("trial_s", "settle_s", "warm_up_s"):
            if not 0 < getattr(self, name) < 1e6:
                raise ValueError(f"{name.removesuffix('_s')}: {getattr(self, name)} s is not above 0")


class Stopped(Exception):
    """A signal came."""


def _enter_rx(name: str) -> tuple[contextlib.AbstractContextManager[None], str]:
    """Where the receiving interface is: here, or at the other end of the laboratory that we stand in."""
    fd = os.environ.get(RX_FD_VARIABLE, "")
    if name in (known for _, known in socket.if_nameindex()) or not fd.isdecimal():
        return contextlib.nullcontext(), "this network namespace"
    return namespaces.entered(int(fd)), "the laboratory's other end"


@contextlib.contextmanager
def _standing(where: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """In that network namespace. UnavailableError."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(where)
        except OSError as error:
            text = f"{error.strerror}; is this the laboratory that lab run has made?"
            raise UnavailableError("setns", RX_FD_VARIABLE, text, errno=error.errno) from None
        yield


class Link:
    """An engine and a sink, open, and trials between them: at two interfaces, or at one, with a reflector at
    the other end. A context manager, in one thread.

    UnavailableError for what the environment lacks or refuses. ``stop``: looked at all the time; True ends
    what goes on.

        with Link(MeasureConfig("vtx", "vrx"), stop=lambda: False) as link:
            print(link.trial("latency", 124, pps=10_000).latency.percentile_ns(99))
    """

    def __init__(
        self,
        config: MeasureConfig,
        stop: Callable[[], bool],
        on_trial: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self.config = config
        self.trials: list[Trial] = []
        self._stop = stop
        self._on_trial = on_trial
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Link:
        config = self.config
        with contextlib.ExitStack() as stack:
            tx = netdevs.get(config.tx)
            self._refuse_default_route(tx)
            if config.rx is not None:
                self._open_receiver(stack, tx, config.rx)
            else:
                self._open_returns(stack, tx, ipaddress.ip_address(config.reflector or ""))
            self.engine = stack.enter_context(
                Engine(
                    EngineConfig(
                        config.tx,
                        queues=(config.queue,),
                        mode=config.mode,
                        max_frame_bytes=max(self.sizes),
                        link_timeout_s=config.link_timeout_s,
                        drop_privileges=config.drop_privileges,
                        sandbox=config.sandbox,
                    )
                )
            )
            self._stack = stack.pop_all()
        return self

    @property
    def latency_kind(self) -> str:
        """What is measured: "one-way" or "round-trip"."""
        return "one-way" if self.config.reflector is None else "round-trip"

    @property
    def far_end(self) -> str:
        """Where its packets go, in words."""
        if self.config.reflector is not None:
            return f"{self.config.reflector} and back"
        return f"{self.config.rx} in {self.rx_namespace}"

    def _open_receiver(self, stack: contextlib.ExitStack, tx: NetDev, name: str) -> None:
        """The sink at the other interface, and packets that go there."""
        entered, self.rx_namespace = _enter_rx(name)
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        own = {version: netdevs.addresses(tx.name, family) for version, family in families.items()}
        sources = {version: found[0] for version, found in own.items() if found}
        with _standing(entered):
            rx = netdevs.get(name)
            self._refuse_default_route(rx)
            self.packets, version = self._choose_packets(sources, rx)
            self._fit_sizes(version, min(tx.max_frame_bytes, rx.max_frame_bytes))
            self.sink = stack.enter_context(self._open_sink(rx))

    def _open_returns(self, stack: contextlib.ExitStack, tx: NetDev, host: IPAddress) -> None:
        """The sink at the sender's own interface, and packets that a reflector sends back there."""
        need_mac = self.config.dst_mac is None
        hop = route.resolve(tx.name, tx.ifindex, host, need_mac=need_mac, instead="--dst-mac")
        (port,) = stack.enter_context(roundtrip.unanswered([(str(hop.src_ip), 0)]))
        mac = self.config.dst_mac or hop.dst_mac
        self.packets = f"eth dst={mac} / ip src={hop.src_ip} dst={host} / udp src={port}"
        self._fit_sizes(host.version, tx.max_frame_bytes)
        self.rx_namespace = "this network namespace"
        back = stack.enter_context(
            roundtrip.ReturnSink(
                tx,
                max_flows=_MOST_TRIALS,
                link_timeout_s=self.config.link_timeout_s,
                drop_privileges=self.config.drop_privileges,
                sandbox=self.config.sandbox,
            )
        )
        self.sink = back.sink
        self.notes += back.notes

    def _fit_sizes(self, version: int, most: int) -> None:
        least = _HEADERS_BYTES[version] + SIGNATURE_BYTES
        self.sizes, self.notes = rfc2544.fitting_sizes(self.config.sizes, least, most)

    def _refuse_default_route(self, netdev: NetDev) -> None:
        if not self.config.allow_default_route and route.has_default_route(netdev.ifindex):
            raise UnavailableError(
                "measure",
                netdev.name,
                "it carries the default route; if that is what you want, say --allow-default-route",
            )

    def _open_sink(self, rx: NetDev) -> Sink:
        """With long rings where there is room: what the sink loses is not the device's fault, and spoils the
        figures all the same."""
        config = self.config
        roomy = _ROOMY_RING if rx.queues <= _FEW_QUEUES else _RING
        rings = (roomy, _RING) if config.ring_size is None else (config.ring_size,)
        for ring in rings:
            try:
                return Sink(
                    SinkConfig(
                        rx.name,
                        method=config.method,
                        mode=config.mode,
                        ring_size=ring,
                        max_flows=_MOST_TRIALS,
                        drop_privileges=config.drop_privileges,
                        sandbox=config.sandbox,
                        link_timeout_s=config.link_timeout_s,
                    )
                ).open()
            except UnavailableError as error:
                if ring == rings[-1] or error.errno != errno.ENOBUFS:  # the limit of locked memory
                    raise
        raise AssertionError("there is at least one ring size")

    def _choose_packets(self, sources: dict[int, str], rx: NetDev) -> tuple[str, int]:
        """Their headers, and the version of IP. In the network namespace of `rx`; `sources`: the sender's own
        addresses."""
        wanted = self.config.dst_ip
        if wanted is None:
            wanted = next(iter(netdevs.addresses(rx.name, socket.AF_INET)), _NOBODYS[4][1])
        address = ipaddress.ip_address(wanted)
        source = sources.get(address.version, _NOBODYS[address.version][0])
        mac = self.config.dst_mac or rx.mac
        return f"eth dst={mac} / ip src={source} dst={address} / udp", address.version

    def topology(self) -> dict[str, object]:
        """Both ends, for the report."""
        tx, rx, binding, way = self.engine.netdev, self.sink.netdev, self.engine.binding, self.sink.way
        assert tx is not None
        assert rx is not None
        assert binding is not None
        return {
            "tx": {
                "interface": tx.name,
                "driver": tx.driver,
                "mtu": tx.mtu,
                "queue": self.config.queue,
                "mode": binding.mode,
                "reason": binding.reason,
            },
            "rx": {
                "interface": rx.name,
                "namespace": self.rx_namespace,
                "driver": rx.driver,
                "mtu": rx.mtu,
                "ring": self.sink.config.ring_size,
                "method": way.method,
                "mode": way.mode,
                "reason": way.reason,
                "reflector": self.config.reflector,
            },
            "packets": self.packets,
        }

    def trial(self, test: str, size: int, *, pps: float | None = None, count: int | None = None) -> Trial:
        """Sends ``count`` packets, or for the trial time, and waits for what comes. Its packets have a flow
        id of their own, so none of another trial counts here. XskError; Stopped."""
        self._look()
        number = len(self.trials)
        if number == _MOST_TRIALS:
            raise BrokenError("measure", self.config.tx, f"{number} trials are enough")
        flow = replace(
            parse_flow(self.packets), sizes=sizes_of.of([size]), signature=True, signature_id=number
        )
        rate = None if pps is None else max(Fraction(pps).limit_denominator(1000), _SLOWEST_PPS)
        seconds = self.config.warm_up_s if test == "warm-up" else self.config.trial_s
        traffic = Traffic(
            flow,
            count=count,
            duration_s=None if count else seconds,
            rate=None if rate is None else Pace(Rate("pps", rate)),
        )
        sink_before, engine_before = self.sink.snapshot(flows=False), self.engine.snapshot()
        gaps_before = self.engine.gaps()
        sent = self._send(traffic, seconds)
        is_quiet = self._settle(sink_before.arrivals.received_packets + sent)
        sink, arrived = self._arrived(number)
        if arrived.received_packets < sent and not is_quiet:  # some of what came was another trial's
            self._settle(None)
            sink, arrived = self._arrived(number)
        engine = self.engine.snapshot()
        burst_s, burst_pps = _burst(gaps_before, self.engine.gaps())
        trial = Trial(
            number,
            test,
            size,
            None if rate is None else float(rate),
            burst_pps if count else sent / seconds,
            sent,
            arrived.received_packets,
            burst_s if count else seconds,
            overrun_packets=sink.overrun_packets - sink_before.overrun_packets,
            sender_dropped_packets=engine.dropped_packets - engine_before.dropped_packets,
            corrupt_packets=sink.arrivals.corrupt_packets - sink_before.arrivals.corrupt_packets,
            duplicate_packets=arrived.duplicate_packets,
            reordered_packets=arrived.reordered_packets,
            late_packets=arrived.late_packets,
            jitter_ns=arrived.jitter_ns,
            latency=arrived.latency,
        )
        self.trials.append(trial)
        self._on_trial(trial)
        return trial

    def _look(self) -> None:
        if self._stop():
            raise Stopped
        self.sink.raise_failure()
        self.engine.raise_failure()

    def _send(self, traffic: Traffic, seconds: float) -> int:
        """How many packets were given to the kernel."""
        running = self.engine.start(traffic)
        deadline = time.monotonic() + seconds + _GRACE_S
        try:
            while not running.done:
                self._look()
                if time.monotonic() > deadline:
                    raise BrokenError("trial", self.config.tx, "the sender does not get on")
                time.sleep(_LOOK_S)
        except BaseException:
            running.stop()
            raise
        return _sent(running)

    def _arrived(self, number: int) -> tuple[SinkSnapshot, FlowArrivals]:
        snapshot = self.sink.snapshot()
        flows = snapshot.arrivals.flows
        return snapshot, next((one for one in flows if one.flow_id == number), FlowArrivals(number))

    def _settle(self, target: int | None) -> bool:
        """Until the sender's kernel has taken all and no more packets come; or until the sink has received
        `target` in all, then False."""
        return roundtrip.settle(
            self.sink,
            target,
            quiet_s=self.config.settle_s,
            look=self._look,
            is_busy=lambda: self.engine.snapshot().inflight_descs > 0,
        )

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _sent(running: RunningTraffic) -> int:
    return sum(packets for packets, _ in running.counts().values())


def _burst(before: Gaps, after: Gaps) -> tuple[float, float]:
    """Seconds from the first packet that was sent in between to the last, and packets per second."""
    gaps, ns = after.post.count - before.post.count, after.post.sum_ns - before.post.sum_ns
    return ns / 1e9, gaps / ns * 1e9 if ns else 0.0

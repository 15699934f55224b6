"""Measures what lies between two interfaces: the tests of RFC 2544, section 26, trial by trial."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from xsk_engine import privileges, rfc2544
from xsk_engine.errors import BrokenError, XskError
from xsk_engine.rfc2544 import SizeResult, Trial
from xsk_engine.signals import Interrupted, handled
from xsk_engine.trials import Link, MeasureConfig, Stopped


@dataclass
class Measured:
    """What there is, also when it ended early."""

    sizes: list[SizeResult] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    topology: dict[str, object] = field(default_factory=dict)
    latency_kind: str = "one-way"
    """or round-trip"""
    duration_s: float = 0.0
    error: XskError | None = None
    signal: int = 0
    """what stopped it, or 0"""


def _measure(link: Link, result: SizeResult) -> None:
    """All tests that were asked for, with frames of one length. Section 26."""
    config, size = link.config, result.size_bytes
    result.maximum = link.trial("maximum", size)
    full_pps = result.maximum.achieved_pps
    if not full_pps:
        raise BrokenError("trial", config.tx, "the sender sends nothing")
    result.most_pps = full_pps
    if config.rate is not None:
        wire = size + 24 if config.rate.unit == "bps_l1" else size
        result.most_pps = min(full_pps, config.rate.pps(wire))
    if "throughput" in config.tests or "latency" in config.tests:
        result.throughput = rfc2544.search_throughput(
            lambda pps: link.trial("throughput", size, pps=pps),
            result.most_pps,
            allowed=config.allowed_loss,
            resolution=config.resolution,
        )
    if "latency" in config.tests and result.throughput is not None and result.throughput.pps:
        for load in config.loads:
            pps = result.throughput.pps * load / 100
            result.latency.append((load, link.trial("latency", size, pps=pps)))
    if "loss" in config.tests:
        rfc2544.loss_curve(lambda pps: link.trial("loss", size, pps=pps), result.most_pps, result.loss)
    if "back-to-back" in config.tests:
        result.back_to_back = rfc2544.search_burst(
            lambda count: link.trial("back-to-back", size, count=count),
            max(round(full_pps * config.trial_s), 1),
            resolution=config.resolution,
        )


def _warm_up(link: Link) -> None:
    """Caches, clocks, tables of addresses (section 23); and is this the right pair of interfaces at all?"""
    trial = link.trial("warm-up", link.sizes[0])
    config = link.config
    if not trial.received_packets and config.reflector is not None:
        raise BrokenError(
            "warm-up",
            f"{config.tx} to {config.reflector} and back",
            f"none of {trial.sent_packets:,} packets came back; does xsk-engine sink INTERFACE --reflect run "
            "there?" + "".join(f" {note}" for note in link.notes if "veth" in note),
        )
    if not trial.received_packets:
        raise BrokenError(
            "warm-up",
            f"{config.tx} to {config.rx}",
            f"none of {trial.sent_packets:,} packets arrived; are they connected? A router needs --dst-mac "
            "(its own) and --dst-ip",
        )


def run(
    config: MeasureConfig,
    *,
    on_open: Callable[[Link], None] = lambda link: None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    keep: Collection[str] = (),
) -> Measured:
    """Measures until it is done or a signal that ends it comes (handled here, main thread only), and returns
    what there is. `keep`: capabilities that the caller still needs then. ValueError. UnavailableError,
    Interrupted: nothing stays open.
    """
    measured, stopped_by, started = Measured(), list[int](), time.monotonic()
    is_open = False

    def on_signal(number: int, _frame: object) -> None:
        if not is_open:
            raise Interrupted(number)
        stopped_by.append(number)

    from xsk_engine import resolve  # noqa: F401 - Engine.start() wants it, when files cannot be read any more

    link = Link(config, lambda: bool(stopped_by), on_trial)
    with contextlib.ExitStack() as stack:
        stack.enter_context(handled(on_signal))
        stack.enter_context(link)
        if config.drop_privileges:
            privileges.drop((*link.sink.way.keeps, *keep))
        is_open = True
        try:
            on_open(link)
            measured.latency_kind = link.latency_kind
            measured.notes, measured.topology, measured.trials = link.notes, link.topology(), link.trials
            _warm_up(link)
            for size in link.sizes:
                measured.sizes.append(SizeResult(size))
                _measure(link, measured.sizes[-1])
        except Stopped:
            pass
        except XskError as error:
            measured.error = error
        try:
            link.__exit__()
        except XskError as error:
            measured.error = measured.error or error
    measured.duration_s = time.monotonic() - started
    measured.signal = stopped_by[0] if stopped_by else 0
    return measured

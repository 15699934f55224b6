"""How the receiver's end of a laboratory takes packets in: RPS, GRO, NAPI in a thread. For both sides
alike."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Set
from dataclasses import dataclass

from xsk_engine import netdev, netdevgenl
from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

RX = topology.RX_INTERFACE
QUEUES = 2


@dataclass(frozen=True)
class Intake:
    """``rps``: received packets go to other CPUs than the one they came on. ``gro``: merged, in a NAPI
    instance of veth's. ``threaded``: which a kernel thread polls; otherwise each segment that comes alone is
    polled for at once, and finds nothing to be merged with."""

    rps: bool = False
    gro: bool = False
    threaded: bool = False


def _run(lab: PrivateLab, *command: str) -> None:
    with namespaces.entered(lab.rx_fd):
        subprocess.run(command, check=True, capture_output=True, timeout=30)


def _write(lab: PrivateLab, settings: dict[str, str]) -> None:
    """Files below /sys/class/net/vrx. In a mount namespace with a /sys of the peer's own: the one that is
    mounted here shows another network namespace."""
    lines = [f"echo {text} > /sys/class/net/{RX}/{name}" for name, text in settings.items()]
    script = "\n".join(["set -e", "mount -t sysfs peer /sys", *lines])
    _run(lab, "unshare", "--mount", "--propagation", "private", "sh", "-c", script)


def set_up(lab: PrivateLab, intake: Intake, cpus: Set[int]) -> None:
    """RPS and NAPI threads have these CPUs. CalledProcessError; OSError where a kernel does not say which
    threads are vrx's."""
    mask = sum(1 << cpu for cpu in cpus) if intake.rps else 0
    # veth has a NAPI instance, which may have a thread, only while GRO is on.
    _run(lab, "ethtool", "-K", RX, "gro", "on")
    _write(
        lab,
        {f"queues/rx-{i}/rps_cpus": f"{mask:x}" for i in range(QUEUES)}
        | {"threaded": str(int(intake.threaded))},
    )
    if intake.threaded:
        _pin_threads(lab, cpus)
    if not intake.gro:
        _run(lab, "ethtool", "-K", RX, "gro", "off")


def _pin_threads(lab: PrivateLab, cpus: Set[int]) -> None:
    with namespaces.entered(lab.rx_fd):
        threads = netdevgenl.napi_threads(netdev.get(RX).ifindex)
    if not threads:
        raise OSError(f"the kernel names no thread that polls {RX}; Linux 6.7 does")
    for thread in threads:
        os.sched_setaffinity(thread, cpus)

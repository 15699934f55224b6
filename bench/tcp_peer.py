"""How the receiver's end of a laboratory takes packets in: RPS, GRO, NAPI in a thread. For both sides
alike."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from xsk_engine.lab import namespaces, topology
from xsk_engine.lab.private import PrivateLab

RX = topology.RX_INTERFACE
QUEUES = 2


@dataclass(frozen=True)
class Intake:
    """``rps``: received packets go to other CPUs than the one they came on. ``gro``: merged, in a NAPI
    instance of veth's, which is polled by a kernel thread (`threaded`). ``flush_us``: packets wait so long
    for others to merge with; 0: as long as a poll takes."""

    rps: bool = False
    gro: bool = False
    threaded: bool = False
    flush_us: int = 0


def _run(lab: PrivateLab, *command: str) -> None:
    with namespaces.entered(lab.rx_fd):
        subprocess.run(command, check=True, capture_output=True, timeout=30)


def _write(lab: PrivateLab, settings: dict[str, str]) -> None:
    """Files below /sys/class/net/vrx. In a mount namespace with a /sys of the peer's own: the one that is
    mounted here shows another network namespace."""
    lines = [f"echo {text} > /sys/class/net/{RX}/{name}" for name, text in settings.items()]
    script = "\n".join(["set -e", "mount -t sysfs peer /sys", *lines])
    _run(lab, "unshare", "--mount", "--propagation", "private", "sh", "-c", script)


def set_up(lab: PrivateLab, intake: Intake, cpus: int) -> None:
    """`cpus`: a mask. CalledProcessError."""
    # veth has a NAPI instance, which may have a thread, only while GRO is on.
    _run(lab, "ethtool", "-K", RX, "gro", "on")
    queues = {f"queues/rx-{i}/rps_cpus": f"{cpus if intake.rps else 0:x}" for i in range(QUEUES)}
    flush_ns = str(1000 * intake.flush_us)
    _write(lab, {**queues, "threaded": str(int(intake.threaded)), "gro_flush_timeout": flush_ns})
    if not intake.gro:
        _run(lab, "ethtool", "-K", RX, "gro", "off")

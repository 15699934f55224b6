"""Capability checks: what works here, what does not, and the remedy. Reads and tries; changes nothing."""

from __future__ import annotations

import errno
import os
import platform
import re
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xsk_engine import child, privileges
from xsk_engine.errors import UnavailableError

OK, WARN, FAIL = "ok", "warn", "fail"

DEFAULT_UMEM_BYTES = 4 << 20

_CAP_USES = {
    "CAP_NET_RAW": "sending on a real interface",
    "CAP_NET_ADMIN": "attaching an XDP program, a larger send buffer",
    "CAP_IPC_LOCK": "a umem beyond the locked-memory limit",
    "CAP_BPF": "loading an XDP program",
}

_MIN_KERNEL = (5, 11, 0)  # shared umems over queues (5.10), wake-up of copy mode without loss of frames
# Completion ring faults: copy mode up to 6.16 (net/xdp/xsk.c, reworked in 6.17), a panic in 6.16.12.
_COPY_MODE_FIXED = (6, 17, 0)
_PANICS = {(6, 16, 12)}


@dataclass(frozen=True)
class Finding:
    """One line: ``status`` is ok, warn or fail; ``remedy`` empty when there is nothing to do."""

    check: str
    status: str
    detail: str
    remedy: str = ""


def _kernel() -> Iterator[Finding]:
    release = platform.release()
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    version = tuple(int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if version < _MIN_KERNEL:
        yield Finding("kernel", FAIL, release, "AF_XDP here needs Linux 5.11 or later")
    elif version in _PANICS:
        yield Finding("kernel", FAIL, f"{release} panics in AF_XDP completion", "use another release")
    elif version < _COPY_MODE_FIXED:
        yield Finding(
            "kernel",
            WARN,
            f"{release}: copy mode up to 6.16 can lose or repeat completions",
            "6.17 or later is better; the engine stops with an error if it happens",
        )
    else:
        yield Finding("kernel", OK, release)


def _af_xdp() -> Iterator[Finding]:
    from xsk_engine._ffi import uapi
    from xsk_engine._ffi.libc import libc

    try:
        os.close(libc.socket(uapi.AF_XDP, 3, 0))  # SOCK_RAW
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            yield Finding("AF_XDP", FAIL, "this kernel has none", "a kernel with CONFIG_XDP_SOCKETS=y")
        else:
            yield Finding(
                "AF_XDP",
                WARN,
                "there, but not for this user",
                "CAP_NET_RAW (root), or a laboratory: xsk-engine lab run",
            )
    else:
        yield Finding("AF_XDP", OK, "sockets can be opened")


def may_lock_without_limit() -> bool:
    """CAP_IPC_LOCK in the initial user namespace, where the kernel asks for it (mm/util.c, capable())."""
    whole = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    return whole and privileges.has("CAP_IPC_LOCK")


def _capabilities() -> Iterator[Finding]:
    for name, use in _CAP_USES.items():
        if privileges.has(name):
            yield Finding(name, OK, use)
        else:
            yield Finding(
                name,
                WARN,
                f"missing: {use}",
                f"run as root, or give it: {privileges.WHERE}",
            )


def _memlock() -> Iterator[Finding]:
    if may_lock_without_limit():
        yield Finding("locked memory", OK, "not limited for this user (CAP_IPC_LOCK)")
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY or limit >= DEFAULT_UMEM_BYTES:
        shown = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit >> 20} MiB"
        yield Finding("locked memory", OK, f"{shown}; the default umem takes 4 MiB")
    else:
        yield Finding(
            "locked memory",
            FAIL,
            f"{limit >> 10} KiB, the umem needs 4096 KiB",
            "ulimit -l 8192, or CAP_IPC_LOCK",
        )


def _huge_pages() -> Iterator[Finding]:
    try:
        free = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
    except (OSError, ValueError):
        free = 0
    if free >= DEFAULT_UMEM_BYTES >> 21:
        yield Finding("huge pages", OK, f"{free} free")
    else:
        yield Finding(
            "huge pages",
            OK,
            f"{free} free: 4 KiB pages, no loss in copy mode",
            "sysctl vm.nr_hugepages=2",
        )


_TRY_USER_NAMESPACE = """
from xsk_engine.lab import namespaces
from xsk_engine.errors import UnavailableError
try:
    namespaces.become_root_of_new_user_namespace()
except UnavailableError as error:
    raise SystemExit(error.message)
"""


def _user_namespaces() -> Iterator[Finding]:
    # By trying, in a process of its own: this one may have threads.
    tried = subprocess.run(
        child.code(_TRY_USER_NAMESPACE),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if tried.returncode == 0:
        yield Finding("user namespaces", OK, "demo and lab run work without root")
    else:
        detail, _, remedy = (tried.stderr.strip().splitlines() or ["no answer"])[-1].partition("; ")
        yield Finding("user namespaces", WARN, detail, remedy)


def _loaded_file(name: str) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if f"/{name}.so" in path:
            return Path(path).name
    return name


def _libraries() -> Iterator[Finding]:
    try:
        from xsk_engine._ffi import libxdp  # noqa: F401 - opening it is the check

        yield Finding("libxdp", OK, _loaded_file("libxdp"))
    except UnavailableError as error:
        yield Finding("libxdp", FAIL, "cannot be loaded", error.message)
    try:
        from xsk_engine._ffi import libbpf

        yield Finding("libbpf", OK, f"{_loaded_file('libbpf')}, version {libbpf.version()}")
    except UnavailableError as error:
        yield Finding("libbpf", FAIL, "cannot be loaded", error.message)


def _xdp_program(ifindex: int) -> Finding:
    from xsk_engine._ffi.libbpf import attached_program

    try:
        program, mode = attached_program(ifindex)
    except OSError as error:
        return Finding("XDP program", WARN, f"cannot be asked: {error.strerror}", "run as root")
    if not program:
        return Finding("XDP program", OK, "none attached")
    return Finding(
        "XDP program",
        WARN,
        f"id {program} attached ({mode})",
        "the engine leaves it alone; bpftool prog show id " + str(program),
    )


def _interface(name: str) -> Iterator[Finding]:
    from xsk_engine import netdev, netdevgenl, xsk

    try:
        device = netdev.get(name)
    except UnavailableError as error:
        yield Finding(name, FAIL, "not there", error.message)
        return
    yield Finding("driver", OK if device.driver != "unknown" else WARN, device.driver)
    if device.up and device.carrier:
        yield Finding("link", OK, "up, with carrier")
    elif device.up:
        yield Finding("link", FAIL, "up, no carrier", "check the cable or the peer")
    else:
        yield Finding("link", FAIL, "down", f"ip link set {name} up")
    frame = device.max_frame_bytes
    yield Finding(
        "MTU",
        OK,
        f"{device.mtu}: frames up to {frame} bytes" + (", several descs each" if frame > 4096 else ""),
    )
    yield Finding("queues", OK, f"{device.queues} in use now", f"ethtool -l {name}")
    known = netdevgenl.facts(device.ifindex)
    for queue in range(min(device.queues, 64)):
        if xsk.is_bound_here(device.ifindex, queue):
            yield Finding(f"queue {queue}", WARN, "taken by this process")
        elif known.taken_queues is None:
            yield Finding(f"queue {queue}", OK, "unknown whether taken: this kernel does not say")
        elif queue in known.taken_queues:
            yield Finding(f"queue {queue}", WARN, "taken by another process", "stop it, or use another queue")
        else:
            yield Finding(f"queue {queue}", OK, "free")
    if known.zerocopy is None:
        yield Finding("zero-copy", WARN, "unknown: this kernel does not say", "try send --mode zerocopy")
    elif known.zerocopy and device.lacks_iommu_platform:
        yield Finding(
            "zero-copy",
            WARN,
            f"driver {device.driver} has it, but this NIC has no iommu_platform: bind says EINVAL",
            "the virtual machine's owner can turn it on (QEMU: iommu_platform=on,disable-legacy=on)",
        )
    elif known.zerocopy:
        yield Finding("zero-copy", OK, f"yes, driver {device.driver}")
    else:
        yield Finding("zero-copy", OK, f"no: driver {device.driver} has copy mode only")
    yield _xdp_program(device.ifindex)


def examine(interface: str | None = None) -> list[Finding]:
    """All findings, of the machine and then of the interface."""
    parts = [
        _kernel(),
        _af_xdp(),
        _capabilities(),
        _memlock(),
        _huge_pages(),
        _user_namespaces(),
        _libraries(),
    ]
    if interface is not None:
        parts.append(_interface(interface))
    return [finding for part in parts for finding in part]


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """``status`` is the worst of all."""
    worst = max((f.status for f in findings), key=[OK, WARN, FAIL].index, default=OK)
    return {"schema": 1, "status": worst, "findings": [asdict(f) for f in findings]}

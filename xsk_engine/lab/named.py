"""Laboratories with a name, for root: namespaces ``NAME-tx`` and ``NAME-rx`` as ``ip netns`` knows them, and
``NAME-wire`` with the process of the wire, where there is one. What a laboratory is like is asked from the
kernel; nothing is kept in files."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute, netns

from xsk_engine._ffi import uapi
from xsk_engine._ffi.libc import libc
from xsk_engine.errors import UnavailableError
from xsk_engine.lab import namespaces
from xsk_engine.lab.topology import INNER_INTERFACES, RX_INTERFACE, TX_INTERFACE, LabOptions, build

if TYPE_CHECKING:
    from xsk_engine.lab.forwarder import Forwarder
    from xsk_engine.lab.wirepage import WirePage

SIDES = ("tx", "rx", "wire")
_ENDS = {"tx": TX_INTERFACE, "rx": RX_INTERFACE}
_NETNS_FOLDER = Path("/run/netns")

# sys/mount.h
_MS_REC, _MS_SLAVE, _MNT_DETACH = 0x4000, 1 << 19, 2


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", name):
        raise ValueError(f"laboratory name: {name!r} is not 1 to 32 letters, digits, _ . -")


def _need_root(operation: str, name: str) -> None:
    if os.geteuid() != 0:
        raise UnavailableError(
            operation,
            name,
            "named laboratories need root; without it: xsk-engine lab run -- CMD",
            errno=errno.EPERM,
        )


def _path(name: str, side: str) -> Path:
    return _NETNS_FOLDER / f"{name}-{side}"


@contextlib.contextmanager
def _namespace(name: str, side: str) -> Iterator[int]:
    fd = os.open(_path(name, side), os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def forwarder_of(name: str) -> Forwarder | None:
    """The running wire of a laboratory."""
    from xsk_engine.lab import forwarder

    with contextlib.suppress(OSError), _namespace(name, "wire") as fd:
        return forwarder.find(fd)
    return None


def options_of(name: str) -> LabOptions | None:
    """What the laboratory was made with; None when it is not there whole."""
    found, wire = [], None
    if _path(name, "wire").exists():
        running = forwarder_of(name)
        if running is None:
            return None
        wire = running.page.spec
        running.page.close()
    for side, interface in _ENDS.items():
        if not _path(name, side).exists():
            return None
        try:
            with _namespace(name, side) as fd, namespaces.entered(fd), IPRoute() as ipr:
                index = ipr.link_lookup(ifname=interface)
                if not index:
                    return None
                link = ipr.link("get", index=index[0])[0]
                if link["state"] != "up":
                    return None
                mtu, queues = link.get_attr("IFLA_MTU"), link.get_attr("IFLA_NUM_TX_QUEUES")
                found.append(LabOptions(mtu, queues, wire))
        except OSError:  # a name that is no namespace any more
            return None
    return found[0] if found[0] == found[1] else None


def exists(name: str) -> bool:
    """Any part of it."""
    return any(_path(name, side).exists() for side in SIDES)


def up(name: str, options: LabOptions) -> bool:
    """Makes the laboratory; False when it was there with the same options. ValueError when it is there with
    others, UnavailableError without root."""
    _check_name(name)
    _need_root("lab up", name)
    if exists(name):
        present = options_of(name)
        if present == options:
            return False
        if present is not None:
            raise ValueError(
                f"laboratory {name} is up with --mtu {present.mtu} --queues {present.queues}"
                f"{f' --wire {present.wire}' if present.wire else ''}; "
                f"take it down first: xsk-engine lab down {name}"
            )
        down(name)  # half of one, left by something that was killed
    try:
        for side in SIDES if options.wire else _ENDS:
            netns.create(f"{name}-{side}")
        _build(name, options)
    except BaseException:
        down(name)
        raise
    return True


def _build(name: str, options: LabOptions) -> None:
    with _namespace(name, "tx") as tx, _namespace(name, "rx") as rx, contextlib.ExitStack() as stack:
        enter_tx, enter_rx = (functools.partial(namespaces.entered, fd) for fd in (tx, rx))
        if options.wire is None:
            build(enter_tx, enter_rx, options, rx)
            return
        from xsk_engine.lab import forwarder

        wire = stack.enter_context(_namespace(name, "wire"))
        build(enter_tx, enter_rx, options, rx, (functools.partial(namespaces.entered, wire), wire))
        forwarder.start(wire, options.wire, options.mtu, None).page.close()


def _delete_links(name: str, side: str, interfaces: Sequence[str]) -> None:
    with (
        contextlib.suppress(OSError),
        _namespace(name, side) as fd,
        namespaces.entered(fd),
        IPRoute() as ipr,
    ):
        for interface in interfaces:
            for index in ipr.link_lookup(ifname=interface):
                ipr.link("del", index=index)


def down(name: str) -> None:
    """Ends the wire's process, removes the pairs and all namespaces. UnavailableError when there is no such
    laboratory."""
    _check_name(name)
    _need_root("lab down", name)
    if not exists(name):
        raise UnavailableError("lab down", name, "no such laboratory; see xsk-engine lab list")
    if (running := forwarder_of(name)) is not None:
        running.end()
        running.page.close()
    for side, interfaces in {"tx": [TX_INTERFACE], "rx": [RX_INTERFACE], "wire": INNER_INTERFACES}.items():
        _delete_links(name, side, interfaces)
    for side in SIDES:
        if _path(name, side).exists():
            netns.remove(f"{name}-{side}")


def wire_page(name: str) -> WirePage:
    """In which the laboratory's wire counts. UnavailableError when it has none, or none that runs."""
    _check_name(name)
    _need_root("lab wire", name)
    running = forwarder_of(name)
    if running is None:
        missing = "no such laboratory" if not exists(name) else "it has no wire"
        if _path(name, "wire").exists():
            missing = f"its wire's process has ended; xsk-engine lab down {name}"
        raise UnavailableError("lab wire", name, f"{missing}; see xsk-engine lab list")
    return running.page


def names() -> list[str]:
    """All laboratories that are up."""
    if not _NETNS_FOLDER.is_dir():
        return []
    found = sorted(p.name for p in _NETNS_FOLDER.iterdir())
    pairs = [n.removesuffix("-tx") for n in found if n.endswith("-tx")]
    return [n for n in pairs if f"{n}-rx" in found]


def exec_in(name: str, side: str, command: Sequence[str]) -> None:
    """Replaces this process by `command` on one side, with a /sys of its own, as ``ip netns exec`` does."""
    _check_name(name)
    _need_root("lab exec", name)
    if not _path(name, side).exists():
        missing = "it has no wire" if side == "wire" and exists(name) else "no such laboratory"
        raise UnavailableError("lab exec", f"{name}, {side}", f"{missing}; see xsk-engine lab list")
    with _namespace(name, side) as fd:
        libc.setns(fd, uapi.CLONE_NEWNET)
    libc.unshare(uapi.CLONE_NEWNS)
    libc.mount(b"", b"/", b"none", _MS_SLAVE | _MS_REC, None)
    with contextlib.suppress(OSError):  # a container may have none
        libc.umount2(b"/sys", _MNT_DETACH)
    libc.mount(name.encode(), b"/sys", b"sysfs", 0, None)
    os.execvp(command[0], list(command))

"""Laboratories with a name, for root: namespaces ``NAME-tx`` and ``NAME-rx`` as ``ip netns`` knows them, and
``NAME-wire`` with the process of the wire, where there is one. What a laboratory is like is asked from the
kernel; nothing is kept in files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2 import netns
from pyroute2.netlink.exceptions import NetlinkError

from xsk_engine._ffi import uapi
from xsk_engine._ffi.libc import libc
from xsk_engine.errors import UnavailableError
from xsk_engine.lab import namespaces
from xsk_engine.lab.topology import (
    INNER_INTERFACES,
    INNER_MACS,
    RX_INTERFACE,
    RX_MAC,
    TX_INTERFACE,
    TX_MAC,
    LabOptions,
    build,
)
from xsk_engine.outside import rtnetlink

if TYPE_CHECKING:
    from xsk_engine.lab.forwarder import Forwarder
    from xsk_engine.lab.wirepage import WirePage

SIDES = ("tx", "rx", "wire")
_MACS = {TX_MAC, RX_MAC, *INNER_MACS}
_WHOLE = "xsk-engine lab"
"""alias of both ends once all is there: what was killed on the way has none"""
_NETNS_FOLDER = Path("/run/netns")
# Longer than a laboratory takes to make, its wire with it.
_PATIENCE_S, _POLL_S = 30.0, 0.05

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
    found: list[LabOptions] = []
    wire = None
    if _path(name, "wire").exists():
        running = forwarder_of(name)
        if running is None:
            return None
        wire = running.page.spec
        running.page.close()
    for side in SIDES[:2]:
        found += [
            LabOptions(link.get_attr("IFLA_MTU"), link.get_attr("IFLA_NUM_TX_QUEUES"), wire)
            for link in _links(name, side)
            if link.get_attr("IFLA_IFALIAS") == _WHOLE
        ]
    return found[0] if len(found) == 2 else None


def _links(name: str, side: str) -> list[Any]:
    """Of that namespace; none where it is not, or is none any more. OSError, UnavailableError."""
    try:
        with _namespace(name, side) as fd, namespaces.entered(fd), rtnetlink() as ipr:
            return list(ipr.link("dump"))
    except NetlinkError as error:
        text = "its links cannot be listed"
        raise UnavailableError("lab", f"{name}-{side}", text, errno=error.code) from None
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise UnavailableError("lab", f"{name}-{side}", "only root may look", errno=error.errno) from None
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise
    return []


def _check_ours(name: str) -> None:
    """What is there may go: it is a laboratory's, or empty. ValueError."""
    for side in SIDES:
        links = _links(name, side)
        ours = any(link.get_attr("IFLA_ADDRESS") in _MACS for link in links)
        others = [
            link.get_attr("IFLA_IFNAME")
            for link in links
            if link["state"] == "up" and link.get_attr("IFLA_IFNAME") != "lo"
        ]
        if others and not ours:
            text = f"{name}-{side}, with {others[0]}, is no laboratory's; take another name"
            raise ValueError(f"{name}: the namespace {text}")


def exists(name: str) -> bool:
    """Any part of it."""
    return any(_path(name, side).exists() for side in SIDES)


@contextlib.contextmanager
def _alone(operation: str, name: str) -> Iterator[None]:
    """Nobody else makes or removes laboratories of this machine meanwhile. UnavailableError: somebody does,
    and does not end."""
    _NETNS_FOLDER.mkdir(exist_ok=True)
    fd = os.open(_NETNS_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    text = f"another lab up or lab down has not ended within {_PATIENCE_S:g} s"
                    raise UnavailableError(operation, name, text, errno=error.errno) from None
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(fd)


def up(name: str, options: LabOptions) -> bool:
    """Makes the laboratory; False when it was there with the same options. ValueError when it is there with
    others, or the names of its namespaces are somebody else's; UnavailableError without root."""
    _check_name(name)
    _need_root("lab up", name)
    with _alone("lab up", name):
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
            _check_ours(name)
            _remove(name)  # half of one, left by something that was killed
        try:
            for side in SIDES if options.wire else SIDES[:2]:
                netns.create(f"{name}-{side}")
            _build(name, options)
        except BaseException:
            _remove(name)
            raise
    return True


def _build(name: str, options: LabOptions) -> None:
    with _namespace(name, "tx") as tx, _namespace(name, "rx") as rx, contextlib.ExitStack() as stack:
        enter_tx, enter_rx = (functools.partial(namespaces.entered, fd) for fd in (tx, rx))
        if options.wire is None:
            build(enter_tx, enter_rx, options, rx)
        else:
            from xsk_engine.lab import forwarder

            wire = stack.enter_context(_namespace(name, "wire"))
            build(enter_tx, enter_rx, options, rx, (functools.partial(namespaces.entered, wire), wire))
            forwarder.start(wire, options.wire, options.mtu, None).page.close()
        for enter, interface in ((enter_tx, TX_INTERFACE), (enter_rx, RX_INTERFACE)):
            with enter(), rtnetlink() as ipr:
                ipr.link("set", index=ipr.link_lookup(ifname=interface)[0], IFLA_IFALIAS=_WHOLE)


def _delete_links(name: str, side: str, interfaces: Sequence[str]) -> None:
    with (
        contextlib.suppress(OSError, NetlinkError),
        _namespace(name, side) as fd,
        namespaces.entered(fd),
        rtnetlink() as ipr,
    ):
        for interface in interfaces:
            for index in ipr.link_lookup(ifname=interface):
                ipr.link("del", index=index)


def down(name: str) -> None:
    """Ends the wire's process, removes the pairs and all namespaces. UnavailableError when there is no such
    laboratory, ValueError when the namespaces are somebody else's."""
    _check_name(name)
    _need_root("lab down", name)
    with _alone("lab down", name):
        if not exists(name):
            raise UnavailableError("lab down", name, "no such laboratory; see xsk-engine lab list")
        _check_ours(name)
        _remove(name)


def _remove(name: str) -> None:
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

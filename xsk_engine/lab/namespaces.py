"""Network and user namespaces: making, entering, leaving. Per thread, as the kernel has it."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from xsk_engine._ffi import uapi
from xsk_engine._ffi.libc import libc
from xsk_engine.errors import UnavailableError

_SELF_NET = "/proc/thread-self/ns/net"


def current_network() -> int:
    """An fd of this thread's network namespace."""
    return os.open(_SELF_NET, os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def entered(fd: int) -> Iterator[None]:
    """This thread stands in the network namespace of `fd` inside the block."""
    before = current_network()
    try:
        libc.setns(fd, uapi.CLONE_NEWNET)
        try:
            yield
        finally:
            libc.setns(before, uapi.CLONE_NEWNET)
    finally:
        os.close(before)


def new_network() -> int:
    """An fd of a new, anonymous network namespace; the thread stays where it is. It lives as long as an
    fd, a process or a device holds it."""
    before = current_network()
    try:
        libc.unshare(uapi.CLONE_NEWNET)
        made = current_network()
        libc.setns(before, uapi.CLONE_NEWNET)
    finally:
        os.close(before)
    return made


_SETTINGS = (
    # path, the value that forbids, the remedy
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        1,
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("kernel/unprivileged_userns_clone", 0, "sysctl kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", 0, "sysctl user.max_user_namespaces=10000"),
)


def _forbidding_setting() -> tuple[str, str]:
    for path, forbids, remedy in _SETTINGS:
        with contextlib.suppress(OSError, ValueError):
            if int(Path("/proc/sys", path).read_text()) == forbids:
                return f", because of {path.replace('/', '.')}", remedy
    return "", "see user_namespaces(7)"


def _refusal(number: int | None) -> UnavailableError:
    setting, remedy = _forbidding_setting()
    return UnavailableError(
        "unshare",
        "CLONE_NEWUSER",
        f"user namespaces do not work for ordinary users here{setting}; as root: {remedy}, "
        "or run it with sudo (sudo make demo)",
        errno=number,
    )


def become_root_of_new_user_namespace() -> None:
    """A new user namespace in which this process is root. The process must be single-threaded (so before
    numpy is imported); UnavailableError names the setting that forbids it."""
    if threading.active_count() > 1:
        raise RuntimeError("unshare(CLONE_NEWUSER) needs a process without threads")
    uid, gid = os.geteuid(), os.getegid()
    try:
        libc.unshare(uapi.CLONE_NEWUSER)
        # user_namespaces(7): setgroups must be denied before an unprivileged process may map its gid.
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(text)
        # Ubuntu's AppArmor lets the namespace be made and then takes its capabilities away: this tells. It
        # also leaves the network namespace of the host, to which there is no way back.
        libc.unshare(uapi.CLONE_NEWNET)
    except OSError as error:
        raise _refusal(error.errno) from None


def may_make_networks() -> bool:
    """Root enough for network namespaces, without a user namespace?"""
    try:
        os.close(new_network())
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES):
            raise
        return False
    return True

"""XDP programs on an interface: attached by us, or somebody else's and left alone."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable

from xsk_engine import privileges
from xsk_engine.errors import UnavailableError
from xsk_engine.netdev import NetDev

NEEDS = ("CAP_BPF", "CAP_NET_ADMIN")
"""to load a program and to attach it"""

_log = logging.getLogger(__name__)


class AttachedProgram:
    """Attached in driver mode from construction to close(), and never longer than this process lives. `load`
    makes a program's fd, which it may own. `or_generic`: in the kernel's generic mode where the driver has
    none; ``mode`` says which.

    Attaching and detaching reset the NIC of most drivers: the link goes and comes back. UnavailableError when
    the capability is missing or another program is there, which is left alone."""

    def __init__(self, netdev: NetDev, load: Callable[[], int], *, or_generic: bool = False) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        from xsk_engine._ffi import libbpf
        from xsk_engine.route import has_default_route

        self._link_fd = -1
        try:
            other, mode = libbpf.attached_program(netdev.ifindex)
            warn = has_default_route(netdev.ifindex)
        except (OSError, NetlinkError):
            other, mode, warn = 0, "unknown", False  # then attaching will tell
        if other:
            raise UnavailableError(
                "attach",
                netdev.name,
                f"XDP program id {other} is attached ({mode}) and not ours: bpftool prog show id {other}",
                errno=errno.EBUSY,
            )
        if warn:
            _log.warning("%s carries the default route, and attaching an XDP program resets it", netdev.name)
        try:
            program_fd = load()
            self.mode = "driver"
            try:
                self._link_fd = libbpf.attach(program_fd, netdev.ifindex)
            except OSError as error:
                if not or_generic or error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                self.mode = "generic"
                self._link_fd = libbpf.attach(program_fd, netdev.ifindex, generic=True)
        except OSError as error:
            hints = {
                errno.EPERM: privileges.needs(*NEEDS),
                errno.EACCES: privileges.needs(*NEEDS),
                errno.EBUSY: "another XDP program is attached",
                errno.EINVAL: f"the driver refuses it, perhaps because of the MTU of {netdev.mtu}",
            }
            hint = hints.get(error.errno or 0, "the driver refuses an XDP program")
            raise UnavailableError("attach", netdev.name, hint, errno=error.errno) from None

    def fileno(self) -> int:
        """Of the link that keeps it attached; -1 after close()."""
        return self._link_fd

    def is_attached(self) -> bool:
        """False once the interface is gone, and after close()."""
        from xsk_engine._ffi import libbpf

        return self._link_fd >= 0 and libbpf.is_attached(self._link_fd)

    def close(self) -> None:
        """Idempotent."""
        fd, self._link_fd = self._link_fd, -1
        if fd >= 0:
            os.close(fd)


class PassProgram(AttachedProgram):
    """Lets everything pass: some drivers (igb, ixgbe, i40e, ice) send in zero-copy only while a program is
    attached, and veth takes what its peer's program sends back. ``frags``: packets of several fragments,
    too."""

    def __init__(self, netdev: NetDev, *, frags: bool = False) -> None:
        from xsk_engine._ffi import libbpf

        program_fds: list[int] = []

        def load() -> int:
            program_fds.append(libbpf.load_pass_program(frags=frags))
            return program_fds[0]

        try:
            super().__init__(netdev, load)
        finally:
            for fd in program_fds:  # the link holds the program
                os.close(fd)

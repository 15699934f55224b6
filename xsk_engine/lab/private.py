"""A laboratory for one command: two anonymous namespaces held by fds, gone with the process that made it.

process ── unshare ── tx namespace (vtx) ══ veth ══ rx namespace (vrx)
            └ runs the command in tx; XSK_LAB_RX_FD is an fd of the rx namespace

With a wire there is a third one between them, XSK_LAB_WIRE_NET_FD, and a process in it that ends with the
command's; XSK_LAB_WIRE_FD is an fd of the page in which that counts.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xsk_engine._ffi import uapi
from xsk_engine._ffi.libc import libc
from xsk_engine.errors import UnavailableError
from xsk_engine.lab import namespaces
from xsk_engine.lab.topology import Enter, LabOptions, build

if TYPE_CHECKING:
    from xsk_engine.lab.forwarder import Forwarder
    from xsk_engine.lab.wirepage import WirePage

RX_FD_VARIABLE = "XSK_LAB_RX_FD"
TX_FD_VARIABLE = "XSK_LAB_TX_FD"
WIRE_FD_VARIABLE = "XSK_LAB_WIRE_FD"
WIRE_NET_FD_VARIABLE = "XSK_LAB_WIRE_NET_FD"


@dataclass(frozen=True)
class PrivateLab:
    """fds of the namespaces, and of the wire's page; None without a wire. The process stands in tx."""

    tx_fd: int
    rx_fd: int
    wire_net_fd: int | None = None
    wire_page_fd: int | None = None

    @staticmethod
    def from_environment() -> PrivateLab:
        """The one this process was started in by ``lab run``; KeyError outside one."""
        wire = (os.environ.get(name) for name in (WIRE_NET_FD_VARIABLE, WIRE_FD_VARIABLE))
        return PrivateLab(
            int(os.environ[TX_FD_VARIABLE]),
            int(os.environ[RX_FD_VARIABLE]),
            *(int(fd) if fd is not None else None for fd in wire),
        )

    @property
    def variables(self) -> dict[str, str]:
        """What :meth:`from_environment` reads."""
        fds = {
            TX_FD_VARIABLE: self.tx_fd,
            RX_FD_VARIABLE: self.rx_fd,
            WIRE_NET_FD_VARIABLE: self.wire_net_fd,
            WIRE_FD_VARIABLE: self.wire_page_fd,
        }
        return {name: str(fd) for name, fd in fds.items() if fd is not None}


def make(options: LabOptions) -> tuple[PrivateLab, Forwarder | None]:
    """A new laboratory, and the process of its wire, which ends with this one. The thread stays outside."""
    with contextlib.ExitStack() as stack:  # fds, should it fail

        def new_network() -> tuple[int, Enter]:
            fd = namespaces.new_network()
            stack.callback(os.close, fd)
            return fd, functools.partial(namespaces.entered, fd)

        (tx, enter_tx), (rx, enter_rx) = new_network(), new_network()
        if options.wire is None:
            build(enter_tx, enter_rx, options, rx)
            lab, running = PrivateLab(tx, rx), None
        else:
            from xsk_engine.lab import forwarder

            wire, enter_wire = new_network()
            build(enter_tx, enter_rx, options, rx, (enter_wire, wire))
            running = forwarder.start(wire, options.wire, options.mtu, os.getpid())
            lab = PrivateLab(tx, rx, wire, running.page.fd)
        stack.pop_all()
    return lab, running


def enter_new(options: LabOptions) -> PrivateLab:
    """Moves this process (single-threaded) into the tx namespace of a new laboratory; a user namespace is
    made only when it may not make networks as it is. UnavailableError where user namespaces are refused."""
    if not namespaces.may_make_networks():
        namespaces.become_root_of_new_user_namespace()
    lab, _ = make(options)
    libc.setns(lab.tx_fd, uapi.CLONE_NEWNET)
    return lab


def exec_in_new(options: LabOptions, command: Sequence[str]) -> None:
    """Replaces this process by `command` inside a new laboratory. OSError when it cannot be executed."""
    lab = enter_new(options)
    for fd in lab.variables.values():
        os.set_inheritable(int(fd), True)
    # One laboratory in another one: the outer one's wire is not this one's.
    outer = {name: text for name, text in os.environ.items() if not name.startswith("XSK_LAB_")}
    os.execvpe(command[0], list(command), outer | lab.variables)


def wire_page() -> WirePage:
    """Of the laboratory that this process was started in. UnavailableError without a wire."""
    from xsk_engine.lab.wirepage import WirePage

    try:
        return WirePage(int(os.environ[WIRE_FD_VARIABLE]))
    except (KeyError, ValueError, OSError):
        raise UnavailableError(
            "lab wire",
            "",
            "this is no laboratory of lab run --wire; for one with a name: lab wire NAME",
        ) from None


def exec_at_peer(command: Sequence[str]) -> None:
    """Replaces this process by `command` at the other end of the laboratory it was started in.
    UnavailableError outside one; OSError when it cannot be executed."""
    try:
        lab = PrivateLab.from_environment()
        libc.setns(lab.rx_fd, uapi.CLONE_NEWNET)
    except (KeyError, OSError):
        raise UnavailableError(
            "lab peer",
            " ".join(command),
            "this is no laboratory of lab run; for one with a name: lab exec NAME rx",
        ) from None
    os.execvp(command[0], list(command))

"""A laboratory for one command: two anonymous namespaces held by fds, gone with the process that made it.

process ── unshare ── tx namespace (vtx) ══ veth ══ rx namespace (vrx)
            └ runs the command in tx; XSK_LAB_RX_FD is an fd of the rx namespace
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

from xsk_engine._ffi import uapi
from xsk_engine._ffi.libc import libc
from xsk_engine.errors import UnavailableError
from xsk_engine.lab import namespaces
from xsk_engine.lab.topology import LabOptions, build

RX_FD_VARIABLE = "XSK_LAB_RX_FD"
TX_FD_VARIABLE = "XSK_LAB_TX_FD"


@dataclass(frozen=True)
class PrivateLab:
    """fds of the two namespaces. The process stands in tx."""

    tx_fd: int
    rx_fd: int

    @staticmethod
    def from_environment() -> PrivateLab:
        """The one this process was started in by ``lab run``; KeyError outside one."""
        return PrivateLab(int(os.environ[TX_FD_VARIABLE]), int(os.environ[RX_FD_VARIABLE]))


def enter_new(options: LabOptions) -> PrivateLab:
    """Moves this process (single-threaded) into the tx namespace of a new laboratory; a user namespace is
    made only when it may not make networks as it is. UnavailableError where user namespaces are refused."""
    if not namespaces.may_make_networks():
        namespaces.become_root_of_new_user_namespace()
    tx, rx = namespaces.new_network(), namespaces.new_network()
    enter_tx = functools.partial(namespaces.entered, tx)
    enter_rx = functools.partial(namespaces.entered, rx)
    build(enter_tx, enter_rx, options, rx)
    libc.setns(tx, uapi.CLONE_NEWNET)
    return PrivateLab(tx, rx)


def exec_in_new(options: LabOptions, command: Sequence[str]) -> None:
    """Replaces this process by `command` inside a new laboratory. OSError when it cannot be executed."""
    lab = enter_new(options)
    for fd in (lab.tx_fd, lab.rx_fd):
        os.set_inheritable(fd, True)
    environment = os.environ | {TX_FD_VARIABLE: str(lab.tx_fd), RX_FD_VARIABLE: str(lab.rx_fd)}
    os.execvpe(command[0], list(command), environment)


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

"""A laboratory of the machine's two NICs, which get the names and addresses of the veth one, for one command:
python -m tests.machine.guest.adopt -- COMMAND. vrx moves into a namespace of its own."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

from pyroute2 import IPRoute

from xsk_engine.lab import namespaces
from xsk_engine.lab.private import RX_FD_VARIABLE, TX_FD_VARIABLE
from xsk_engine.lab.topology import (
    RX_INTERFACE,
    RX_IPV4,
    RX_IPV6,
    RX_MAC,
    TX_INTERFACE,
    TX_IPV4,
    TX_IPV6,
    TX_MAC,
    set_up_end,
)

MTU = 1500
# The namespace of the command before gives its NIC back when the kernel gets round to it.
_RETURN_S = 10
_CARRIER_S = 20


def _find(ipr: IPRoute, mac: str) -> int:
    deadline = time.monotonic() + _RETURN_S
    while True:
        links = [link for link in ipr.get_links() if link.get_attr("IFLA_ADDRESS") == mac]
        if links:
            return int(links[0]["index"])
        if time.monotonic() > deadline:
            raise OSError(errno.ENODEV, f"no NIC with the address {mac}")
        time.sleep(0.02)


def _await_carrier(interface: str) -> None:
    deadline = time.monotonic() + _CARRIER_S
    while Path(f"/sys/class/net/{interface}/carrier").read_text().strip() != "1":
        if time.monotonic() > deadline:
            raise OSError(errno.ENETDOWN, f"{interface} has no carrier")
        time.sleep(0.02)


def _rename(ipr: IPRoute, mac: str, name: str) -> int:
    index = _find(ipr, mac)
    ipr.link("set", index=index, state="down")
    ipr.link("set", index=index, ifname=name)
    ipr.flush_addr(index=index)
    return index


def adopt_tx() -> None:
    """vtx with its name, addresses and carrier, as a driver that is bound anew has none of them."""
    with IPRoute() as ipr:
        _rename(ipr, TX_MAC, TX_INTERFACE)
        set_up_end(ipr, TX_INTERFACE, TX_IPV4, TX_IPV6, (RX_MAC, RX_IPV4, RX_IPV6), MTU)
    _await_carrier(TX_INTERFACE)


def adopt() -> tuple[int, int]:
    """fds of the two namespaces, with both links up. The process stands in the first."""
    tx, rx = namespaces.current_network(), namespaces.new_network()
    with IPRoute() as ipr:
        ipr.link("set", index=_rename(ipr, RX_MAC, RX_INTERFACE), net_ns_fd=rx)
    with namespaces.entered(rx), IPRoute() as ipr:
        set_up_end(ipr, RX_INTERFACE, RX_IPV4, RX_IPV6, (TX_MAC, TX_IPV4, TX_IPV6), MTU)
    adopt_tx()
    return tx, rx


def main(arguments: list[str]) -> None:
    tx, rx = adopt()
    for fd in (tx, rx):
        os.set_inheritable(fd, True)
    command = arguments[arguments.index("--") + 1 :]
    environment = os.environ | {TX_FD_VARIABLE: str(tx), RX_FD_VARIABLE: str(rx)}
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main(sys.argv[1:])

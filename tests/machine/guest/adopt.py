"""A laboratory of the machine's two NICs, which get the names and addresses of the veth one, for one command:
python -m tests.machine.guest.adopt -- COMMAND. vrx moves into a namespace of its own."""

from __future__ import annotations

import errno
import os
import sys
import time

from pyroute2 import IPRoute

from xsk_engine.lab import adoption, namespaces
from xsk_engine.lab.adoption import RX_END, TX_END, End
from xsk_engine.lab.private import RX_FD_VARIABLE, TX_FD_VARIABLE

MTU = 1500
# The namespace of the command before gives its NIC back when the kernel gets round to it.
_RETURN_S = 10


def _dress(ipr: IPRoute, end: End) -> int:
    """The NIC with the end's MAC; its index."""
    deadline = time.monotonic() + _RETURN_S
    while not (links := [link for link in ipr.get_links() if link.get_attr("IFLA_ADDRESS") == end.mac]):
        if time.monotonic() > deadline:
            raise OSError(errno.ENODEV, f"no NIC with the address {end.mac}")
        time.sleep(0.02)
    index = int(links[0]["index"])
    adoption.dress(ipr, index, end)
    return index


def adopt_tx() -> None:
    """vtx with its name, addresses and carrier, as a driver that is bound anew has none of them."""
    with IPRoute() as ipr:
        _dress(ipr, TX_END)
        adoption.set_up(ipr, TX_END, RX_END, MTU)
    adoption.await_carrier(TX_END.name)


def adopt() -> tuple[int, int]:
    """fds of the two namespaces, with both links up. The process stands in the first."""
    tx, rx = namespaces.current_network(), namespaces.new_network()
    with IPRoute() as ipr:
        ipr.link("set", index=_dress(ipr, RX_END), net_ns_fd=rx)
    with namespaces.entered(rx), IPRoute() as ipr:
        adoption.set_up(ipr, RX_END, TX_END, MTU)
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

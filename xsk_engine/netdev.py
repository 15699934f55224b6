"""Facts about an interface of this process's network namespace. Reads only; any thread."""

from __future__ import annotations

import array
import errno
import ipaddress
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import psutil

from xsk_engine import ethtool
from xsk_engine.errors import UnavailableError

# include/uapi/linux/ethtool.h
_ETHTOOL_GDRVINFO = 0x03
_ETHTOOL_GRINGPARAM = 0x10
_ETHTOOL_GCHANNELS = 0x3C
_DRVINFO_BYTES = 196

# include/uapi/linux/{rtnetlink,netlink,if}.h
_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_NLM_F_REQUEST = 1
_IFF_LOWER_UP = 1 << 16
_NETLINK_TIMEOUT_S = 1.0

# include/uapi/linux/virtio_config.h
_VIRTIO_F_ACCESS_PLATFORM = 33

ETHERNET_HEADER_BYTES = 14

_LINK_POLL_S = 0.02


@dataclass(frozen=True)
class NetDev:
    """One interface as it was when asked."""

    name: str
    ifindex: int
    """changes when the interface is deleted and made again"""
    mac: str
    """colon-separated"""
    mtu: int
    """bytes of layer 3"""
    up: bool
    """administratively"""
    carrier: bool
    """the link works, as the kernel has it now"""
    driver: str
    """as ethtool names it, "unknown" without one"""
    queues: int
    """channels in use now: valid queue ids are 0 to queues - 1"""
    numa_node: int | None
    """of the device, None when it has none"""
    rx_ring: int
    """entries of each receive ring; 0 for a driver without (veth)"""

    bus: str
    """its address there, "" for what is no device"""

    @property
    def lacks_iommu_platform(self) -> bool:
        """Is it a virtio NIC that the hypervisor does not let use DMA addresses? Then zero-copy is EINVAL
        (drivers/net/virtio_net.c, virtnet_xsk_pool_enable)."""
        if self.driver != "virtio_net" or not self.bus:
            return False
        for features in Path(f"/sys/bus/pci/devices/{self.bus}").glob("virtio*/features"):
            return features.read_text()[_VIRTIO_F_ACCESS_PLATFORM] == "0"
        return False

    @property
    def max_frame_bytes(self) -> int:
        """Longest untagged frame without FCS."""
        return self.mtu + ETHERNET_HEADER_BYTES


def _driver_and_bus(name: str) -> tuple[str, str]:
    # cmd, then driver, version, firmware version and bus address of 32 bytes each
    request = array.array("B", struct.pack("I", _ETHTOOL_GDRVINFO).ljust(_DRVINFO_BYTES, b"\0"))
    if not ethtool.ask(name, request):
        return "unknown", ""
    driver, bus = (request.tobytes()[at : at + 32].split(b"\0")[0].decode() for at in (4, 100))
    return driver or "unknown", bus


def _has_carrier(ifindex: int) -> bool:
    """IFF_LOWER_UP, which only rtnetlink tells: the older flags may be a second late, and drivers answer
    ethtool from the hardware, before the kernel sends."""
    header = struct.pack("=IHHII", 32, _RTM_GETLINK, _NLM_F_REQUEST, 1, 0)
    request = header + struct.pack("=BxHiII", socket.AF_UNSPEC, 0, ifindex, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_NETLINK_TIMEOUT_S)
        sock.send(request)
        answer = sock.recv(1 << 16)
    kind, flags = struct.unpack_from("=4xH", answer)[0], struct.unpack_from("=24xI", answer)[0]
    return kind == _RTM_NEWLINK and bool(flags & _IFF_LOWER_UP)


def _queues(name: str) -> int:
    # cmd, max rx/tx/other/combined, current rx/tx/other/combined
    request = array.array("I", [_ETHTOOL_GCHANNELS] + [0] * 8)
    if not ethtool.ask(name, request):
        return 1
    rx, tx, _other, combined = request[5:9]
    return max(rx, tx) + combined or 1


def _rx_ring(name: str) -> int:
    # cmd, max rx/rx mini/rx jumbo/tx, current rx/rx mini/rx jumbo/tx
    request = array.array("I", [_ETHTOOL_GRINGPARAM] + [0] * 8)
    return int(request[5]) if ethtool.ask(name, request) else 0


def _numa_node(bus: str) -> int | None:
    # Not /sys/class/net: that shows the network namespace in which sysfs was mounted.
    try:
        node = int(Path(f"/sys/bus/pci/devices/{bus}/numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def get(name: str) -> NetDev:
    """UnavailableError when there is no such interface; it suggests the nearest name."""
    stats = psutil.net_if_stats()
    if name not in stats:
        near = get_close_matches(name, stats, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(stats))}"
        raise UnavailableError("open", name, f"no such interface; {hint}", errno=errno.ENODEV)
    link = next((a for a in psutil.net_if_addrs().get(name, ()) if a.family == psutil.AF_LINK), None)
    flags = stats[name].flags.split(",")
    try:
        ifindex = socket.if_nametoindex(name)
    except OSError as error:  # gone since the line above
        raise UnavailableError("open", name, "no such interface", errno=error.errno) from None
    driver, bus = _driver_and_bus(name)
    return NetDev(
        name=name,
        ifindex=ifindex,
        mac=link.address if link else "00:00:00:00:00:00",
        mtu=stats[name].mtu,
        up="up" in flags,
        carrier=_has_carrier(ifindex),
        driver=driver,
        queues=_queues(name),
        numa_node=_numa_node(bus),
        rx_ring=_rx_ring(name),
        bus=bus,
    )


def wait_for_link(name: str, timeout_s: float, stop: Callable[[], bool] = lambda: False) -> NetDev:
    """The interface, once it is up and has a carrier; UnavailableError ENETDOWN when that takes longer, or
    when `stop` says so."""
    deadline = time.monotonic() + timeout_s
    while True:
        netdev = get(name)
        if netdev.up and netdev.carrier:
            return netdev
        if time.monotonic() >= deadline or stop():
            remedy = "no carrier: check the cable or the peer" if netdev.up else f"ip link set {name} up"
            raise UnavailableError(
                "open", name, f"the link is down after {timeout_s:g} s; {remedy}", errno=errno.ENETDOWN
            )
        time.sleep(_LINK_POLL_S)


def addresses(name: str, family: int) -> list[str]:
    """Its own addresses of AF_INET or AF_INET6, global ones first."""
    found = [
        ipaddress.ip_address(a.address.split("%")[0])
        for a in psutil.net_if_addrs().get(name, ())
        if a.family == family
    ]
    return [str(a) for a in sorted(found, key=lambda a: a.is_link_local)]

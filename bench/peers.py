"""The senders that the engine is compared with: the command of each, what it needs, how it differs.

A command sends one frame for ever, until its process group is killed, and may be stopped and continued by
signals in between. It runs in the network namespace of the stream's interface, as root; config files go into
the stream's folder. Frames are equal, byte for byte, unless ``differs`` says what is not.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from glob import glob
from importlib import metadata
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bench.scene import BUILD
from xsk_engine.lab import topology
from xsk_engine.packet import ETHERNET_BYTES, parse_mac, udp_frame, udp_header_bytes

TRAFGEN_MOST_BYTES = 65536 - 32
"""its slots with --jumbo-support, less the head of each (TPACKET2)"""
AF_XDP_PMD_MOST_BYTES = 2048
"""a packet is one chunk there, and one mbuf: testpmd's usual ones have this room"""
AF_XDP_PMD_MOST_MTU = 3506
"""drivers/net/veth.c, veth_xdp_set: a frame must fit into a page, beside headroom and skb_shared_info"""
XDP_TRAFFICGEN_BYTES = 64
_WAIT_S = 20


@dataclass(frozen=True)
class Stream:
    """What is to be sent, and where. ``frame``: Ethernet, IPv4, UDP, without FCS; the addresses are those in
    it. ``cpu``: the sender's only one, -1 for any. ``mtu``: the interface's. ``folder``: for files."""

    frame: bytes
    folder: Path
    queue: int = 0
    cpu: int = 0
    mtu: int = 1500
    interface: str = topology.TX_INTERFACE
    src_mac: str = topology.TX_MAC
    dst_mac: str = topology.RX_MAC
    src_ip: str = topology.TX_IPV4
    dst_ip: str = topology.RX_IPV4
    src_ipv6: str = topology.TX_IPV6
    dst_ipv6: str = topology.RX_IPV6
    src_port: int = 9
    dst_port: int = 9000

    @classmethod
    def of(cls, size: int, folder: Path, **more: Any) -> Stream:
        """Of frames of `size` bytes with a payload of zeros and right checksums. `more`: other fields."""
        one = cls(b"", folder, **({"mtu": max(1500, size - ETHERNET_BYTES)} | more))
        frame = udp_frame(
            parse_mac(one.dst_mac),
            parse_mac(one.src_mac),
            ip_address(one.src_ip),
            ip_address(one.dst_ip),
            one.src_port,
            one.dst_port,
            bytes(size - udp_header_bytes(4)),
        )
        return replace(one, frame=frame)

    @property
    def size(self) -> int:
        return len(self.frame)

    @property
    def payload_bytes(self) -> int:
        return self.size - udp_header_bytes(4)

    def write(self, suffix: str, data: bytes) -> str:
        """A file of its own for each size; its path."""
        path = self.folder / f"{self.size}.{suffix}"
        path.write_bytes(data)
        return str(path)


def pinned(stream: Stream, *command: str) -> list[str]:
    """taskset replaces itself: the process is the command's."""
    return [*(() if stream.cpu < 0 else ("taskset", "--cpu-list", str(stream.cpu))), *command]


# ---- ours, in C ----------------------------------------------------------------------------------------


def kernel_udp(how: str, stream: Stream) -> list[str]:
    to = [stream.dst_ip, str(stream.dst_port)]
    return [str(BUILD / "udp_sender"), how, *to, str(stream.cpu), str(stream.payload_bytes)]


def packet_socket(how: str, stream: Stream) -> list[str]:
    place = [stream.interface, str(stream.cpu)]
    return [str(BUILD / "packet_sender"), how, *place, stream.write("frame", stream.frame)]


def minimal(stream: Stream) -> list[str]:
    place = [stream.interface, str(stream.queue), str(stream.cpu)]
    return [str(BUILD / "minimal"), *place, "inf", stream.write("frame", stream.frame)]


# ---- from distributions --------------------------------------------------------------------------------


def trafgen_config(frame: bytes) -> str:
    """The bytes as they are: what its header functions compute would be computed by nobody else."""
    head = frame.rstrip(frame[-1:])
    rest = len(frame) - len(head)
    return (
        "{ " + ", ".join([*(f"0x{byte:02x}" for byte in head), f"fill(0x{frame[-1]:02x}, {rest})"]) + " }\n"
    )


def trafgen(stream: Stream) -> list[str]:
    """It must be kept from tuning the machine's socket memory and the interrupts' affinity, and never puts
    them back when it is killed. Its ring has slots of 2 KiB or 64 KiB."""
    config = stream.write("trafgen", trafgen_config(stream.frame).encode())
    command = ["trafgen", "--dev", stream.interface, "--conf", config, "--cpus", "1"]
    jumbo = ["--jumbo-support"] if stream.size > 2048 - 32 else []
    return [*command, "--no-sock-mem", "--notouch-irq", "--no-cpu-stats", *jumbo]


def pcap(frame: bytes, packets: int) -> bytes:
    """A capture file of equal packets, a microsecond apart (draft-ietf-opsawg-pcap)."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1)
    sizes = struct.pack("<II", len(frame), len(frame))
    return head + b"".join(struct.pack("<II", 0, at) + sizes + frame for at in range(packets))


def tcpreplay(stream: Stream) -> list[str]:
    """Some hundred packets: what it does once a loop is spread over them, and they stay in the cache while
    they are small."""
    packets = max(100, min(500, (1 << 20) // stream.size))
    file = stream.write("pcap", pcap(stream.frame, packets))
    options = ["--topspeed", "--preload-pcap", "--loop=0", "--quiet"]
    return pinned(stream, "tcpreplay", "--intf1", stream.interface, *options, file)


def dpdk(device: str, stream: Stream, *more: str) -> list[str]:
    """Two lcores, as it must have; the main one sleeps, so both are on one CPU. No huge pages, no files but
    in the stream's folder, where its runtime directory is made."""
    cpu = min(os.sched_getaffinity(0)) if stream.cpu < 0 else stream.cpu
    run = stream.folder / "dpdk"
    run.mkdir(exist_ok=True)
    return [
        # libxdp's dispatcher would pin programs into the BPF file system, where they outlive a kill.
        *("env", f"RUNTIME_DIRECTORY={run}", "LIBXDP_SKIP_DISPATCHER=1", "dpdk-testpmd"),
        *("--lcores", f"0@{cpu},1@{cpu}", "--main-lcore", "0"),
        *("--no-huge", "-m", "256", "--no-pci", "--no-shconf", "--no-telemetry", "--vdev", device, "--"),
        *("--forward-mode=txonly", "--stats-period=86400", "--txq=1", "--nb-cores=1"),
        *(f"--eth-peer=0,{stream.dst_mac}", f"--tx-ip={stream.src_ip},{stream.dst_ip}"),
        *(f"--tx-udp={stream.src_port},{stream.dst_port}", *more),
    ]


def dpdk_af_xdp(stream: Stream) -> list[str]:
    device = f"net_af_xdp0,iface={stream.interface},start_queue={stream.queue},queue_count=1"
    return dpdk(device, stream, "--rxq=1", "--total-num-mbufs=8192", f"--txpkts={stream.size}")


def dpdk_af_packet(stream: Stream) -> list[str]:
    """Its ring has slots of 2 KiB unless told otherwise, and no queue to receive: that one's slots would have
    to fit into an mbuf, which has less than 64 KiB. A frame of two mbufs is put together in the slot."""
    device = f"net_af_packet0,iface={stream.interface},qdisc_bypass=1"
    if stream.size <= 1984:
        return dpdk(device, stream, "--rxq=0", "--total-num-mbufs=8192", f"--txpkts={stream.size}")
    slot = (stream.size + 64 + 4095) // 4096 * 4096
    first = (stream.size + 1) // 2
    return dpdk(
        f"{device},framesz={slot},blocksz={slot},framecnt=64",
        stream,
        *("--rxq=0", "--total-num-mbufs=2048", f"--mbuf-size={first + 256}"),
        f"--txpkts={first},{stream.size - first}",
    )


def clean_interface(stream: Stream) -> list[list[str]]:
    """testpmd makes the interface promiscuous, and libxdp attaches by netlink: both outlive a kill."""
    return [
        ["ip", "link", "set", "dev", stream.interface, *what] for what in (["xdp", "off"], ["promisc", "off"])
    ]


def scapy(how: str, stream: Stream) -> list[str]:
    script = str(Path(__file__).with_name("scapy_sender.py"))
    file = stream.write("frame", stream.frame)
    return pinned(stream, sys.executable, script, how, stream.interface, file)


def xdp_trafficgen(stream: Stream) -> list[str]:
    return pinned(
        stream,
        *("xdp-trafficgen", "udp", "-m", stream.dst_mac, "-M", stream.src_mac, "-A", stream.src_ipv6),
        *("-a", stream.dst_ipv6, "-P", str(stream.src_port), "-p", str(stream.dst_port), "-t", "1"),
        *("-I", "86400", stream.interface),
    )


def iperf3_port(stream: Stream) -> int:
    """Not the sink's: its server must bind it."""
    return stream.dst_port + 1


def iperf3(stream: Stream) -> list[str]:
    port = iperf3_port(stream)
    to = ["-c", stream.dst_ip, "-p", str(port), "-B", stream.src_ip, "--cport", str(port + 1)]
    return pinned(stream, "iperf3", "-u", *to, "-b", "0", "-t", "0", "-l", str(stream.payload_bytes))


def iperf3_server(stream: Stream) -> list[str]:
    return ["iperf3", "-s", "-1", "-B", stream.dst_ip, "-p", str(iperf3_port(stream))]


# ---- all of them ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Need:
    """A program and how one gets it. ``files``: a pattern of what must also be there; ``probe``: a command
    that fails where this kernel cannot run it; ``version``: one that says its version."""

    program: str
    remedy: str
    version: tuple[str, ...] = ()
    files: str = ""
    probe: tuple[str, ...] = ()


def _debian(program: str, package: str, *version: str, **more: Any) -> Need:
    return Need(program, f"apt-get install {package}", (program, *version), **more)


def _ours(program: str) -> Need:
    return Need(str(BUILD / program), "meson compile -C build/native")


def _testpmd(driver: str) -> Need:
    remedy = f"dpdk librte-mempool-ring* librte-net-{driver.replace('_', '-')}*"
    options = ("--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "-m", "64", "-v", "--", "--help")
    files = f"/usr/lib/*/dpdk/pmds-*/librte_net_{driver}.so"
    return _debian("dpdk-testpmd", remedy, *options, files=files)


@dataclass(frozen=True)
class Peer:
    """``server``: a command that must listen at the peer before; ``undo``: commands that take away what a
    kill leaves; ``checksum``: of UDP: "right", "zero", or "offloaded" (the pseudo-header's sum). ``taps``: it
    holds a packet socket for everything, to which the kernel copies what others send through its stack, also
    while it is stopped: kernel UDP is slower beside it; AF_XDP and what goes past the qdisc are not.
    ``takes_arrivals``: what comes in on its queue is its own, also while it is stopped: TCP, and so iperf3's
    control connection, may get no ACKs beside it."""

    command: Callable[[Stream], list[str]]
    needs: Need
    differs: str = ""
    checksum: str = "right"
    server: Callable[[Stream], list[str]] | None = None
    taps: bool = False
    takes_arrivals: bool = False
    undo: Callable[[Stream], list[list[str]]] = lambda _: []
    cannot: Callable[[Stream], str] = lambda _: ""
    """why it cannot send this stream; "" when it can"""


def _at_most(most: int, why: str) -> Callable[[Stream], str]:
    return lambda stream: why if stream.size > most else ""


def _no_af_xdp_pmd(stream: Stream) -> str:
    if stream.size > AF_XDP_PMD_MOST_BYTES:
        return f"a packet is one mbuf and one chunk: at most {AF_XDP_PMD_MOST_BYTES} bytes"
    if stream.mtu > AF_XDP_PMD_MOST_MTU:
        return f"its XDP program takes no frags: veth refuses it above an MTU of {AF_XDP_PMD_MOST_MTU}"
    return ""


_SCAPY = Need("scapy", "pip install scapy")
_KERNEL = "the kernel writes the headers and leaves the UDP checksum to the interface"
_TESTPMD = "headers of its own: UDP checksum 0, which spares the receiver a check; a payload of old memory"

PEERS = {
    "kernel UDP sendto": Peer(partial(kernel_udp, "sendto"), _ours("udp_sender"), _KERNEL, "offloaded"),
    "kernel UDP sendmmsg": Peer(partial(kernel_udp, "sendmmsg"), _ours("udp_sender"), _KERNEL, "offloaded"),
    "kernel UDP UDP_SEGMENT": Peer(
        partial(kernel_udp, "segment"),
        _ours("udp_sender"),
        f"{_KERNEL}; cut into packets before the interface (tx-udp-segmentation is off here), as veth counts "
        "64 KiB as one",
        "offloaded",
    ),
    "AF_PACKET sendmmsg": Peer(partial(packet_socket, "sendmmsg"), _ours("packet_sender")),
    "AF_PACKET TX_RING": Peer(partial(packet_socket, "ring"), _ours("packet_sender")),
    "minimal C AF_XDP sender": Peer(minimal, _ours("minimal")),
    "trafgen": Peer(
        trafgen,
        _debian("trafgen", "netsniff-ng", "--version"),
        "its sending process goes to CPU 0, whatever it is told",
        cannot=_at_most(TRAFGEN_MOST_BYTES, f"its slots take {TRAFGEN_MOST_BYTES} bytes"),
    ),
    "tcpreplay": Peer(tcpreplay, _debian("tcpreplay", "tcpreplay", "--version"), taps=True),
    "testpmd af_xdp": Peer(
        dpdk_af_xdp,
        _testpmd("af_xdp"),
        _TESTPMD,
        "zero",
        takes_arrivals=True,
        undo=clean_interface,
        cannot=_no_af_xdp_pmd,
    ),
    "testpmd af_packet": Peer(
        dpdk_af_packet, _testpmd("af_packet"), _TESTPMD, "zero", undo=clean_interface, taps=True
    ),
    "scapy sendp": Peer(partial(scapy, "sendp"), _SCAPY, "builds it anew each time", taps=True),
    "scapy L2socket": Peer(partial(scapy, "socket"), _SCAPY, taps=True),
    "xdp-trafficgen": Peer(
        xdp_trafficgen,
        _debian("xdp-trafficgen", "xdp-tools", "udp", "--version", probe=("xdp-trafficgen", "probe")),
        "IPv6, hop limit 1, and a size of its own; veth takes them only while its other end has GRO on",
        cannot=_at_most(XDP_TRAFFICGEN_BYTES, f"its frames have {XDP_TRAFFICGEN_BYTES} bytes"),
    ),
    "iperf3 -u": Peer(
        iperf3,
        _debian("iperf3", "iperf3", "--version"),
        f"{_KERNEL}; ports of its own, a server that reads; numbers and times in the payload",
        "offloaded",
        server=iperf3_server,
    ),
}  # fmt: skip


def _run(command: tuple[str, ...]) -> tuple[int, str]:
    with tempfile.TemporaryDirectory() as folder:  # DPDK makes a directory even to say its version
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"RUNTIME_DIRECTORY": folder},
            check=False,
        )
    return done.returncode, done.stdout + done.stderr


def missing(name: str) -> str:
    """What a sender lacks here, with the remedy; "" when it can be started."""
    needs = PEERS[name].needs
    if needs.program == "scapy":
        return "" if version(name) else f"no scapy; {needs.remedy}"
    if not shutil.which(needs.program):
        return f"no {needs.program}; {needs.remedy}"
    if needs.files and not glob(needs.files):
        return f"no {needs.files}; {needs.remedy}"
    if needs.probe:
        code, said = _run(needs.probe)
        if code:
            last = (said.strip().splitlines() or [f"exit status {code}"])[-1]
            return f"{' '.join(needs.probe)}: {last}; it needs another kernel"
    return ""


def version(name: str) -> str:
    """What the program says of itself; "" when it is absent. Ours: that they are."""
    needs = PEERS[name].needs
    if needs.program == "scapy":
        try:
            return f"scapy {metadata.version('scapy')}"
        except metadata.PackageNotFoundError:
            return ""
    if not shutil.which(needs.program):
        return ""
    if not needs.version:
        return f"bench/programs/{Path(needs.program).name}.c"
    said = re.search(r"\d+\.\d+(\.\d+)*", _run(needs.version)[1])
    return f"{needs.program} {said[0]}" if said else needs.program

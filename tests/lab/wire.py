"""The receiver's side of a laboratory: oracles that are the kernel's."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xsk_engine import packet
from xsk_engine._ffi import libbpf, native
from xsk_engine.config import EngineConfig
from xsk_engine.engine import Engine
from xsk_engine.errors import BrokenError, BusyError, XskError
from xsk_engine.lab import namespaces, private, topology
from xsk_engine.lab.private import PrivateLab
from xsk_engine.worker import Worker

ETH_P_ALL = 3
PORT = 9000
_SOL_PACKET, _PACKET_AUXDATA = 263, 8


class Wire:
    """vtx here, vrx in the namespace of rx_fd."""

    def __init__(self, lab: PrivateLab, forwarder=None):
        self.lab = lab
        self.forwarder = forwarder
        self.roomy = can_enlarge()
        """a capture keeps everything: an ordinary user's socket holds some 150 frames"""

    def faults(self):
        """What the wire of this laboratory has counted from tx to rx, once it holds nothing."""
        return self.forwarder.page.settled(5.0)["forward"]

    def in_rx(self):
        return namespaces.entered(self.lab.rx_fd)

    def ip(self, *arguments, rx=False):
        """iproute2 on one side."""
        with self.in_rx() if rx else contextlib.nullcontext():
            subprocess.run(["ip", *arguments], check=True, timeout=10, pass_fds=())

    @contextlib.contextmanager
    def capture(self, ours=None, *, at=topology.RX_INTERFACE):
        """The frames that arrive at vrx (or vtx) and that `ours` takes; by default those to PORT."""
        ours = ours or is_ours
        with self.in_rx() if at == topology.RX_INTERFACE else contextlib.nullcontext():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            sock.bind((at, 0))
        sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        enlarge(sock)
        sock.settimeout(0.05)
        frames, stop, give_up = [], threading.Event(), threading.Event()

        def read():
            while not give_up.is_set():
                try:
                    frame, auxiliary, _, address = sock.recvmsg(1 << 17, 64)
                except TimeoutError:
                    if stop.is_set():
                        return
                    continue
                frame = tagged(frame, auxiliary)
                if address[2] != 4 and ours(frame):  # 4 = PACKET_OUTGOING
                    frames.append(frame)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield frames
        finally:
            stop.set()
            thread.join(2.0)  # what has arrived; but not for as long as somebody sends
            give_up.set()
            thread.join()
            sock.close()

    @contextlib.contextmanager
    def counted(self, port=PORT):
        """Yields a function: UDP/IPv4 frames to the port that have arrived, counted by the kernel (also
        those it had no room to keep)."""
        program = [  # tcpdump -dd 'udp dst port P' for IPv4 without options
            (0x28, 0, 0, 12),
            (0x15, 0, 5, 0x0800),
            (0x30, 0, 0, 23),
            (0x15, 0, 3, 17),
            (0x28, 0, 0, 36),
            (0x15, 0, 1, port),
            (0x06, 0, 0, 1),
            (0x06, 0, 0, 0),
        ]
        code = b"".join(struct.pack("HBBI", *line) for line in program)
        buffer = ctypes.create_string_buffer(code, len(code))
        with self.in_rx():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.setsockopt(
                socket.SOL_SOCKET, 26, struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
            )
            sock.bind((topology.RX_INTERFACE, ETH_P_ALL))
        total = 0

        def arrived():
            nonlocal total
            seen, _dropped = struct.unpack("II", sock.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
            total += seen
            return total

        try:
            arrived()
            yield arrived
        finally:
            sock.close()

    @contextlib.contextmanager
    def listening(self, port=PORT):
        """A bound UDP socket, so that the receiver does not answer with ICMP."""
        with self.in_rx():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((topology.RX_IPV4, port))
        enlarge(sock)
        with sock:
            yield sock


def tagged(frame, auxiliary):
    """With its outer VLAN tag, which the kernel hands over beside it (struct tpacket_auxdata)."""
    for level, kind, data in auxiliary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, tci, tpid = struct.unpack("I12xHH", data)
            if status & 0x10:  # TP_STATUS_VLAN_VALID
                return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
    return frame


def snmp(wire):
    """The receiver's kernel counters, as {"UdpInCsumErrors": 0, ...}."""
    with wire.in_rx():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        six = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
    counters = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        kind = names.split(":")[0]
        counters |= {kind + n: int(v) for n, v in zip(names.split()[1:], values.split()[1:], strict=True)}
    return counters | {name: int(value) for name, value in (line.split() for line in six)}


def can_enlarge():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
        return True
    return False


def enlarge(sock):
    """As much as it takes; for an ordinary user what there is."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE


def is_ours(frame):
    """UDP to PORT, in either IP version."""
    if frame[12:14] == b"\x08\x00":
        return frame[23] == 17 and frame[36:38] == struct.pack("!H", PORT)
    return frame[12:14] == b"\x86\xdd" and frame[20] == 17 and frame[56:58] == struct.pack("!H", PORT)


def frame(size=60, *, version=4, fill=None):
    """A UDP frame from vtx to vrx with a payload that differs from byte to byte."""
    src, dst = (topology.TX_IPV4, topology.RX_IPV4) if version == 4 else (topology.TX_IPV6, topology.RX_IPV6)
    payload = bytes((i * 7 + 1) & 0xFF for i in range(size - packet.udp_header_bytes(version)))
    return packet.udp_frame(
        packet.parse_mac(topology.RX_MAC),
        packet.parse_mac(topology.TX_MAC),
        ipaddress.ip_address(src),
        ipaddress.ip_address(dst),
        1234,
        PORT,
        payload if fill is None else bytes([fill]) * len(payload),
    )


@contextlib.contextmanager
def another_lab(options):
    """This thread stands in the tx side of one more laboratory; everything is gone afterwards. With
    ``LabOptions(wire=parse_wire(...))`` `forwarder` is the running wire, `faults()` what it has counted."""
    before = namespaces.current_network()
    lab, forwarder = private.make(options)
    try:
        with namespaces.entered(lab.tx_fd):
            yield Wire(lab, forwarder)
    finally:
        if forwarder:
            forwarder.end()
        for fd in (before, lab.tx_fd, lab.rx_fd, lab.wire_net_fd, lab.wire_page_fd):
            if fd is not None:
                os.close(fd)


def during(lab, traffic, *actions, **config):
    """Runs traffic while (seconds, ip arguments or something to call, rx) happen to the interfaces; the
    closed engine, its error."""
    error = None

    async def run(engine):
        task = asyncio.ensure_future(engine.run(traffic))
        started = time.monotonic()
        for seconds, what, rx in actions:
            await asyncio.sleep(max(started + seconds - time.monotonic(), 0))
            if callable(what):
                with lab.in_rx() if rx else contextlib.nullcontext():
                    what()
            else:
                lab.ip(*what, rx=rx)
        await task

    with Engine(EngineConfig("vtx", **config)) as engine:
        try:
            asyncio.run(run(engine))
        except BrokenError as failure:
            error = failure
    return engine, error


def cli(*arguments, timeout=60, **options):
    """xsk-engine as a process, in this process's network namespace."""
    return subprocess.run(
        [sys.executable, "-m", "xsk_engine", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "xsk_engine", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def first_line(process, seconds=20.0, of="stdout"):
    """What a process prints first; one that prints nothing is killed after so long."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        return getattr(process, of).readline()
    finally:
        timer.cancel()


def says_gone(sink):
    """Has it failed because its device is gone?"""
    try:
        sink.raise_failure()
    except BrokenError as error:
        return "the device is gone" in str(error)
    return False


def lacks(reason):
    """This machine lacks what the test needs: it skips, or fails where XSK_REQUIRE_LAB=1 forbids that."""
    if os.environ.get("XSK_REQUIRE_LAB") == "1":
        pytest.fail(f"XSK_REQUIRE_LAB=1 forbids to skip: {reason}")
    pytest.skip(reason)


def need_real_root():
    if not is_real_root():
        lacks("needs root outside a user namespace")


def exit_code_of(child, seconds=10.0):
    """Of a forked child; one that hangs says where, and is ended."""
    deadline = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGABRT)  # pytest's faulthandler prints its stack
            deadline += 3600
        time.sleep(0.005)


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def umem_kib():
    """Mapped and not inherited over fork (``dc``, proc_pid_smaps(5)), which is how a umem is."""
    regions = Path("/proc/self/smaps").read_text().split("VmFlags:")
    sizes = [re.search(r"^Size: +(\d+) kB$", region, re.M) for region in regions]
    flags = [region.partition("\n")[0].split() for region in regions[1:]]
    return sum(int(size[1]) for size, flag in zip(sizes, flags, strict=False) if "dc" in flag)


def attached_program():
    """At our end, if there is one."""
    try:
        return libbpf.attached_program(socket.if_nametoindex("vtx"))
    except OSError:
        return None


def holdings():
    """What a leak would be seen in: open fds, mappings of AF_XDP sockets, threads, memory of umems, the XDP
    program."""
    fds = sorted(os.listdir("/proc/self/fd"))
    maps = Path("/proc/self/maps").read_text().count("socket:")
    return len(fds), maps, threading.active_count(), umem_kib(), attached_program()


def closed_beside(engine, callers, call, seconds=0.05):
    """Closes the engine while so many threads go on calling; what has ended each of them."""
    ends = []

    def go_on():
        try:
            while True:
                call()
        except XskError as error:
            ends.append(error)

    threads = [threading.Thread(target=go_on) for _ in range(callers)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    engine.close()
    for thread in threads:
        thread.join(10)
    assert len(ends) == callers
    return ends


def close_between(endpoint):
    """As soon as the thread that uses it is outside for a moment."""

    def closed():
        with contextlib.suppress(BusyError):
            endpoint.close()
        return endpoint.closed

    wait_until(closed)


def is_real_root():
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _deaf_ring(like, entry_bytes):
    """A ring that no kernel looks at."""
    memory = ctypes.create_string_buffer(192 + like.size * entry_bytes)
    base = ctypes.addressof(memory)
    ctypes.c_uint32.from_address(base + 128).value = 1  # XDP_RING_NEED_WAKEUP
    ring = native.Ring(0, 0, like.mask, like.size, base, base + 64, base + 192, base + 128)
    ring.memory = memory
    return ring


def deafen_zerocopy(monkeypatch):
    """Sockets in zero-copy become those of a driver that binds and then never looks at its rings."""
    real, kept = Worker._txq_config, []

    def config(self, xsk):
        config = real(self, xsk)
        if xsk.mode == "zerocopy":
            rings = _deaf_ring(config.tx, 16), _deaf_ring(config.cq, 8)
            config.tx, config.cq = rings
            kept.extend(rings)
        return config

    monkeypatch.setattr(Worker, "_txq_config", config)

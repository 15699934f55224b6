"""TCP connections by tuple: which packets come to the AF_XDP sockets, and which the kernel gets."""

import contextlib
import dataclasses
import ipaddress
import itertools
import socket
import struct
import threading

import pytest
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from wire import another_lab, need_real_root, wait_until

from xsk_engine import netdev
from xsk_engine.capture import Capture
from xsk_engine.errors import ClosedError, UnavailableError
from xsk_engine.lab import topology
from xsk_engine.lab.topology import LabOptions
from xsk_engine.receiver import Receiver
from xsk_engine.steering import MOST_TUPLES, Match, Steering, Tuple
from xsk_engine.umem import Umem
from xsk_engine.xsk import bind_rx_queues

TUPLES = Match(signature=False, tuples=True)
RING, CHUNK = 512, 4096
BATCH = 50  # veth's ring has 256 entries, and what is 9 KB long fills a socket sooner
MARK = b"\x02\x99"  # how the source MAC begins; its other bytes number the packets


class Steered:
    """vrx with the program and a socket on each queue, and what comes to these and to the kernel there."""

    def __init__(self, steering, capture, passed, sock):
        self.steering = steering
        self._capture, self._passed, self._sock = capture, passed, sock
        self._taken, self._records = [], b""
        self._numbers = itertools.count()

    def _take(self):
        self._records += self._capture.read()
        while len(self._records) >= 16:
            end = 16 + struct.unpack_from("=8xI", self._records)[0]
            if len(self._records) < end:
                return
            self._taken.append(self._records[16:end])
            self._records = self._records[end:]

    def ways(self, packets):
        """Sends them; for each, "socket" or "kernel". None is lost, changed, or comes twice."""
        sent = []
        for at in range(0, len(packets), BATCH):
            batch = [raw(one) for one in packets[at : at + BATCH]]
            batch = [f[:6] + MARK + struct.pack("!I", next(self._numbers)) + f[12:] for f in batch]
            for frame in batch:
                self._sock.send(frame)
            sent.extend(batch)
            wait_until(lambda: self._arrived() >= len(sent))
        taken, passed = self._taken[:], self._passed[:]
        self._taken.clear()
        self._passed.clear()
        assert sorted(taken + passed) == sorted(sent)
        return ["socket" if frame in taken else "kernel" for frame in sent]

    def _arrived(self):
        self._take()
        return len(self._taken) + len(self._passed)


@contextlib.contextmanager
def steered(wire, *tuples, match=TUPLES):
    need_real_root()
    with contextlib.ExitStack() as stack:
        passed = stack.enter_context(wire.capture(lambda frame: frame[6:8] == MARK))
        sock = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        sock.bind(("vtx", 0))
        stack.enter_context(wire.in_rx())
        device = netdev.get("vrx")
        umem = Umem(RING * device.queues * CHUNK, CHUNK)
        stack.callback(umem.close)
        several = device.max_frame_bytes > umem.usable_bytes
        xsks = bind_rx_queues(
            umem, device, range(device.queues), "copy", ring_size=RING, multi_buffer=several
        )

        def close_sockets():
            for xsk in xsks:
                xsk.close()
            umem.unregister()

        stack.callback(close_sockets)
        capture = Capture(0)
        stack.callback(capture.close)
        receiver = Receiver(device, None, capture, umem=umem, xsks=xsks, close_sockets=close_sockets)
        stack.callback(receiver.close)
        receiver.start()
        stack.callback(receiver.stop)
        steering = Steering(device, match, xsks)
        stack.callback(steering.close)
        for one in tuples:
            steering.add_tuple(one)
        yield Steered(steering, capture, passed, sock)


# ---- packets ------------------------------------------------------------------------------------------


def tuple_of(local, remote, local_port=40000, remote_port=80):
    return Tuple(ipaddress.ip_address(local), local_port, ipaddress.ip_address(remote), remote_port)


V4 = tuple_of(topology.RX_IPV4, topology.TX_IPV4)
V6 = tuple_of(topology.RX_IPV6, topology.TX_IPV6)
# Its ports are the bytes of the far end's address, where a header without its last word would have them.
ODD = tuple_of(topology.RX_IPV4, topology.TX_IPV4, 10 << 8 | 77, 1)
ETHER = Ether(src=topology.TX_MAC, dst=topology.RX_MAC)
OPTION, MANY = {"options": [IPOption_Router_Alert()]}, {"options": [IPOption_NOP()] * 40}


def network(src, dst, **fields):
    return (IP if src.version == 4 else IPv6)(src=str(src), dst=str(dst), **fields)


def incoming(one, kind=TCP, above=None, **fields):
    """Of this connection, from the far end; `above` stands between IP and TCP."""
    transport = kind(sport=one.remote_port, dport=one.local_port)
    return network(one.remote, one.local, **fields) / (above / transport if above else transport)


def outgoing(one, kind=TCP, above=None, **fields):
    """Of this connection, from here: what errors quote."""
    transport = kind(sport=one.local_port, dport=one.remote_port)
    return network(one.local, one.remote, **fields) / (above / transport if above else transport)


def error4(quoted, kind=3, code=1, **fields):
    return ETHER / IP(src="10.77.0.9", dst=topology.RX_IPV4, **fields) / ICMP(type=kind, code=code) / quoted


def error6(quoted, kind=1, code=0, **fields):
    error = ICMPv6DestUnreach(type=kind, code=code)
    return ETHER / IPv6(src="fd77::9", dst=topology.RX_IPV6, **fields) / error / quoted


def tagged(packet, *tags):
    packet = packet.copy()
    for tag in tags:
        packet = ETHER / tag / packet.payload
    return packet


def others(one):
    """Connections that differ in one thing."""
    return [
        dataclasses.replace(one, local_port=one.local_port + 1),
        dataclasses.replace(one, remote_port=one.remote_port - 1),
        dataclasses.replace(one, local=one.local + 1),
        dataclasses.replace(one, remote=one.remote + 2),
        dataclasses.replace(one, local_port=one.remote_port, remote_port=one.local_port),
        dataclasses.replace(one, local=one.remote, remote=one.local),
    ]


def numbered(name, packets):
    return {f"{name} {i}": packet for i, packet in enumerate(packets)}


SEGMENTS = {
    "ipv4": ETHER / incoming(V4),
    "ipv4, not to be fragmented": ETHER / incoming(V4, flags="DF"),
    "ipv4 with an option": ETHER / incoming(V4, **OPTION),
    "ipv4 with many, vlan": tagged(ETHER / incoming(V4, **MANY), Dot1Q(vlan=7)),
    "ipv4, vlan": tagged(ETHER / incoming(V4), Dot1Q(vlan=7)),
    "ipv4, two tags": tagged(ETHER / incoming(V4), Dot1Q(vlan=7), Dot1AD(vlan=5)),
    "ipv6": ETHER / incoming(V6),
    "ipv6, vlan": tagged(ETHER / incoming(V6), Dot1Q(vlan=7)),
    "ipv6, two tags": tagged(ETHER / incoming(V6), Dot1Q(vlan=7), Dot1AD(vlan=5)),
}
ERRORS = {
    **numbered("unreachable", [error4(outgoing(V4), 3, code) for code in range(16)]),
    **numbered("too late", [error4(outgoing(V4), 11, code) for code in range(2)]),
    **numbered("parameter", [error4(outgoing(V4), 12, code) for code in range(3)]),
    **numbered("icmpv6", [error6(outgoing(V6), kind) for kind in (1, 2, 3, 4)]),
    "icmpv6 policy": error6(outgoing(V6), 1, 5),
    "options in front": error4(outgoing(V4), **MANY),
    "options quoted": error4(outgoing(V4, **OPTION)),
    "options in both": error4(outgoing(V4, **MANY), **OPTION),
    "vlan": tagged(error4(outgoing(V4)), Dot1Q(vlan=7)),
    "icmpv6, vlan": tagged(error6(outgoing(V6)), Dot1Q(vlan=7)),
    "eight bytes of tcp": error4(raw(outgoing(V4))[:28]),
    "no more than ports": error4(raw(outgoing(V4))[:24]),
    "icmpv6, no more than ports": error6(raw(outgoing(V6))[:44]),
    "much of it": error6(outgoing(V6) / bytes(1000)),
    "a first fragment": error4(outgoing(V4, flags="MF")),
}
OURS = SEGMENTS | ERRORS
OTHERS = {
    **numbered("segment", [ETHER / incoming(other) for one in (V4, V6) for other in others(one)]),
    **numbered("option", [ETHER / incoming(other, **OPTION) for other in others(V4)]),
    **numbered("udp", [ETHER / incoming(one, UDP) for one in (V4, V6)]),
    "udp with an option": ETHER / incoming(V4, UDP, **OPTION),
    "wrong way": ETHER / outgoing(V4),
    "wrong way, ipv6": ETHER / outgoing(V6),
    "first fragment": ETHER / incoming(V4, flags="MF"),
    "later fragment": ETHER / incoming(V4, frag=3),
    "ipv6 fragment": ETHER / incoming(V6, above=IPv6ExtHdrFragment(m=1)),
    "extension header": ETHER / incoming(V6, above=IPv6ExtHdrDestOpt()),
    "cut before its ports": raw(ETHER / incoming(V4))[:36],
    "cut behind options": raw(ETHER / incoming(V4, **OPTION))[:40],
    "three tags": tagged(ETHER / incoming(V4), *[Dot1Q(vlan=7)] * 3),
    **numbered("error", [error4(outgoing(other)) for other in others(V4)]),
    **numbered("error of ipv6", [error6(outgoing(other)) for other in others(V6)]),
    "quotes an incoming one": error4(incoming(V4)),
    "quotes an incoming one, ipv6": error6(incoming(V6)),
    "quotes udp": error4(outgoing(V4, UDP)),
    "quotes udp, ipv6": error6(outgoing(V6, UDP)),
    "quotes a later fragment": error4(outgoing(V4, frag=3)),
    "quotes an extension header": error6(outgoing(V6, above=IPv6ExtHdrDestOpt())),
    "quotes too little": error4(raw(outgoing(V4))[:23]),
    "quotes too little, ipv6": error6(raw(outgoing(V6))[:43]),
    "quotes half a header": error4(raw(outgoing(V4))[:12]),
    "quotes nothing": error4(b""),
    "quotes a short header": error4(b"\x44" + raw(outgoing(ODD))[1:]),
    "quotes another version": error4(b"\x65" + raw(outgoing(V4))[1:]),
    "quotes another version, ipv6": error6(b"\x40" + raw(outgoing(V6))[1:]),
    "quotes ipv6": error4(outgoing(V6)),
    "quotes ipv4": error6(outgoing(V4)),
    "first fragment of an error": error4(outgoing(V4), flags="MF"),
    "later fragment of an error": error4(outgoing(V4), frag=3),
    "icmpv6 over ipv4": error4(outgoing(V4), proto=58),
    "icmp over ipv6": error6(outgoing(V6), kind=3, nh=1),
    **numbered("no error", [error4(outgoing(V4), kind, 0) for kind in (0, 1, 2, 4, 5, 8, 10)]),
    **numbered("no error of ipv6", [error6(outgoing(V6), kind) for kind in (0, 5, 11, 12, 128, 129)]),
}


def all_of(packets, way):
    return dict.fromkeys(packets, way)


def ways(here, packets):
    return dict(zip(packets, here.ways(list(packets.values())), strict=True))


# ---- tests --------------------------------------------------------------------------------------------


def test_exactly_its_packets(wire):
    with steered(wire, V4, V6, ODD) as here:
        assert ways(here, OURS) == all_of(OURS, "socket")
        assert ways(here, OTHERS) == all_of(OTHERS, "kernel")


def test_they_come_and_go(wire):
    with steered(wire) as here:
        assert ways(here, OURS) == all_of(OURS, "kernel")
        for _ in range(2):
            here.steering.add_tuple(V4)
            here.steering.add_tuple(V4)
            assert here.ways([ETHER / incoming(V4), error4(outgoing(V4))]) == ["socket"] * 2
            assert here.ways([ETHER / incoming(V6), error6(outgoing(V6))]) == ["kernel"] * 2
            here.steering.add_tuple(V6)
            assert ways(here, OURS) == all_of(OURS, "socket")
            for one in (V4, V6, V4, V6):
                here.steering.remove_tuple(one)
            assert ways(here, OURS) == all_of(OURS, "kernel")


def test_a_thousand(wire):
    """All of them, and none of their neighbours."""
    many = [
        dataclasses.replace(one, local_port=port, remote_port=port + 7)
        for one in (V4, V6)
        for port in range(10_000, 11_000, 2)
    ]
    beside = [dataclasses.replace(one, local_port=one.local_port + 1) for one in many[::10]]
    with steered(wire, *many) as here:
        assert here.ways([ETHER / incoming(one) for one in many]) == ["socket"] * 1000
        assert here.ways([ETHER / incoming(one) for one in beside]) == ["kernel"] * 100
        for one in many[::2]:
            here.steering.remove_tuple(one)
        assert here.ways([ETHER / incoming(one) for one in many[::5]]) == ["kernel", "socket"] * 100


def test_a_full_table_says_so(wire):
    far = ipaddress.ip_address("192.0.2.0")
    many = [
        dataclasses.replace(V4, remote=far + i // 60_000, remote_port=1 + i % 60_000)
        for i in range(MOST_TUPLES)
    ]
    with steered(wire, *many) as here:
        with pytest.raises(UnavailableError, match=r"add_tuple.*10\.77\.0\.2:40000.*E2BIG.*65536"):
            here.steering.add_tuple(V4)
        here.steering.add_tuple(many[0])
        here.steering.remove_tuple(many[1])
        here.steering.add_tuple(V4)
        sent = [ETHER / incoming(one) for one in (V4, many[0], many[1], many[-1])]
        assert here.ways(sent) == ["socket", "socket", "kernel", "socket"]


def test_other_tuples_may_change_meanwhile(wire):
    """In other threads; what stays is never missed."""
    failures = []

    def change(port):
        one = dataclasses.replace(V4, local_port=port)
        try:
            for _ in range(2000):
                here.steering.add_tuple(one)
                here.steering.remove_tuple(one)
        except BaseException as error:
            failures.append(error)

    with steered(wire, V4) as here:
        threads = [threading.Thread(target=change, args=(port,)) for port in (1, 2)]
        for thread in threads:
            thread.start()
        try:
            assert here.ways([ETHER / incoming(V4)] * 500) == ["socket"] * 500
        finally:
            for thread in threads:
                thread.join()
        assert not failures
        gone = [dataclasses.replace(V4, local_port=port) for port in (1, 2)]
        assert here.ways([ETHER / incoming(one) for one in gone]) == ["kernel"] * 2


def test_packets_of_several_fragments(wire):
    """Longer than what the driver puts into one piece."""
    packets = [ETHER / incoming(V4), ETHER / incoming(V4, **MANY), ETHER / incoming(V6)]
    packets += [error4(outgoing(V4, **MANY), **MANY), error6(outgoing(V6))]
    foreign = [ETHER / incoming(others(V4)[0]), error6(outgoing(others(V6)[0]))]
    with another_lab(LabOptions(mtu=9000)) as lab, steered(lab, V4, V6) as here:
        assert here.ways([one / bytes(8000) for one in packets]) == ["socket"] * len(packets)
        assert here.ways([one / bytes(8000) for one in foreign]) == ["kernel"] * len(foreign)


def test_ports_without_tuples(wire):
    """A port is of UDP, also behind options, and no error comes with it."""
    with steered(wire, match=Match(signature=False, ports=(V4.local_port,))) as here:
        ports = [ETHER / incoming(one, UDP) for one in (V4, V6)] + [ETHER / incoming(V4, UDP, **OPTION)]
        assert here.ways(ports) == ["socket"] * 3
        errors = [error4(outgoing(V4, kind)) for kind in (UDP, TCP)]
        assert here.ways([ETHER / incoming(V4), ETHER / outgoing(V4, UDP), *errors]) == ["kernel"] * 4
        with pytest.raises(ValueError, match="no tuples"):
            here.steering.add_tuple(V4)


def test_after_the_end(wire):
    with steered(wire, V4) as here:
        here.steering.close()
        assert here.ways([ETHER / incoming(V4)]) == ["kernel"]
        here.steering.remove_tuple(V4)
        with pytest.raises(ClosedError, match="add_tuple"):
            here.steering.add_tuple(V4)

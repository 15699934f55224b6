"""Applications as the model tests play them: endpoints that send, alloc and post, and their headers."""

import ctypes
import errno
from ctypes import c_uint32
from ipaddress import ip_address

from fake import fake
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import long, native, short
from xsk_engine.datagram import Datagram

SRC_MAC, DST_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def datagram(version=4, vlan=None, **values):
    """From the first host of a documentation net to its second one."""
    src, dst = (f"192.0.2.{i}" if version == 4 else f"2001:db8::{i}" for i in (1, 2))
    ports = {"src_port": 4000, "dst_port": 9}
    return Datagram(SRC_MAC, DST_MAC, ip_address(src), ip_address(dst), **{**ports, "vlan": vlan, **values})


def native_header(way):
    raw = way.header()
    header = ffi.Header(len=len(raw), ip_offset=way.ip_offset)
    ctypes.memmove(header.words, raw, len(raw))
    return header


def scapy_frame(way, payload):
    """What scapy sends that way, padded, and a UDP checksum of 0 as RFC 768 wants it."""
    tos = way.dscp << 2
    ip = (
        IP(src=str(way.src), dst=str(way.dst), ttl=way.ttl or 64, tos=tos, id=0, flags=way_flags(way))
        if way.src.version == 4
        else IPv6(src=str(way.src), dst=str(way.dst), hlim=way.ttl or 64, tc=tos)
    )
    tag = Dot1Q(vlan=way.vlan, prio=way.pcp) if way.vlan is not None else None
    ether = Ether(src=SRC_MAC.hex(":"), dst=DST_MAC.hex(":"))
    udp = UDP(sport=way.src_port, dport=way.dst_port)
    frame = bytearray(bytes((ether / tag if tag else ether) / ip / udp / bytes(payload)))
    at = len(way.header()) - 2
    if frame[at : at + 2] == b"\0\0":
        frame[at : at + 2] = b"\xff\xff"
    return bytes(frame).ljust(60, b"\0")


def way_flags(way):
    return way.header()[way.ip_offset + 6] >> 5


class Sender:
    """An endpoint with an arena of its own. Results as of the native functions, errors by their names."""

    def __init__(self, one, quota=1 << 20, arena_flags=0, endpoint_flags=0, add=True, **values):
        self.one = one
        self.arena = ffi.create(
            native.arena_open, one.umem.handle, ctypes.byref(ffi.ArenaConfig(quota, 0, arena_flags))
        )
        values = {"max_frame_bytes": 2048, "flags": endpoint_flags} | values
        self.endpoint = one.endpoint(self.arena, **values)
        if add:
            native.loop_command(one.loop, ffi.ADD_ENDPOINT, self.endpoint)

    def send(self, payload, header=None):
        return named(short.endpoint_send(self.endpoint, by_reference(header), payload, len(payload)))

    def send_many(self, payloads, header=None, stride=0):
        """Side by side, or each `stride` bytes behind the one before."""
        block = b"".join(p.ljust(stride, b"\xbb") for p in payloads)
        lens = (c_uint32 * len(payloads))(*map(len, payloads))
        data = ctypes.create_string_buffer(block, len(block))
        return named(
            long.endpoint_send_many(self.endpoint, by_reference(header), data, stride, lens, len(payloads))
        )

    def alloc(self, n, length, header=None):
        """(addr, pitch), or an errno's name."""
        span = ffi.Span()
        error = long.endpoint_alloc(self.endpoint, by_reference(header), n, length, ctypes.byref(span))
        if error:
            return named(error)
        assert span.n == n
        return span.addr, span.pitch

    def post(self, frames, header=None, tracker=None, options=0):
        """Frames as (addr, bytes)."""
        descs = (ffi.Desc * max(len(frames), 1))(*((addr, length, options) for addr, length in frames))
        return named(long.endpoint_post(self.endpoint, by_reference(header), descs, len(frames), tracker))

    def write(self, addr, data):
        self.one.umem.area.view(addr, len(data))[:] = data

    def release(self, addr):
        native.frag_unref(self.one.umem.handle, None, addr)

    def counters(self):
        out = ffi.EndpointCounters()
        short.endpoint_read(self.endpoint, ctypes.byref(out))
        return out

    def stats(self):
        out = ffi.ArenaStats()
        native.arena_read_stats(self.arena, ctypes.byref(out))
        return out

    def close(self):
        """When the loop has ended, or has removed it."""
        native.endpoint_destroy(self.endpoint)
        native.arena_close(self.arena)


def by_reference(header):
    return ctypes.byref(header) if header is not None else None


def named(result):
    return errno.errorcode[-result] if result < 0 else result


def complete_all(one):
    while fake.held(one.kernel) and fake.complete(one.kernel, 0) == 0:
        pass


def finish(one, *senders):
    """Everything completes and the loop ends; then every chunk is in the pool again."""
    fake.policy(one.kernel, 1 << 30, 1)
    complete_all(one)
    if one.counters.state < ffi.LOOP_STOPPED:
        one.drain()
        one.run()
    for sender in senders:
        sender.close()
    audit = one.umem.audit()
    assert (audit.referenced, audit.inflight_descs) == (0, 0), audit
    one.close()

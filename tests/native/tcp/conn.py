"""Connections as an application holds them."""

import ctypes
from ctypes import byref, c_uint8, c_uint32, c_uint64

from abi import RENO, STATES, named, tcp
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from segments import ADDRESSES, MOD, OUR_MAC, PEER_MAC

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi import nativetcp
from xsk_engine._ffi.native import native

SECOND = 10**9


def checked(function):
    def call(*args):
        result = function(*args)
        assert result >= 0, named(result)

    return call


def header(version, vlan, df=True):
    """Ethernet, tag and IP, and nothing behind."""
    ether = Ether(src=OUR_MAC, dst=PEER_MAC)
    if vlan is not None:
        ether /= Dot1Q(vlan=vlan)
    ours, peers, _ = ADDRESSES[version]
    if version == 4:
        ip = IP(src=ours, dst=peers, proto=6, flags="DF" if df else "", id=0)
    else:
        ip = IPv6(src=ours, dst=peers, nh=6)
    raw = bytes(ether / ip)
    made = ffi.Header(len=len(raw), ip_offset=14 if vlan is None else 18)
    ctypes.memmove(made.words, raw, len(raw))
    return made


class Conn:
    """A connection as an application holds it. Results as of the native functions, errors by their names."""

    FIRST_PORT = 40000

    def __init__(self, bench, quota, *, flags=0, local_port=None, remote_port=5001, **values):
        self.bench = bench
        self.local_port = local_port or self.FIRST_PORT + len(bench.all_conns)
        self.remote_port = remote_port
        self.arena = bench.open_arena(quota)
        bench.arenas.append(self.arena)
        self.mtu = values.get("mtu", bench.mtu)
        config = nativetcp.TcpConnConfig(
            **(
                {
                    "arena": self.arena,
                    "header": header(bench.version, bench.vlan),
                    "local_port": self.local_port,
                    "remote_port": remote_port,
                    "mtu": self.mtu,
                    "flags": flags,
                    "congestion": RENO,
                    "entries": 256,
                    "receive_buffer_bytes": 65536,
                    "send_buffer_bytes": 1 << 20,
                    "connect_timeout_ns": 60 * SECOND,
                    "user_timeout_ns": 600 * SECOND,
                    "keepalive_idle_ns": 7200 * SECOND,
                    "keepalive_interval_ns": 75 * SECOND,
                    "keepalive_probes": 9,
                    "time_wait_ns": 60 * SECOND,
                }
                | values
            )
        )
        self.written = bytearray()
        """of which what leaves must be a part"""
        self.right_edge = None
        """up to where we have said that we receive, counted as the peer's sequence numbers"""
        self.peer = None
        self.handle = ffi.create(checked(tcp.open), bench.stack, byref(config))

    def destroy(self):
        handle, self.handle = self.handle, None
        if handle:
            tcp.conn_destroy(handle)

    def left(self, segment):
        """A segment of ours has left: the stream's bytes at their place, within the path's MTU."""
        self.peer.relative(segment)
        assert segment.ip_bytes <= self.mtu
        self.judge_window(segment)
        if segment.payload:
            start = segment.seq - 1
            assert bytes(self.written[start : start + len(segment.payload)]) == segment.payload, (
                f"other bytes than were written, at {start}"
            )
        self.peer.arrived.append(segment)

    def judge_window(self, segment):
        """RFC 9293, 3.8.6: we send what the peer takes, and one byte to ask; and take what we said we
        would."""
        peer = self.peer
        end = segment.seq + len(segment.payload)
        assert not segment.payload or end <= peer.right_edge + 1, "beyond the peer's window"
        if "A" not in segment.flags or set(segment.flags) & {"S", "R"}:
            return
        right = (segment.ack + peer.window_of(segment)) % MOD
        shift = peer.their_wscale if peer.scales else 0
        if self.right_edge is not None:
            moved = (right - self.right_edge + MOD // 2) % MOD - MOD // 2
            assert moved > -(1 << shift), f"the window shrinks by {-moved}"
            if moved < 0:
                return
        self.right_edge = right

    def connect(self):
        return named(tcp.connect(self.handle))

    def write(self, data):
        taken = named(tcp.write(self.handle, bytes(data), len(data)))
        if isinstance(taken, int):
            self.written += data[:taken]
        return taken

    def send(self, data):
        """All of it."""
        assert self.write(data) == len(data)
        self.bench.settle()

    def alloc(self):
        """(addr, room), or an errno's name."""
        addr, room = c_uint64(), c_uint32()
        error = tcp.alloc(self.handle, byref(addr), byref(room))
        return named(error) if error else (addr.value, room.value)

    def submit(self, addr, data):
        self.bench.umem.area.view(addr, len(data))[:] = data
        error = named(tcp.submit(self.handle, addr, len(data)))
        if error == 0:
            self.written += data
        return error

    def read(self, length=1 << 16):
        """Bytes; b"" at the end, an errno's name."""
        to = (c_uint8 * length)()
        got = named(tcp.read(self.handle, to, length))
        return bytes(to[:got]) if isinstance(got, int) else got

    def shutdown(self):
        return named(tcp.shutdown(self.handle))

    def close(self):
        return named(tcp.close(self.handle))

    def abort(self):
        return named(tcp.abort(self.handle))

    @property
    def state(self):
        return STATES[tcp.state(self.handle)]

    @property
    def error(self):
        """An errno's name, or 0."""
        return named(-abs(tcp.error(self.handle)))

    @property
    def info(self):
        out = nativetcp.TcpInfo()
        tcp.info(self.handle, byref(out))
        return out

    @property
    def stats(self):
        out = ffi.ArenaStats()
        native.arena_read_stats(self.arena, byref(out))
        return out

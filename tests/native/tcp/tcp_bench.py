"""A TCP stack over a fake device: its connections as an application drives them, its peers as scripts play
them, and time that only the script moves."""

import ctypes
import hashlib
from ctypes import byref, c_uint8, c_uint32, c_uint64

import fast
from abi import RENO, STATES, named, tcp
from fake import NEAR_WRAP, Bench, address, fake
from peer import Peer
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from segments import ADDRESSES, MOD, OUR_MAC, PEER_MAC, dissect, finish_checksum

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi import nativetcp
from xsk_engine._ffi.native import native

MS, SECOND = 10**6, 10**9
STEP = address(native.loop_step)

LAYOUTS = {
    "one desc": {"chunk_size": 2048, "mtu": 1500},
    "in chunk": {"chunk_size": 2048, "mtu": 1500, "multi_buffer": True},
    "descs": {"chunk_size": 2048, "mtu": 9000, "multi_buffer": True},
}
"""A segment in a chunk, sent again as one desc or with a header of its own; and segments of several
chunks."""


def pattern(length, start=0):
    """Bytes that tell where they stand in a stream."""
    first, blocks = start // 32, []
    for i in range(first, (start + length + 31) // 32):
        blocks.append(hashlib.sha256(i.to_bytes(8, "big")).digest())
    return b"".join(blocks)[start - 32 * first :][:length]


class TcpBench(Bench):
    """One loop with its stack. mtu: of its connections. piece_bytes: of received frames in a desc. quick:
    scapy judges every so many frames only."""

    def __init__(
        self,
        *,
        version=4,
        vlan=None,
        mtu=1500,
        multi_buffer=False,
        offload=False,
        queues=1,
        rx_ring=64,
        max_connections=4,
        headroom=256,
        piece_bytes=1 << 20,
        quick=0,
        **bench,
    ):
        bench = {"ring": 256, "chunks": 4096, "progress_timeout_ns": 1 << 60} | bench
        if offload:
            bench["metadata_len"] = ffi.TX_METADATA_BYTES
        super().__init__(virtual_time=1, **bench)
        self.version, self.vlan, self.mtu, self.piece_bytes = version, vlan, mtu, piece_bytes
        self.multi_buffer, self.quick, self.judged = multi_buffer, quick, 0
        umem = self.umem
        fake.policy(self.kernel, 1 << 30, 1)
        fake.turn(self.kernel, 0)
        self.device = fake.device_create(
            self.kernel, umem.area.address, umem.chunk_size, umem.tx_metadata_len
        )
        self.rx = [
            fake.rx_create(umem.area.address, umem.chunk_size, rx_ring, headroom, NEAR_WRAP)
            for _ in range(queues)
        ]
        self.receive_chunks = queues * rx_ring
        rxqs = (ffi.RxqConfig * queues)(*(ffi.RxqConfig(fd=-1) for _ in range(queues)))
        for config, rx in zip(rxqs, self.rx, strict=True):
            fake.rx_rings(rx, byref(config.rx), byref(config.fill))
        self.receive_arena = self.open_arena()
        self.arenas.append(self.receive_arena)
        self.tcp_counters = nativetcp.TcpCounters()
        config = nativetcp.TcpConfig(
            loop=self.loop,
            receive_arena=self.receive_arena,
            queues=rxqs,
            queue_count=queues,
            max_connections=max_connections,
            flags=(nativetcp.MULTI_BUFFER if multi_buffer else 0) | (nativetcp.OFFLOAD if offload else 0),
            counters=ctypes.pointer(self.tcp_counters),
        )
        self.conns = {}
        """the last of each local port"""
        self.all_conns = []
        self.strays = []
        """segments of no connection"""
        self.stack = None
        native.arena_enter(self.receive_arena)
        try:
            self.stack = ffi.create(checked(tcp.create), byref(config))
        finally:
            native.arena_leave(self.receive_arena)
        self.settle()

    # -- time -------------------------------------------------------------------------------------

    @property
    def now(self):
        """ns."""
        return fake.clock(self.kernel)

    def run_until(self, until_ns, most=2_000_000):
        turns = fake.run(self.kernel, STEP, self.loop, until_ns, most)
        assert turns >= 0, f"the loop does not come to rest in {most} turns"
        self.collect()

    def settle(self):
        """The loop does what it can without time."""
        self.run_until(self.now)

    def advance(self, *, s=0, ms=0, us=0, ns=0):
        """So much time passes, and the loop does what is due."""
        self.run_until(self.now + round(s * SECOND + ms * MS + us * 1000) + ns)

    def advance_until(self, is_so, ms, step_us=100):
        """Until is_so(), for `ms` at most."""
        until = self.now + round(ms * MS)
        while not is_so() and self.now < until:
            # asleep until then, or a little further
            self.run_until(min(until, max(fake.wake_ns(self.kernel), self.now + step_us * 1000)))

    # -- frames -----------------------------------------------------------------------------------

    def collect(self):
        """What has left, to the connections' peers."""
        for i in range(fake.device_frames(self.device)):
            frame = fake.device_frame(self.device, i).contents
            raw = ctypes.string_at(frame.bytes, frame.len)
            assert not frame.bad, "a desc that no kernel takes"
            if frame.csum_requested:
                raw = finish_checksum(raw, frame.csum_start, frame.csum_offset)
            assert frame.descs <= (ffi.MAX_DESCS_PER_PACKET if self.multi_buffer else 1)
            self.judged += 1
            if self.quick and self.judged % self.quick:
                segment = fast.dissect(raw, self.version)
            else:
                segment = dissect(raw, self.version, self.vlan)
            segment.time_ns, segment.descs = frame.now_ns, frame.descs
            segment.csum_requested = bool(frame.csum_requested)
            conn = self.conns.get(segment.sport)
            if conn is None:
                self.strays.append(segment)
            else:
                conn.left(segment)
        fake.device_drop(self.device)

    def give(self, frame, queue=0):
        """A frame comes."""
        assert fake.rx_give(self.rx[queue], frame, len(frame), self.piece_bytes) == 0, "the rx ring is full"

    def give_now(self, *frames):
        for frame in frames:
            self.give(frame)
        self.settle()

    def hold_completions(self):
        """From now on what is posted stays inflight."""
        fake.policy(self.kernel, 1 << 30, 0)

    def complete(self, *, again=True):
        """All that is inflight; `again`: and from now on at once."""
        fake.policy(self.kernel, 1 << 30, int(again))
        while fake.held(self.kernel) and fake.complete(self.kernel, 0) == 0:
            pass
        self.settle()

    # -- connections ------------------------------------------------------------------------------

    def open(self, *, quota=1024, peer=None, conn_type=None, **values):
        """A connection that is not connected yet; `peer`: options of its Peer."""
        conn = (conn_type or Conn)(self, quota, **values)
        conn.peer = Peer(self, conn, **(peer or {}))
        self.conns[conn.local_port] = conn
        self.all_conns.append(conn)
        return conn

    def connect(self, **values):
        """Its SYN has left."""
        conn = self.open(**values)
        assert conn.connect() == 0
        self.settle()
        return conn

    def connected(self, rtt_ms=0, **values):
        """A connection and its peer."""
        conn = self.connect(**values)
        conn.peer.accept(rtt_ms)
        assert conn.state == "ESTABLISHED"
        return conn, conn.peer

    # -- the end ----------------------------------------------------------------------------------

    def expect_conserved(self):
        """Nothing is inflight and every connection closed: each chunk is in the pool or on a fill ring."""
        audit = self.umem.audit()
        assert (audit.lost, audit.doubled) == (0, 0), audit
        assert audit.referenced == self.receive_chunks, audit
        assert fake.device_changed(self.device) == 0, "inflight bytes changed"

    def shut(self):
        """Every connection aborted, everything completed: conserved."""
        if self.counters.state >= ffi.LOOP_STOPPED:
            return
        fake.script(self.kernel, 0, 0)
        self.complete()
        for conn in self.all_conns:
            if conn.handle and conn.state not in ("NEW", "CLOSED"):
                conn.abort()
        self.advance(ms=50)
        self.complete()
        states = {conn.state for conn in self.all_conns if conn.handle}
        assert states <= {"NEW", "CLOSED"}, states
        self.expect_conserved()

    def end(self):
        super().end()
        self.collect()

    def free_guests(self):
        for conn in self.all_conns:
            conn.destroy()
        if self.stack is not None:
            native.arena_enter(self.receive_arena)
            tcp.destroy(self.stack)
            native.arena_leave(self.receive_arena)
        assert fake.device_changed(self.device) == 0, "inflight bytes changed"
        fake.device_destroy(self.device)
        for rx in self.rx:
            fake.rx_destroy(rx)


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

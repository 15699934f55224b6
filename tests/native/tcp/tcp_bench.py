"""A TCP stack over a fake device: its connections as an application drives them, its peers as scripts play
them, and time that only the script moves."""

import ctypes
import hashlib
from ctypes import byref

import fast
from abi import tcp
from conn import Conn, checked
from fake import NEAR_WRAP, Bench, address, fake
from peer import Peer
from segments import MOD, PEER_MAC, dissect, finish_checksum

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi import nativetcp
from xsk_engine._ffi.native import native
from xsk_engine.rx import RxStock

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
    scapy judges every so many frames only. filled: the fill rings have their chunks before there is a
    stack."""

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
        filled=False,
        **bench,
    ):
        bench = {"ring": 256, "chunks": 4096, "progress_timeout_ns": 1 << 60} | bench
        if offload:
            bench["metadata_len"] = ffi.TX_METADATA_BYTES
        super().__init__(virtual_time=1, **bench)
        self.version, self.vlan, self.mtu, self.piece_bytes = version, vlan, mtu, piece_bytes
        self.peer_mac = PEER_MAC
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
        if filled:
            for queue, config in enumerate(rxqs):
                RxStock(umem, rx_ring).put(queue, config.fill)
        self.receive_arena = self.open_arena()
        self.arenas.append(self.receive_arena)
        self.tcp_counters = nativetcp.TcpCounters()
        config = nativetcp.TcpConfig(
            loop=self.loop,
            receive_arena=None if filled else self.receive_arena,
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

    def run_until(self, until_ns, most=5_000_000):
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
                segment = dissect(raw, self.version, self.vlan, self.peer_mac)
            segment.time_ns, segment.descs, segment.order = frame.now_ns, frame.descs, self.judged
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

    def await_wrap(self, before=5000, **values):
        """Time passes until a connection (`values`: as of connect(), with its local_port) would begin so many
        bytes before 2^32: RFC 6528's clock ticks every 4 us, and goes round in five hours."""
        conn = self.connect(**values)
        isn = conn.peer.expect("S").frame_seq
        conn.abort()
        self.settle()
        self.advance(ns=(MOD - before - isn) % MOD * 4000)

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

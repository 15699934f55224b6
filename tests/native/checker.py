"""The native checker as the tests drive it, and an oracle of a flow that keeps every arrival."""

import bisect
import struct
from ctypes import POINTER, c_char_p, c_uint32, c_uint64, c_void_p

from fake import BUILD

from xsk_engine._ffi.loader import declare, open_library
from xsk_engine.arrivals import BUCKETS, bucket_top
from xsk_engine.checking import Checker
from xsk_engine.payload import MAGIC

MODULUS = 1 << 64
WINDOW, JUMPS, MAX_JUMP, RESTART_NS = 4096, 32, 1 << 40, 500_000_000

helper = declare(
    open_library(str(BUILD / "tests/native/libcheck_pieces.so"), "make test-native builds it"),
    "libcheck_pieces.so",
    {"pieces_check": ([c_void_p, c_char_p, POINTER(c_uint32), c_uint32, c_uint64, c_uint32], None, None)},
    prefix="pieces_",
)


def signature(flow, sequence, stamp_ns=0):
    return struct.pack(">IIQQ", MAGIC, flow, sequence % MODULUS, stamp_ns)


def plain_frame(flow, sequence, stamp_ns=0, length=66):
    """Ethernet and nothing known in it (IEEE 802 local experimental ethertype): no checksum."""
    head = bytes.fromhex("020000000002 020000000001 88b5")
    return head.ljust(length - 24, b"\0") + signature(flow, sequence, stamp_ns)


def cut(frame, at):
    """Lengths of the pieces between these places."""
    ends = [*sorted(min(place, len(frame)) for place in at), len(frame)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def feed(checker, frame, arrived_ns=0, flags=0, at=()):
    """In pieces, each of them a copy of its own."""
    lengths = cut(frame, at)
    sizes = (c_uint32 * len(lengths))(*lengths)
    helper.check(checker.handle, frame, sizes, len(lengths), arrived_ns, flags)


def verdict(frame, arrived_ns=0, flags=0, at=(), max_flows=8, reflected=False):
    """What a checker of its own makes of it."""
    checker = Checker(max_flows, reflected=reflected)
    try:
        feed(checker, frame, arrived_ns, flags, at)
        return checker.read()
    finally:
        checker.close()


KINDS = ("received", "duplicate", "late", "corrupt", "truncated", "foreign", "unknown_flow")


def kind(arrivals):
    """Of one frame."""
    found = [name for name in KINDS if getattr(arrivals, f"{name}_packets")]
    assert len(found) == 1
    assert arrivals.packets == 1 == getattr(arrivals, f"{found[0]}_packets")
    return found[0]


TOPS = [bucket_top(i) for i in range(BUCKETS - 1)]


def signed(value):
    return (value + MODULUS // 2) % MODULUS - MODULUS // 2


class Flow:
    """The definitions at the top of native/check.h, over lists of everything that came."""

    def __init__(self, flow_id):
        self.flow_id = flow_id
        self.places = None
        """of the run's received packets in order of arrival: their sequences, counted on beyond 2^64"""
        self.since_ns = 0
        self.lost_before = self.received_before = 0
        self.restarts = self.duplicate = self.late = self.reordered = self.bytes = 0
        self.extents = []
        self.least = self.untimed = 0
        self.transits = []

    def add(self, sequence, stamp_ns, arrived_ns, length):
        if self.places is None:
            self._begin(sequence)
        elif stamp_ns and stamp_ns < self.since_ns:
            self.late += 1
            return
        else:
            highest = self.highest
            place = highest + signed(sequence - highest)
            if place > highest + MAX_JUMP:
                self.late += 1
                return
            if place <= highest and (place <= highest - WINDOW or place in self.seen):
                if (
                    sequence < WINDOW
                    and self.highest_stamp_ns
                    and stamp_ns
                    and stamp_ns >= self.highest_stamp_ns + RESTART_NS
                ):
                    self.lost_before = self.lost
                    self.restarts += 1
                    self.since_ns = stamp_ns - RESTART_NS // 2
                    self._begin(sequence)
                elif place <= highest - WINDOW:
                    self.late += 1
                    return
                else:
                    self.duplicate += 1
                    return
            else:
                if place < highest:
                    self._reordered(place)
                self.places.append(place)
                self.seen.add(place)
                self.highest = max(highest, place)
        if self.places[-1] == self.highest:
            self.highest_stamp_ns = stamp_ns
        self.bytes += length
        if stamp_ns:
            self.transits.append(signed(arrived_ns - stamp_ns))
        else:
            self.untimed += 1

    def _begin(self, sequence):
        self.received_before += len(self.places or [])
        self.places, self.seen, self.highest = [sequence], {sequence}, sequence
        self.first = 0 if sequence < WINDOW else sequence

    def _reordered(self, place):
        """RFC 4737, 4.2.2, as it is written; then what is remembered of it."""
        self.reordered += 1
        now = len(self.places)
        earliest = min(j for j in range(now) if self.places[j] > place)
        jumps, highest = [], None
        for j, came in enumerate(self.places):
            if highest is None or came > highest + 1:
                jumps.append(j)
            highest = came if highest is None else max(highest, came)
        assert earliest in jumps
        kept = jumps[-JUMPS:]
        if len(jumps) > JUMPS and earliest <= kept[0]:
            self.least += 1
            assert now - kept[0] <= now - earliest, "at least"
        self.extents.append(now - max(earliest, kept[0]))

    @property
    def received(self):
        return self.received_before + len(self.places)

    @property
    def lost(self):
        came = {place for place in self.places if place >= self.first}
        return self.lost_before + max(self.places) - self.first + 1 - len(came)

    @property
    def jitter_ns(self):
        jitter = 0
        for before, now in zip(self.transits, self.transits[1:], strict=False):
            jitter += min(abs(signed(now - before)), 1 << 58) - ((jitter + 8) >> 4)
        return jitter >> 4

    def expected(self):
        """As xsk_engine.arrivals has it, without queues."""
        latencies = [t for t in self.transits if t >= 0]
        buckets = {}
        for ns in latencies:
            index = bisect.bisect_left(TOPS, ns)
            buckets[index] = buckets.get(index, 0) + 1
        return {
            "flow_id": self.flow_id,
            "received_packets": self.received,
            "received_bytes": self.bytes,
            "lost_packets": self.lost,
            "duplicate_packets": self.duplicate,
            "reordered_packets": self.reordered,
            "late_packets": self.late,
            "extent_max_packets": max(self.extents, default=0),
            "extent_sum_packets": sum(self.extents),
            "least_extents": self.least,
            "restarts": self.restarts,
            "first_sequence": self.first % MODULUS,
            "highest_sequence": max(self.places) % MODULUS,
            "untimed_packets": self.untimed,
            "negative_latency_packets": len(self.transits) - len(latencies),
            "jitter_ns": self.jitter_ns,
            "latency": (
                len(latencies),
                sum(latencies) % MODULUS,
                min(latencies, default=0),
                max(latencies, default=0),
                tuple(sorted(buckets.items())),
            ),
        }


def found(flow):
    """A FlowArrivals in the oracle's form."""
    values = {name: getattr(flow, name) for name in flow.__dataclass_fields__ if name != "queues"}
    one = flow.latency
    return values | {"latency": (one.count, one.sum_ns, one.min_ns, one.max_ns, one.buckets)}

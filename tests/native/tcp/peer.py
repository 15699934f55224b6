"""The other end of a connection, as a script plays it: nothing goes but what the script says.

Sequence numbers are counted from the two ends' first ones, as in a capture: SYN is 0, the first byte 1. What
is not given follows from what went before: `seq` is behind what the peer has sent, `ack` behind what it has
got in order.
"""

from scapy.layers.inet import TCP
from segments import FLAGS, MOD, to_us, unreachable

NEAR_WRAP = MOD - 1000
"""so that sequence numbers of what is received pass 2^32"""
UNSET = object()


class Peer:
    """wscale, mss, ts, sack: what its SYN offers; None, False: it does not. window: bytes that it takes, as
    they are the same scaled and not."""

    def __init__(
        self, bench, conn, *, isn=NEAR_WRAP, mss=1460, wscale=7, sack=True, ts=True, window=510 << 7
    ):
        self.bench, self.conn = bench, conn
        self.isn, self.mss, self.wscale, self.sack, self.ts = isn, mss, wscale, sack, ts
        self.window = window
        self.their_isn = self.their_wscale = None
        self.seq = 0
        """the next to send"""
        self.ack = 0
        """what it has got in order, and says so"""
        self.ts_base = 7_000_000
        self.ts_recent = 0
        self.right_edge = 0
        """the last byte we may send, and one more, as far as any segment said"""
        self.offered = {}
        self.arrived = []
        """segments that no expect() has taken yet"""
        self.kept = []
        """of absorb(): what lies beyond a gap"""

    # -- what comes -------------------------------------------------------------------------------

    def relative(self, segment):
        """Sequence numbers from the two ends' first ones on, in place."""
        if "S" in segment.flags and self.their_isn is None:
            self.their_isn, self.their_wscale = segment.seq, segment.wscale or 0
            self.offered = {
                "mss": segment.mss,
                "wscale": segment.wscale,
                "sack": segment.sackok,
                "ts": segment.ts,
            }
        segment.seq = (segment.seq - (self.their_isn or 0)) % MOD
        if "A" in segment.flags:
            segment.ack = (segment.ack - self.isn) % MOD
        segment.sack = [tuple((edge - self.isn) % MOD for edge in block) for block in segment.sack]
        return segment

    def take(self, segment):
        if segment.seq == self.ack:
            self.ack = (self.ack + segment.length) % MOD
            if segment.ts:
                self.ts_recent = segment.ts[0]
        return segment

    def expect(self, flags=None, *, within_ms=0, psh=None, **values):
        """The next segment, of those letters (P is not looked at, `psh` asks for it) and values; `length`:
        payload bytes. within_ms: time passes until it comes."""
        self.bench.settle()
        if not self.arrived and within_ms:
            self.bench.advance_until(lambda: self.arrived, ms=within_ms)
        assert self.arrived, f"nothing came, expected {flags} {values}"
        segment = self.arrived.pop(0)
        said = self.describe(segment)
        if flags is not None:
            assert set(segment.flags) - {"P"} == set(flags) - {"P"}, f"expected {flags} {values}, came {said}"
        if psh is not None:
            assert ("P" in segment.flags) == psh, f"PSH expected: {psh}, came {said}"
        for name, value in values.items():
            is_value = len(segment.payload) if name == "length" else getattr(segment, name)
            assert is_value == value, f"{name}: expected {value}, is {is_value} in {said}"
        return self.take(segment)

    def expect_reset(self, **values):
        """RFC 9293, 3.5.2: with an ACK or without."""
        segment = self.expect(**values)
        assert "R" in segment.flags, self.describe(segment)
        assert set(segment.flags) <= {"R", "A"}, self.describe(segment)
        return segment

    def expect_nothing(self, **duration):
        """For so long, keywords as of advance(); at this moment."""
        self.bench.advance(**duration)
        assert not self.arrived, f"came: {[self.describe(s) for s in self.arrived]}"

    def expect_all(self, most=10_000):
        """What has come up to now, all of it."""
        self.bench.settle()
        assert len(self.arrived) <= most
        found, self.arrived = self.arrived, []
        return [self.take(segment) for segment in found]

    def absorb(self):
        """What has come up to now, as a receiver takes it that keeps what is out of order: `ack` is behind
        what is there without a gap, and RFC 7323, 4.3 says what is echoed."""
        self.bench.settle()
        found, self.arrived = self.arrived, []
        for segment in found:
            if segment.seq <= self.ack and segment.ts:
                self.ts_recent = segment.ts[0]
            self.kept.append((segment.seq, segment.seq + segment.length))
            for start, end in sorted(self.kept):
                self.ack = max(self.ack, end) if start <= self.ack else self.ack
        self.kept = [part for part in self.kept if part[1] > self.ack]
        return found

    def describe(self, segment):
        parts = [f"{segment.flags} seq {segment.seq} len {len(segment.payload)}"]
        parts += [f"ack {segment.ack}"] if "A" in segment.flags else []
        parts += [f"win {segment.window}"]
        parts += [f"sack {segment.sack}"] if segment.sack else []
        return " ".join([*parts, f"at {segment.time_ns / 1e6:.3f} ms"])

    def window_of(self, segment):
        """Bytes that a segment of theirs says we may send."""
        return segment.window << (0 if "S" in segment.flags or not self.scales else self.their_wscale)

    @property
    def scales(self):
        """RFC 7323, 2.2: both have offered it."""
        return self.wscale is not None and self.offered.get("wscale") is not None

    @property
    def stamps(self):
        return self.ts and self.offered.get("ts") is not None

    # -- what goes --------------------------------------------------------------------------------

    def now_ts(self):
        """A millisecond clock."""
        return (self.ts_base + self.bench.now // 10**6) % MOD

    def options(self, flags, ts, sack, mss, wscale):
        options = []
        if "S" in flags:
            options += [("MSS", mss)] if mss is not None else []
            options += [("SAckOK", b"")] if self.sack else []
            options += [("NOP", None), ("WScale", wscale)] if wscale is not None else []
        if ts is UNSET:
            # RFC 7323, 3.2: a SYN without ACK has nothing to echo.
            offers = self.ts if "S" in flags else self.stamps and "R" not in flags
            ts = (self.now_ts(), self.ts_recent if "A" in flags else 0) if offers else None
        if ts is not None:
            options += [("NOP", None), ("NOP", None), ("Timestamp", ts)]
        if sack:
            edges = tuple((edge + self.their_isn) % MOD for block in sack for edge in block)
            options += [("NOP", None), ("NOP", None), ("SAck", edges)]
        return options

    def frame(
        self,
        flags="A",
        payload=b"",
        *,
        seq=None,
        ack=None,
        win=None,
        sack=(),
        ts=UNSET,
        mss=UNSET,
        wscale=UNSET,
        **tcp,
    ):
        """A frame of the peer; `win`: as it stands in there. tcp: more of scapy's TCP."""
        mss = self.mss if mss is UNSET else mss
        wscale = self.wscale if wscale is UNSET else wscale
        if win is None:
            shift = self.wscale if self.scales and "S" not in flags else 0
            win = min(self.window >> shift, 0xFFFF)
        seq = self.seq if seq is None else seq
        ack = (self.ack if ack is None else ack) if "A" in flags else None
        if ack is not None:
            shift = min(self.wscale, 14) if self.scales and "S" not in flags else 0
            self.right_edge = max(self.right_edge, ack + (win << shift))
        # RFC 7323, 2.2, and so for the others: a SYN-ACK answers only what was offered.
        options = self.options(flags, ts, sack, mss, wscale)
        segment = TCP(
            sport=self.conn.remote_port,
            dport=self.conn.local_port,
            seq=(seq + self.isn) % MOD,
            ack=0 if ack is None else (ack + (self.their_isn or 0)) % MOD,
            flags="".join(letter for letter in FLAGS if letter in flags),
            window=win,
            options=options,
            **tcp,
        )
        return bytes(to_us(self.bench.version, self.bench.vlan) / segment / bytes(payload))

    def send(self, flags="A", payload=b"", *, settle=True, **values):
        """See frame(). What it adds in sequence space is sent, if it is the next."""
        frame = self.frame(flags, payload, **values)
        seq = values.get("seq")
        if seq is None or seq == self.seq:
            self.seq = (self.seq + len(payload) + ("S" in flags) + ("F" in flags)) % MOD
        self.bench.give(frame)
        if settle:
            self.bench.settle()

    def icmp(self, segment, **values):
        """A router says of a segment of theirs that it went nowhere; see unreachable()."""
        self.bench.give(unreachable(segment, self.bench.version, self.bench.vlan, **values))
        self.bench.settle()

    # -- what every script needs -------------------------------------------------------------------

    def accept(self, rtt_ms=0):
        """The three-way handshake."""
        self.expect("S")
        self.bench.advance(ms=rtt_ms)
        self.send("SA")
        return self.expect("A", seq=1, ack=1, length=0)

    def read(self, length, most=10_000):
        """So many bytes in order, each segment acknowledged when it has come; returns them."""
        found = b""
        for _ in range(most):
            if len(found) >= length:
                return found
            before = self.ack
            segment = self.expect(within_ms=1000)
            assert segment.seq == before
            found += segment.payload
            self.send("A")
        raise AssertionError(f"{len(found)} of {length} bytes")

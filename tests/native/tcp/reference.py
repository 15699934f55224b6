"""A second TCP to talk to, small and slow: it waits for a SYN, keeps what comes out of order and says so by
SACK and DSACK, and sends a stream of its own, again from the first byte that is missing. For a wire on which
anything may happen."""

from dataclasses import dataclass

import fast
from segments import MOD

MS = 10**6
RTO_NS = 300 * MS
DELAY_NS = 30 * MS


@dataclass
class Habits:
    """What this one does, and what it offers."""

    mss: int = 1460
    wscale: int | None = 3
    sack: bool = True
    dsack: bool = True
    ts: bool = True
    delayed_acks: bool = True
    buffer_bytes: int = 65536
    renege: int = 0
    """forgets what came out of order with every so manieth segment; 0: never"""


def after(a, b):
    return 0 < (a - b) % MOD < MOD // 2


class Reference:
    def __init__(self, version, port, our_port, isn, habits, stream):
        self.version, self.port, self.their_port, self.habits = version, port, our_port, habits
        self.isn, self.stream = isn, stream
        self.state = "LISTEN"
        self.received = bytearray()
        self.apart = []
        """out of order: (start, end, bytes), sequence numbers counted from the first byte"""
        self.recent = []
        """their starts, the latest first"""
        self.una = 0
        """how much of `stream` is acknowledged; and FIN"""
        self.nxt = 0
        self.window = 0
        self.their_shift = 0
        self.ts_recent = 0
        self.dupacks = 0
        self.fin_at = None
        self.ack_due_ns = self.resend_due_ns = None
        self.pending_segments = 0
        self.dsack = None
        self.segments = 0
        self.outbox = []
        self.now = 0

    # -- the wire's side --------------------------------------------------------------------------

    @property
    def wake_ns(self):
        return min((t for t in (self.ack_due_ns, self.resend_due_ns) if t is not None), default=1 << 62)

    def run_until(self, now):
        self.now = now
        if self.ack_due_ns is not None and now >= self.ack_due_ns:
            self.acknowledge()
        if self.resend_due_ns is not None and now >= self.resend_due_ns:
            self.resend_due_ns = now + RTO_NS
            if self.state == "SYN_RECEIVED":
                self.send_syn_ack()
            else:
                self.nxt = self.una
                self.transmit(most=1)

    def take_outbox(self):
        found, self.outbox = self.outbox, []
        return [(self.now, frame) for frame in found]

    def give(self, frame):
        if frame[12:14] not in (b"\x08\0", b"\x86\xdd") or frame[23 if self.version == 4 else 20] != 6:
            return  # a router's message
        self.receive(fast.dissect(frame, self.version))

    def work(self):
        """As an application: it reads at once, and all that there is to send is in `stream`."""
        return False

    @property
    def done(self):
        return self.fin_at is not None and len(self.received) >= self.fin_at and self.una > len(self.stream)

    # -- segments ---------------------------------------------------------------------------------

    def send(self, flags, payload=b"", seq=None, sack=(), **options):
        seq = self.isn + 1 + self.nxt if seq is None else seq
        ack = self.their_isn + 1 + len(self.received) + (self.fin_seen())
        shift = 0 if "S" in flags or self.habits.wscale is None else self.habits.wscale
        ts = (self.now // MS % MOD, self.ts_recent) if self.stamps else None
        raw = fast.option_bytes(ts=ts, sack=sack, **options)
        window = min(self.habits.buffer_bytes >> shift, 65535)
        ports = (self.port, self.their_port)
        self.outbox.append(
            fast.build(self.version, *ports, seq % MOD, ack % MOD, flags, window, payload, raw)
        )

    def fin_seen(self):
        return int(self.fin_at is not None and len(self.received) >= self.fin_at)

    def send_syn_ack(self):
        habits = self.habits
        self.send(
            "SA",
            seq=self.isn,
            mss=habits.mss,
            wscale=habits.wscale if self.scales else None,
            sackok=self.sacks,
        )

    def acknowledge(self):
        self.ack_due_ns, self.pending_segments = None, 0
        blocks = []
        if self.sacks:
            base = self.their_isn + 1
            blocks = [(base + a, base + b) for a, b in self.merged()]
            if self.dsack:
                blocks = [(base + self.dsack[0], base + self.dsack[1]), *blocks]
            blocks = [(a % MOD, b % MOD) for a, b in blocks[: 3 if self.stamps else 4]]
        self.dsack = None
        self.send("A", sack=blocks)

    def merged(self):
        """Ranges that are kept, the one that grew last first (RFC 2018, 4)."""
        ranges = []
        for a, b, _ in sorted(self.apart):
            if ranges and a <= ranges[-1][1]:
                ranges[-1][1] = max(b, ranges[-1][1])
            else:
                ranges.append([a, b])
        return sorted(
            ranges,
            key=lambda r: min((self.recent.index(s) for s in self.recent if r[0] <= s < r[1]), default=99),
        )

    def transmit(self, most=10):
        """What the window takes, FIN behind it."""
        # With a closed window one byte asks (RFC 9293, 3.8.6.1), whenever the timer expires.
        limit = min(len(self.stream), self.una + max(self.window, int(most == 1)))
        size = min(self.habits.mss, self.their_mss) - 12
        while self.nxt < limit and most:
            part = self.stream[self.nxt : min(limit, self.nxt + size)]
            self.send("A", part)
            self.nxt += len(part)
            most -= 1
        if self.nxt == len(self.stream) and most and self.una <= len(self.stream):
            self.send("FA")
            self.nxt += 1
        self.resend_due_ns = self.now + RTO_NS if self.una <= len(self.stream) else None

    def receive(self, s):
        self.segments += 1
        if "R" in s.flags:
            self.state = "RESET"
            self.ack_due_ns = self.resend_due_ns = None
            return
        if "S" in s.flags:
            self.listen(s)
            return
        if self.state in ("LISTEN", "RESET"):
            return
        self.take_ack(s)
        if s.payload or "F" in s.flags:
            self.take_data(s)

    def listen(self, s):
        if self.state == "LISTEN":
            habits = self.habits
            self.their_isn, self.their_mss = s.seq, s.mss or 536
            self.scales = habits.wscale is not None and s.wscale is not None
            self.sacks, self.stamps = habits.sack and s.sackok, habits.ts and s.ts is not None
            self.their_shift = s.wscale if self.scales else 0
            if not self.scales:
                habits.wscale = None
            self.ts_recent = s.ts[0] if s.ts else 0
            self.window = s.window
            self.state = "SYN_RECEIVED"
            self.resend_due_ns = self.now + 1000 * MS
            self.send_syn_ack()
        elif self.state != "SYN_RECEIVED" or s.seq != self.their_isn:
            self.acknowledge()
        else:
            self.send_syn_ack()

    def take_ack(self, s):
        acked = (s.ack - self.isn - 1) % MOD
        if acked > max(self.nxt, self.una) and acked < MOD // 2:
            if acked > len(self.stream) + 1:
                return
            self.nxt = acked
        if self.state == "SYN_RECEIVED" and acked < MOD // 2:
            self.state = "ESTABLISHED"
            self.resend_due_ns = None
        self.window = s.window << self.their_shift
        if self.una < acked <= len(self.stream) + 1:
            self.una, self.dupacks = acked, 0
            self.transmit()
        elif acked == self.una and self.nxt > self.una and not s.payload:
            self.dupacks += 1
            if self.dupacks == 3:
                self.nxt = self.una
                self.transmit(most=1)
        elif self.nxt == self.una:
            self.transmit()

    def take_data(self, s):
        start = (s.seq - self.their_isn - 1) % MOD
        if start > MOD // 2:
            start -= MOD
        end, got = start + len(s.payload), len(self.received)
        if s.ts and start <= got:
            self.ts_recent = s.ts[0]
        if "F" in s.flags:
            self.fin_at = end
        if end <= got and s.payload:
            if self.habits.dsack:
                self.dsack = (start, end)
            self.acknowledge()
            return
        if start > got:
            if end <= got + self.habits.buffer_bytes:
                self.apart.append((start, end, bytes(s.payload)))
                self.recent = [start, *(r for r in self.recent if r != start)][:8]
            if self.habits.renege and self.segments % self.habits.renege == 0:
                self.apart.clear()
            self.acknowledge()
            return
        self.received += s.payload[got - start :]
        filled = bool(self.apart)
        for a, b, data in sorted(self.apart):
            if a <= len(self.received) < b:
                self.received += data[len(self.received) - a :]
        self.apart = [part for part in self.apart if part[1] > len(self.received)]
        self.pending_segments += 1
        if not self.habits.delayed_acks or filled or self.pending_segments >= 2 or "F" in s.flags:
            self.acknowledge()
        elif self.ack_due_ns is None:
            self.ack_due_ns = self.now + DELAY_NS

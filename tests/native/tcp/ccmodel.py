"""Congestion control as the tests drive it, and Reno and CUBIC from the RFCs' formulas, in floating point."""

from ccpieces import MS, SECOND, Piece, pieces

RENO, CUBIC = 1, 2
MSS = 1448
C, BETA = 0.4, 0.7
ALPHA = 3 * (1 - BETA) / (1 + BETA)


class Cc(Piece):
    def __init__(self, which, mss=MSS):
        super().__init__(pieces.cc(which, mss))
        self.now = SECOND

    cwnd = property(lambda self: pieces.cwnd(self.handle))
    ssthresh = property(lambda self: pieces.ssthresh(self.handle))

    def ack(self, acked, rtt=100 * MS, limited=True):
        pieces.ack(self.handle, acked, self.now, rtt, limited)

    def loss(self, inflight=None):
        pieces.loss(self.handle, self.cwnd if inflight is None else inflight, self.now)

    def timeout(self, inflight=None, first=True):
        pieces.timeout(self.handle, self.cwnd if inflight is None else inflight, first, self.now)

    def idle(self, idle_ns, rto_ns=200 * MS):
        self.now += idle_ns
        pieces.idle(self.handle, idle_ns, rto_ns, self.now)

    def undo(self):
        pieces.undo(self.handle)

    def mss(self, mss):
        pieces.mss(self.handle, mss, self.now)

    def round(self, rtt=100 * MS, acks=10, **how):
        """A round trip in which all of cwnd is acknowledged."""
        cwnd = self.cwnd
        for i in range(acks):
            self.now += rtt // acks
            self.ack(cwnd * (i + 1) // acks - cwnd * i // acks, rtt, **how)

    def grown_to(self, cwnd):
        """By slow start, and then a loss: congestion avoidance follows."""
        self.ack(cwnd - self.cwnd)
        assert self.cwnd == cwnd
        self.loss()
        return self


class Model:
    """What Reno and CUBIC share. Windows in bytes, of which the model is told the whole ones."""

    def __init__(self, mss):
        self.mss = mss
        self.ssthresh = float("inf")
        self.conservative = False

    def ack(self, acked, now, rtt, limited):
        if not limited:
            self.limited_by_application(now)
            return
        if self.cwnd < self.ssthresh:
            self.slow_start_begins()
            if self.conservative:
                acked = min(acked, self.mss)
            step = min(acked, self.ssthresh - self.cwnd)
            self.cwnd += step
            acked -= step
        if self.cwnd >= self.ssthresh:
            self.conservative = False
        if acked:
            self.avoid(acked, now, rtt)

    def loss(self, inflight):
        self.reduce(inflight)
        self.cwnd = self.ssthresh
        self.conservative = False

    def timeout(self, inflight, first):
        if first:
            self.reduce(inflight)
            self.timed_out()
        self.cwnd = self.mss
        self.conservative = True

    def limited_by_application(self, now):
        pass

    def slow_start_begins(self):
        pass

    def timed_out(self):
        pass


class Reno(Model):
    """RFC 3465, 2.1, byte after byte where it matters."""

    bytes_acked = 0

    def avoid(self, acked, now, rtt):
        self.bytes_acked += acked
        if self.bytes_acked >= self.cwnd:
            self.bytes_acked -= self.cwnd
            self.cwnd += self.mss

    def reduce(self, inflight):
        self.ssthresh = max(inflight // 2, 2 * self.mss)
        self.bytes_acked = 0

    def timeout(self, inflight, first):
        super().timeout(inflight, first)
        self.bytes_acked = 0


class Cubic(Model):
    w_max = cwnd_prior = 0.0
    epoch = None
    fraction = 0.0

    def avoid(self, acked, now, rtt):
        cwnd = self.cwnd / self.mss
        if self.epoch is None:
            self.epoch, self.fraction = now, 0.0
            self.w_max = max(self.w_max, cwnd)
            self.k = ((self.w_max - cwnd) / C) ** (1 / 3)
            self.w_est = cwnd
        self.seen = now
        t = (now - self.epoch) / SECOND
        segments_acked = acked / self.mss
        alpha = ALPHA if self.w_est < self.cwnd_prior else 1
        self.w_est += alpha * segments_acked / cwnd
        if self.w_cubic(t) < self.w_est:
            new = max(cwnd, self.w_est)
        else:
            target = min(max(self.w_cubic(t + rtt / SECOND), cwnd), 1.5 * cwnd)
            new = cwnd + segments_acked * (target - cwnd) / cwnd
        self.cwnd += (new - cwnd) * self.mss + self.fraction
        self.fraction = self.cwnd % 1

    def w_cubic(self, t):
        return C * (t - self.k) ** 3 + self.w_max

    def reduce(self, inflight):
        cwnd = self.cwnd / self.mss
        self.w_max = cwnd * (1 + BETA) / 2 if cwnd < self.w_max else cwnd
        self.cwnd_prior = cwnd
        self.ssthresh = max(inflight * BETA, 2 * self.mss)
        self.epoch = None

    def timed_out(self):
        self.w_max = 0.0

    def limited_by_application(self, now):
        """t does not include this time."""
        if self.epoch is not None:
            self.epoch += now - self.seen
        self.seen = now

    def slow_start_begins(self):
        self.epoch = None


MODELS = {RENO: Reno, CUBIC: Cubic}

"""A wire in memory between two ends, and the time that both live in. What happens to a frame is drawn from
one seed."""

import heapq
import random
from dataclasses import dataclass

from conn import Conn
from fake import fake
from segments import unreachable
from tcp_bench import MS, TcpBench


@dataclass
class Faults:
    """Shares of frames, and how long they take."""

    seed: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_us: int = 5000
    jitter_us: int = 0
    burst: int = 1
    """frames in a row that are lost"""
    mtu: int = 65535
    """longer ones are lost, and a router says so"""


class WireConn(Conn):
    """What leaves goes on the wire."""

    def left(self, segment):
        self.bench.outbox.append((segment.time_ns, segment.frame))
        start = self.their_start
        if "S" in segment.flags and start is None:
            start = self.their_start = (segment.seq + 1) % (1 << 32)
        if segment.payload:
            at = (segment.seq - start) % (1 << 32)
            assert bytes(self.written[at : at + len(segment.payload)]) == segment.payload

    their_start = None


class End:
    """An engine at one end: it writes `stream`, reads all there is, and shuts down."""

    def __init__(self, stream, *, conn=None, start_ns=0, near_wrap=False, **bench):
        self.bench = TcpBench(quick=40, **bench)
        self.bench.outbox = []
        self.bench.advance(ns=max(0, start_ns - self.bench.now))
        if near_wrap:
            conn = {"local_port": 40000, "remote_port": 5001} | conn
            self.bench.await_wrap(10_000, local_port=conn["local_port"], remote_port=conn["remote_port"])
        self.conn = self.bench.open(conn_type=WireConn, **(conn or {}))
        self.stream, self.received = stream, bytearray()
        self.at, self.at_end, self.has_shut = 0, False, False
        assert self.conn.connect() == 0
        self.bench.settle()
        assert not near_wrap or self.conn.their_start > (1 << 32) - 11_000

    @property
    def wake_ns(self):
        return fake.wake_ns(self.bench.kernel)

    def run_until(self, now):
        self.bench.run_until(now)

    def take_outbox(self):
        found, self.bench.outbox = self.bench.outbox, []
        return found

    def give(self, frame):
        rx = self.bench.rx[0]
        if fake.rx_give(rx, frame, len(frame), self.bench.piece_bytes) != 0:
            self.bench.settle()
            fake.rx_give(rx, frame, len(frame), self.bench.piece_bytes)

    def work(self):
        """True: something was done."""
        moved = False
        if self.at < len(self.stream):
            taken = self.conn.write(self.stream[self.at : self.at + 20_000])
            if isinstance(taken, int):
                self.at += taken
                moved = True
        elif not self.has_shut and self.conn.state not in ("NEW", "SYN_SENT", "SYN_RECEIVED"):
            self.has_shut = moved = True
            assert self.conn.shutdown() == 0
        if not self.at_end:
            got = self.conn.read()
            if isinstance(got, bytes):
                self.received += got
                self.at_end = not got
                moved = True
        return moved

    @property
    def done(self):
        return self.at_end and self.has_shut and self.conn.state in ("TIME_WAIT", "CLOSED")

    def close(self):
        self.bench.shut()
        self.bench.close()


def turned(frame, version):
    """As the other end would have sent it: both engines live at the same address. Sums stay what they are,
    both addresses are in them."""
    at, length = (26, 4) if version == 4 else (22, 16)
    middle, end = at + length, at + 2 * length
    return frame[6:12] + frame[:6] + frame[12:at] + frame[middle:end] + frame[at:middle] + frame[end:]


class Wire:
    """Between ends 0 and 1: anything with run_until, wake_ns, take_outbox, give, work and done."""

    def __init__(self, ends, faults):
        self.ends, self.faults = ends, faults
        self.between_engines = all(isinstance(end, End) for end in ends)
        self.random = random.Random(faults.seed)
        self.on_the_way = []
        self.count = self.burst_left = 0
        self.frames = self.lost = 0

    def put(self, now, frame, to):
        heapq.heappush(self.on_the_way, (now, self.count, to, frame))
        self.count += 1

    def take(self, sender, now, frame):
        faults, draw = self.faults, self.random.random
        self.frames += 1
        end = self.ends[sender]
        if len(frame) - 14 > faults.mtu and isinstance(end, End):
            bench = end.bench
            segment = type("Sent", (), {"frame": frame, "ip_bytes": len(frame) - 14})
            message = unreachable(segment, bench.version, None, code=4, mtu=faults.mtu)
            self.put(now + faults.delay_us * 500 + 1000, message, sender)
            return
        if self.burst_left or draw() < faults.loss / faults.burst:
            self.burst_left = self.burst_left - 1 if self.burst_left else faults.burst - 1
            self.lost += 1
            return
        if self.between_engines:
            frame = turned(frame, end.bench.version)
        copies = 1 + (draw() < faults.duplicate)
        for _ in range(copies):
            delay_us = faults.delay_us + self.random.randint(0, faults.jitter_us)
            if draw() < faults.reorder:
                delay_us += self.random.randint(1, 3) * faults.delay_us
            self.put(now + delay_us * 1000, frame, 1 - sender)

    def run(self, seconds=20_000, most=400_000):
        """Until both are done; bounded in virtual time and in steps. Returns the seconds it took."""
        now = start = self.ends[0].bench.now
        least = self.faults.delay_us * 500
        delivered = 0
        for _ in range(most):
            moved = [end.work() for end in self.ends]
            if all(end.done for end in self.ends):
                return (now - start) / 1e9
            assert now < start + seconds * 1000 * MS, "it takes too long"
            now = self.next_ns(now, least, delivered or any(moved))
            for sender, end in enumerate(self.ends):
                end.run_until(now)
                for sent_ns, frame in end.take_outbox():
                    self.take(sender, sent_ns, frame)
            delivered = 0
            while self.on_the_way and self.on_the_way[0][0] <= now:
                _, _, to, frame = heapq.heappop(self.on_the_way)
                self.ends[to].give(frame)
                delivered += 1
        raise AssertionError("too many steps")

    def next_ns(self, now, least, moved):
        """What leaves meanwhile does not arrive before: nothing takes less than twice `least`. Who sleeps
        sends nothing."""
        until = now + least
        if not moved:
            until = max(until, min(end.wake_ns for end in self.ends))
        if self.on_the_way:
            until = min(until, max(self.on_the_way[0][0], now + 1))
        return until

"""Segments that are outstanding: segment n is bytes 1 + n * FULL on."""

from tcp_bench import pattern

FULL = 1448
NO_SACK = {"sack": False}


def at(n):
    """Where segment n begins."""
    return 1 + n * FULL


def flight(one, n=10, more=0, rtt_ms=100, **values):
    """A connection that has n segments outstanding, sent now, and `more` bytes that wait."""
    conn, peer = one.connected(rtt_ms=rtt_ms, **values)
    assert n <= 10
    conn.write(pattern(n * FULL + more))
    found = peer.expect_all()
    assert [s.seq for s in found] == [at(i) for i in range(n)]
    peer.ack = 1
    return conn, peer


def sent(peer):
    """The sequence numbers of what has come, in order. It is echoed as RFC 7323, 4.3 says, if it fills the
    first gap."""
    peer.bench.settle()
    found, peer.arrived = peer.arrived, []
    for segment in found:
        if segment.seq <= peer.ack and segment.ts:
            peer.ts_recent = segment.ts[0]
    return [s.seq for s in found if s.payload]


def sack(peer, *segments, ack=0, **values):
    """An ACK of everything before segment `ack`, and SACK blocks (first, end) of segments."""
    peer.ack = at(ack)
    peer.send("A", ack=at(ack), sack=[(at(a), at(b)) for a, b in segments], **values)

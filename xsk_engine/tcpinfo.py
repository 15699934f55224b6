"""What a TCP connection says of itself, and what all of an engine's have received. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STATES = (
    "NEW",
    "SYN-SENT",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
    "CLOSED",
)
"""RFC 9293, 3.3.2, by their number in the ABI"""


@dataclass(frozen=True)
class TcpInfo:
    """One connection at one moment. Its words are read one by one, so sums may be off by what happens
    meanwhile; exact once it is closed. Immutable: any thread.

        print(connection.info().retransmitted_segments)
    """

    state: str
    """as RFC 9293 has it: ESTABLISHED, FIN-WAIT-1, ...; NEW before it is connected"""
    sent_segments: int
    """segments of any kind that were posted"""
    sent_bytes: int
    """bytes of payload, each as often as it was sent"""
    acked_bytes: int
    """bytes of payload that the peer has acknowledged"""
    received_segments: int
    """segments of any kind from the peer"""
    received_bytes: int
    """bytes of payload that were taken, in order"""
    retransmitted_segments: int
    """segments that were sent again"""
    retransmitted_bytes: int
    """bytes of payload that were sent again"""
    dropped_segments: int
    """segments with payload out of order or beyond the window; the peer sends them again"""
    duplicate_acks: int
    """ACKs that acknowledged nothing new while something was outstanding"""
    recoveries: int
    """times that loss was found from ACKs (fast retransmit)"""
    timeouts: int
    """times that the retransmission timer (RTO) expired"""
    tail_probes: int
    """probes for a lost tail (RFC 8985, TLP)"""
    undone_recoveries: int
    """recoveries and timeouts after which nothing turned out to have been lost"""
    window_probes: int
    """segments that asked a closed window whether it is open again"""
    challenge_acks: int
    """ACKs that answered what may have been an attack (RFC 5961)"""
    refused_segments: int
    """segments that were not acceptable: old timestamp, out of window, an ACK of what was never sent"""
    csum_partial_segments: int
    """segments whose checksum the sending kernel left unfinished, as on veth"""
    icmp_messages: int
    """ICMP errors about this connection"""
    srtt_ns: int
    """smoothed round-trip time in ns (RFC 6298); 0: not measured yet"""
    rttvar_ns: int
    """its variation in ns"""
    min_rtt_ns: int
    """the shortest round-trip time in ns"""
    rto_ns: int
    """retransmission timeout in ns"""
    cwnd_bytes: int
    """congestion window in bytes"""
    ssthresh_bytes: int
    """slow start threshold in bytes"""
    inflight_bytes: int
    """bytes sent and not acknowledged"""
    unsent_bytes: int
    """bytes written and not sent"""
    peer_window_bytes: int
    """bytes that the peer has room for"""
    send_buffer_bytes: int
    """bytes that may be written and not acknowledged, as it is tuned now"""
    mss_bytes: int
    """bytes of payload in a full segment"""
    path_mtu: int
    """bytes of the longest IP packet on the way, as far as it is known"""


@dataclass(frozen=True)
class TcpCounters:
    """What has come to the receive rings of an engine with TCP, at one moment.
    Immutable: any thread.

        print(engine.tcp_counters().stray_packets)
    """

    received_packets: int
    """packets of any kind"""
    received_bytes: int
    """bytes of their frames, without FCS"""
    csum_partial_packets: int
    """packets with the pseudo header's sum instead of a checksum: from a kernel of the same host"""
    bad_csum_packets: int
    """packets with a wrong checksum: dropped"""
    malformed_packets: int
    """packets whose headers contradict themselves: dropped"""
    foreign_packets: int
    """packets that are no TCP, or fragments: dropped"""
    stray_packets: int
    """packets of no connection: dropped"""
    icmp_packets: int
    """ICMP errors about connections"""
    bad_descs: int
    """descs that no kernel may give: a kernel bug"""
    bad_addr: int
    """addr of the last one"""
    opened_connections: int
    """connections that have sent a SYN"""
    established_connections: int
    """of them, those that were established"""
    closed_connections: int
    """and those that are over"""
    connections: int
    """connections that are there now, in TIME-WAIT too"""
    copied_segments: int
    """segments whose payload was copied to be sent again while it was still inflight"""

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
RECOVERY_STATES = {0: "open", 1: "disorder", 3: "recovery", 4: "loss"}
"""by their number in the ABI, which is the kernel's (enum tcp_ca_state)"""
# enum in include/net/tcp_states.h. The kernel has no TCP_NEW for a socket before connect(): it is closed.
_KERNEL_STATES = {
    "ESTABLISHED": 1,
    "SYN-SENT": 2,
    "SYN-RECEIVED": 3,
    "FIN-WAIT-1": 4,
    "FIN-WAIT-2": 5,
    "TIME-WAIT": 6,
    "NEW": 7,
    "CLOSED": 7,
    "CLOSE-WAIT": 8,
    "LAST-ACK": 9,
    "CLOSING": 11,
}
_INFINITE_SSTHRESH = 0x7FFFFFFF  # include/net/tcp.h: TCP_INFINITE_SSTHRESH
_NO_RTT_US = (1 << 32) - 1  # net/ipv4/tcp.c: tcp_min_rtt() before the first measurement


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
    recovery_state: str
    """open; disorder: something came out of order; recovery: loss was found from ACKs; loss: by the RTO"""
    outstanding_segments: int
    """segments sent and not wholly acknowledged; a FIN alone is one"""
    backoffs: int
    """times that the RTO has expired since a round-trip time was measured"""
    options: int
    """what both sides speak: 1 timestamps, 2 SACK, 4 window scaling, added"""
    send_wscale: int
    """shift of the peer's windows (RFC 7323)"""
    receive_wscale: int
    """shift of this side's windows"""
    receive_mss: int
    """bytes of the longest payload that came in one segment"""
    written_bytes: int
    """bytes of payload that were written or submitted"""

    def tcp_info(self) -> KernelTcpInfo:
        """The same by the names and in the units of the kernel's struct tcp_info.

        print(connection.info().tcp_info().tcpi_snd_cwnd)
        """
        mss = self.mss_bytes or 1
        return KernelTcpInfo(
            tcpi_state=_KERNEL_STATES[self.state],
            tcpi_ca_state=next(n for n, name in RECOVERY_STATES.items() if name == self.recovery_state),
            tcpi_backoff=self.backoffs,
            tcpi_options=self.options,
            tcpi_snd_wscale=self.send_wscale,
            tcpi_rcv_wscale=self.receive_wscale,
            tcpi_rto=self.rto_ns // 1000,
            tcpi_snd_mss=self.mss_bytes,
            tcpi_rcv_mss=self.receive_mss,
            tcpi_unacked=self.outstanding_segments,
            tcpi_pmtu=self.path_mtu,
            tcpi_rtt=self.srtt_ns // 1000,
            tcpi_rttvar=self.rttvar_ns // 1000,
            tcpi_snd_ssthresh=min(self.ssthresh_bytes // mss, _INFINITE_SSTHRESH),
            tcpi_snd_cwnd=self.cwnd_bytes // mss,
            tcpi_total_retrans=self.retransmitted_segments,
            tcpi_bytes_acked=self.acked_bytes,
            tcpi_bytes_received=self.received_bytes,
            tcpi_segs_out=self.sent_segments,
            tcpi_segs_in=self.received_segments,
            tcpi_notsent_bytes=self.unsent_bytes,
            tcpi_min_rtt=self.min_rtt_ns // 1000 if self.min_rtt_ns else _NO_RTT_US,
            tcpi_bytes_sent=self.sent_bytes,
            tcpi_bytes_retrans=self.retransmitted_bytes,
            tcpi_snd_wnd=self.peer_window_bytes,
            tcpi_total_rto=self.timeouts,
        )


@dataclass(frozen=True)
class KernelTcpInfo:
    """A connection by the names, in the units and in the order of the kernel's struct tcp_info
    (include/uapi/linux/tcp.h). Immutable: any thread.

    Byte counts are payload; the kernel adds one for SYN and one for FIN to tcpi_bytes_acked. What an engine's
    connection does not count, or does not have, is absent: tcpi_ retransmits, probes, ato, sacked, lost,
    retrans, fackets, last_data_sent, last_ack_sent, last_data_recv, last_ack_recv, rcv_ssthresh, advmss,
    reordering, rcv_rtt, rcv_space, pacing_rate, max_pacing_rate, data_segs_in, data_segs_out, delivery_rate,
    delivery_rate_app_limited, busy_time, rwnd_limited, sndbuf_limited, delivered, delivered_ce, dsack_dups,
    reord_seen, rcv_ooopack, rcv_wnd, rehash, fastopen_client_fail, total_rto_recoveries, total_rto_time.

        print(connection.info().tcp_info().tcpi_rtt)
    """

    tcpi_state: int
    """1: established, and so on (include/net/tcp_states.h)"""
    tcpi_ca_state: int
    """0: open, 1: disorder, 3: recovery, 4: loss (enum tcp_ca_state); never 2, there is no ECN"""
    tcpi_backoff: int
    """times that the RTO has expired since a round-trip time was measured"""
    tcpi_options: int
    """TCPI_OPT_TIMESTAMPS (1), _SACK (2), _WSCALE (4)"""
    tcpi_snd_wscale: int
    """shift of the peer's windows"""
    tcpi_rcv_wscale: int
    """shift of this side's windows"""
    tcpi_rto: int
    """retransmission timeout in us"""
    tcpi_snd_mss: int
    """bytes of payload in a full segment"""
    tcpi_rcv_mss: int
    """bytes of the longest payload that came in one segment"""
    tcpi_unacked: int
    """segments sent and not acknowledged"""
    tcpi_pmtu: int
    """bytes of the longest IP packet on the way"""
    tcpi_rtt: int
    """smoothed round-trip time in us; 0: not measured yet"""
    tcpi_rttvar: int
    """its variation in us"""
    tcpi_snd_ssthresh: int
    """slow start threshold in full segments; 0x7fffffff: none yet"""
    tcpi_snd_cwnd: int
    """congestion window in full segments"""
    tcpi_total_retrans: int
    """segments sent again"""
    tcpi_bytes_acked: int
    """bytes of payload that the peer has acknowledged"""
    tcpi_bytes_received: int
    """bytes of payload that were taken, in order"""
    tcpi_segs_out: int
    """segments sent, of any kind"""
    tcpi_segs_in: int
    """segments from the peer, of any kind"""
    tcpi_notsent_bytes: int
    """bytes written and not sent"""
    tcpi_min_rtt: int
    """the shortest round-trip time in us; 0xffffffff: not measured yet"""
    tcpi_bytes_sent: int
    """bytes of payload, each as often as it was sent"""
    tcpi_bytes_retrans: int
    """bytes of payload sent again"""
    tcpi_snd_wnd: int
    """bytes that the peer has room for"""
    tcpi_total_rto: int
    """times that the RTO expired, those of SYN not counted"""


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

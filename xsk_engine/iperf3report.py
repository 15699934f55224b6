"""What an iperf3 client tells of a test: JSON with iperf3's names, and its lines of text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from xsk_engine.iperf3protocol import Iperf3Test, Results
from xsk_engine.tcpinfo import TcpInfo

FIRST_SOCKET = 5
"""iperf3 calls streams by their descriptor; ours have none, and are numbered as its are: 5, 7, 9, ..."""
RULE = " ".join("-" * 25)
INTERVAL_HEAD = "[ ID] Interval           Transfer     Bitrate         Retr  Cwnd"
END_HEAD = "[ ID] Interval           Transfer     Bitrate         Retr"
DONE = "iperf Done."
INTERRUPTED = "interrupt - the client has terminated"


@dataclass(frozen=True)
class Moment:
    """One stream at one time: bytes and retransmits since its start."""

    acked_bytes: int
    retransmits: int
    cwnd_bytes: int
    window_bytes: int
    rtt_us: int
    rttvar_us: int
    path_mtu: int

    @classmethod
    def of(cls, info: TcpInfo, cookie_bytes: int) -> Moment:
        """Without what went before the test."""
        return cls(
            max(info.acked_bytes - cookie_bytes, 0),
            info.retransmitted_segments,
            info.cwnd_bytes,
            info.peer_window_bytes,
            info.srtt_ns // 1000,
            info.rttvar_ns // 1000,
            info.path_mtu,
        )


@dataclass(frozen=True)
class Ends:
    """Of one stream."""

    local: tuple[str, int]
    remote: tuple[str, int]


def socket_of(stream: int) -> int:
    """Its number in what is told."""
    return FIRST_SOCKET + 2 * stream


def _rate(n: int, seconds: float) -> float:
    return n * 8 / seconds if seconds > 0 else 0


def start(
    test: Iperf3Test,
    host: str,
    port: int,
    ends: Sequence[Ends],
    *,
    cookie: bytes,
    unix_s: int,
    control_mss: int,
    send_buffer_bytes: int,
    receive_buffer_bytes: int,
    version: str,
    system: str,
) -> dict[str, Any]:
    """What is known before the test begins."""
    return {
        "connected": [
            {
                "socket": socket_of(i),
                "local_host": one.local[0],
                "local_port": one.local[1],
                "remote_host": one.remote[0],
                "remote_port": one.remote[1],
            }
            for i, one in enumerate(ends)
        ],
        "version": version,
        "system_info": system,
        "timestamp": {"time": formatdate(unix_s, usegmt=True), "timesecs": unix_s},
        "connecting_to": {"host": host, "port": port},
        "cookie": cookie.rstrip(b"\0").decode(),
        "tcp_mss_default": control_mss,
        "target_bitrate": 0,
        "sock_bufsize": 0,
        "sndbuf_actual": send_buffer_bytes,
        "rcvbuf_actual": receive_buffer_bytes,
        "test_start": {
            "protocol": "TCP",
            "num_streams": test.streams,
            "blksize": test.block_bytes,
            "omit": 0,
            "duration": 0 if test.count_bytes is not None else test.duration_s,
            "bytes": test.count_bytes or 0,
            "blocks": 0,
            "reverse": 0,
            "tos": 0,
            "target_bitrate": 0,
        },
    }


def interval(
    start_s: float, end_s: float, before: Sequence[Moment], after: Sequence[Moment]
) -> dict[str, Any]:
    """Of the test's time, from one moment of all streams to the next."""
    seconds = end_s - start_s
    times = {"start": start_s, "end": end_s, "seconds": seconds}
    streams, total, again = [], 0, 0
    for i, (then, now) in enumerate(zip(before, after, strict=True)):
        n, retransmits = now.acked_bytes - then.acked_bytes, now.retransmits - then.retransmits
        total, again = total + n, again + retransmits
        streams.append(
            {
                "socket": socket_of(i),
                **times,
                "bytes": n,
                "bits_per_second": _rate(n, seconds),
                "retransmits": retransmits,
                "snd_cwnd": now.cwnd_bytes,
                "snd_wnd": now.window_bytes,
                "rtt": now.rtt_us,
                "rttvar": now.rttvar_us,
                "pmtu": now.path_mtu,
                "omitted": False,
                "sender": True,
            }
        )
    together = {
        **times,
        "bytes": total,
        "bits_per_second": _rate(total, seconds),
        "retransmits": again,
        "omitted": False,
        "sender": True,
    }
    return {"streams": streams, "sum": together}


def _transfer(seconds: float, n: int, **more: Any) -> dict[str, Any]:
    return {
        "start": 0,
        "end": seconds,
        "seconds": seconds,
        "bytes": n,
        "bits_per_second": _rate(n, seconds),
        **more,
        "sender": True,
    }


def _highest(intervals: Sequence[Mapping[str, Any]], stream: int) -> dict[str, int]:
    seen = [one["streams"][stream] for one in intervals]
    rtts = [one["rtt"] for one in seen]
    return {
        "max_snd_cwnd": max((one["snd_cwnd"] for one in seen), default=0),
        "max_snd_wnd": max((one["snd_wnd"] for one in seen), default=0),
        "max_rtt": max(rtts, default=0),
        "min_rtt": min(rtts, default=0),
        "mean_rtt": sum(rtts) // len(rtts) if rtts else 0,
    }


def end(intervals: Sequence[Mapping[str, Any]], ours: Results, theirs: Results) -> dict[str, Any]:
    """Of the whole test: both sides' counts."""
    streams = []
    for i, (sent, received) in enumerate(zip(ours.streams, theirs.streams, strict=True)):
        sender = _transfer(
            sent.seconds, sent.transferred_bytes, retransmits=sent.retransmits, **_highest(intervals, i)
        )
        receiver = _transfer(received.seconds, received.transferred_bytes)
        streams.append(
            {
                "sender": {"socket": socket_of(i), **sender},
                "receiver": {"socket": socket_of(i), **receiver},
            }
        )
    sent_s = max(one.seconds for one in ours.streams)
    received_s = max(one.seconds for one in theirs.streams)
    return {
        "streams": streams,
        "sum_sent": _transfer(
            sent_s,
            sum(one.transferred_bytes for one in ours.streams),
            retransmits=sum(one.retransmits for one in ours.streams),
        ),
        "sum_received": _transfer(received_s, sum(one.transferred_bytes for one in theirs.streams)),
        "cpu_utilization_percent": {
            "host_total": ours.cpu_total,
            "host_user": ours.cpu_user,
            "host_system": ours.cpu_system,
            "remote_total": theirs.cpu_total,
            "remote_user": theirs.cpu_user,
            "remote_system": theirs.cpu_system,
        },
        "sender_tcp_congestion": ours.congestion,
        **({"receiver_tcp_congestion": theirs.congestion} if theirs.congestion is not None else {}),
    }


# -- as lines ----------------------------------------------------------------------------------------------


def scaled(value: float, step: int) -> str:
    """Four characters, and the unit's letter: ``1.20 G``. `step`: 1000 or 1024."""
    letters = ["", "K", "M", "G", "T"]
    while value >= step and len(letters) > 1:
        value /= step
        letters.pop(0)
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:4.{digits}f} {letters[0]}"


def _line(name: str, one: Mapping[str, Any], behind: str) -> str:
    size, rate = f"{scaled(one['bytes'], 1024)}Bytes", f"{scaled(one['bits_per_second'], 1000)}bits/sec"
    return f"[{name:>3}] {one['start']:6.2f}-{one['end']:<6.2f} sec  {size}  {rate}  {behind}"


def start_lines(report: Mapping[str, Any]) -> list[str]:
    """Of start()."""
    to = report["connecting_to"]
    lines = [f"Connecting to host {to['host']}, port {to['port']}"]
    for one in report["connected"]:
        local = f"{one['local_host']} port {one['local_port']}"
        remote = f"{one['remote_host']} port {one['remote_port']}"
        lines.append(f"[{one['socket']:3}] local {local} connected to {remote}")
    return lines


def interval_lines(report: Mapping[str, Any], *, first: bool) -> list[str]:
    """Of interval(); the first one has no line above it."""
    many = len(report["streams"]) > 1
    lines = [RULE] if many and not first else []
    lines += [
        _line(
            str(one["socket"]), one, f"{one['retransmits']:3}   {scaled(one['snd_cwnd'], 1024)}Bytes       "
        )
        for one in report["streams"]
    ]
    if many:
        lines.append(_line("SUM", report["sum"], f"{report['sum']['retransmits']:3}             "))
    return lines


def end_lines(report: Mapping[str, Any]) -> list[str]:
    """Of end()."""
    lines = [RULE, END_HEAD]

    def pair(name: str, sent: Mapping[str, Any], received: Mapping[str, Any]) -> list[str]:
        return [
            _line(name, sent, f"{sent['retransmits']:3}             sender"),
            _line(name, received, f"{'':3}             receiver"),
        ]

    for one in report["streams"]:
        lines += pair(str(one["sender"]["socket"]), one["sender"], one["receiver"])
    if len(report["streams"]) > 1:
        lines += pair("SUM", report["sum_sent"], report["sum_received"])
    return lines

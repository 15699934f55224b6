"""What an iperf3 client and its server say to each other on the control connection. Pure.

A cookie of the client's, then bytes that name the server's state, and JSON with its length in front. What the
messages hold was read off the wire between iperf3's own client and server (3.12).
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from xsk_engine.units import whole

PORT = 5201
COOKIE_BYTES = 37
_COOKIE_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
MOST_STREAMS = 128
MOST_BLOCK_BYTES = 1 << 20
DEFAULT_BLOCK_BYTES = 128 << 10
MOST_JSON_BYTES = 1 << 20
"""a server that announces more has lost its way"""
_MOST_FIGURE = 1 << 63

TEST_START = 1
TEST_RUNNING = 2
TEST_END = 4
PARAM_EXCHANGE = 9
CREATE_STREAMS = 10
SERVER_TERMINATE = 11
CLIENT_TERMINATE = 12
EXCHANGE_RESULTS = 13
DISPLAY_RESULTS = 14
IPERF_DONE = 16
ACCESS_DENIED = -1
SERVER_ERROR = -2

NAMES = {
    TEST_START: "the start of the test",
    TEST_RUNNING: "the test",
    PARAM_EXCHANGE: "the parameters",
    CREATE_STREAMS: "the streams",
    EXCHANGE_RESULTS: "the results",
    DISPLAY_RESULTS: "the end",
}
"""what a client waits for"""
_REFUSALS = {
    ACCESS_DENIED: "the server is busy with another client's test; try again later",
    SERVER_TERMINATE: "the server was stopped",
}
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Iperf3Test:
    """What is asked for: `duration_s` seconds, or `count_bytes` over all streams. ``interval_s``: of the
    figures on the way, up to an hour, 0: none. ValueError."""

    streams: int = 1
    duration_s: int = 10
    count_bytes: int | None = None
    block_bytes: int = DEFAULT_BLOCK_BYTES
    interval_s: float = 1.0
    congestion: str = "cubic"
    nodelay: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.interval_s <= 3600:  # nor what is no number
            raise ValueError(f"interval: {self.interval_s} is not in 0 to 3600 s")

    @property
    def count_blocks(self) -> int | None:
        """iperf3 sends whole blocks, over all streams, until it has sent enough."""
        return None if self.count_bytes is None else -(-self.count_bytes // self.block_bytes)


def parse_bytes(text: str) -> int:
    """``100``, ``64K``, ``1.5G``: as iperf3, K is 1024. ValueError."""
    match = re.fullmatch(r"(\d{1,30}(?:\.\d{1,30})?)([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"bytes: {text!r} is not a number, with K, M, G or T of 1024 if it has one")
    n = int(Fraction(match[1]) * _UNITS[match[2].upper()])
    if not 1 <= n < 1 << 62:
        raise ValueError(f"bytes: {text!r} is not in 1 to {(1 << 62) - 1}")
    return n


def make_cookie(randomness: bytes) -> bytes:
    """36 letters from as many random bytes, and a NUL: what tells this test's streams from others'."""
    assert len(randomness) == COOKIE_BYTES - 1
    return bytes(ord(_COOKIE_LETTERS[byte % len(_COOKIE_LETTERS)]) for byte in randomness) + b"\0"


def frame_json(value: Mapping[str, Any]) -> bytes:
    """With its length in front: 4 bytes, most significant first."""
    text = json.dumps(value, separators=(",", ":")).encode()
    return struct.pack("!I", len(text)) + text


def json_length(header: bytes) -> int:
    """Of what follows. ValueError for more than a server has to say."""
    n: int = struct.unpack("!I", header)[0]
    if not 0 < n <= MOST_JSON_BYTES:
        raise ValueError(f"JSON of {n} bytes is announced; is this iperf3?")
    return n


def state_byte(state: int) -> bytes:
    """As it goes over the control connection."""
    return struct.pack("b", state)


def read_state(byte: bytes) -> int:
    """Of one byte."""
    return int(struct.unpack("b", byte)[0])


def why_not(state: int, wanted: int, detail: bytes = b"") -> str:
    """What a server means that says `state` where `wanted` should come. `detail`: 8 bytes behind
    SERVER_ERROR."""
    if state == SERVER_ERROR and len(detail) == 8:
        number, system = struct.unpack("!ii", detail)
        return f"the server reports its error {number}" + (f", errno {system}" if system else "")
    if state in _REFUSALS:
        return _REFUSALS[state]
    return f"the server says {state} where {NAMES.get(wanted, wanted)} should come; is this iperf3?"


def parameters(test: Iperf3Test) -> dict[str, Any]:
    """PARAM_EXCHANGE, the client's part."""
    found: dict[str, Any] = {
        "tcp": True,
        "omit": 0,
        "time": 0 if test.count_bytes is not None else test.duration_s,
        "num": test.count_bytes or 0,
        "blockcount": 0,
        "parallel": test.streams,
        "len": test.block_bytes,
        "pacing_timer": 1000,
    }
    if test.nodelay:
        found["nodelay"] = True
    return found


def stream_ids(streams: int) -> list[int]:
    """How both sides number them, in the order in which they connect: there is no 2."""
    return [1, *range(3, streams + 2)]


@dataclass(frozen=True)
class StreamResult:
    """One side's count of a stream."""

    transferred_bytes: int
    retransmits: int
    seconds: float


@dataclass(frozen=True)
class Results:
    """EXCHANGE_RESULTS: one side's view. CPU in percent of one; `congestion`: of its sockets, if it says."""

    cpu_total: float
    cpu_user: float
    cpu_system: float
    streams: Sequence[StreamResult]
    congestion: str | None

    def as_message(self) -> dict[str, Any]:
        """As a client that sends says it."""
        return {
            "cpu_util_total": self.cpu_total,
            "cpu_util_user": self.cpu_user,
            "cpu_util_system": self.cpu_system,
            "sender_has_retransmits": 1,
            "congestion_used": self.congestion,
            "streams": [
                {
                    "id": number,
                    "bytes": one.transferred_bytes,
                    "retransmits": one.retransmits,
                    "jitter": 0,
                    "errors": 0,
                    "packets": 0,
                    "start_time": 0,
                    "end_time": one.seconds,
                }
                for number, one in zip(stream_ids(len(self.streams)), self.streams, strict=True)
            ],
        }


def _figure(value: Any, what: str) -> float:
    """JSON as Python reads it has numbers of any size, and some that are none."""
    if not isinstance(value, (int, float)):
        raise TypeError(what)
    if not abs(value) < _MOST_FIGURE:
        raise ValueError(f"the server's results have a {what} that cannot be")
    return value


def _stream(one: Mapping[str, Any]) -> StreamResult:
    start, end = (_figure(one.get(name, 0), name) for name in ("start_time", "end_time"))
    return StreamResult(int(_figure(one["bytes"], "bytes")), 0, float(end - start))


def _integer(text: str) -> int:
    number = whole(text.removeprefix("-"))
    if number is None:
        raise ValueError(f"the server's results have a number of {len(text)} digits")
    return -number if text.startswith("-") else number


def parse_results(message: bytes, streams: int) -> Results:
    """The server's. ValueError for what is none."""
    try:
        value = json.loads(message, parse_int=_integer)
        by_id = {one["id"]: one for one in value["streams"]}
        found = [by_id[number] for number in stream_ids(streams)]
        total, user, system = (
            float(_figure(value[name], name))
            for name in ("cpu_util_total", "cpu_util_user", "cpu_util_system")
        )
        congestion = value.get("congestion_used")
        return Results(
            total,
            user,
            system,
            [_stream(one) for one in found],
            None if congestion is None else str(congestion),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the server's results lack {error}") from None
    except RecursionError:
        raise ValueError("the server's results are nested too deep") from None

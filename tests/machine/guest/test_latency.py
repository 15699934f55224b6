"""The clock of the kernel's tx timestamps, on a NIC in copy mode. (The machine's clock is its own to set.)"""

import ctypes
import json
import time

import pytest

from tests.lab.wire import cli
from xsk_engine.lab import topology

# include/uapi/linux/timex.h
ADJ_TAI = 0x80
TIMEX_BYTES = 208
CONSTANT_AT = 48
TAI_OFFSET_S = 37
SEND = (
    "send",
    "vtx",
    "--dst-ip",
    topology.RX_IPV4,
    "--rate",
    "500pps",
    "--count",
    "300",
    "--link-timeout",
    "20s",
)


def set_tai_offset(seconds):
    timex = ctypes.create_string_buffer(TIMEX_BYTES)
    ctypes.c_uint.from_buffer(timex).value = ADJ_TAI
    ctypes.c_long.from_buffer(timex, CONSTANT_AT).value = seconds
    assert ctypes.CDLL(None).adjtimex(timex) >= 0


@pytest.fixture
def tai():
    """CLOCK_TAI as it is in the world, and not as on a machine that nobody has told."""
    set_tai_offset(TAI_OFFSET_S)
    try:
        yield
    finally:
        set_tai_offset(0)


def test_stamps_and_posts_are_of_one_clock(wire, igb, tai):
    assert round(time.clock_gettime(time.CLOCK_TAI) - time.time()) == TAI_OFFSET_S
    done = cli(*SEND, "--timestamps", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["mode"], report["mode_reason"]) == ("copy", "the driver has no tx timestamp in zero-copy")
    latency = report["latency"]
    assert (latency["count"], latency["negative_packets"]) == (300, 0)
    assert 0 < latency["max_ns"] < TAI_OFFSET_S * 10**9

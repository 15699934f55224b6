"""csum.c against scapy: every length around its steps, every alignment, and bytes that carry."""

import ctypes

import numpy
import pytest
from pieces import sums
from scapy.utils import checksum

LENGTHS = [*range(300), 1447, 1448, 1460, 4000, 8948, 65535]


def copied(data, at, to_at):
    """The checksum, and the bytes as they were copied; nothing around them may have changed."""
    source = ctypes.create_string_buffer(bytes(at) + data, at + len(data))
    target = ctypes.create_string_buffer(b"\xa5" * (to_at + len(data) + 32), to_at + len(data) + 32)
    total = sums.copy(ctypes.addressof(target) + to_at, ctypes.addressof(source) + at, len(data))
    assert target.raw[:to_at] == b"\xa5" * to_at
    assert target.raw[to_at + len(data) :] == b"\xa5" * 32
    return total, target.raw[to_at : to_at + len(data)]


@pytest.mark.parametrize("kind", ["random", "ones", "carries"])
def test_a_sum_is_what_scapy_makes_it(kind):
    random = numpy.random.default_rng(7)
    for length in LENGTHS:
        if kind == "random":
            data = random.bytes(length)
        else:
            data = b"\xff" * length if kind == "ones" else b"\xff\xff\xff\xff\0\0\0\1" * (length // 8 + 1)
        data = data[:length]
        total, bytes_ = copied(data, length % 32, (length * 7) % 32)
        assert bytes_ == data
        assert total <= 0xFFFF
        assert (~total & 0xFFFF) == checksum(data), length


def test_zeros_add_up_to_zero_and_nothing_else_does():
    """RFC 1071: 0 and 0xffff are the same, but only zeros give the first."""
    assert copied(bytes(1448), 1, 2)[0] == 0
    assert copied(bytes(1440) + b"\xff\xff", 1, 2)[0] == 0xFFFF

"""What the memory experiment makes of its accounts, and its account of a socket."""

import contextlib
import socket

import pytest

from bench.arms import holding
from bench.experiments.memory import HELD, PER_BYTE


def test_figures():
    one = holding.held(1000, 64_000, 65_536)
    assert HELD.values([one, one]) == [65.536, 65.536]
    assert PER_BYTE.values([one]) == [1.024]
    with pytest.raises(RuntimeError, match="holds no packets"):
        holding.held(0, 0, 4096)


def test_a_kernel_socket_keeps_what_nobody_reads():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sender:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sender.connect(server.getsockname())
        assert holding.unacknowledged_bytes(sender) == 0
        sender.setblocking(False)
        written = 0
        with contextlib.suppress(BlockingIOError):
            for _ in range(10_000):
                written += sender.send(bytes(10_000))
        waiting = holding.unacknowledged_bytes(sender)
        assert 0 < waiting <= written
        assert holding.memory_of(sender, holding._SK_MEMINFO_WMEM_QUEUED) >= waiting

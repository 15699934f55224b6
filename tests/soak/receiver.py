"""The soak's receiver: kernel sockets at the peer, in a process of its own, that looks into all it gets.

    python -m tests.soak.receiver ADDRESS

The TCP port on a line of its own; for every line of its input what it has counted, as JSON. It ends with its
input. A stream that has ended is answered with its length, 8 bytes.
"""

from __future__ import annotations

import collections
import contextlib
import json
import select
import selectors
import socket
import struct
import subprocess
import sys
from pathlib import Path

from tests.soak.pattern import DATAGRAM_PORT, FLOW_PORT, FLOW_TEXT, is_whole, stream

_AT_ONCE = 64
"""datagrams of one socket before others have their turn"""
_READ_BYTES = 1 << 18
_PATIENCE_S = 30.0
_SOURCES = Path(__file__).parents[2]


class Receiver:
    """The soak's hold of it. Started in the network namespace in which the caller's thread stands."""

    def __init__(self, address: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.receiver", address],
            cwd=_SOURCES,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.process.stdout.readline())

    def counts(self) -> dict[str, int]:
        self.process.stdin.write("counts\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], _PATIENCE_S)[0]:
            raise TimeoutError("the receiver does not answer")
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class _Stream:
    def __init__(self) -> None:
        self.length = 0
        self.wrong = False


class _Ears:
    def __init__(self, address: str) -> None:
        self.address = address
        self.counts: collections.Counter[str] = collections.Counter()
        self.selector = selectors.DefaultSelector()
        for port, read in ((DATAGRAM_PORT, self._datagrams), (FLOW_PORT, self._flows)):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((address, port))
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ, read)
        self.listener = socket.socket()
        self.listener.bind((address, 0))
        self.listener.listen(256)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)

    def listen(self) -> None:
        print(self.listener.getsockname()[1], flush=True)
        while True:
            for key, _ in self.selector.select():
                if key.data is not None:
                    with contextlib.suppress(BlockingIOError):
                        key.data(key.fileobj)
                elif sys.stdin.readline():
                    print(json.dumps(self.counts), flush=True)
                else:
                    return

    def _datagrams(self, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            self.counts["datagrams" if is_whole(sock.recv(65536)) else "wrong_datagrams"] += 1

    def _flows(self, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            whole = sock.recv(65536).startswith(FLOW_TEXT.encode())
            self.counts["flow_packets" if whole else "wrong_flow_packets"] += 1

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        one = _Stream()
        self.selector.register(connection, selectors.EVENT_READ, lambda sock: self._stream(sock, one))

    def _stream(self, connection: socket.socket, one: _Stream) -> None:
        try:
            data = connection.recv(_READ_BYTES)
            if data:
                one.wrong |= data != stream(one.length, len(data))
                one.length += len(data)
                self.counts["stream_bytes"] += len(data)
                return
            connection.send(struct.pack("!Q", one.length))
            self.counts["wrong_streams" if one.wrong else "streams"] += 1
        except BlockingIOError:
            return
        except OSError:
            self.counts["wrong_streams" if one.wrong else "reset_streams"] += 1
        self.selector.unregister(connection)
        connection.close()


if __name__ == "__main__":
    _Ears(sys.argv[1]).listen()

"""The other end of TCP tests: ordinary sockets of the kernel's, in the receiver's namespace."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
from pathlib import Path

from xsk_engine.lab import topology

ADDRESS = {4: topology.RX_IPV4, 6: topology.RX_IPV6}
_PATIENCE_S = 60.0
"""nothing waits longer, whatever goes wrong"""


class Peer:
    """Listens at `port`. ``results``: what the handler has returned of each connection, in the order in which
    they ended; ``errors``: what it has raised instead."""

    def __init__(self, sock):
        self.port = sock.getsockname()[1]
        self.results, self.errors = [], []
        self._sock = sock
        self._changed = threading.Condition()
        self.connections = []

    def result(self, n=1):
        """Of the n-th connection that has ended, once it has; an error is raised here."""
        with self._changed:
            ended = self._changed.wait_for(lambda: len(self.results) + len(self.errors) >= n, _PATIENCE_S)
        assert ended, "the peer's connection has not ended"
        if self.errors:
            raise self.errors[0]
        return self.results[n - 1]

    def _serve(self, connection, handler):
        connection.settimeout(_PATIENCE_S)
        try:
            with connection:
                result = handler(connection)
            with self._changed:
                self.results.append(result)
        except OSError as error:
            with self._changed:
                self.errors.append(error)
        finally:
            with self._changed:
                self._changed.notify_all()

    def accept(self, handler):
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection, handler), daemon=True).start()


@contextlib.contextmanager
def peer(wire, handler, *, version=4, receive_buffer=None, port=0):
    """A Peer that has each connection handled in a thread of its own."""
    with wire.in_rx():
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((ADDRESS[version], port))
    sock.listen(256)
    made = Peer(sock)
    thread = threading.Thread(target=made.accept, args=(handler,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        thread.join(5)
        for connection in made.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def digest_of(connection):
    """Reads to the end: (bytes, SHA-256)."""
    found, length = hashlib.sha256(), 0
    buffer = bytearray(1 << 18)
    view = memoryview(buffer)
    while n := connection.recv_into(buffer):
        found.update(view[:n])
        length += n
    return length, found.hexdigest()


def echo(connection):
    """Sends back what comes, until its end; how many bytes."""
    total = 0
    while data := connection.recv(1 << 16):
        connection.sendall(data)
        total += len(data)
    return total


def reset(connection):
    """RST instead of FIN (SO_LINGER, socket(7)), once something has come."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def sent_resets():
    """By the kernel of this thread's network namespace."""
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True))["OutRsts"])


def is_tcp(frame):
    """IPv4 or IPv6 with TCP right behind."""
    return frame[12:14] + frame[23:24] == b"\x08\x00\x06" or frame[12:14] + frame[20:21] == b"\x86\xdd\x06"


def flags_of(frame):
    """Of a TCP segment (RFC 9293, 3.1)."""
    return frame[14 + (20 if frame[12:14] == b"\x08\x00" else 40) + 13]


RST = 4

"""A program that receives: ordinary sockets of the kernel's, in a process of its own that can be killed.

    python tcpreceiver.py ADDRESS '{"count": 1, "receive_buffer": 4096, "first_sleep_s": 3}'

Its port on a line of its own, then for each connection that has ended a line of JSON: bytes, SHA-256 and an
errno or 0. It ends after ``count`` of them. ``reset_after``: bytes, then RST.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import selectors
import socket
import struct
import subprocess
import sys
import time

PATIENCE_S = 60.0
"""without anything that comes; then it ends, and its reader finds fewer lines"""
_READ_BYTES = 1 << 18


class Receiver:
    """The test's hold of it. ``enter``: a context that stands in the right network namespace."""

    def __init__(self, enter, address, **options):
        arguments = [sys.executable, __file__, address, json.dumps(options)]
        with enter():
            self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def results(self, seconds=PATIENCE_S):
        """(bytes, SHA-256, errno) of every connection, once the program has ended."""
        out, _ = self.process.communicate(timeout=seconds)
        return [tuple(json.loads(line)) for line in out.splitlines()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        with contextlib.suppress(ValueError):  # communicate() has closed it
            self.process.communicate(timeout=10)


class _One:
    def __init__(self, connection, reset_after):
        self.connection, self.reset_after = connection, reset_after
        self.digest, self.length, self.errno = hashlib.sha256(), 0, 0

    def read(self):
        """True: it goes on."""
        try:
            data = self.connection.recv(_READ_BYTES)
        except OSError as error:
            self.errno = error.errno
            return False
        self.digest.update(data)
        self.length += len(data)
        if data and self.length >= self.reset_after:
            # RST instead of FIN: socket(7), SO_LINGER
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        return bool(data)


def main(address, count=1, receive_buffer=None, first_sleep_s=0.0, reset_after=sys.maxsize):
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    if receive_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    listener.bind((address, 0))
    listener.listen(4096)
    print(listener.getsockname()[1], flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while count and (ready := selector.select(PATIENCE_S)):
            for key, _ in ready:
                if key.data is None:
                    connection, _ = listener.accept()
                    selector.register(connection, selectors.EVENT_READ, _One(connection, reset_after))
                    time.sleep(first_sleep_s)
                elif not key.data.read():
                    one = key.data
                    selector.unregister(one.connection)
                    one.connection.close()
                    print(json.dumps([one.length, one.digest.hexdigest(), one.errno]), flush=True)
                    count -= 1


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))

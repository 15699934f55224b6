"""The control connection to an iperf3 server: an ordinary socket of the kernel's, every wait with an end."""

from __future__ import annotations

import errno
import select
import socket
import time
from typing import Any

from xsk_engine import iperf3protocol as protocol
from xsk_engine.errors import BrokenError, DeadlineError, TcpError, TcpRefusedError, TcpTimeoutError
from xsk_engine.iperf3protocol import Iperf3Test, Results

# A server answers at once, unless its machine is busy with the data. Lower: a slow one fails; higher: one
# that is gone is noticed late.
ANSWER_S = 30.0
# From a server that resets its streams and then says why, or the other way round.
_SOON_S = 0.2


class Control:
    """Open until close(). TcpError: the server is not there; BrokenError: it says what no server says, or
    that it does not want; DeadlineError: it says nothing."""

    def __init__(self, host: str, port: int, source: str | None, timeout_s: float, cookie: bytes) -> None:
        self.name = f"{host} port {port}"
        try:
            self._socket = socket.create_connection(
                (host, port), timeout_s, source_address=(source, 0) if source is not None else None
            )
        except ConnectionRefusedError as error:
            text = "no iperf3 server listens there; start iperf3 -s"
            raise TcpRefusedError("connect", self.name, text, errno=error.errno) from None
        except TimeoutError:
            text = f"no answer within {timeout_s:g} s; check the address, or a firewall"
            raise TcpTimeoutError("connect", self.name, text, errno=errno.ETIMEDOUT) from None
        except OSError as error:
            raise TcpError("connect", self.name, str(error.strerror), errno=error.errno) from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(ANSWER_S)
        self._send(cookie)

    def close(self) -> None:
        self._socket.close()

    @property
    def mss_bytes(self) -> int:
        """As the kernel has it for this connection."""
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)

    def expect(self, wanted: int) -> None:
        """Waits for this state."""
        state = protocol.read_state(self._receive(1, protocol.NAMES[wanted]))
        if state != wanted:
            detail = b""
            if state == protocol.SERVER_ERROR:
                detail = self._receive(8, "the server's error")
            raise BrokenError("iperf3", self.name, protocol.why_not(state, wanted, detail))

    def check(self) -> None:
        """Without waiting: the server has nothing to say while the test runs."""
        if select.select([self._socket], [], [], 0)[0]:
            self.expect(protocol.TEST_RUNNING)

    def check_soon(self) -> None:
        """As check(), when something has gone wrong: the server's word for it may be on its way."""
        select.select([self._socket], [], [], _SOON_S)
        self.check()

    def say(self, state: int) -> None:
        self._send(protocol.state_byte(state))

    def send_parameters(self, test: Iperf3Test) -> None:
        self._send(protocol.frame_json(protocol.parameters(test)))

    def exchange_results(self, ours: Results) -> Results:
        """The server's for ours."""
        self._send(protocol.frame_json(ours.as_message()))
        try:
            n = protocol.json_length(self._receive(4, "the server's results"))
            return protocol.parse_results(self._receive(n, "the server's results"), len(ours.streams))
        except ValueError as error:
            raise BrokenError("iperf3", self.name, str(error)) from None

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost("send", error) from None

    def _receive(self, n: int, what: str) -> bytes:
        deadline, found = time.monotonic() + ANSWER_S, b""
        while len(found) < n:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                piece = self._socket.recv(n - len(found))
            except TimeoutError:
                text = f"the server does not say {what}"
                raise DeadlineError("iperf3", f"{self.name}, {ANSWER_S:g} s", text) from None
            except OSError as error:
                raise self._lost("receive", error) from None
            if not piece:
                raise BrokenError("iperf3", self.name, f"the server has closed the connection before {what}")
            found += piece
        return found

    def _lost(self, operation: str, error: OSError) -> Any:
        text = f"the control connection is lost: {error.strerror}"
        return BrokenError(operation, self.name, text, errno=error.errno)

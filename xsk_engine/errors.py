"""Everything that can go wrong, with what was tried, with which arguments, and what to do about it.

Bad arguments are ``ValueError`` or ``TypeError``; everything else is an :class:`XskError`. Its text is one
line: ``operation(arguments): ERRNO: what happened; what to do``.
"""

from __future__ import annotations

import errno as _errno
from typing import Any


class XskError(Exception):
    """Base of all errors of this package.

    Attributes: ``operation`` (str), ``arguments`` (str), ``errno`` (int or None), ``message`` (str, with
    the remedy). Safe to read from any thread.
    """

    def __init__(self, operation: str, arguments: str, message: str, *, errno: int | None = None) -> None:
        self.operation = operation
        self.arguments = arguments
        self.errno = errno
        self.message = message
        super().__init__(str(self))
        self.errno = errno  # once more: where an OSError is beside, it has just cleared it

    def __str__(self) -> str:
        name = f"{errno_name(self.errno)}: " if self.errno else ""
        return f"{self.operation}({self.arguments}): {name}{self.message}"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: operation, args, errno (name or null), message."""
        return {
            "operation": self.operation,
            "args": self.arguments,
            "errno": errno_name(self.errno) if self.errno else None,
            "message": self.message,
        }


class UnavailableError(XskError):
    """The environment lacks something or refuses: no such interface or queue, no capability, no library."""


class QueueTakenError(UnavailableError):
    """Another AF_XDP socket is bound to the queue."""


class BrokenError(XskError):
    """It worked and then the system failed: link lost, device gone, no completions."""


class WouldBlockError(XskError):
    """Out of quota or of ring space right now; nothing was consumed."""


class DeadlineError(XskError, TimeoutError):
    """Not done within the time that was given; nothing is broken, and it goes on."""


class BusyError(XskError):
    """A second thread uses what only one may use at a time."""


class ClosedError(XskError):
    """Used after its owner closed it."""


class TcpError(XskError, OSError):
    """What has ended a TCP connection, or kept it from opening; ``errno`` says which: EHOSTUNREACH,
    ENETUNREACH, EPROTO, ... What has a class of its own in Python is one of the next four."""


class TcpRefusedError(TcpError, ConnectionRefusedError):
    """Nobody listens there."""


class TcpResetError(TcpError, ConnectionResetError):
    """The peer has reset it."""


class TcpAbortedError(TcpError, ConnectionAbortedError):
    """This side has reset it: abort(), or the engine's end."""


class TcpTimeoutError(TcpError, TimeoutError):
    """The peer does not answer any more, or never did."""


def errno_name(number: int) -> str:
    """``EBUSY`` for 16."""
    if number == _errno.EOPNOTSUPP:  # Python prefers its alias ENOTSUP, the kernel's documentation does not
        return "EOPNOTSUPP"
    return _errno.errorcode.get(number, str(number))

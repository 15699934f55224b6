"""What code that was written for sockets expects of addresses and errors. Pure."""

from __future__ import annotations

import errno
from typing import Any

from xsk_engine.errors import TcpAbortedError, TcpError, UnavailableError, XskError

_NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH)


def address_of(address: tuple[str, int]) -> tuple[Any, ...]:
    """As sockets have it: with flow label and scope for IPv6."""
    return (*address, 0, 0) if ":" in address[0] else address


def _of(kind: type[TcpError], error: XskError) -> TcpError:
    made = kind(error.operation, error.arguments, error.message, errno=error.errno)
    made.__cause__ = error
    return made


def why_lost(error: Exception) -> Exception:
    """What has ended a connection: an OSError. What is none of this package stays as it is."""
    if isinstance(error, OSError) or not isinstance(error, XskError):
        return error
    return _of(TcpAbortedError, error)


def why_not_opened(error: BaseException) -> OSError:
    """What has kept it from opening: no way there is an OSError; whatever else is none is raised."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, UnavailableError) and error.errno in _NO_WAY:
        return _of(TcpError, error)
    raise error


def one_of(errors: list[OSError]) -> OSError:
    """Of several addresses, as asyncio does it: the one, or all in one."""
    if len({str(one) for one in errors}) == 1:
        return errors[0]
    return OSError(f"Multiple exceptions: {', '.join(map(str, errors))}")

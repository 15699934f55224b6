"""What a process or its machine has no more of: named, with the limit to raise."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from xsk_engine.errors import UnavailableError

_THREADS = (
    "no thread can be started: the user or the cgroup has as many as it may (ulimit -u, pids.max), or there "
    "is no memory for its stack"
)
_REMEDIES = {
    errno.EMFILE: "this process has as many file descriptors as it may; raise the limit (ulimit -n)",
    errno.ENFILE: "the machine has as many open files as it may; raise fs.file-max",
    errno.ENOMEM: "no memory is left, or this process may have no more (ulimit -v, ulimit -d); use a smaller "
    "--umem-mb",
}


def unavailable(error: Exception, operation: str, arguments: str) -> UnavailableError | None:
    """What to raise instead if it is a shortage; `operation`, `arguments`: where it does not say them."""
    number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    if isinstance(error, UnavailableError) and number not in (errno.EMFILE, errno.ENFILE):
        return None  # who raised it knows more
    if number in _REMEDIES:
        operation = getattr(error, "operation", operation)
        arguments = getattr(error, "arguments", arguments)
        return UnavailableError(operation, arguments, _REMEDIES[number], errno=number)
    if isinstance(error, RuntimeError) and "new thread" in str(error):
        return UnavailableError(operation, arguments, _THREADS, errno=errno.EAGAIN)
    return None


@contextlib.contextmanager
def named(operation: str, arguments: str) -> Iterator[None]:
    """Inside, a shortage is an UnavailableError."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError, UnavailableError) as error:
        found = unavailable(error, operation, arguments)
        if found is None:
            raise
        raise found from None

"""One checker per error convention. Each raises ``OSError(errno, text)`` with the function's name."""

from __future__ import annotations

import ctypes
import os
from typing import Any


def _raise(number: int, func: Any) -> None:
    raise OSError(number, f"{func.__name__}: {os.strerror(number)}")


def errno_minus_one(result: int, func: Any, _args: Any) -> int:
    """libc: -1 and errno."""
    if result == -1:
        _raise(ctypes.get_errno(), func)
    return result


def negative_errno(result: int, func: Any, _args: Any) -> int:
    """libxdp, libbpf and libxske: a negative errno is the result itself."""
    if result < 0:
        _raise(-result, func)
    return result


def null_and_errno(result: int | None, func: Any, _args: Any) -> int:
    """libbpf 1.0 and later: NULL and errno."""
    if not result:
        _raise(ctypes.get_errno(), func)
    return result or 0

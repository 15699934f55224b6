"""Opens shared libraries and gives their functions types."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from xsk_engine.errors import UnavailableError

Signature = tuple[list[Any], Any, Callable[..., Any] | None]
"""argtypes, restype, error checker (or None)."""


def open_library(name: str, hint: str) -> ctypes.CDLL:
    """Opens by soname or path; raises UnavailableError with `hint` as the remedy."""
    try:
        return ctypes.CDLL(name, use_errno=True)
    except OSError as error:
        raise UnavailableError("load", name, f"{error}; {hint}") from None


def declare(
    library: ctypes.CDLL,
    name: str,
    table: dict[str, Signature],
    *,
    prefix: str = "",
    optional: bool = False,
) -> SimpleNamespace:
    """The functions of `table`, without `prefix`, as attributes.

    A missing symbol is an UnavailableError; with `optional`, None.
    """
    functions = SimpleNamespace()
    for symbol, (argtypes, restype, check) in table.items():
        try:
            function = getattr(library, symbol)
        except AttributeError:
            if not optional:
                raise UnavailableError(
                    "load", f"{name}, {symbol}", "the library lacks this function; install a newer one"
                ) from None
            setattr(functions, symbol.removeprefix(prefix), None)
            continue
        function.argtypes = argtypes
        function.restype = restype
        if check:
            function.errcheck = check
        setattr(functions, symbol.removeprefix(prefix), function)
    return functions

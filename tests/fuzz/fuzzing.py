"""What the targets in Python share: input out of bytes, what must hold of one, and the way into atheris.

A target is a module with ``one(data)``; tests/unit/test_fuzz_seeds.py runs its seeds without atheris.
"""

import os
import re
import resource
import sys
import time
from pathlib import Path

import click

from xsk_engine.errors import XskError

MOST_S = 3.0
"""of this process's own time; a million sizes take half a second without instruments"""
MOST_GROWTH_KIB = 128 << 10
MOST_CHARACTERS = 1 << 14
REFUSALS = (ValueError, click.UsageError, XskError)


class Input:
    """Numbers and texts; behind the end there are zeros."""

    def __init__(self, data):
        self._data, self._at = data, 0

    def __bool__(self):
        return self._at < len(self._data)

    def byte(self):
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def pick(self, among):
        return among[self.byte() % len(among)]

    def rest(self):
        data, self._at = self._data[self._at :], len(self._data)
        return data

    def text(self, words, most=48):
        """Of words, of other characters, and now and then of very much of one."""
        parts = []
        while self and len(parts) < most and sum(map(len, parts)) < MOST_CHARACTERS:
            what = self.byte()
            if what < 208:
                parts.append(words[what % len(words)])
            elif what == 208:
                break
            elif what < 248:
                parts.append(chr(self.byte()))
            elif what < 253:
                parts.append(chr(self.byte() << 8 | self.byte()).encode(errors="ignore").decode())
            else:
                parts.append((parts[-1] if parts else words[0]) * (1 << self.byte() % 13))
                parts[-1] = parts[-1][:MOST_CHARACTERS]
        return "".join(parts)


def _is_one_line(error):
    text = " ".join(error.format_message().split()) if isinstance(error, click.ClickException) else str(error)
    assert text.strip(), f"an error without a word: {error!r}"
    assert "\n" not in text, f"an error of several lines: {text!r}"
    assert not re.search(r" at 0x[0-9a-f]{9,}>|set_int_max_str_digits", text), (
        f"an error for programmers: {text!r}"
    )


def refused(call, *arguments):
    """(result, None), or (None, the error) when it is one of those that a user may get, in one line."""
    try:
        return call(*arguments), None
    except REFUSALS as error:
        _is_one_line(error)
        return None, error


class bounded:
    """Neither long nor large."""

    def __enter__(self):
        self._peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._begun = time.process_time()

    def __exit__(self, kind, *_):
        if kind is not None:
            return
        took = time.process_time() - self._begun
        assert took < MOST_S, f"it took {took:.1f} s"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._peak
        assert grown < MOST_GROWTH_KIB, f"it took {grown >> 10} MiB"


def main(one):
    """Fuzzes this target with libFuzzer's options."""
    try:
        import atheris
    except ImportError:
        print("SKIPPED: this Python has no atheris (3.11 to 3.13 have)")
        sys.exit(os.environ.get("XSK_REQUIRE_LAB") == "1")

    def judged(data):
        with bounded():
            one(data)

    if hasattr(one, "warm_up"):
        one.warm_up()
    atheris.Setup(sys.argv, judged)
    atheris.Fuzz()


def instrumented():
    """A context in which imports of the package are watched by atheris, if there is one."""
    from contextlib import nullcontext

    if Path(sys.argv[0]).suffix != ".py" or "fuzz" not in sys.argv[0]:
        return nullcontext()
    try:
        import atheris
    except ImportError:
        return nullcontext()
    return atheris.instrument_imports(include=["xsk_engine"])

"""What a model in native/models says of itself, and which C it stands for.

In its head, ``mirrors FILE FUNCTION HASH`` names a function and what its text was when the two were last
compared; ``holds FLAGS`` and ``breaks FLAGS`` how it is run: without a mistake, and with one that must be
found.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / "native/models").glob("*.pml"))
_MIRRORS = re.compile(r"^ \* mirrors (\S+) (\w+)(?: ([0-9a-f]{8}))?$", re.M)
_RUN = re.compile(r"^ \* (holds|breaks)((?: -D\w+(?:=\w+)?)*)(?::|$)", re.M)


@dataclass(frozen=True)
class Mirror:
    file: str
    function: str
    digest: str | None


@dataclass(frozen=True)
class Run:
    model: Path
    must_hold: bool
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.model.stem, "holds" if self.must_hold else "breaks", *self.flags))


def mirrors_of(model: Path) -> list[Mirror]:
    return [Mirror(file, name, digest or None) for file, name, digest in _MIRRORS.findall(model.read_text())]


def runs_of(model: Path) -> list[Run]:
    return [
        Run(model, kind == "holds", tuple(flags.split())) for kind, flags in _RUN.findall(model.read_text())
    ]


def digest_of(file: str, function: str) -> str | None:
    """Of the function's text, without comments and white space; None: there is no such function."""
    text = (ROOT / file).read_text()
    found = re.search(rf"^(?!\s)[^;{{}}()]*\b{function}\([^;{{}}]*\)\n\{{\n.*?^\}}", text, re.M | re.S)
    if not found:
        return None
    code = re.sub(r"/\*.*?\*/|//[^\n]*|\s+", "", found[0], flags=re.S)
    return hashlib.sha256(code.encode()).hexdigest()[:8]


def changed(model: Path) -> list[Mirror]:
    """What it mirrors and is not what it was."""
    return [m for m in mirrors_of(model) if m.digest is None or digest_of(m.file, m.function) != m.digest]


def compared(model: Path) -> None:
    """Writes down that model and code were compared as they are now."""

    def now(found: re.Match[str]) -> str:
        file, function, _ = found.groups()
        return f" * mirrors {file} {function} {digest_of(file, function)}"

    model.write_text(_MIRRORS.sub(now, model.read_text()))

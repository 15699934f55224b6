"""Where laboratories are: a veth pair of this command's own, the emulated machine, or two interfaces."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.experiment import Laboratory
from bench.scene import MODE_VARIABLE, PLACE_VARIABLE, ROOT
from xsk_engine._ffi import uapi
from xsk_engine._ffi.libc import libc
from xsk_engine.errors import UnavailableError
from xsk_engine.lab.adoption import Adopted, adopted

if TYPE_CHECKING:
    from tests.machine.qemu import Machine

LIMIT_S = 3600
"""of one experiment in one laboratory"""
MTU = 1500
"""of the emulated machine"""
_ENDING_S = 15
"""for a child's arms to be torn down"""
EMULATED = "CPU, IOMMU and NICs are emulated: no time or rate here is worth much, only what is counted"


class Place(Protocol):
    """Where laboratories are."""

    def run(self, laboratory: Laboratory, command: list[str], out: Path) -> None:
        """Runs `command` in a laboratory, with the path of a file behind it, which is then in `out`.
        CalledProcessError, TimeoutExpired; UnavailableError: there is no such laboratory here."""


def run_child(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    fds: Sequence[int] = (),
    enter: Callable[[], object] | None = None,
) -> None:
    """To its end, or the end of this process: then it may tear down its arms. CalledProcessError,
    TimeoutExpired."""
    process = subprocess.Popen(
        list(command), cwd=ROOT, env=dict(environment or os.environ), pass_fds=fds, preexec_fn=enter
    )
    try:
        if code := process.wait(LIMIT_S):
            raise subprocess.CalledProcessError(code, process.args)
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING_S)
            process.kill()
            process.wait()


def said(name: str, caveat: str = "", mode: str | None = None) -> dict[str, str]:
    """What the child is told of its place, for :class:`bench.scene.Scene`."""
    told = {PLACE_VARIABLE: json.dumps({"place": name, "caveat": caveat})}
    return told | ({MODE_VARIABLE: mode} if mode else {})


class Veth:
    """Two network namespaces and a veth pair of this command's own; no root needed."""

    def run(self, laboratory: Laboratory, command: list[str], out: Path) -> None:
        lab = [sys.executable, "-m", "xsk_engine", "lab", "run", "--mtu", str(laboratory.mtu)]
        lab += ["--queues", str(laboratory.queues), "--"]
        run_child([*lab, *command, str(out)], os.environ | said("veth pair"))


@dataclass
class Emulated:
    """The two NICs of a machine that has booted. ``mode``: of the engine's sockets, None: as it chooses."""

    machine: Machine
    mode: str | None = None

    def run(self, laboratory: Laboratory, command: list[str], out: Path) -> None:
        if laboratory.mtu != MTU:
            raise UnavailableError(
                "laboratory", f"MTU {laboratory.mtu}", f"the emulated machine's MTU is {MTU}"
            )
        name = f"emulated machine, {self.machine.config.nics}, kernel {self.machine.release}"
        written = self.machine.shared / "outcome.json"
        written.unlink(missing_ok=True)
        done = self.machine.python(
            *("-m", "tests.machine.guest.adopt", "--", *command, "/run/shared/outcome.json"),
            timeout_s=LIMIT_S,
            environment=said(name, EMULATED, self.mode),
            watch=lambda text: print(text, end="", file=sys.stderr, flush=True),
        )
        if done.exit:
            raise subprocess.CalledProcessError(done.exit, command, done.output)
        out.write_bytes(written.read_bytes())


@dataclass
class Interfaces:
    """Two interfaces that a cable joins, taken from the host until the end."""

    ends: Adopted
    name: str
    mode: str | None = None

    def run(self, laboratory: Laboratory, command: list[str], out: Path) -> None:
        self.ends.set_up(laboratory.mtu)
        lab = self.ends.lab
        run_child(
            [*command, str(out)],
            os.environ | lab.variables | said(self.name, mode=self.mode),
            (lab.tx_fd, lab.rx_fd),
            lambda: libc.setns(lab.tx_fd, uapi.CLONE_NEWNET),
        )


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _deaf() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def orderly_end() -> Iterator[Callable[[], None]]:
    """The first signal to end leaves the block by SystemExit, and no other one is heard until it is left.
    What is yielded makes deaf from then on. Main thread."""

    def leave(number: int, _frame: Any) -> None:
        _deaf()
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield _deaf
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def emulated(nics: str, mode: str | None) -> Iterator[Emulated]:
    """Boots a machine. UnavailableError: there can be none here."""
    from tests.machine.packages import MachineUnavailable
    from tests.machine.qemu import Machine, MachineConfig

    try:
        machine = Machine(MachineConfig(nics))
        machine.__enter__()
    except MachineUnavailable as error:
        raise UnavailableError("emulated machine", nics, str(error)) from None
    with contextlib.closing(_Leaving(machine)):
        yield Emulated(machine, mode)


@dataclass
class _Leaving:
    machine: Machine

    def close(self) -> None:
        self.machine.__exit__()


@contextlib.contextmanager
def interfaces(tx: str, rx: str, mode: str | None) -> Iterator[Interfaces]:
    """Everything as before afterwards, also after an error, Ctrl-C or SIGTERM. UnavailableError, and
    BrokenError where something could not be given back."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(orderly_end())
        ends = stack.enter_context(adopted(tx, rx))
        stack.callback(deaf)  # the first that is done at the end: giving back is not interrupted
        yield Interfaces(ends, f"interfaces {tx} and {rx}", mode)


def chosen(
    machine: bool = False,
    nics: str = "igb",
    pair: tuple[str, str] | None = None,
    mode: str | None = None,
) -> contextlib.AbstractContextManager[Place]:
    """The place that the command line asks for. ValueError: both, or a mode for veth, which has one only."""
    if machine and pair:
        raise ValueError("--machine and --interfaces: one of them")
    if machine:
        return emulated(nics, mode)
    if pair:
        return interfaces(*pair, mode)
    if mode:
        raise ValueError("--mode: veth has no other; with --machine or --interfaces")
    return contextlib.nullcontext(Veth())

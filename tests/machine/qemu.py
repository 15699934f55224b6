"""The emulated machine: QEMU without root and without KVM, two NICs back to back behind an IOMMU.

host ─ QEMU ─ guest (Linux, the host's root read-only through 9p, this checkout and its virtual environment)
                ├ vtx: igb or virtio-net ┐ one emulated hub
                └ vrx: the same          ┘
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.machine import initramfs, packages
from tests.machine.guest.agent import PORT_NAME
from tests.machine.packages import CHECKOUT
from xsk_engine._ffi.libc import die_with_parent
from xsk_engine.lab.topology import RX_MAC, TX_MAC

BOOT_TIMEOUT_S = 120
# A command that the guest's agent could not end in time means that the guest itself hangs.
ANSWER_GRACE_S = 20
_STOP_TIMEOUT_S = 10
_CONSOLE_TAIL_LINES = 25
_HEADLINE, _HEADLINES = re.compile(r"BUG:|Oops|Kernel panic|general protection|Out of memory|lockup"), 5


class MachineFailed(Exception):
    """The guest crashed or hangs; the message ends with its console's last lines."""


IOMMU = {
    "strict": "intel_iommu=on iommu.strict=1 iommu.passthrough=0",
    "lazy": "intel_iommu=on iommu.strict=0 iommu.passthrough=0",
    "passthrough": "intel_iommu=on iommu.passthrough=1",
}


NICS = {
    # Each igb behind a port of its own: on one bus their virtual functions collide.
    "igb": ("pcie-root-port,id=port{index},chassis={slot}", "igb,bus=port{index}"),
    "virtio": ("virtio-net-pci,iommu_platform=on,disable-legacy=on,indirect_desc=off",),
    "virtio-no-iommu": ("virtio-net-pci",),
}


def _nic(kind: str, index: int, mac: str) -> list[str]:
    devices = [device.format(index=index, slot=index + 1) for device in NICS[kind]]
    devices[-1] += f",id=nic{index},netdev=wire{index},mac={mac}"
    backend = ["-netdev", f"hubport,id=wire{index},hubid=0"]
    return backend + [argument for device in devices for argument in ("-device", device)]


@dataclass(frozen=True)
class MachineConfig:
    """``nics``: igb, virtio or virtio-no-iommu; ``iommu``: strict, lazy or passthrough, None for the
    strictest that these NICs bear; ``plugin``: a TCG plugin that takes ``out=`` a file."""

    nics: str = "igb"
    iommu: str | None = None
    cpus: int = 2
    memory: str = "2G"
    plugin: str | None = None

    def command(self, shared: Path) -> list[str]:
        """QEMU without a console; `shared` is the guest's /run/shared. MachineUnavailable."""
        parts = packages.get()
        # More than one thread breaks virtio devices behind the IOMMU (QEMU 10).
        threads = "multi" if self.nics == "igb" else "single"
        # Behind a translating IOMMU virtio-net loses packets, with the kernel's own senders too (QEMU 10).
        iommu = self.iommu or ("strict" if self.nics == "igb" else "passthrough")
        options = f"console=ttyS0 quiet panic=-1 {IOMMU[iommu]}"
        return [
            *parts.qemu,
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"),
            *("-M", "q35,kernel-irqchip=split", "-accel", f"tcg,thread={threads}", "-cpu", "max"),
            *("-smp", str(self.cpus), "-m", self.memory, "-device", "intel-iommu,intremap=on"),
            *("-kernel", str(parts.kernel), "-initrd", str(initramfs.build(parts)), "-append", options),
            *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
            *("-virtfs", f"local,path={shared},mount_tag=shared,security_model=none"),
            *_nic(self.nics, 0, TX_MAC),
            *_nic(self.nics, 1, RX_MAC),
            *(("-plugin", f"{self.plugin},out={shared / 'instructions'}") if self.plugin else ()),
        ]


@dataclass
class Completed:
    """What a command in the guest did."""

    exit: int
    output: str


class Machine:
    """A booted guest; a context manager. One command at a time, from one thread. ``shared`` is a folder of
    the host's, /run/shared in the guest; ``release`` the guest's kernel."""

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.shared = Path()
        self.release = ""
        self._pending = b""
        self._dead = ""

    def __enter__(self) -> Machine:
        with contextlib.ExitStack() as stack:
            self.shared = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xske-machine-")))
            agent = [sys.executable, str(CHECKOUT / "tests/machine/guest/agent.py")]
            _write_start(self.shared, shlex.join(agent))
            self._listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._listener.bind(str(self.shared / "agent"))
            self._listener.listen(1)
            self._listener.settimeout(BOOT_TIMEOUT_S)
            command = [
                *self.config.command(self.shared),
                *("-serial", f"file:{self.shared / 'console'}", "-device", "virtio-serial-pci"),
                *("-qmp", f"unix:{self.shared / 'qmp'},server=on,wait=off"),
                *("-chardev", f"socket,id=agent,path={self.shared / 'agent'}"),
                *("-device", f"virtserialport,chardev=agent,name={PORT_NAME}"),
            ]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us; we end it
                preexec_fn=partial(die_with_parent, signal.SIGKILL),
                cwd=CHECKOUT,
            )
            stack.callback(self._end)
            self._port, _ = self._listener.accept()
            stack.enter_context(self._port)
            self.release = str(self._receive(time.monotonic() + BOOT_TIMEOUT_S)["ready"])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._send(stop=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_S)
        self._stack.close()

    def _end(self) -> None:
        assert self._process.stderr is not None
        self._process.kill()
        self._process.wait()
        self._process.stderr.close()

    def _send(self, **message: object) -> None:
        self._port.sendall(json.dumps(message).encode() + b"\n")

    def console(self) -> str:
        """What the kernel has said so far."""
        try:
            return (self.shared / "console").read_text(errors="replace")
        except OSError:
            return ""

    def _failed(self, what: str) -> MachineFailed:
        self._dead = what  # a late answer must not be taken for the next command's
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        console = self.console().splitlines()
        headlines = [line for line in console if _HEADLINE.search(line)]
        said = [*headlines[:_HEADLINES], "...", *console[-_CONSOLE_TAIL_LINES:]]
        if self._process.poll() is not None and self._process.stderr is not None:
            said += self._process.stderr.read().decode(errors="replace").splitlines()[-3:]
        return MachineFailed("\n".join([f"{what}; its console's headlines and last lines:", *said]))

    def _receive(self, deadline: float) -> dict[str, object]:
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._port], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise self._failed("the guest hangs: no answer within its deadline")
            received = self._port.recv(1 << 16)
            if not received:
                raise self._failed("the guest is gone: it crashed or powered off")
            self._pending += received
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, object] = json.loads(line)
        return message

    def run(
        self,
        *argv: str,
        timeout_s: float = 60,
        environment: Mapping[str, str] | None = None,
        watch: Callable[[str], object] | None = None,
    ) -> Completed:
        """Runs a command in the guest, in this checkout; `watch` sees its output as it comes. Exit code 124:
        killed at its timeout. MachineFailed when the guest itself crashes or does not answer."""
        if self._dead:
            raise MachineFailed(f"no command after this: {self._dead}")
        self._send(argv=argv, timeout_s=timeout_s, environment=dict(environment or {}))
        deadline = time.monotonic() + timeout_s + ANSWER_GRACE_S
        output: list[str] = []
        while True:
            message = self._receive(deadline)
            if text := str(message.get("output", "")):
                output.append(text)
                if watch:
                    watch(text)
            if "exit" in message:
                return Completed(int(str(message["exit"])), "".join(output))

    def set_carrier(self, nic: int, up: bool) -> None:
        """Plugs the cable of NIC 0 (vtx) or 1 (vrx) in or out (QEMU's set_link)."""
        with socket.socket(socket.AF_UNIX) as qmp:
            qmp.settimeout(ANSWER_GRACE_S)
            qmp.connect(str(self.shared / "qmp"))
            with qmp.makefile("rw") as lines:
                lines.readline()  # its greeting
                for command in (
                    {"execute": "qmp_capabilities"},
                    {"execute": "set_link", "arguments": {"name": f"nic{nic}", "up": up}},
                ):
                    lines.write(json.dumps(command) + "\n")
                    lines.flush()
                    while "return" not in (answer := json.loads(lines.readline())):
                        if "error" in answer:
                            raise MachineFailed(f"QEMU refuses {command}: {answer['error']}")

    def python(self, *argv: str, **options: object) -> Completed:
        """`run` with the virtual environment's Python."""
        return self.run(sys.executable, *argv, **options)  # type: ignore[arg-type]


def _write_start(shared: Path, command: str) -> None:
    """What guest/init starts in the host's root."""
    settings = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/run",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "linux"),
        "XSK_MACHINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    lines += [f"cd {shlex.quote(str(CHECKOUT))}", f"exec {command}"]
    (shared / "start").write_text("\n".join(lines) + "\n")


_WELCOME = """
vtx is here, vrx in a namespace of its own: rx COMMAND runs there (rx ip addr, rx tcpdump -ni vrx).
The checkout is the host's; what you change is gone with the machine. Leave with exit, or Ctrl-A X.
"""


def shell(config: MachineConfig) -> int:
    """This terminal becomes the guest's console; returns when it has powered off."""
    adopted = [sys.executable, "-m", "tests.machine.guest.adopt", "--", "bash", "-i"]  # -l would reset PATH
    with tempfile.TemporaryDirectory(prefix="xske-machine-") as folder:
        shared = Path(folder)
        (shared / "welcome").write_text(_WELCOME)
        (shared / "bashrc").write_text(
            'rx() { nsenter --net="/proc/self/fd/$XSK_LAB_RX_FD" "$@"; }\ncat /run/shared/welcome\n'
        )
        adopted[-1:] = ["--rcfile", "/run/shared/bashrc", "-i"]
        _write_start(shared, f"setsid -c {shlex.join(adopted)} </dev/ttyS0 >/dev/ttyS0 2>&1")
        command = [*config.command(shared), "-serial", "mon:stdio"]
        die = partial(die_with_parent, signal.SIGKILL)
        return subprocess.run(command, check=False, preexec_fn=die).returncode

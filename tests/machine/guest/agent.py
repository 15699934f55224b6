"""Runs in the guest: takes commands from the host, one JSON object a line, and answers with their output and
exit code. Ends, and with it the machine, when the host closes the port."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

PORT_NAME = "xske.agent"


def open_port() -> BinaryIO:
    """The virtio port that the host named for us."""
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").read_text().strip() == PORT_NAME:
            return open(f"/dev/{port.name}", "r+b", buffering=0)
    raise SystemExit(f"no virtio port {PORT_NAME}")


def send(port: BinaryIO, **message: object) -> None:
    """One line; the port takes what it has room for."""
    rest = json.dumps(message).encode() + b"\n"
    while rest:
        rest = rest[port.write(rest) or 0 :]


def run(port: BinaryIO, argv: list[str], timeout_s: float, environment: dict[str, str]) -> None:
    """Its output goes back as it comes; past the timeout the whole process group is killed."""
    deadline = time.monotonic() + timeout_s
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    except OSError as error:
        send(port, output=f"{argv[0]}: {error}\n", exit=127)
        return
    assert process.stdout is not None
    timed_out = False
    with selectors.DefaultSelector() as selector, process:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not timed_out:
            if selector.select(max(deadline - time.monotonic(), 0)):
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    break
                send(port, output=chunk.decode(errors="replace"))
            timed_out = time.monotonic() >= deadline
        if timed_out:
            os.killpg(process.pid, signal.SIGKILL)
            send(port, output=f"\n{argv[0]}: killed after {timeout_s:g} s\n")
    send(port, exit=process.returncode if not timed_out else 124)


def main() -> None:
    with open_port() as port:
        send(port, ready=os.uname().release)
        pending = b""
        while True:
            pending += port.read(1 << 16) or b""
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                command = json.loads(line)
                if command.get("stop"):
                    return
                run(port, command["argv"], command["timeout_s"], command["environment"])


if __name__ == "__main__":
    sys.exit(main())

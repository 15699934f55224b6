"""Configuration files: whatever a file holds, every command with --config says in one line what is wrong
with it, or shows a configuration that is a file which shows the same."""

import contextlib
import io
import os

import click
from fuzzing import Input, instrumented, main, refused

with instrumented():
    from xsk_engine.cli import config_file, replay, send

COMMANDS = [send.command, replay.command]
KEYS = sorted({config_file._key(p) for c in COMMANDS for p in c.params})
WORDS = [f"{key}: " for key in KEYS] + [
    "\n", "\n", "\n  ", "\n- ", "\n  - ", "- ", "[", "]", "{", "}", ",", ": ", '"', "'", "#", "|", ">",
    "\t", "&a ", "*a ", "<<: *a", "!!python/object:os.system ", "!!binary ", "!!int ", "%YAML 1.1\n---\n",
    "---\n", "...\n", "? ", "~", "null", "true", "off", "max", "1", "10kpps", "0,2-3", "60-1514", "1s",
    "ip dst=10.0.0.1 / udp", "packet: ", "@42/4: ", "name: ", "rate: ", "hex:c0", "\x00", "\ufeff", "\x85",
    "٣", "9" * 20, "eth0", "vlan=none", "sequence",
]  # fmt: skip


def _shown(command, text):
    """What --show-config says of this file."""
    fd = os.memfd_create("config")
    try:
        os.write(fd, text if isinstance(text, bytes) else text.encode())
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            arguments = ["--config", f"/proc/self/fd/{fd}", "--show-config"]
            code = command.main(arguments, "command", standalone_mode=False)
        assert code == 0, code
        return out.getvalue()
    finally:
        os.close(fd)


def one(data):
    given = Input(data)
    command = given.pick(COMMANDS)
    text = given.rest() if given.byte() < 32 else given.text(WORDS)
    shown, error = refused(_shown, command, text)
    assert error is None or isinstance(error, click.UsageError), repr(error)
    if shown:
        assert _shown(command, shown) == shown, f"{shown!r} shows {_shown(command, shown)!r}"


if __name__ == "__main__":
    main(one)

"""Configuration files: what the command line can say, and the other way round."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from xsk_engine.cli import replay, send

EXAMPLES = Path(__file__).parents[2] / "examples"
FLOWS = """\
flows:
  - name: one
    packet: ip dst=10.0.0.1 / udp
    payload: "text:a;b"
  - ip dst=10.0.0.2 / tcp ; rate=1kpps ; name=two
"""


def run(*arguments, code=0, text=None):
    result = subprocess.run(
        [sys.executable, "-m", "xsk_engine", *arguments],
        capture_output=True, text=True, timeout=60, check=False, input=text,
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr if code else result.stdout


# One way to say each option, as the command line and as the file have it.
SAID = {
    "dst-ip": "10.0.0.1-10.0.0.9", "src-ip": "10.0.1.1", "dst-port": "1,2,3", "src-port": "random",
    "dst-mac": "02:00:00:00:00:09", "src-mac": "02:00:00:00:00:08", "protocol": "tcp", "vlan": ["7", "8"],
    "ttl": "7", "dscp": "46",
    "flow-label": "5", "tcp-flags": "SA", "field": ["ipv4.id=sequence"],
    "size": "60:7,1514:1", "packet": ["ip dst=10.0.0.1 / udp"], "flows": "/tmp/flows",
    "payload": "text:hi", "signature": True,
    "advance": "nest", "checksum": "none", "seed": "9", "count": "1k", "duration": "100ms", "rate": "1.5Mpps",
    "burst": "3", "burst-gap": "1ms", "poisson": True, "timestamps": True, "batch": "7", "queue": "0,2-3",
    "rtt": True,
    "dry-run": True, "cpu": "0,1", "mode": "copy", "umem-mb": "9", "link-timeout": "1s", "live": False,
    "allow-default-route": True, "strict-rate": True, "json": True, "jsonl": "a.jsonl", "csv": "-",
    "interval": "2s", "metrics": "127.0.0.1:9100", "pcap-out": "x.pcap", "pcap-count": "4",
    "speed": "2x", "loop": "0", "limit": "3", "edit": ["vlan=none", "port.dst=9"], "map-mac": True,
    "neighbour": "10.0.0.1",
    "opener": "xsk-engine-open", "sandbox": True,
    "fix-checksums": True, "oversize": "skip", "max-gap": "1s",
}  # fmt: skip


def options(command):
    return [
        param.opts[0][2:]
        for param in command.params
        if isinstance(param, click.Option) and param.name not in ("config", "show_config")
    ]


def as_arguments(name, value):
    if isinstance(value, list):
        return [word for one in value for word in (f"--{name}", one)]
    if value is False:
        return [f"--no-{name}"]
    return [f"--{name}"] if value is True else [f"--{name}", value]


@pytest.mark.parametrize("command", [send.command, replay.command], ids=lambda command: command.name)
def test_each_option_can_be_said_in_both_places(command, tmp_path):
    positional = ["vtx"] if command is send.command else ["vtx", "some.pcap"]
    names = options(command)
    assert set(names) <= set(SAID)
    arguments = [word for name in names for word in as_arguments(name, SAID[name])]
    by_command_line = run(command.name, *positional, *arguments, "--show-config")
    file = tmp_path / "all.yaml"
    words = dict(zip(("interface", "file"), positional, strict=False))
    file.write_text(yaml.safe_dump(words | {name: SAID[name] for name in names}))
    assert run(command.name, "--config", str(file), "--show-config") == by_command_line
    shown = tmp_path / "shown.yaml"
    shown.write_text(by_command_line)
    assert run(command.name, "--config", str(shown), "--show-config") == by_command_line
    loaded = yaml.safe_load(by_command_line)
    assert set(names) <= set(loaded)
    assert loaded["batch"] == 7
    assert loaded["live"] is False


def test_the_command_line_goes_first_and_defaults_are_shown():
    text = "rate: 10kpps\ncount: 5\n"
    shown = yaml.safe_load(
        run("send", "vtx", "--config", "-", "--rate", "20kpps", "--show-config", text=text)
    )
    assert shown["rate"] == "20kpps"
    assert shown["count"] == 5
    assert shown["payload"] == "zeros"
    assert "burst" not in shown
    assert "# burst:" in run("send", "--show-config")


def test_flows_of_a_file_are_those_of_the_command_line(tmp_path):
    file = tmp_path / "flows.yaml"
    file.write_text(FLOWS)
    by_file = run("send", "--dry-run", "--count", "6", "--config", str(file))
    lines = tmp_path / "flows"
    lines.write_text(
        "ip dst=10.0.0.1 / udp ; payload=hex:613b62\n# nothing\nip dst=10.0.0.2 / tcp ; rate=1kpps\n"
    )
    assert run("send", "--dry-run", "--count", "6", "--flows", str(lines)) == by_file
    assert "613b 62" in by_file
    shown = run("send", "--config", str(file), "--show-config")
    (tmp_path / "again.yaml").write_text(shown)
    assert run("send", "--dry-run", "--count", "6", "--config", str(tmp_path / "again.yaml")) == by_file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("durration: 3", "1: unknown key 'durration'; did you mean duration?"),
        ("count: 3\nrate: 10kpp", "2: rate: '10kpp'"),
        ("count: 3\ncount: 4", "2: count: it is given twice"),
        ("json: maybe", "1: json: 'maybe' is neither true nor false"),
        ("mode: fast", "1: mode: 'fast' is not one of"),
        ("- send", "1: lines of key: value"),
        ("rate:\n  a: 1", "2: rate: one value"),
        ("rate: [", "1: "),
        ("rate: 1kpps\n  x: y", "2: mapping values are not allowed here"),
        ("", "it is empty"),
        ("a: " + "[" * 5000, "nested too deep"),
        ("flows:\n  - packet: ip dst=10.0.0.1 / udp\n    '@4': 3", "3: flows: @4: it is not @offset/width"),
        ("config: other.yaml", "1: unknown key 'config'"),
        ("flows:\n  - size: 60", "2: flows: a flow needs packet"),
        (
            "flows:\n  - packet: ip dst=10.0.0.1 / udp\n    sise: 60",
            "3: flows: unknown key 'sise'; did you mean size?",
        ),
        ("flows:\n  - packet: ip dst=10.0.0.1 / udp\n    size: x", "3: flows: size: 'x'"),
        ("flows:\n  - ip dst=10.0.0.1 / udp\n  - ipp", "3: flows: packet: no layer 'ipp'"),
        ("flows:\n  - packet: ip dst=10.0.0.1 / udp\n    count: 3", "2: flows: packet: count"),
        ("flows:\n  - ip dst=10.0.0.1 / udp dst=1-70000", "2: flows: udp dst: 70000 does not fit"),
        ("flows:\n  - packet: ip dst=10.0.0.1 / udp\n    signature: on\n    size: 60", "2: flows: size: 60"),
        ("flows:\n  a: b", "2: flows: a list of flows, or a file's name"),
        ("dst-port: [80, 443]", "1: dst-port: one value is expected here; several are written as 80,443"),
        ("payload: text:a: b", "quote a text that has a colon"),
        ("flows: /nonexistent", "No such file"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, text, said):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    error = run("send", "--dry-run", "--config", str(file), code=2)
    assert said in error
    assert len(error.splitlines()) == 1
    if said[0].isdigit():
        assert f"bad.yaml:{said}" in error


def test_files_that_are_not_there_or_no_text(tmp_path):
    assert "No such file" in run("send", "--config", str(tmp_path / "none"), code=2)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "no text" in run("send", "--config", str(tmp_path / "binary"), code=2)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_sound(path):
    command = "replay" if "file:" in path.read_text() else "send"
    assert run(command, "--config", str(path), "--show-config")
    if command == "send":
        assert run("send", "--config", str(path), "--dry-run", "--count", "3")

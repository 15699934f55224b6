"""What the command line says before it opens anything."""

import os
import signal
import subprocess
import sys

import pytest

from xsk_engine.errors import UnavailableError, XskError


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "xsk_engine", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["send"], "which INTERFACE"),
        (["send", "lo"], "--dst-ip"),
        (["send", "lo", "--dst-ip", "10.0.0.300"], "10.0.0.300"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--dst-mac", "zz"], "MAC address"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--rate", "0pps"], "rate: 0"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--rate", "fast"], "rate"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--count", "0"], "count"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--dst-port", "70000"], "70000"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--size", "41"], "the headers have 42"),
        (["send", "lo", "--dst-ip", "fd77::1", "--size", "61"], "the headers have 62"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--src-ip", "fd77::1"], "versions"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--queue", "1,1"], "twice"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--queue", "0-1", "--cpu", "0"], "one per queue"),
        (["sned"], "Did you mean send"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--rate", "10%"], "no link speed"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--rate", "101%"], "outside"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--dst-port", "9-x"], "udp dst"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--dst-port", "random(5)"], "needs a range"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--dst-port", "1-9/0"], "is no step"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--vlan", "4096"], "12 bits"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--flow-label", "1"], "IPv4 has none"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--tcp-flags", "S"], "--protocol tcp"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--tcp-flags", "X", "--protocol", "tcp"], "FSRPAUEC"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--dst-port", "1", "--protocol", "icmp"], "no ports"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--size", "60-x"], "imix"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--size", "@/nonexistent"], "No such file"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--size", "60:0"], "weights"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--size", "70000"], "65557"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--payload", "noise"], "pattern"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--payload", "hex:xy"], "hex bytes"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--payload", "file:/nonexistent"], "No such file"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--field", "ipv4.size=1"], "no field 'size'"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--field", "ipv4.id"], "FIELD=VALUES"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--field", "@70/2=1"], "behind the"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--burst", "4"], "burst gap"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--burst-gap", "1ms"], "needs a burst"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--poisson"], "poisson"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--signature", "--size", "60"], "signature 24"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--pcap-count", "4"], "--pcap-out"),
        (["send", "lo", "--packet", "ip / udp"], "where to?"),
        (["send", "lo", "--packet", "udpp dst=4"], "no layer 'udpp'"),
        (["send", "lo", "--packet", "ip dst=10.0.0.1 / udp dst"], "field=value"),
        (["send", "lo", "--packet", "ip dst=10.0.0.1 / udp ; speed=4"], "no setting 'speed'"),
        (["send", "lo", "--packet", "ip dst=10.0.0.1 / udp ; count=4"], "rate of its own"),
        (["send", "lo", "--packet", "udp / tcp"], "cannot follow"),
        (
            ["send", "lo", "--packet", "ip dst=10.0.0.1 / udp", "--dst-ip", "10.0.0.2"],
            "--dst-ip: with --packet",
        ),
        (["send", "lo", "--flows", "/nonexistent"], "No such file"),
        (["send", "lo", "--flows", "/dev/zero"], "longer than 64 MiB"),
        (["send", "lo", "--config", "/dev/zero"], "longer than 4 MiB"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--size", "@/dev/zero"], "longer than 64 MiB"),
        (["send", "lo", "--flows", "/dev/null"], "no flow in it"),
        (["send", "lo", "--packet", "arp", "--checksum", "offload"], "no UDP or TCP"),
        (["measure", "lo"], "RX_INTERFACE"),
        (["measure", "lo", "lo", "--size", "59"], "from 60 to 9014"),
        (["measure", "lo", "lo", "--tests", "speed"], "none of throughput"),
        (["measure", "lo", "lo", "--loss", "x"], "no percentage"),
        (["measure", "lo", "lo", "--load", "0"], "above 0"),
        (["measure", "lo", "lo", "--load", "9" * 400], "no percentage"),
        (["send", "lo", "--dst-ip", "10.0.0.1", "--field", "@4\n2/4=x"], "field @4 2/4"),
        (["measure", "lo", "lo", "--resolution", "0"], "above 0%"),
        (["measure", "lo", "lo", "--dst-ip", "10.0.0.300"], "10.0.0.300"),
        (["measure", "lo", "lo", "--plot", "x.gif"], ".png or .svg"),
        (["lab", "up", "../x"], "laboratory name"),
        (["iperf3", "10.0.0.1", "-i", "nan"], "interval: nan is not in 0 to 3600 s"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments, said):
    result = run(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_an_unknown_interface_is_the_environments_fault():
    result = run("send", "nosuchif0", "--dst-ip", "10.0.0.1")
    assert result.returncode == 3
    assert "ENODEV" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['xsk-engine', 'send', '--help']\nfrom xsk_engine.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('numpy', 'pyroute2', 'uvloop', 'rich', 'psutil') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip().endswith("[]")


def test_version_and_closed_stdout():
    assert run("--version").stdout.startswith("xsk-engine ")
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "xsk_engine", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


def test_without_any_stdout():
    shell = 'exec "$@" >&-'
    result = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "xsk_engine", "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode in (1, 3)
    assert "Traceback" not in result.stderr


def test_errors_say_operation_arguments_errno_and_remedy():
    error = UnavailableError("bind", "vtx, queue 3", "no such queue; see ethtool -l vtx", errno=22)
    assert str(error) == "bind(vtx, queue 3): EINVAL: no such queue; see ethtool -l vtx"
    assert error.as_dict()["errno"] == "EINVAL"
    assert "EOPNOTSUPP" in str(XskError("a", "b", "c", errno=95))
    assert XskError("a", "b", "c").as_dict()["errno"] is None


def test_doctor_runs_as_anybody():
    result = run("doctor", "--json", env=os.environ | {"LC_ALL": "C"})
    assert result.returncode in (0, 3)
    assert '"check": "kernel"' in result.stdout


def test_a_signal_while_it_starts_leaves_no_traceback():
    """In the tenths of a second in which the command is imported."""
    code = "import os, signal, xsk_engine.cli; os.kill(os.getpid(), signal.SIGINT)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("xsk-engine re", "replay"),
        ("xsk-engine send --ra", "--rate"),
        ("xsk-engine replay l", "lo"),
        ("xsk-engine send --mode zero", "zerocopy"),
        ("xsk-engine replay --edit ip.s", "ip.src="),
        ("xsk-engine replay lo --jsonl some", "some"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell, words, wanted):
    last = len(words.split()) - 1
    environment = {
        "_XSK_ENGINE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": words.split()[-1] if shell == "fish" else str(last),
    }
    command = "import sys; sys.argv[0] = 'xsk-engine'; from xsk_engine.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )
    assert wanted in result.stdout.replace(",", " ").split(), result.stderr
    script = run("completion", shell)
    assert script.returncode == 0
    assert "_XSK_ENGINE_COMPLETE" in script.stdout


@pytest.mark.parametrize(
    "option",
    [
        "--size={}", "--size=60:{}", "--size=60-{}", "--size=random(60-{})", "--dst-port={}",
        "--dst-port=1-9/{}", "--vlan={}", "--ttl={}", "--field=@{}/1=5", "--field=ipv4[{}].ttl=5",
        "--count={}", "--dst-ip={}", "--rate={}pps", "--packet=ip dst=10.0.0.1 ttl={}",
    ],
)  # fmt: skip
def test_a_number_without_end_is_refused_in_our_words(option):
    """And not with all of its digits."""
    flow = ("--dst-mac", "02:00:00:00:00:01", "--src-ip", "10.0.0.2", "--dst-ip", "10.0.0.1")
    result = run("send", "lo", "--dry-run", "--count", "1", *flow, option.format("9" * 60_000))
    assert result.returncode == 2, result.stderr[:1000]
    assert "set_int_max_str_digits" not in result.stderr
    assert len(result.stderr) < 1000
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("edit", ["ip.ttl={}", "ip.dst={}", "udp.dst={}"])
def test_an_edit_without_end_is_refused_in_our_words(edit):
    result = run("replay", "lo", "some.pcap", "--edit", edit.format("9" * 60_000))
    assert (result.returncode, "set_int_max" in result.stderr) == (2, False)
    assert len(result.stderr) < 1000

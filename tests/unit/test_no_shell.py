"""No shell sees what a user has written: processes are started with lists of words, and in few places."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "xsk_engine"
# Who starts a process, and with what words.
ALLOWED = {
    ("cli/demo.py", "subprocess.Popen"),  # this package itself, in a laboratory
    ("doctor.py", "subprocess.run"),  # a constant program, to try user namespaces
    ("lab/forwarder.py", "os.fork"),
    ("lab/forwarder.py", "subprocess.Popen"),  # this package itself: the wire
    ("lab/named.py", "os.execvp"),  # the user's own words, as they are: lab exec
    ("lab/private.py", "os.execvp"),  # lab peer
    ("lab/private.py", "os.execvpe"),  # lab run
    ("opener.py", "subprocess.Popen"),  # the helper that the user names, without an argument
}
STARTERS = {
    "os": ("system", "popen", "spawn", "posix_spawn", "exec", "fork"),
    "subprocess": ("run", "Popen", "call", "check", "getoutput", "getstatusoutput"),
    "pty": ("spawn", "fork"),
    "asyncio": ("create_subprocess",),
    "multiprocessing": ("Process", "Pool"),
}
NEVER = ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn",
         "asyncio.create_subprocess_shell")  # fmt: skip
FILES = [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "bench").rglob("*.py"))]


def calls(tree):
    """All that start a process: ("os.execvp", node)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = ast.unparse(node.func)
            module, _, function = name.rpartition(".")
            if function.startswith(STARTERS.get(module, ("\0",))):
                yield name, node


def faults(tree):
    """What is wrong with them, and imports that would hide one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in STARTERS:
            for alias in node.names:
                if alias.name.startswith(STARTERS[node.module]):
                    yield f"line {node.lineno}: {alias.name} without its module's name"
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in STARTERS and alias.asname:
                    yield f"line {node.lineno}: {alias.name} under another name"
        if isinstance(node, ast.Call) and any(one.arg == "shell" for one in node.keywords):
            yield f"line {node.lineno}: shell="
    for name, node in calls(tree):
        if name in NEVER:
            yield f"line {node.lineno}: {name}"
        first = node.args[0] if node.args else None
        is_text = isinstance(first, ast.JoinedStr) or (
            isinstance(first, ast.Constant) and isinstance(first.value, str)
        )
        if is_text and not name.startswith("os."):
            yield f"line {node.lineno}: {name} of a text, not of words"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_shell(path):
    assert not list(faults(ast.parse(path.read_text())))


def test_only_who_must_starts_processes():
    found = {
        (str(path.relative_to(PACKAGE)), name)
        for path in FILES
        if path.is_relative_to(PACKAGE)
        for name, _ in calls(ast.parse(path.read_text()))
    }
    assert found == ALLOWED


def test_it_makes_no_file_that_nobody_has_named():
    """So there is no name that somebody could guess and lay a link at."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "tempfile" not in text, path
        assert "mktemp" not in text, path


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.system(f'ip link {x}')",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "import subprocess\nsubprocess.run('ls -l')",
        "import subprocess\nsubprocess.Popen(f'ls {x}')",
        "from subprocess import run\nrun(x)",
        "import subprocess as s\ns.run(x)",
        "import subprocess\nsubprocess.getoutput(x)",
    ],
)
def test_it_would_be_found(text):
    assert list(faults(ast.parse(text)))

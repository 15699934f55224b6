"""The house rules that a program can check: which room may import which, and where ctypes may stand."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "xsk_engine"

# A module may import from lower floors and from its own; DESIGN: cli -> engine -> worker -> xsk/umem -> _ffi.
FLOORS = [
    {"child", "textfile", "units"},
    {
        "errors",
        "packet",
        "values",
        "sizes",
        "payload",
        "config",
        "waiting",
        "single",
        "inside",
        "tcpinfo",
        "tcpoptions",
        "writebuffer",
        "iperf3protocol",
        "signals",
    },
    {"spread", "socketlike", "shortage"},
    {"stats", "arrivals", "iperf3report"},
    {"layers", "rfc2544"},
    {"headers"},
    {"dissect", "flow", "datagram"},
    {"fieldprogram", "spec"},
    {"flowprogram"},
    {"mixprogram", "edits", "figures"},
    {"replay"},
    {"plan", "report", "sinkreport", "measurereport", "picture", "tcpreport", "_ffi"},
    {
        "privileges",
        "umem",
        "opener",
        "ethtool",
        "netdev",
        "netdevgenl",
        "route",
        "history",
        "outside",
        "tcpport",
    },
    {
        "arena",
        "loopfailure",
        "frag",
        "tracker",
        "xsk",
        "program",
        "capture",
        "outfd",
        "resolve",
        "pcapfile",
        "neighbours",
        "checking",
    },
    {"trace", "remote", "tcptarget", "iperf3control"},
    {"mix"},
    {"dryrun"},
    {"rx"},
    {"binding", "worker", "lab", "steering", "receiver", "busypoll"},
    {"stall", "receiving", "crew", "tcpbinding"},
    {"reflecting"},
    {"endpoint", "batch", "running", "doctor", "tcphandle", "tcpconn", "tcpstack", "enginefacts"},
    {"endpoints", "tcp"},
    {"engine", "holdings", "run", "lifetimes", "sink"},
    {"bell", "roundtrip"},
    {"async_endpoints", "asynctcp"},
    {"aio"},
    {"sharing", "opening", "peers"},
    {"transport", "tcptransport"},
    {"connecting", "tcpconnecting"},
    {"__init__"},
    {"follow", "sampling"},
    {"session", "outputs", "metrics", "live", "sinksession", "trials", "measuring", "measureplot"},
    {"tcppipe"},
    {"demophases", "tcplive", "iperf3session"},
    {"demo"},
    {"cli", "__main__"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
PURE = set().union(*FLOORS[:10]) | {
    "plan",
    "report",
    "sinkreport",
    "measurereport",
    "picture",
    "tcpreport",
}
# Started as a process of its own: it shares the command line's exit codes.
EXCEPTIONS = {("demo", "cli")}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = room(path)
    if here == "__init__":
        return
    assert here in FLOOR, f"{here}: say on which floor this room is"
    for name in imports(path):
        if name.startswith("xsk_engine."):
            there = name.split(".")[1]
            if there in FLOOR and (here, there) not in EXCEPTIONS:
                assert FLOOR[there] <= FLOOR[here], f"{path}: {here} imports {there}, which is above it"
                assert there == here or FLOOR[there] < FLOOR[here] or here not in PURE


def test_the_benchmark_stands_on_the_package_and_not_the_other_way_round():
    by_name = {"cli/bench.py"}  # finds it where there are sources
    for path in FILES:
        assert not {n for n in imports(path) if n.split(".")[0] == "bench"}, path
        if str(path.relative_to(PACKAGE)) not in by_name:
            assert "bench.cli" not in path.read_text(), path
    for path in (PACKAGE.parent / "bench").rglob("*.py"):
        if path.name != "__main__.py":
            assert not {n for n in imports(path) if n.startswith("xsk_engine.cli")}, path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_ctypes_is_for_ffi(path):
    used = {n for n in imports(path) if n.split(".")[0] == "ctypes"}
    if room(path) == "_ffi":
        return
    # byref, the pointer types and arrays that a call needs; never a library, never a layout.
    allowed = {"ctypes", "ctypes.byref", "ctypes.c_void_p", "ctypes.c_uint64", "ctypes.c_uint32"}
    assert used <= allowed
    text = path.read_text()
    for word in ("CDLL", "ctypes.Structure", "_fields_ ="):
        assert word not in text


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in PURE], ids=lambda p: p.name)
def test_pure_rooms_touch_nothing(path):
    outside = {n.split(".")[0] for n in imports(path)} & {"ctypes", "socket", "os", "numpy", "pyroute2"}
    assert not outside


# The ABI is one file on purpose, and so is its mirror.
LONG_FOR_A_REASON = {"xske.h", "native.py"}


def test_no_file_is_too_long():
    native = sorted((PACKAGE.parent / "native").rglob("*.[ch]"))
    long = {
        p.name: n
        for p in FILES + native
        if (n := len(p.read_text().splitlines())) > 400 and p.name not in LONG_FOR_A_REASON
    }
    assert not long


def test_what_gets_a_capability_is_short():
    """Somebody is to read all of it before he gives it one."""
    sources = sorted((PACKAGE.parent / "native/open").iterdir())
    assert sum(len(path.read_text().splitlines()) for path in sources) <= 300

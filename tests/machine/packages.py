"""What the emulated machine is made of: Debian packages, fetched through apt with directories of their own
and unpacked into the cache. Nothing is installed; the host's package state is not changed."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".machine"
MIRROR_VARIABLE = "XSK_DEBIAN_MIRROR"

# QEMU has igb since 8.0, Linux zero-copy on igb since 6.14. Debian's cloud kernels have neither igb nor 9p.
SUITE, KERNEL_SUITE = "trixie", "trixie-backports"
QEMU = "qemu-system-x86"
_KERNEL = re.compile(r"^linux-binary-(\d\S*deb\d+-amd64) ", re.M)
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT_S = 300


class MachineUnavailable(Exception):
    """One line: why there can be no machine here, and what to do."""


@dataclass(frozen=True)
class Packages:
    """Where the unpacked packages lie."""

    root: Path
    release: str
    """of the kernel, as uname -r says it"""

    @property
    def kernel(self) -> Path:
        return self.modules / "vmlinuz"

    @property
    def modules(self) -> Path:
        return self.root / "usr/lib/modules" / self.release

    @property
    def busybox(self) -> Path:
        return self.root / "usr/bin/busybox"

    @property
    def qemu(self) -> list[str]:
        """The command, run with its own C library: the host's may be older."""
        libraries, share = self.root / "usr/lib/x86_64-linux-gnu", self.root / "usr/share"
        firmware = [share / "qemu", share / "seabios", self.root / "usr/lib/ipxe/qemu"]
        return [
            *(str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
            str(self.root / "usr/bin/qemu-system-x86_64"),
            *(argument for folder in firmware for argument in ("-L", str(folder))),
        ]


def _run(command: Sequence[str], cwd: Path, **environment: str) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | {"LC_ALL": "C"} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise MachineUnavailable(f"no {command[0]} here: the machine's packages come through apt") from None
    except subprocess.TimeoutExpired:
        raise MachineUnavailable(f"{' '.join(command[:2])}: no answer within {_TIMEOUT_S} s") from None
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines() or ["it does not say why"]
        why = next((line for line in said if line.startswith("E:")), said[0])
        raise MachineUnavailable(f"{' '.join(command[:2])}: {why}")
    return done.stdout


def _mirror(cwd: Path) -> str:
    """The one that this host's apt uses."""
    if mirror := os.environ.get(MIRROR_VARIABLE):
        return mirror
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], cwd)
    for uri in listed.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise MachineUnavailable(f"apt knows no Debian mirror here; set {MIRROR_VARIABLE} to the address of one")


class Apt:
    """apt with every directory of its own, inside `home`."""

    def __init__(self, home: Path) -> None:
        self.home, self.downloads = home, home / "downloads"
        for name in ("lists/partial", "cache/archives/partial", "downloads"):
            (home / name).mkdir(parents=True, exist_ok=True)
        if not _KEYRING.exists():
            raise MachineUnavailable(f"no {_KEYRING}; as root: apt-get install debian-archive-keyring")
        source = f"[signed-by={_KEYRING}] {_mirror(home)}"
        (home / "sources.list").write_text(
            f"deb {source} {SUITE} main\ndeb {source} {KERNEL_SUITE} main\ndeb-src {source} {SUITE} main\n"
        )
        (home / "status").touch()
        settings = {
            "Dir::Etc::sourcelist": home / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": home,
            "Dir::State::Lists": home / "lists",
            "Dir::State::status": home / "status",
            "Dir::Cache": home / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",  # apt's own user may not be able to reach the cache
            "APT::Install-Recommends": "false",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "0",
            "Acquire::http::Timeout": "20",
        }
        (home / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))

    def __call__(self, *command: str) -> str:
        """Its output; downloads land in ``downloads``."""
        return _run(command, self.downloads, APT_CONFIG=str(self.home / "apt.conf"))


def _newest(releases: Sequence[str]) -> str:
    return max(releases, key=lambda release: [int(number) for number in re.findall(r"\d+", release)])


def _fetch(home: Path, into: Path) -> str:
    apt = Apt(home)
    try:
        apt("apt-get", "-q", "update")
    except MachineUnavailable as error:
        remedy = f"check the network, or set {MIRROR_VARIABLE} to the address of a Debian mirror"
        raise MachineUnavailable(f"{error}; {remedy}") from None
    releases = _KERNEL.findall(apt("apt-cache", "search", "--names-only", "^linux-binary-[0-9]"))
    if not releases:
        raise MachineUnavailable(f"{KERNEL_SUITE} has no linux-binary package")
    release = _newest(releases)
    apt("apt-get", "-q", "-y", "--download-only", "install", QEMU)
    names = [f"linux-{part}-{release}" for part in ("binary", "modules")]
    apt("apt-get", "-q", "download", "busybox-static", *names)
    for package in [*(home / "cache/archives").glob("*.deb"), *apt.downloads.glob("*.deb")]:
        _run(["dpkg-deb", "-x", str(package), str(into)], home)
        package.unlink()
    return release


def qemu_header() -> Path:
    """The folder with qemu-plugin.h, from the source package of the same version (40 MB, fetched once)."""
    folder = CACHE / "plugin"
    get()
    with cache_lock():
        if not (folder / "qemu-plugin.h").exists():
            apt = Apt(CACHE / "apt")
            apt("apt-get", "-q", "source", "--download-only", f"qemu={_qemu_version()}")
            archive = next(apt.downloads.glob("qemu_*.orig.tar.xz"))
            name = _run(["tar", "tf", str(archive), "--wildcards", "*/qemu-plugin.h"], apt.home).split()[0]
            folder.mkdir(exist_ok=True)
            _run(["tar", "xf", str(archive), "-C", str(folder), "--transform=s,.*/,,", name], apt.home)
            for path in apt.downloads.glob("qemu_*"):
                path.unlink()
    return folder


def _qemu_version() -> str:
    changelog = CACHE / "root/usr/share/doc/qemu-system-x86/changelog.Debian.gz"
    with gzip.open(changelog, "rt") as text:
        return text.readline().split("(")[1].split(")")[0]


@contextlib.contextmanager
def cache_lock() -> Iterator[None]:
    """One process at a time changes the cache."""
    try:
        CACHE.mkdir(exist_ok=True)
        lock = (CACHE / "lock").open("w")
    except PermissionError as error:
        raise MachineUnavailable(
            f"{error.filename} belongs to somebody else; use a clone of your own"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_unavailable: dict[Path, MachineUnavailable] = {}


def get() -> Packages:
    """From the cache, or fetched (about 160 MB) into it. MachineUnavailable says what is missing, and says
    the same for as long as this process lives."""
    if CACHE in _unavailable:
        raise _unavailable[CACHE]
    try:
        return _get()
    except MachineUnavailable as error:
        _unavailable[CACHE] = error
        raise


def _get() -> Packages:
    if os.uname().machine != "x86_64":
        raise MachineUnavailable(f"the emulated machine is for x86_64 hosts; this is {os.uname().machine}")
    root, stamp = CACHE / "root", CACHE / "release"
    with cache_lock():
        if not stamp.exists():
            print("machine: fetching QEMU and a kernel (about 160 MB)", file=sys.stderr, flush=True)
            shutil.rmtree(root, ignore_errors=True)
            release = _fetch(CACHE / "apt", root)
            stamp.write_text(release)
        return Packages(root, stamp.read_text())

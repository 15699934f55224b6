"""The guest's first file system: busybox, the kernel modules in loading order, and guest/init."""

from __future__ import annotations

import lzma
import os
import re
from collections.abc import Iterable
from pathlib import Path

from tests.machine.packages import CACHE, MachineUnavailable, Packages, cache_lock

INIT = Path(__file__).parent / "guest/init"

MODULES = (
    *("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"),  # the way to the host
    *("igb", "virtio_net", "veth"),
)
_FOLDERS = ("bin", "dev", "proc", "sys", "modules", "host", "upper", "root")


def _entry(name: str, mode: int, content: bytes = b"") -> bytes:
    """One cpio entry (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    #         ino mode uid gid nlink mtime size dev rdev namesize check
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08x" % number for number in numbers) + name.encode() + b"\0"
    return header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)


def _load(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _in_loading_order(folder: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """The modules and what they depend on, which comes first. What is not there is built into the kernel."""
    paths = {path.name.partition(".ko")[0].replace("-", "_"): path for path in folder.rglob("*.ko*")}
    loaded: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in loaded or name not in paths:
            return
        content = _load(paths[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        loaded[name] = content

    for name in wanted:
        add(name)
    return loaded


def build(packages: Packages) -> Path:
    """The initramfs, made anew when its recipe is newer. Uncompressed: unpacking is slower than reading."""
    target = CACHE / f"initramfs-{packages.release}.cpio"
    newest = max(path.stat().st_mtime for path in (INIT, Path(__file__)))
    with cache_lock():
        if target.exists() and target.stat().st_mtime > newest:
            return target
        modules = _in_loading_order(packages.modules, MODULES)
        if "igb" not in modules:
            raise MachineUnavailable(f"Linux {packages.release} has no igb module")
        order = "".join(f"/modules/{name}.ko\n" for name in modules)
        entries = [
            *(_entry(name, 0o040755) for name in _FOLDERS),
            _entry("init", 0o100755, INIT.read_bytes()),
            _entry("bin/busybox", 0o100755, packages.busybox.read_bytes()),
            _entry("modules/order", 0o100644, order.encode()),
            *(_entry(f"modules/{name}.ko", 0o100644, content) for name, content in modules.items()),
            _entry("TRAILER!!!", 0),
        ]
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_bytes(b"".join(entries))
        partial.rename(target)
    return target

"""What threads may do, and how they give it up: capabilities, no_new_privs, and a filter of system calls.

The kernel keeps all of it per thread, and a new thread has what its creator had. So each thread drops by
itself, first thing, and who has opened everything drops afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from xsk_engine._ffi import libc, seccomp, uapi
from xsk_engine.errors import UnavailableError

NUMBERS = {
    "CAP_NET_RAW": uapi.CAP_NET_RAW,
    "CAP_NET_ADMIN": uapi.CAP_NET_ADMIN,
    "CAP_BPF": uapi.CAP_BPF,
    "CAP_IPC_LOCK": uapi.CAP_IPC_LOCK,
    "CAP_NET_BIND_SERVICE": uapi.CAP_NET_BIND_SERVICE,
    "CAP_DAC_READ_SEARCH": uapi.CAP_DAC_READ_SEARCH,
}
"""of those that anything here needs"""
WHERE = "docs/privileges.md"


def has(capability: str) -> bool:
    """Has this thread the capability, in its user namespace?"""
    return bool(libc.capabilities().effective >> NUMBERS[capability] & 1)


def needs(*capabilities: str) -> str:
    """For an error: which it takes, which of them are missing, and what to do about it."""
    missing = [name for name in capabilities if not has(name)]
    text = f"needs {_listed(capabilities)}"
    if not missing:
        return f"{text} outside user namespaces (or a security module forbids it); see {WHERE}"
    if len(missing) < len(capabilities):
        text += f", of which {_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    return f"{text}: run as root, or give {'it' if len(missing) == 1 else 'them'}, see {WHERE}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


@contextlib.contextmanager
def without_effective() -> Iterator[None]:
    """To see what can be done without any: this thread has none in effect, and then again what it had."""
    had = libc.capabilities()
    libc.set_capabilities(replace(had, effective=0))
    try:
        yield
    finally:
        libc.set_capabilities(had)


def drop(keep: Collection[str] = ()) -> None:
    """This thread has no capability any more but those of `keep`, in no set, and gains none by what it
    executes (no_new_privs). Idempotent; cannot be undone, also for threads that it starts."""
    mask = 0
    for name in keep:
        mask |= 1 << NUMBERS[name]
    libc.set_no_new_privs()
    libc.clear_ambient_capabilities()
    with contextlib.suppress(PermissionError):  # without CAP_SETPCAP; with no_new_privs it gives nothing
        libc.empty_bounding_set()
    mask &= libc.capabilities().permitted
    libc.set_capabilities(libc.Capabilities(mask, mask, 0))


def drop_but_for_programs() -> None:
    """This thread has no capability any more; what it executes has those of its file, as before."""
    libc.clear_ambient_capabilities()
    libc.set_capabilities(libc.Capabilities(0, 0, 0))


def enter_sandbox() -> None:
    """As drop(), and system calls that a worker never needs are refused with EPERM: seccomp.REFUSED. This
    thread and those it starts. OSError: the kernel has no filters."""
    drop()
    program = seccomp.program(os.getpid())
    if program is None:
        raise OSError(errno.ENOSYS, "the numbers of this machine's system calls are not known")
    libc.set_seccomp_filter(program)


def at_start(*, drop_privileges: bool, sandbox: bool) -> Callable[[], None]:
    """What an engine's or a sink's thread is to do first. OSError: it must not go on."""
    if sandbox:
        return enter_sandbox
    return drop if drop_privileges else lambda: None


def check_sandbox() -> None:
    """UnavailableError where enter_sandbox() would fail. Tries it, in a thread that ends."""
    failures: list[OSError] = []

    def attempt() -> None:
        try:
            enter_sandbox()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=attempt, name="xsk-sandbox")
    thread.start()
    thread.join()
    for error in failures:
        hints = {
            errno.EINVAL: "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER); leave --sandbox out",
            errno.ENOSYS: "only x86_64 and aarch64 are known here; leave --sandbox out",
        }
        text = hints.get(error.errno or 0, "a filter around this process forbids it; leave --sandbox out")
        raise UnavailableError("seccomp", "--sandbox", text, errno=error.errno)

"""The libc calls that Python's standard library does not offer (or not in every supported version)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from ctypes import c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_uint32, c_ulong, c_void_p
from dataclasses import dataclass
from typing import Any

from xsk_engine._ffi import uapi
from xsk_engine._ffi.errcheck import errno_minus_one
from xsk_engine._ffi.loader import declare, open_library

_SOCKLEN_P = ctypes.POINTER(c_uint32)
MAP_FAILED = c_void_p(-1).value


def _mmap_failed(result: int | None, func: Any, args: Any) -> int:
    if result is None or result == MAP_FAILED:
        errno_minus_one(-1, func, args)
    assert result is not None
    return result


_TABLE: dict[str, Any] = {
    "socket": ([c_int, c_int, c_int], c_int, errno_minus_one),
    "bind": ([c_int, c_void_p, c_uint32], c_int, errno_minus_one),
    "setsockopt": ([c_int, c_int, c_int, c_void_p, c_uint32], c_int, errno_minus_one),
    "getsockopt": ([c_int, c_int, c_int, c_void_p, _SOCKLEN_P], c_int, errno_minus_one),
    "sendto": ([c_int, c_void_p, c_size_t, c_int, c_void_p, c_uint32], c_ssize_t, errno_minus_one),
    "mmap": ([c_void_p, c_size_t, c_int, c_int, c_int, c_long], c_void_p, _mmap_failed),
    "munmap": ([c_void_p, c_size_t], c_int, errno_minus_one),
    "madvise": ([c_void_p, c_size_t, c_int], c_int, errno_minus_one),
    "eventfd": ([c_uint32, c_int], c_int, errno_minus_one),
    "unshare": ([c_int], c_int, errno_minus_one),
    "setns": ([c_int, c_int], c_int, errno_minus_one),
    "mount": ([c_char_p, c_char_p, c_char_p, c_ulong, c_void_p], c_int, errno_minus_one),
    "umount2": ([c_char_p, c_int], c_int, errno_minus_one),
    "prctl": ([c_int, c_ulong, c_ulong, c_ulong, c_ulong], c_int, errno_minus_one),
    "capget": ([c_void_p, c_void_p], c_int, errno_minus_one),
    "capset": ([c_void_p, c_void_p], c_int, errno_minus_one),
    "syscall": (None, c_long, errno_minus_one),
}
libc = declare(open_library("libc.so.6", "a glibc system is needed"), "libc", _TABLE)

_MBIND = {"x86_64": 237, "aarch64": 235}.get(platform.machine())


def new_eventfd() -> int:
    """A non-blocking, close-on-exec eventfd."""
    return int(libc.eventfd(0, os.O_NONBLOCK | os.O_CLOEXEC))


def may_open_more() -> bool:
    """One more file descriptor."""
    try:
        os.close(os.eventfd(0, os.EFD_CLOEXEC))
    except OSError:
        return False
    return True


def set_option(fd: int, option: int, value: ctypes.Structure | int, level: int = uapi.SOL_XDP) -> None:
    """setsockopt; an int is passed as u32. (Python's socket objects do not take an AF_XDP fd.)"""
    data = c_uint32(value) if isinstance(value, int) else value
    libc.setsockopt(fd, level, option, ctypes.byref(data), ctypes.sizeof(data))


def get_option(fd: int, option: int, into: ctypes.Structure | c_uint32, level: int = uapi.SOL_XDP) -> None:
    """getsockopt into a struct or a u32."""
    size = c_uint32(ctypes.sizeof(into))
    libc.getsockopt(fd, level, option, ctypes.byref(into), ctypes.byref(size))


def prefer_numa_node(address: int, length: int, node: int) -> None:
    """mbind(MPOL_PREFERRED); nothing where the system call's number is not known."""
    if _MBIND is None:
        return
    mask = c_ulong(1 << node)
    libc.syscall(
        c_long(_MBIND),
        c_void_p(address),
        c_ulong(length),
        c_long(uapi.MPOL_PREFERRED),
        ctypes.byref(mask),
        c_ulong(ctypes.sizeof(mask) * 8),
        c_long(0),
    )


def die_with_parent(signal_number: int) -> None:
    """PR_SET_PDEATHSIG: this process gets the signal when the thread that started it ends."""
    libc.prctl(uapi.PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


# -- of the calling thread alone: the kernel keeps all of these per thread ----------------------------------


@dataclass(frozen=True)
class Capabilities:
    """Bit masks, as /proc has them."""

    effective: int
    permitted: int
    inheritable: int


def capabilities() -> Capabilities:
    """capget: what this thread has."""
    data = (uapi.CapUserData * 2)()
    libc.capget(ctypes.byref(_cap_header()), data)
    low, high = data
    names = ("effective", "permitted", "inheritable")
    return Capabilities(*(getattr(low, name) | getattr(high, name) << 32 for name in names))


def set_capabilities(to: Capabilities) -> None:
    """capset. OSError EPERM for what it has not."""
    data = (uapi.CapUserData * 2)()
    for i, half in enumerate(data):
        for name in ("effective", "permitted", "inheritable"):
            setattr(half, name, getattr(to, name) >> 32 * i & 0xFFFFFFFF)
    libc.capset(ctypes.byref(_cap_header()), data)


def _cap_header() -> uapi.CapUserHeader:
    return uapi.CapUserHeader(uapi.LINUX_CAPABILITY_VERSION_3, 0)


def empty_bounding_set() -> None:
    """This thread keeps what it has; what it executes gets nothing. OSError EPERM without CAP_SETPCAP."""
    for number in range(64):
        try:
            libc.prctl(uapi.PR_CAPBSET_DROP, number, 0, 0, 0)
        except OSError as error:
            if error.errno == errno.EINVAL:  # above the last one that this kernel knows
                return
            raise


def clear_ambient_capabilities() -> None:
    libc.prctl(uapi.PR_CAP_AMBIENT, uapi.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def set_no_new_privs() -> None:
    """Nothing that is executed from here on has more privileges. Cannot be undone."""
    libc.prctl(uapi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_seccomp_filter(program: bytes) -> None:
    """Classic BPF of 8 bytes an instruction, after set_no_new_privs(). Cannot be undone. OSError EINVAL: the
    kernel has no filters, or does not take this one."""
    code = ctypes.create_string_buffer(program, len(program))
    fprog = uapi.SockFprog(len(program) // 8, ctypes.addressof(code))
    libc.prctl(uapi.PR_SET_SECCOMP, uapi.SECCOMP_MODE_FILTER, ctypes.addressof(fprog), 0, 0)

"""The seccomp filter of a worker's thread: classic BPF that refuses with EPERM what a packet never needs.

What is not in the table passes: the worker is a Python thread, and what the interpreter, glibc and the kernel
agree on between them changes with each of their versions. Source: seccomp(2), Documentation/userspace-api/
seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import platform
import struct

from xsk_engine._ffi import uapi

_X86_64, _AARCH64 = 0, 1
_ARCHES = {
    "x86_64": (_X86_64, uapi.AUDIT_ARCH_X86_64),
    "aarch64": (_AARCH64, uapi.AUDIT_ARCH_AARCH64),
}
_X32 = 0x40000000  # __X32_SYSCALL_BIT, arch/x86/include/uapi/asm/unistd.h

REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other programs
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    # files by their names
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "creat": (85, None),
    "open_by_handle_at": (304, 265),
    "truncate": (76, 45),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "file_setattr": (469, 469),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # new ways out
    "socket": (41, 198),
    "socketpair": (53, 199),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # other processes
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "shmget": (29, 194),
    "shmctl": (31, 195),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "semget": (64, 190),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "semop": (65, 193),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    # the kernel itself
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # what the process sees
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
}
"""With EPERM: names, and their numbers on x86_64 and aarch64 (tests/ffi compares them with the headers)"""
# A new thread is no new process; clone3 has its flags in memory, where a filter cannot look. ENOSYS makes
# glibc use clone.
CLONE, CLONE3 = (56, 220), (435, 435)
# Refused but for this process, as abort() and raise() have it; and but for what types into a terminal.
TGKILL, IOCTL = (234, 131), (16, 29)
# asm-generic/ioctls.h
TIOCSTI, TIOCLINUX = 0x5412, 0x541C

# struct seccomp_data: nr, arch, instruction_pointer, args; the low halves of them on little endian.
_NR, _ARCH, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """struct sock_filter; `yes`, `no`: how many instructions to skip."""
    return struct.pack("=HBBI", code, yes, no, value)


_ALLOW = _instruction(_RETURN, uapi.SECCOMP_RET_ALLOW)
_EPERM, _ENOSYS = (
    _instruction(_RETURN, uapi.SECCOMP_RET_ERRNO | number) for number in (errno.EPERM, errno.ENOSYS)
)
_TO_EPERM, _TO_ENOSYS, _TO_FLAGS, _TO_REQUEST, _TO_PROCESS = 1, 2, 3, 7, 12


def _ends(pid: int) -> list[bytes]:
    """Behind the tests, of which each jumps to one of them, or falls through to the first."""
    return [
        _ALLOW,
        _EPERM,
        _ENOSYS,
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_IF_BITS, uapi.CLONE_THREAD, 1, 0),
        _EPERM,
        _ALLOW,
        _instruction(_LOAD, _SECOND_ARGUMENT),
        _instruction(_IF_EQUAL, TIOCSTI, 2, 0),
        _instruction(_IF_EQUAL, TIOCLINUX, 1, 0),
        _ALLOW,
        _EPERM,
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_IF_EQUAL, pid, 1, 0),
        _EPERM,
        _ALLOW,
    ]


def program(pid: int, machine: str | None = None) -> bytes | None:
    """For threads of this process, on this machine or the named one (platform.machine()); None: its numbers
    are not known here."""
    known = _ARCHES.get(machine or platform.machine())
    if known is None:
        return None
    which, arch = known
    tests = [(_IF_AT_LEAST, _X32, _TO_EPERM)] if which == _X86_64 else []
    tests += [(_IF_EQUAL, CLONE[which], _TO_FLAGS), (_IF_EQUAL, CLONE3[which], _TO_ENOSYS)]
    tests += [(_IF_EQUAL, IOCTL[which], _TO_REQUEST), (_IF_EQUAL, TGKILL[which], _TO_PROCESS)]
    numbers = [both[which] for both in REFUSED.values()]
    tests += [(_IF_EQUAL, number, _TO_EPERM) for number in numbers if number is not None]
    return b"".join(
        [
            _instruction(_LOAD, _ARCH),
            _instruction(_IF_EQUAL, arch, 1, 0),
            _EPERM,  # 32-bit calls have other numbers
            _instruction(_LOAD, _NR),
            *(_instruction(code, n, len(tests) - 1 - at + end) for at, (code, n, end) in enumerate(tests)),
            *_ends(pid),
        ]
    )

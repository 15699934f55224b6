"""The filter of --sandbox: its numbers are the kernel headers', and a machine as the kernel's finds in it
what it is meant to say, for both architectures."""

import errno
import re
import struct
import termios
from pathlib import Path

import pytest

from xsk_engine._ffi import seccomp, uapi

# Where Debian, and where everybody else, has them.
HEADERS = {
    "x86_64": ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"],
    "aarch64": ["/usr/include/asm-generic/unistd.h"],
}
ARCH = {"x86_64": uapi.AUDIT_ARCH_X86_64, "aarch64": uapi.AUDIT_ARCH_AARCH64}
MACHINES = list(ARCH)
I386, X32 = 0x40000003, 0x40000000
# As old as the headers of any distribution that is built on; what is not in them is newer.
OLD = 430
PASSES = {
    "x86_64": {"read": 0, "mmap": 9, "futex": 202, "sendto": 44, "madvise": 28, "exit": 60},
    "aarch64": {"read": 63, "mmap": 222, "futex": 98, "sendto": 206, "madvise": 233, "exit": 93},
}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers(machine):
    header = next((path for path in map(Path, HEADERS[machine]) if path.exists()), None)
    if header is None:
        assert machine != "aarch64", "make test installs the kernel's headers"
        pytest.skip("the headers of another architecture")
    lines = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.M)
    known = {name: int(number) for name, number in lines}
    assert len(known) > 250
    both = {**seccomp.REFUSED, "clone": seccomp.CLONE, "clone3": seccomp.CLONE3}
    both |= {"tgkill": seccomp.TGKILL, "ioctl": seccomp.IOCTL}
    for name, numbers in both.items():
        number = numbers[MACHINES.index(machine)]
        if number is None:
            assert name not in known
        elif number <= OLD or name in known:
            assert known[name] == number, name


# What changes files by their names, makes ways out, or reaches for others, in the kernel's own names. Apart
# from the table, so that what it lacks is noticed.
MEANT = (
    r"execve(at)?|v?fork|open(at2?|_by_handle_at|_tree(_attr)?)?|creat|truncate|unlink(at)?|rename(at2?)?|(sym)?link(at)?"
    r"|mk(dir|nod)(at)?|rmdir|chmod|fchmodat2?|l?chown|fchownat|l?(set|remove)xattr(at)?|utimes?|futimesat|utimensat|file_setattr|mq_(open|unlink)"
    r"|socket(pair)?|io_uring_\w+|ptrace|process_vm_\w+|pidfd_getfd|bpf|perf_event_open|userfaultfd|kexec_\w+"
    r"|(init|finit|delete)_module|reboot|add_key|request_key|keyctl|u?mount2?|pivot_root|chroot|fs(open|config|mount|pick)"
    r"|move_mount|mount_setattr|unshare|setns|t?kill|rt_(tg)?sigqueueinfo|pidfd_send_signal"
    r"|shm(get|at|ctl)|msg(get|snd|rcv|ctl)|sem(get|op|timedop|ctl)"
)


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_that_is_meant_is_missing(machine):
    header = next((path for path in map(Path, HEADERS[machine]) if path.exists()), None)
    if header is None:
        pytest.skip("the headers of another architecture")
    names = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+\d+$", header.read_text(), re.M)
    meant = {name for name in names if re.fullmatch(MEANT, name)}
    assert len(meant) > 40
    assert meant - set(seccomp.REFUSED) == set()


PID = 4711


def verdict(program, number, arch, argument=0, second=0):
    """What the kernel would return: classic BPF of the few kinds that the filter has."""
    data = struct.pack("=IIQ6Q", number, arch, 0, argument, second, *[0] * 4)
    at, accumulator = 0, 0
    while True:
        code, yes, no, k = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x06:  # BPF_RET | BPF_K
            return k
        else:  # BPF_JMP: JEQ, JGE, JSET
            taken = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            at += yes if taken else no


def refuses(program, *what):
    """The errno; 0: it lets it pass."""
    said = verdict(program, *what)
    assert said & 0xFFFF0000 in (uapi.SECCOMP_RET_ALLOW & 0xFFFF0000, uapi.SECCOMP_RET_ERRNO)
    return said & 0xFFFF if said != uapi.SECCOMP_RET_ALLOW else 0


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_refused_and_what_passes(machine):
    program, arch = seccomp.program(PID, machine), ARCH[machine]
    which = MACHINES.index(machine)
    refused = {both[which] for both in seccomp.REFUSED.values()} - {None}
    for number in range(600):
        if number not in (seccomp.CLONE[which], seccomp.CLONE3[which], seccomp.TGKILL[which]):
            assert refuses(program, number, arch) == (errno.EPERM if number in refused else 0), number
    assert not refused & set(PASSES[machine].values())
    other = ARCH[MACHINES[1 - which]]
    for number in (*PASSES[machine].values(), *refused):
        assert refuses(program, number, other) == refuses(program, number, I386) == errno.EPERM
        if machine == "x86_64":
            assert refuses(program, number | X32, arch) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_may_be_made_and_processes_not(machine):
    program, arch = seccomp.program(PID, machine), ARCH[machine]
    which = MACHINES.index(machine)
    sigchld, thread = 17, 0x3D0F00  # as glibc has them
    assert refuses(program, seccomp.CLONE[which], arch, thread) == 0
    assert refuses(program, seccomp.CLONE[which], arch, sigchld) == errno.EPERM
    assert refuses(program, seccomp.CLONE[which], arch, 1 << 32 | sigchld) == errno.EPERM
    assert refuses(program, seccomp.CLONE3[which], arch) == errno.ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_signals_are_for_this_process_only(machine):
    program, number = seccomp.program(PID, machine), seccomp.TGKILL[MACHINES.index(machine)]
    assert refuses(program, number, ARCH[machine], PID) == 0
    assert refuses(program, number, ARCH[machine], PID + 1) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_is_typed_into_a_terminal(machine):
    """Whatever stands in the upper half of the request, which the kernel does not read."""
    program, number = seccomp.program(PID, machine), seccomp.IOCTL[MACHINES.index(machine)]
    for request in (termios.TIOCSTI, 0x541C, 1 << 32 | termios.TIOCSTI):
        assert refuses(program, number, ARCH[machine], 0, request) == errno.EPERM
    assert refuses(program, number, ARCH[machine], 0, termios.TIOCGWINSZ) == 0


def test_other_machines_have_none():
    assert seccomp.program(PID, "riscv64") is None

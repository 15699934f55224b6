"""libbpf: programs, the pass program of two instructions among them, their maps, their link, and what is
attached to an interface."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

from xsk_engine._ffi.errcheck import negative_errno, null_and_errno
from xsk_engine._ffi.loader import declare, open_library

# include/uapi/linux/bpf.h
BPF_PROG_TYPE_XDP = 6
BPF_XDP = 37
BPF_F_XDP_HAS_FRAGS = 1 << 5
XDP_PASS = 2

# include/uapi/linux/if_link.h
XDP_FLAGS_SKB_MODE = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2
# XDP_ATTACHED_*
ATTACH_MODES = {0: "none", 1: "driver", 2: "generic", 3: "hardware", 4: "several"}


class BpfXdpQueryOpts(ctypes.Structure):
    """libbpf 0.8 and later; ``sz`` says how much of it the caller knows."""

    _fields_ = [
        ("sz", c_size_t),
        ("prog_id", c_uint32),
        ("drv_prog_id", c_uint32),
        ("hw_prog_id", c_uint32),
        ("skb_prog_id", c_uint32),
        ("attach_mode", ctypes.c_uint8),
        ("_padding", ctypes.c_uint8 * 7),
    ]


class BpfLinkCreateOpts(ctypes.Structure):
    """Its start, which is all we set; ``sz`` says so."""

    _fields_ = [("sz", c_size_t), ("flags", c_uint32), ("_padding", c_uint32)]


class BpfXdpLinkInfo(ctypes.Structure):
    """struct bpf_link_info as far as it is one of XDP (include/uapi/linux/bpf.h)."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("_padding", c_uint32),
        ("ifindex", c_uint32),
        ("_end", c_uint32),
    ]


class BpfProgLoadOpts(ctypes.Structure):
    """Its start, as far as the flags; ``sz`` says so."""

    _fields_ = [
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_uint32),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
    ]


class BpfInsn(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint8),
        ("registers", ctypes.c_uint8),
        ("off", ctypes.c_int16),
        ("imm", ctypes.c_int32),
    ]


_TABLE: dict[str, Any] = {
    "bpf_prog_load": (
        [c_int, c_char_p, c_char_p, POINTER(BpfInsn), c_size_t, c_void_p],
        c_int,
        negative_errno,
    ),
    "bpf_link_create": ([c_int, c_int, c_int, c_void_p], c_int, negative_errno),
    "bpf_xdp_query": ([c_int, c_int, POINTER(BpfXdpQueryOpts)], c_int, negative_errno),
    "bpf_object__open_file": ([c_char_p, c_void_p], c_void_p, null_and_errno),
    "bpf_object__load": ([c_void_p], c_int, negative_errno),
    "bpf_object__close": ([c_void_p], None, None),
    "bpf_object__find_program_by_name": ([c_void_p, c_char_p], c_void_p, null_and_errno),
    "bpf_program__fd": ([c_void_p], c_int, negative_errno),
    "bpf_object__find_map_by_name": ([c_void_p, c_char_p], c_void_p, null_and_errno),
    "bpf_map__fd": ([c_void_p], c_int, negative_errno),
    "bpf_map_lookup_elem": ([c_int, c_void_p, c_void_p], c_int, negative_errno),
    "bpf_obj_get_info_by_fd": ([c_int, c_void_p, POINTER(c_uint32)], c_int, negative_errno),
    "libbpf_num_possible_cpus": ([], c_int, negative_errno),
    "bpf_map_update_elem": ([c_int, c_void_p, c_void_p, c_uint64], c_int, negative_errno),
    "bpf_map_delete_elem": ([c_int, c_void_p], c_int, negative_errno),
    "libbpf_set_print": ([c_void_p], c_void_p, None),
    "libbpf_version_string": ([], c_char_p, None),
}
libbpf = declare(open_library("libbpf.so.1", "install it: apt-get install libbpf1"), "libbpf.so.1", _TABLE)
libbpf.libbpf_set_print(None)  # its messages are not ours; every error comes back as an errno


def version() -> str:
    """``1.1`` and the like."""
    text: bytes = libbpf.libbpf_version_string()
    return text.decode().removeprefix("v")


def load_pass_program(*, frags: bool = False) -> int:
    """A program fd; OSError EPERM without CAP_BPF. ``frags``: for packets of several fragments, too."""
    # r0 = XDP_PASS; exit (Documentation/bpf/standardization/instruction-set.rst)
    program = (BpfInsn * 2)(BpfInsn(0xB7, 0, 0, XDP_PASS), BpfInsn(0x95, 0, 0, 0))
    options = BpfProgLoadOpts(ctypes.sizeof(BpfProgLoadOpts), prog_flags=BPF_F_XDP_HAS_FRAGS if frags else 0)
    arguments = (BPF_PROG_TYPE_XDP, b"xske_pass", b"GPL", program, 2, ctypes.byref(options))
    return int(libbpf.bpf_prog_load(*arguments))


class BpfObject:
    """A compiled file of programs and maps, loaded into the kernel. OSError. close() keeps what is
    attached."""

    def __init__(self, path: str) -> None:
        self._handle: int | None = libbpf.bpf_object__open_file(path.encode(), None)
        try:
            libbpf.bpf_object__load(self._handle)
        except BaseException:
            self.close()
            raise

    def program_fd(self, name: str) -> int:
        """Lives as long as the object."""
        program = libbpf.bpf_object__find_program_by_name(self._handle, name.encode())
        return int(libbpf.bpf_program__fd(program))

    def update(self, map_name: str, key: bytes, value: bytes) -> None:
        """Sets one element; both as long as the map has it."""
        found = libbpf.bpf_object__find_map_by_name(self._handle, map_name.encode())
        libbpf.bpf_map_update_elem(libbpf.bpf_map__fd(found), key, value, 0)

    def delete(self, map_name: str, key: bytes) -> None:
        """One element; OSError ENOENT when it is not there."""
        found = libbpf.bpf_object__find_map_by_name(self._handle, map_name.encode())
        libbpf.bpf_map_delete_elem(libbpf.bpf_map__fd(found), key)

    def lookup_on_cpus(self, map_name: str, key: bytes, length: int) -> list[bytes]:
        """One element of a per-CPU map, of each possible CPU."""
        found = libbpf.bpf_object__find_map_by_name(self._handle, map_name.encode())
        each = -(-length // 8) * 8  # Documentation/bpf/map_array.rst
        values = ctypes.create_string_buffer(libbpf.libbpf_num_possible_cpus() * each)
        libbpf.bpf_map_lookup_elem(libbpf.bpf_map__fd(found), key, values)
        return [values.raw[at : at + length] for at in range(0, len(values), each)]

    def close(self) -> None:
        """Idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            libbpf.bpf_object__close(handle)


def attach(program_fd: int, ifindex: int, *, generic: bool = False) -> int:
    """A link fd: the program is attached while it is open, and not a moment longer, also after kill -9. In
    driver mode, or in the kernel's `generic` one."""
    flags = XDP_FLAGS_SKB_MODE if generic else XDP_FLAGS_DRV_MODE
    options = BpfLinkCreateOpts(ctypes.sizeof(BpfLinkCreateOpts), flags)
    fd = int(libbpf.bpf_link_create(program_fd, ifindex, BPF_XDP, ctypes.byref(options)))
    os.set_inheritable(fd, False)
    return fd


def is_attached(link_fd: int) -> bool:
    """Is the interface of the link still there?"""
    info = BpfXdpLinkInfo()
    libbpf.bpf_obj_get_info_by_fd(
        link_fd, ctypes.byref(info), ctypes.byref(c_uint32(ctypes.sizeof(BpfXdpLinkInfo)))
    )
    return bool(info.ifindex)


def attached_program(ifindex: int) -> tuple[int, str]:
    """(program id, mode) of what is attached to the interface; (0, "none")."""
    options = BpfXdpQueryOpts(sz=ctypes.sizeof(BpfXdpQueryOpts))
    libbpf.bpf_xdp_query(ifindex, 0, ctypes.byref(options))
    return options.prog_id, ATTACH_MODES.get(options.attach_mode, "unknown")

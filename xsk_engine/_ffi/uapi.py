"""Kernel constants and structs, each with the file it mirrors. tests/ffi compares layouts with a probe."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_uint16, c_uint32, c_uint64, c_void_p

# include/linux/socket.h
AF_XDP = 44
SOL_XDP = 283

# include/uapi/linux/if_xdp.h: bind flags
XDP_SHARED_UMEM = 1 << 0
XDP_COPY = 1 << 1
XDP_ZEROCOPY = 1 << 2
XDP_USE_NEED_WAKEUP = 1 << 3
XDP_USE_SG = 1 << 4  # Linux 6.6

# umem flags
XDP_UMEM_TX_METADATA_LEN = 1 << 2  # Linux 6.11; before it tx_metadata_len alone said it

# socket options
XDP_MMAP_OFFSETS = 1
XDP_RX_RING = 2
XDP_TX_RING = 3
XDP_UMEM_REG = 4
XDP_UMEM_FILL_RING = 5
XDP_UMEM_COMPLETION_RING = 6
XDP_STATISTICS = 7
XDP_OPTIONS = 8
XDP_MAX_TX_SKB_BUDGET = 9  # Linux 6.17
XDP_OPTIONS_ZEROCOPY = 1 << 0

# mmap offsets
XDP_PGOFF_RX_RING = 0
XDP_PGOFF_TX_RING = 0x80000000
XDP_UMEM_PGOFF_FILL_RING = 0x100000000
XDP_UMEM_PGOFF_COMPLETION_RING = 0x180000000

TX_BUDGET_MIN = 32  # net/xdp/xsk.c, TX_BATCH_SIZE

# include/uapi/asm-generic/socket.h
SOL_SOCKET = 1
SO_SNDBUF = 7
SO_SNDBUFFORCE = 32
SO_BUSY_POLL = 46
SO_INCOMING_NAPI_ID = 56
SO_PREFER_BUSY_POLL = 69  # Linux 5.11, as the next
SO_BUSY_POLL_BUDGET = 70

# include/uapi/linux/prctl.h, sched.h
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CLONE_THREAD = 0x00010000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000

# include/uapi/linux/seccomp.h
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7FFF0000

# include/uapi/linux/audit.h
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_AARCH64 = 0xC00000B7

# include/uapi/linux/capability.h
LINUX_CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_READ_SEARCH = 2
CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_IPC_LOCK = 14
CAP_BPF = 39  # Linux 5.8

# include/uapi/linux/mempolicy.h
MPOL_PREFERRED = 1


class XdpRingOffset(ctypes.Structure):
    _fields_ = [(name, c_uint64) for name in ("producer", "consumer", "desc", "flags")]


class XdpMmapOffsets(ctypes.Structure):
    _fields_ = [(name, XdpRingOffset) for name in ("rx", "tx", "fr", "cr")]


class XdpUmemReg(ctypes.Structure):
    _fields_ = [
        ("addr", c_uint64),
        ("len", c_uint64),
        ("chunk_size", c_uint32),
        ("headroom", c_uint32),
        ("flags", c_uint32),
        ("tx_metadata_len", c_uint32),
    ]


class XdpStatistics(ctypes.Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            "rx_dropped",
            "rx_invalid_descs",
            "tx_invalid_descs",
            "rx_ring_full",
            "rx_fill_ring_empty_descs",
            "tx_ring_empty_descs",
        )
    ]


class XdpOptions(ctypes.Structure):
    _fields_ = [("flags", c_uint32)]


class SockaddrXdp(ctypes.Structure):
    _fields_ = [
        ("sxdp_family", c_uint16),
        ("sxdp_flags", c_uint16),
        ("sxdp_ifindex", c_uint32),
        ("sxdp_queue_id", c_uint32),
        ("sxdp_shared_umem_fd", c_uint32),
    ]


class XdpDesc(ctypes.Structure):
    _fields_ = [("addr", c_uint64), ("len", c_uint32), ("options", c_uint32)]


class CapUserHeader(ctypes.Structure):
    _fields_ = [("version", c_uint32), ("pid", c_int)]


class CapUserData(ctypes.Structure):
    _fields_ = [(name, c_uint32) for name in ("effective", "permitted", "inheritable")]


class SockFprog(ctypes.Structure):
    """struct sock_fprog, include/uapi/linux/filter.h."""

    _fields_ = [("len", c_uint16), ("filter", c_void_p)]

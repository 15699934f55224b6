"""Kernel constants and structs, each with the file it mirrors. tests/ffi compares layouts with a probe."""

from __future__ import annotations

import ctypes
from ctypes import c_uint16, c_uint32, c_uint64

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
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000

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

"""What a loop that stopped by itself says."""

import errno
from types import SimpleNamespace

import pytest

from xsk_engine._ffi import native as ffi
from xsk_engine.worker import Worker

TEXTS = {
    (ffi.ERROR_KICK, errno.ENXIO, 0): ("sendto", "ENXIO: the device is gone, 7 descs inflight"),
    (ffi.ERROR_KICK, errno.EPERM, 0): ("sendto", "EPERM: the kernel refused, 7 descs inflight"),
    (ffi.ERROR_LINK_DOWN, errno.ENETDOWN, 5 * 10**9): (
        "sendto",
        "ENETDOWN: the link was down for 5.0 s; check the cable or the peer, or raise --link-timeout",
    ),
    (ffi.ERROR_LINK_DOWN, 0, 5 * 10**9): (
        "sendto",
        "ETIMEDOUT: the link was down for 5.0 s; check the cable or the peer, or raise --link-timeout",
    ),
    (ffi.ERROR_LINK_DOWN, errno.EBUSY, 5 * 10**9): (
        "sendto",
        "EBUSY: the link was down for 5.0 s; every packet was dropped; check the peer, its link and its MTU, "
        "or raise --link-timeout",
    ),
    (ffi.ERROR_NO_PROGRESS, errno.EAGAIN, 0): (
        "post",
        "ETIMEDOUT: no chunk for its packets; use a larger --umem-mb",
    ),
    (ffi.ERROR_NO_PROGRESS, errno.ENOBUFS, 7): (
        "complete",
        "ETIMEDOUT: no completion for too long, 7 descs inflight; see xsk-engine doctor{in zero-copy} "
        "(last kick: ENOBUFS)",
    ),
    (ffi.ERROR_COMPLETION, errno.EPROTO, 0x1000): (
        "complete",
        "EPROTO: the kernel completed addr 0x1000, which was not inflight; see xsk-engine doctor",
    ),
    (ffi.ERROR_RING_FULL, errno.EBUSY, 0): (
        "sendto",
        "ETIMEDOUT: all has completed, and the kernel takes nothing off the tx ring; see xsk-engine doctor"
        "{in zero-copy} (last kick: EBUSY)",
    ),
}


@pytest.mark.parametrize("mode", ["copy", "zerocopy"])
@pytest.mark.parametrize("case", TEXTS)
def test_why_it_stopped(case, mode):
    error, number, argument = case
    operation, text = TEXTS[case]
    page = SimpleNamespace(error=error, error_errno=number, error_arg=argument, inflight_descs=7)
    worker = Worker.__new__(Worker)
    worker._failure, worker._name = None, "eth1, queue 0"
    worker.counters, worker.xsk = page, SimpleNamespace(mode=mode)
    hint = ", --mode copy may work" if mode == "zerocopy" else ""
    assert str(worker.failure()) == f"{operation}(eth1, queue 0): {text.replace('{in zero-copy}', hint)}"

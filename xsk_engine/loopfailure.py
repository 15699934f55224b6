"""Why a loop has ended by itself, in words."""

from __future__ import annotations

import errno

from xsk_engine._ffi import native as ffi
from xsk_engine.errors import BrokenError, errno_name


def loop_failure(counters: ffi.Counters, where: str, mode: str) -> BrokenError | None:
    """Of these counters, `where` it was and its socket's `mode`; None: it has not."""
    error = counters.error
    if error == ffi.ERROR_NONE:
        return None
    number, argument = counters.error_errno, counters.error_arg
    inflight = counters.inflight_descs
    gone = "the device is gone" if number == errno.ENXIO else "the kernel refused"
    look = "check the cable or the peer"
    if number == errno.EBUSY:  # our own end is up
        look = "every packet was dropped; check the peer, its link and its MTU"
    text = {
        ffi.ERROR_KICK: ("sendto", f"{gone}, {inflight} descs inflight"),
        ffi.ERROR_LINK_DOWN: (
            "sendto",
            f"the link was down for {argument / 1e9:.1f} s; {look}, or raise --link-timeout",
        ),
        ffi.ERROR_NO_PROGRESS: ("post", "no chunk for its packets; use a larger --umem-mb")
        if not argument
        else (
            "complete",
            f"no completion for too long, {argument} descs inflight; see xsk-engine doctor",
        ),
        ffi.ERROR_RING_FULL: (
            "sendto",
            "all has completed, and the kernel takes nothing off the tx ring; see xsk-engine doctor",
        ),
        ffi.ERROR_COMPLETION: (
            "complete",
            f"the kernel completed addr {argument:#x}, which was not inflight; see xsk-engine doctor",
        ),
    }
    operation, message = text.get(error, ("loop", f"error {error}"))
    if error not in (ffi.ERROR_NO_PROGRESS, ffi.ERROR_RING_FULL):
        return BrokenError(operation, where, message, errno=number or errno.ETIMEDOUT)
    if operation != "post" and mode == "zerocopy":
        message += ", --mode copy may work"
    if operation != "post" and number:
        message += f" (last kick: {errno_name(number)})"
    return BrokenError(operation, where, message, errno=errno.ETIMEDOUT)

"""The workers of an engine: made together, and waited for together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from xsk_engine import privileges
from xsk_engine.binding import Binding
from xsk_engine.capture import Capture
from xsk_engine.config import EngineConfig
from xsk_engine.umem import Umem
from xsk_engine.worker import Worker
from xsk_engine.xsk import REBIND_DEADLINE_S, Xsk

# A worker that was told to stop answers within its drain timeout; so much more for a busy machine.
_JOIN_GRACE_S = 2.0
# Lower: a loop that is busy for a moment ends without its drain; higher: close() waits so much longer for
# those that hang.
_COMMAND_PATIENCE_S = 1.0


def make_workers(
    stack: contextlib.ExitStack,
    into: list[Worker],
    config: EngineConfig,
    umem: Umem,
    binding: Binding,
    event_fd: int,
    on_stall: Callable[[Worker, Xsk], int],
    captures: Sequence[Capture],
) -> None:
    """One for each queue, closed by the stack; `captures`: one for each, or none."""
    for index, xsk in enumerate(binding.xsks):
        worker = Worker(
            umem,
            xsk,
            index,
            event_fd,
            interface=config.interface,
            cpu=config.cpus[index] if config.cpus else None,
            link_timeout_s=config.link_timeout_s,
            progress_timeout_s=config.progress_timeout_s,
            drain_timeout_s=config.drain_timeout_s,
            on_stall=on_stall,
            capture=captures[index] if captures else None,
            at_start=privileges.at_start(drop_privileges=config.drop_privileges, sandbox=config.sandbox),
        )
        into.append(worker)
        stack.callback(worker.close)


def drain(workers: Sequence[Worker]) -> None:
    """Tells all to end. Those that take no command for a second, all together, end at once."""
    patience = time.monotonic() + _COMMAND_PATIENCE_S
    for worker in workers:
        worker.drain(patience)


def stop_deadline(config: EngineConfig, binding: Binding | None) -> float:
    """When workers that are told to drain now have ended."""
    seconds = config.drain_timeout_s + _JOIN_GRACE_S
    if binding is not None and (binding.may_fall_back or binding.falls_back):  # and then drain once more
        seconds += config.link_timeout_s + REBIND_DEADLINE_S + config.drain_timeout_s
    return time.monotonic() + seconds


def join(workers: Sequence[Worker], deadline: float) -> Worker | None:
    """Waits for them, and ends those that take longer. One that does not end all the same; None: all have."""
    for worker in workers:
        if not worker.join(max(deadline - time.monotonic(), 0)):
            worker.abort()
            if not worker.join(_JOIN_GRACE_S + REBIND_DEADLINE_S):
                return worker
    return None

"""Snapshots over time, for numpy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy

from xsk_engine.stats import Snapshot


def history(snapshots: Iterable[Snapshot]) -> numpy.ndarray:
    """Snapshots as a numpy record array of shape (n,): a uint64 field for each of theirs.

        records = xsk_engine.history([engine.snapshot(), engine.snapshot()])
        print(numpy.diff(records["completed_packets"]))

    A copy; any thread.
    """
    names = list(Snapshot.__dataclass_fields__)
    rows = [tuple(getattr(one, name) for name in names) for one in snapshots]
    return numpy.array(rows, dtype=[(name, numpy.uint64) for name in names])

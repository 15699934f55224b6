"""A post that crosses the end of its loop, which settles nothing any more."""

import pytest

from xsk_engine.errors import ClosedError
from xsk_engine.tracker import Tracker


@pytest.mark.parametrize("is_over", [False, True])
def test_nobody_waits_for_a_loop_that_has_ended(is_over):
    tracker = Tracker(3, lambda: ClosedError("tracker", "vtx", "the engine is closed"), lambda: is_over, None)
    if not is_over:
        assert not tracker.done
        return
    for ask in (lambda: tracker.done, tracker.wait):
        with pytest.raises(ClosedError, match="the engine is closed"):
            ask()

"""What several scripts say of segments."""

from tcp_bench import MS


def lengths(segments):
    """Payload bytes of each."""
    return [len(s.payload) for s in segments]


def times_of(segments):
    """ms since the first one."""
    return [(s.time_ns - segments[0].time_ns) / MS for s in segments]


def assert_near(found, expected, late_ms=20):
    """Not early (but for a tick of a millisecond clock), and hardly late."""
    assert len(found) == len(expected), (found, expected)
    for is_ms, due_ms in zip(found, expected, strict=True):
        assert due_ms - 1 <= is_ms <= due_ms + late_ms, (found, expected)

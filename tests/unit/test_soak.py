"""How the soak judges what it has seen."""

import random

import pytest

from tests.soak import judge, pattern

FLAT = {
    "rss_bytes": 80 << 20,
    "malloc_bytes": 16 << 20,
    "python_blocks": 250_000,
    "mappings": 390,
    "fds": 20,
    "threads": 4,
    "socket_mappings": 6,
}


def rests(minutes=30, **changes):
    """Every 10 s, with noise, two places by turns of 5 minutes; `changes`: added after so many seconds."""
    rng, found = random.Random(1), []
    for at_s in range(10, minutes * 60 + 1, 10):
        place = ("plain", "tcp")[at_s // 300 % 2]
        sample = FLAT | {"at_s": float(at_s), "place": place}
        sample["rss_bytes"] += rng.randrange(4 << 20) + (30 << 20 if place == "tcp" else 0)
        sample["malloc_bytes"] += rng.choice([0, 0, 0, 0, 9 << 20])  # some lie far off
        for name, change in changes.items():
            sample[name] += change(at_s)
        found.append(sample)
    return found


def bad(samples):
    return [one.what for one in judge.findings(samples) if not one.ok]


def test_noise_is_flat():
    assert bad(rests()) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rss_bytes", lambda at_s: at_s * 6000),
        ("malloc_bytes", lambda at_s: at_s * 2000),
        ("python_blocks", lambda at_s: at_s * 5),
        ("mappings", lambda at_s: at_s // 20),
        ("fds", lambda at_s: at_s > 1500),
        ("threads", lambda at_s: at_s > 1790),
        ("socket_mappings", lambda at_s: 600 < at_s < 620),
    ],
)
def test_what_grows_is_found(name, change):
    assert [what.split(",")[0] for what in bad(rests(**{name: change}))] == [name]


def test_what_only_warms_up_is_flat():
    assert bad(rests(rss_bytes=lambda at_s: min(at_s, 400) * 50_000)) == []


def test_nothing_seen_is_no_result():
    assert bad([]) == list(judge.EXACT)


def test_a_short_run_is_not_judged_by_slopes():
    samples = rests(2, rss_bytes=lambda at_s: at_s * 1_000_000)
    assert bad(samples) == []
    assert {one.found for one in judge.findings(samples) if "slope" in one.what} == {"too short to say"}


@pytest.mark.parametrize("size", [pattern.SHORTEST, 100, pattern.LONGEST])
def test_a_datagram_says_whether_it_is_whole(size):
    payload = pattern.datagram(random.Random(1), size)
    assert len(payload) == size
    assert pattern.is_whole(payload)
    for at in range(0, size, 7):
        assert not pattern.is_whole(payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :])
    assert not pattern.is_whole(payload[:-1])


def test_a_stream_repeats_its_blob():
    n = len(pattern.BLOB)
    assert pattern.stream(n - 3, 6) == pattern.BLOB[-3:] + pattern.BLOB[:3]
    assert pattern.stream(5 * n + 7, 4) == pattern.BLOB[7:11]

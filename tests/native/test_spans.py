"""Frags at one distance from each other: where they lie, where they are found again, and who writes late."""

import errno
import random

import pytest
from fake import Bench, fake
from hypothesis import given, settings
from hypothesis import strategies as st
from sender import Sender, complete_all, datagram, finish, native_header

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native
from xsk_engine.arena import Arena
from xsk_engine.errors import BrokenError
from xsk_engine.umem import Umem

CHUNK = 2048


def busy(**options):
    """A bench whose loop is never idle, so that nothing is parked in between."""
    one = Bench(ring=64, **{"chunks": 32} | options)
    one.start(rate_packets=1000, rate_period_ns=10**9)
    one.step()
    return one


def settle(one):
    """What is inflight comes back to its owners."""
    one.step(2)
    complete_all(one)
    one.step()


def addrs(span, n):
    return [span[0] + i * span[1] for i in range(n)]


def release_all(app, found):
    for addr in found:
        app.release(addr)


@given(
    asked=st.lists(
        st.tuples(st.integers(1, 100), st.integers(14, 2048), st.booleans()), min_size=1, max_size=12
    ),
    metadata_len=st.sampled_from([0, 24, 64]),
    chunk_size=st.sampled_from([2048, 4096]),
)
@settings(max_examples=150, deadline=None)
def test_spans_have_one_pitch_and_overlap_nothing(asked, metadata_len, chunk_size):
    one = Bench(ring=64, chunks=128, metadata_len=metadata_len, chunk_size=chunk_size)
    app, header = Sender(one, max_frame_bytes=9014), native_header(datagram())
    held = []
    for n, length, with_header in asked:
        front = header.len if with_header else 0
        found = app.alloc(n, length, header if with_header else None)
        if front + length > chunk_size - metadata_len:
            assert found == "EMSGSIZE"
            continue
        if isinstance(found, str):
            assert found in ("EAGAIN", "E2BIG")
            continue
        bytes_each = max(front + length, 60 if with_header else 0)
        assert found[1] & (found[1] - 1) == 0
        for addr in addrs(found, n):
            first, end = addr - metadata_len, addr + bytes_each
            assert (first // chunk_size, first % 64) == ((end - 1) // chunk_size, 0)
            assert all(end <= other or other_end <= first for other, other_end in held), "two overlap"
            held.append((first, end))
    release_all(app, [first + metadata_len for first, _ in held])
    finish(one, app)


def test_a_span_is_found_again_among_its_own_chunks():
    one = busy()
    app = Sender(one)
    first = app.alloc(4, 1500)
    release_all(app, addrs(first, 4))
    pooled = one.umem.audit().pooled
    for n in (4, 2, 4, 3):
        again = app.alloc(n, 1500)
        assert again[0] in addrs(first, 4)
        assert one.umem.audit().pooled == pooled, "nothing came from the pool"
        release_all(app, addrs(again, n))
    assert app.stats().owned_chunks == 4
    finish(one, app)


def test_scattered_chunks_go_back_and_the_pool_has_neighbours():
    one = busy()
    app = Sender(one)
    span = addrs(app.alloc(8, 1500), 8)
    release_all(app, span[::2])
    found = app.alloc(5, 1500)
    assert not set(addrs(found, 5)) & set(span), "beyond them, where five lie side by side"
    assert app.stats().owned_chunks == 9, "the scattered ones are the pool's again"
    release_all(app, span[1::2] + addrs(found, 5))
    finish(one, app)


def test_own_free_chunks_are_joined_with_the_pools():
    one = busy()
    app, other = Sender(one), Sender(one)
    free = one.umem.audit().pooled
    low, high = app.alloc(3, 1500), other.alloc(free - 3, 1500)
    release_all(app, addrs(low, 3))
    release_all(other, addrs(high, 1))
    native.arena_park(other.arena)
    assert app.alloc(5, 1500) == "EAGAIN"
    assert app.alloc(4, 1500) == low, "its own three and one of the pool"
    release_all(app, addrs(low, 4) + addrs(high, free - 3)[1:])
    finish(one, app, other)


@given(keep=st.sets(st.integers(0, 15), max_size=16), n=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_a_span_is_found_exactly_when_there_are_neighbours(keep, n, seed):
    one = Bench(ring=64, chunks=16)
    app = Sender(one)
    every = addrs(app.alloc(16, 2000), 16)
    gone = [addr for i, addr in enumerate(every) if i not in keep]
    random.Random(seed).shuffle(gone)
    release_all(app, gone)
    found = app.alloc(n, 2000)
    free = "".join(".#"[i in keep] for i in range(16))
    assert ("." * n in free) == (found != "EAGAIN")
    if found == "EAGAIN":
        assert app.stats().quota_waits == 1
        release_all(app, [every[i] for i in keep])
        keep, found = (), app.alloc(n, 2000)
    assert set(addrs(found, n)) <= set(every) - {every[i] for i in keep}
    release_all(app, [every[i] for i in keep] + addrs(found, n))
    finish(one, app)


def test_frags_of_a_span_that_the_kernel_holds_are_nobodys():
    one = busy(chunks=16 + 6)
    app = Sender(one)
    span = addrs(app.alloc(6, 1500), 6)
    for addr in span:
        app.write(addr, bytes(1500))
    assert app.post([(addr, 1500) for addr in span]) == 6
    for i in (5, 0, 4):
        assert app.alloc(2, 1500) == "EAGAIN"
        one.step()
        held = {fake.held_desc(one.kernel, k).addr: k for k in range(fake.held(one.kernel))}
        fake.complete(one.kernel, held[span[i]])
        one.step()
    assert app.alloc(2, 1500)[0] == span[4]
    release_all(app, span[4:])
    finish(one, app)


def test_an_open_chunk_is_no_part_of_a_span():
    one = busy()
    app = Sender(one)
    small = [app.send(b"x" * 60) for _ in range(3)]
    span = addrs(app.alloc(3, 1500), 3)
    one.step(2)
    sent = {fake.held_desc(one.kernel, i).addr // CHUNK for i in range(fake.held(one.kernel))}
    assert small == [0, 0, 0]
    assert not {addr // CHUNK for addr in span} & sent
    release_all(app, span)
    finish(one, app)


def test_a_span_of_the_whole_quota_after_something_was_sent():
    one = busy()
    app = Sender(one, quota=4)
    assert app.send(b"x" * 60) == 0
    settle(one)
    found = app.alloc(4, 1500)
    release_all(app, addrs(found, 4) if found != "EAGAIN" else [])
    finish(one, app)
    assert found != "EAGAIN"


# -- poison -----------------------------------------------------------------------------------------------


def test_a_write_after_the_release_is_found_once():
    one = busy()
    app = Sender(one, quota=4, arena_flags=ffi.ARENA_POISON)
    span = addrs(app.alloc(4, 1500), 4)
    release_all(app, span)
    assert addrs(app.alloc(4, 1500), 4) == span, "nobody wrote"
    release_all(app, span)
    app.write(span[2] + 77, b"!")
    assert app.alloc(4, 1500) == "EUCLEAN"
    assert one.umem.audit().lost == 0
    for _ in range(3):
        assert addrs(app.alloc(4, 1500), 4) == span
        release_all(app, span)
    app.write(span[0] + CHUNK - 1, b"!")
    assert app.alloc(4, 1500) == "EUCLEAN", "a second one, too"
    last = app.alloc(1, 1500)
    assert last[0] in span
    app.release(last[0])
    finish(one, app)


@pytest.mark.parametrize("late", [0, 900, 2047])
def test_a_write_after_the_post_is_found_by_a_send(late):
    one = busy()
    app = Sender(one, quota=2, arena_flags=ffi.ARENA_POISON)
    addr, _ = app.alloc(1, 2048)
    app.write(addr, b"z" * 2048)
    app.post([(addr, 1000)])
    settle(one)
    app.write(addr + late, b"!")
    results = [app.send(b"x" * 1500) for _ in range(2)]
    assert results == ["EUCLEAN", 0]
    assert app.counters().submitted_packets == 2
    settle(one)
    for _ in range(9):
        assert app.send(b"x" * 1500) == 0
        settle(one)
    finish(one, app)


def test_send_many_tells_of_a_late_write_behind_what_it_took():
    one = busy()
    app = Sender(one, quota=4, arena_flags=ffi.ARENA_POISON)
    span = addrs(app.alloc(4, 1500), 4)
    release_all(app, span)
    app.write(span[1], b"!")
    results = [app.send_many([b"x" * 1500] * 4)]
    while sum(r for r in results if r != "EUCLEAN") < 4:
        results.append(app.send_many([b"x" * 1500] * (4 - sum(r for r in results if r != "EUCLEAN"))))
        assert len(results) < 9
    assert results.count("EUCLEAN") == (0 if results[0] in (1, 2, 3) and len(results) == 2 else 1), results
    finish(one, app)


def test_a_write_into_a_recycled_chunk_is_found_by_the_next_alloc():
    umem = Umem(16 * 4096, 4096)
    arena = Arena(umem, 16, 0, poison=True)
    with arena:
        addr = arena.alloc(4096)
        held = [arena.alloc(4096)]
        native.frag_unref(umem.handle, arena.handle, addr)
        umem.area.view(addr, 8)[:] = b"too late"
        with pytest.raises(BrokenError, match="EUCLEAN"):
            held += [arena.alloc(4096) for _ in range(2)]
        for one in held:
            native.frag_unref(umem.handle, arena.handle, one)
    arena.close()
    assert umem.audit().referenced == 0
    umem.close()


def test_without_poison_nobody_looks():
    one = busy()
    app = Sender(one)
    span = addrs(app.alloc(4, 1500), 4)
    release_all(app, span)
    app.write(span[2], b"!")
    assert addrs(app.alloc(4, 1500), 4) == span
    release_all(app, span)
    finish(one, app)


def test_refused_flags_of_an_arena():
    one = Bench()
    with pytest.raises(OSError, match="arena_open") as refused:
        Sender(one, arena_flags=4)
    assert refused.value.errno == errno.EINVAL
    one.close()

"""Trackers: when they are done, what is lost, and that they may go at any time."""

import ctypes
import itertools
import random
import struct

import pytest
from fake import Bench, fake
from hypothesis import given, settings
from hypothesis import strategies as st
from sender import Sender, complete_all, finish

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native

PENDING, DONE, LOST = ffi.TRACKER_PENDING, ffi.TRACKER_DONE, ffi.TRACKER_LOST


class Tracker:
    def __init__(self, n):
        out = ctypes.c_void_p()
        native.tracker_create(n, ctypes.byref(out))
        self.handle = out

    @property
    def state(self):
        return native.tracker_state(self.handle)

    def stamps(self, n):
        return list(native.tracker_stamps(self.handle)[:n])

    def close(self):
        native.tracker_close(self.handle)

    def destroy(self):
        native.tracker_destroy(self.handle)


def frames(app, n, length=100):
    addr, pitch = app.alloc(n, length)
    return [(addr + i * pitch, length) for i in range(n)]


def complete_addr(one, addr):
    held = [fake.held_desc(one.kernel, i).addr for i in range(fake.held(one.kernel))]
    assert fake.complete(one.kernel, held.index(addr)) == 0
    one.step()


@pytest.fixture
def tracker():
    made = []

    def make(n):
        made.append(Tracker(n))
        return made[-1]

    yield make
    for one in made:
        one.destroy()


@pytest.mark.parametrize("length", [100, 1500])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_pending_until_the_last_has_completed(tracker, order, length):
    one = Bench(ring=64)
    app, t = Sender(one), tracker(3)
    sent = frames(app, 3, length)
    assert app.post(sent, tracker=t.handle) == 3
    t.close()
    one.step(2)
    for i in order:
        assert t.state == PENDING
        complete_addr(one, sent[i][0])
    assert t.state == DONE
    assert t.stamps(3) == [0, 0, 0]
    finish(one, app)


def test_more_may_come_until_it_is_closed(tracker):
    one = Bench(ring=64)
    app, t = Sender(one), tracker(4)
    for _ in range(2):
        assert app.post(frames(app, 2), tracker=t.handle) == 2
        one.step(2)
        complete_all(one)
        one.step()
        assert t.state == PENDING
    t.close()
    t.close()
    assert t.state == DONE
    empty = tracker(0)
    assert empty.state == PENDING
    empty.close()
    assert empty.state == DONE
    finish(one, app)


def test_no_more_than_it_was_made_for(tracker):
    one = Bench(ring=64)
    app, t = Sender(one), tracker(3)
    sent = frames(app, 5)
    assert app.post(sent[:2], tracker=t.handle) == 2
    assert app.post(sent[2:4], tracker=t.handle) == "EINVAL"
    assert app.post(sent[2:3], tracker=t.handle) == 1
    t.close()
    assert app.post(sent[3:], tracker=t.handle) == "EINVAL", "closed"
    assert app.post(sent[3:]) == 2, "they are still its own"
    one.step(2)
    complete_all(one)
    one.step()
    assert t.state == DONE
    finish(one, app)


def test_its_entry_takes_a_place_in_the_ring(tracker):
    one = Bench(ring=64)
    app, t = Sender(one, entries=4), tracker(8)
    sent = frames(app, 8)
    assert app.post(sent, tracker=t.handle) == 3
    assert app.post(sent[3:], tracker=t.handle) == app.post(sent[3:]) == "EAGAIN"
    one.step()
    assert app.post(sent[3:], tracker=t.handle) == 3
    one.step()
    assert app.post(sent[6:], tracker=t.handle) == 2
    t.close()
    one.step()
    assert [fake.held_desc(one.kernel, i).addr for i in range(8)] == [addr for addr, _ in sent]
    assert t.state == PENDING
    complete_all(one)
    one.step()
    assert t.state == DONE
    finish(one, app)


def test_it_waits_for_whoever_shares_the_chunk_and_not_for_others(tracker):
    """A desc's completion is known by its chunk: exact when nothing of the chunk is inflight."""
    one = Bench(ring=64)
    app, early, late = Sender(one), tracker(1), tracker(1)
    shared, alone = frames(app, 2), frames(app, 1, 1500)
    assert app.post(shared[:1], tracker=early.handle) == 1
    assert app.post(shared[1:]) == 1
    assert app.post(alone, tracker=late.handle) == 1
    for t in (early, late):
        t.close()
    one.step(2)
    complete_addr(one, alone[0][0])
    assert (early.state, late.state) == (PENDING, DONE)
    complete_addr(one, shared[1][0])
    assert early.state == PENDING
    complete_addr(one, shared[0][0])
    assert early.state == DONE
    finish(one, app)


def test_a_clone_that_somebody_keeps_is_not_waited_for(tracker):
    one = Bench(ring=64)
    app, t = Sender(one), tracker(1)
    sent = frames(app, 1)
    native.frag_ref(one.umem.handle, sent[0][0])
    app.post(sent, tracker=t.handle)
    t.close()
    one.step(2)
    complete_addr(one, sent[0][0])
    assert t.state == DONE
    again = tracker(1)
    app.post(sent, tracker=again.handle)
    again.close()
    one.step(2)
    assert (t.state, again.state) == (DONE, PENDING)
    complete_addr(one, sent[0][0])
    assert again.state == DONE
    finish(one, app)


def test_lost_when_the_endpoint_goes_before_the_post(tracker):
    one = Bench(ring=16)
    app, early, part, none = Sender(one, batch=64), tracker(8), tracker(16), tracker(4)
    for t, n in ((early, 8), (part, 16), (none, 4)):
        assert app.post(frames(app, n), tracker=t.handle) == n
        t.close()
    one.step(2)
    assert fake.held(one.kernel) == 16, "a ring full: eight of the second one are still to come"
    native.loop_command(one.loop, ffi.REMOVE_ENDPOINT, app.endpoint)
    one.step()
    assert [t.state for t in (early, part, none)] == [PENDING, LOST, LOST]
    complete_all(one)
    one.step()
    assert [t.state for t in (early, part, none)] == [DONE, LOST, LOST]
    finish(one, app)


@pytest.mark.parametrize("posted", [False, True])
def test_lost_when_the_loop_ends_before_the_completion(tracker, posted):
    one = Bench(ring=64, drain_timeout_ns=10**8)
    app, t, first = Sender(one), tracker(2), tracker(1)
    assert app.post(frames(app, 1, 1500), tracker=first.handle) == 1
    first.close()
    one.step(2)
    complete_all(one)
    one.step()
    assert app.post(frames(app, 2, 1500), tracker=t.handle) == 2
    t.close()
    if posted:
        one.step()
        assert fake.held(one.kernel) == 2
        one.drain()
        one.run()
    else:
        native.loop_abort(one.loop)
        while one.counters.state < ffi.LOOP_STOPPED:
            one.step()
    assert (first.state, t.state) == (DONE, LOST)
    app.close()
    assert one.close().inflight_descs == 2, "pinned: a driver may still read them"


def test_lost_when_the_loop_ends_before_it_knew_the_endpoint(tracker):
    one = Bench(ring=64)
    app, t = Sender(one, add=False), tracker(2)
    one.step()
    one.drain()
    assert app.post(frames(app, 2), tracker=t.handle) == 2
    native.loop_abort(one.loop)
    one.run()
    complete_all(one)
    app.close()
    assert t.state == LOST
    one.close()


@pytest.mark.parametrize("when", ["before it is posted", "while it is inflight", "when it has completed"])
def test_its_user_may_let_go_at_any_time(when):
    one = Bench(ring=64)
    app, t = Sender(one), Tracker(5)
    assert app.post(frames(app, 5), tracker=t.handle) == 5
    for moment in ("before it is posted", "while it is inflight", "when it has completed"):
        if moment == when:
            t.destroy()
        one.step(2)
        if moment == "while it is inflight":
            complete_all(one)
            one.step()
    finish(one, app)


def test_let_go_and_then_lost():
    one = Bench(ring=16)
    app, first, second = Sender(one), Tracker(16), Tracker(5)
    for t, n in ((first, 16), (second, 5)):
        assert app.post(frames(app, n), tracker=t.handle) == n
        t.destroy()
    one.step(2)
    native.loop_command(one.loop, ffi.REMOVE_ENDPOINT, app.endpoint)
    one.step(2)
    finish(one, app)


@pytest.mark.parametrize("flags", [0, ffi.ENDPOINT_TIMESTAMPS])
def test_stamps_stand_where_the_kernel_wrote_them(tracker, flags):
    one = Bench(ring=64, metadata_len=24)
    app, t = Sender(one, endpoint_flags=flags), tracker(6)
    sent = frames(app, 6)
    for part in (sent[:4], sent[4:]):
        assert app.post(part, tracker=t.handle) == len(part)
    t.close()
    one.step(2)
    written = [0, 0, 0, 0, 0, 0]
    for i in (4, 1, 5, 0, 2):  # and none for the fourth
        addr = sent[i][0]
        written[i] = 10**18 + i if flags else 0
        one.umem.area.view(addr - 16, 8)[:] = struct.pack("Q", 10**18 + i)
        complete_addr(one, addr)
    complete_addr(one, sent[3][0])
    assert t.state == DONE
    assert t.stamps(6) == written
    finish(one, app)


@given(
    groups=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([100, 700, 1500])), min_size=1, max_size=8),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=150, deadline=None)
def test_done_exactly_when_nothing_of_its_chunks_is_inflight(groups, seed):
    one, rng = Bench(ring=16, chunks=96), random.Random(seed)
    app = Sender(one, entries=128, batch=rng.choice([1, 3, 64]))
    pool = [frame for n, length in groups for frame in frames(app, n, length)]
    rng.shuffle(pool)
    trackers = []  # (tracker, chunks, addrs)
    while pool:
        n = rng.randint(1, len(pool))
        group, pool = pool[:n], pool[n:]
        trackers.append((Tracker(n), {addr // 2048 for addr, _ in group}, {addr for addr, _ in group}))
        assert app.post(group, tracker=trackers[-1][0].handle) == n
        trackers[-1][0].close()
    completed = set()
    for _ in range(2000):
        one.step()
        held = [fake.held_desc(one.kernel, i).addr for i in range(fake.held(one.kernel))]
        for t, chunks, its in trackers:
            if not its <= completed:
                assert t.state == PENDING
            elif not {addr // 2048 for addr in held} & chunks:
                assert t.state == DONE
        if held:
            at = rng.randrange(len(held))
            fake.complete(one.kernel, at)
            completed.add(held[at])
        elif all(t.state == DONE for t, *_ in trackers):
            break
    assert [t.state for t, *_ in trackers] == [DONE] * len(trackers)
    for t, *_ in trackers:
        t.destroy()
    finish(one, app)

"""The loop hands its thread back and comes again: paused, stalled, moved to another socket."""

import ctypes
import errno

import pytest
from fake import NEAR_WRAP, address, fake, patch
from hypothesis import given, settings
from hypothesis import strategies as st

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native

MS, SECOND = 10**6, 10**9


def step_until(one, state, most=100_000):
    for _ in range(most):
        if native.loop_step(one.loop) == state:
            return
    raise AssertionError(f"never {state}")


def new_socket(one, ring=64):
    """Another kernel to attach to; the first one forgets what it held."""
    kernel = fake.create(ring, ring, NEAR_WRAP)
    config = ffi.TxqConfig(kick=address(fake.kick), kick_ctx=kernel, fd=-1, need_wakeup=1)
    fake.rings(kernel, ctypes.byref(config.tx), ctypes.byref(config.cq))
    return kernel, config


def until_it_posts(one):
    """Everything completes, also what comes; ns until the next packet."""
    posted = one.counters.submitted_packets
    fake.policy(one.kernel, 1 << 30, 1)
    while fake.held(one.kernel):
        fake.complete(one.kernel, 0)
    before = fake.now(one.kernel)
    while one.counters.submitted_packets == posted:
        one.step()
    return fake.now(one.kernel) - before


def test_a_pause_ends_with_the_next_call(bench):
    one = bench()
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(count=100, batch=1)
    one.step(3)
    native.loop_command(one.loop, ffi.PAUSE, None)
    assert one.step() == ffi.LOOP_PAUSED
    assert one.counters.state == ffi.LOOP_RUNNING
    submitted = one.counters.submitted_packets
    assert one.step() == ffi.LOOP_RUNNING
    assert one.counters.submitted_packets == submitted + 1


def test_time_away_does_not_count(bench):
    """One second of sending at 1000 pps, ten seconds away in the middle."""
    one = bench()
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(duration_ns=SECOND, rate_packets=1000, rate_period_ns=SECOND)
    while one.counters.submitted_packets < 500:
        one.step()
    native.loop_command(one.loop, ffi.PAUSE, None)
    assert one.step() == ffi.LOOP_PAUSED
    fake.advance(one.kernel, 10 * SECOND)
    before = one.counters.submitted_packets
    one.step()
    assert one.counters.submitted_packets <= before + 1, "no burst to catch up"
    while not one.counters.finished_flows:
        one.step()
    assert one.counters.submitted_packets == 1000
    assert one.counters.link_down_ns >= 10 * SECOND


def test_away_while_the_link_is_down_counts_once(bench):
    """Two seconds of sending; down for one, away for ten in the middle of it, down for one more."""
    one = bench(link_timeout_ns=5 * SECOND)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(duration_ns=2 * SECOND, rate_packets=1000, rate_period_ns=SECOND)
    one.step(10)
    fake.script(one.kernel, errno.ENETDOWN, 1 << 30)
    start = fake.now(one.kernel)
    while fake.now(one.kernel) < start + SECOND:
        one.step()
    native.loop_command(one.loop, ffi.PAUSE, None)
    step_until(one, ffi.LOOP_PAUSED)
    fake.advance(one.kernel, 10 * SECOND)
    back = fake.now(one.kernel)
    while fake.now(one.kernel) < back + SECOND:
        assert one.step() == ffi.LOOP_RUNNING, "ten seconds away are not ten seconds down"
    fake.script(one.kernel, 0, 0)
    while not one.counters.finished_flows:
        one.step()
    assert one.counters.submitted_packets == 2000
    assert 12 * SECOND <= one.counters.link_down_ns < 12.2 * SECOND
    assert 13.9 * SECOND < fake.now(one.kernel) - start < 14.3 * SECOND


def test_what_was_posted_before_a_stall_counts(bench):
    """Paced, with room: nothing is owed, and no hole follows."""
    one = bench(ring=1024, progress_timeout_ns=100 * MS)
    one.start(rate_packets=1000, rate_period_ns=SECOND)
    step_until(one, ffi.LOOP_STALLED)
    posted = one.counters.submitted_packets
    assert 100 <= posted <= 102
    assert until_it_posts(one) < 5 * MS
    assert one.counters.link_down_ns < 5 * MS


def test_what_was_posted_before_the_ring_was_full_counts(bench):
    """64 ms of sending, and 36 for which nothing more fits: these are what does not count."""
    one = bench(ring=64, progress_timeout_ns=100 * MS)
    one.start(rate_packets=1000, rate_period_ns=SECOND)
    step_until(one, ffi.LOOP_STALLED)
    assert one.counters.submitted_packets == 64
    assert until_it_posts(one) < 5 * MS
    assert 34 * MS < one.counters.link_down_ns < 40 * MS


def test_what_begins_in_a_stall_is_not_held_up_for_all_of_it(bench):
    one = bench(ring=64, progress_timeout_ns=100 * MS)
    start = fake.now(one.kernel)
    one.start(count=64)
    one.step(3)
    while fake.now(one.kernel) < start + 90 * MS:
        one.step()
    one.start(rate_packets=1000, rate_period_ns=SECOND)
    step_until(one, ffi.LOOP_STALLED)
    assert until_it_posts(one) < 5 * MS


def test_a_gap_is_never_negative(bench):
    """What comes late is posted shortly before a stall: its time does not go on beyond now."""
    one = bench(ring=64, cq=256, progress_timeout_ns=100 * MS)
    fake.policy(one.kernel, 0, 0)
    start = fake.now(one.kernel)
    one.start(rate_packets=10_000, rate_period_ns=SECOND, patches=[patch(0, 8)])
    while fake.now(one.kernel) < start + 90 * MS:
        one.step()
    fake.policy(one.kernel, 64, 0)
    while one.counters.submitted_packets < 128:
        one.step()
    fake.policy(one.kernel, 0, 0)
    step_until(one, ffi.LOOP_STALLED)
    posted = one.counters.submitted_packets
    fake.policy(one.kernel, 64, 1)
    while one.counters.submitted_packets == posted:
        one.step()
    assert one.gaps.post.max_ns < SECOND
    assert one.gaps.paced_ns < SECOND


def test_who_calls_is_seen_from_outside(bench):
    one = bench(progress_timeout_ns=SECOND)
    one.start(count=5)
    step_until(one, ffi.LOOP_STALLED)
    assert native.loop_called(one.loop) == ffi.NOT_CALLED
    one.drain()
    assert native.loop_called(one.loop) == ffi.CALLED_BY_COMMAND
    native.loop_abort(one.loop)
    assert native.loop_called(one.loop) == ffi.CALLED_TO_ABORT


def test_a_pause_can_be_given_up(bench):
    one = bench()
    one.start(count=5)
    one.step()
    native.loop_command(one.loop, ffi.PAUSE, None)
    assert one.step() == ffi.LOOP_PAUSED
    native.loop_give_up(one.loop, ffi.ERROR_NO_PROGRESS)
    assert one.counters.state == ffi.LOOP_FAILED


def test_a_stall_can_be_run_on_from(bench):
    one = bench(progress_timeout_ns=SECOND)
    one.start(count=5)
    step_until(one, ffi.LOOP_STALLED)
    assert one.counters.error == ffi.ERROR_NONE
    for _ in range(5):
        fake.complete(one.kernel, 0)
    assert one.step() == ffi.LOOP_RUNNING
    assert one.counters.completed_packets == 5


@pytest.mark.parametrize("error", [ffi.ERROR_NO_PROGRESS, ffi.ERROR_LINK_DOWN])
def test_a_stall_can_be_given_up(bench, error):
    one = bench(progress_timeout_ns=SECOND)
    one.start(count=5)
    step_until(one, ffi.LOOP_STALLED)
    fake.advance(one.kernel, 3 * SECOND)
    native.loop_give_up(one.loop, error)
    assert (one.counters.state, one.counters.error) == (ffi.LOOP_FAILED, error)
    if error == ffi.ERROR_LINK_DOWN:
        assert 4 * SECOND <= one.counters.error_arg < 4.1 * SECOND
    else:
        assert one.counters.error_arg == 5
    with pytest.raises(BrokenPipeError):
        native.loop_command(one.loop, ffi.DRAIN, None)


def test_how_long_a_link_was_down_counts_every_stall(bench):
    """Who judged it had to come back in between, for a command."""
    one = bench(progress_timeout_ns=SECOND)
    one.start(count=5)
    for _ in range(3):
        step_until(one, ffi.LOOP_STALLED)
        fake.advance(one.kernel, 3 * SECOND)
    native.loop_give_up(one.loop, ffi.ERROR_LINK_DOWN)
    assert 12 * SECOND <= one.counters.error_arg < 12.3 * SECOND


@pytest.mark.parametrize("turns", [0, 1])
def test_a_loop_may_be_given_up_whenever_its_thread_must_end(bench, turns):
    one = bench()
    one.start(count=5)
    one.step(turns)
    native.loop_give_up(one.loop, ffi.ERROR_NO_PROGRESS)
    assert one.counters.state == ffi.LOOP_FAILED
    assert one.counters.inflight_descs == 5 * turns
    with pytest.raises(BrokenPipeError):
        native.loop_command(one.loop, ffi.DRAIN, None)
    native.loop_give_up(one.loop, ffi.ERROR_KICK)
    assert one.counters.error == ffi.ERROR_NO_PROGRESS


def test_a_drain_in_which_nothing_ever_completed_is_a_stall(bench):
    one = bench(progress_timeout_ns=10 * SECOND, drain_timeout_ns=300 * MS)
    one.start(count=5)
    one.step(3)
    one.drain()
    step_until(one, ffi.LOOP_STALLED)
    native.loop_give_up(one.loop, ffi.ERROR_NO_PROGRESS)
    assert (one.counters.state, one.counters.error) == (ffi.LOOP_STOPPED, ffi.ERROR_NONE)
    assert one.counters.inflight_descs == 5


@pytest.mark.parametrize("draining", [False, True])
@given(count=st.integers(1, 64), size=st.sampled_from([60, 5000]), patched=st.booleans())
@settings(max_examples=30, deadline=None)
def test_everything_inflight_moves_to_another_socket(draining, count, size, patched):
    from fake import Bench

    one = Bench(ring=64, progress_timeout_ns=SECOND, drain_timeout_ns=SECOND)
    kernel, config = new_socket(one)
    frame = bytes(i & 0xFF for i in range(size))
    patches = [patch(8, 8)] if patched else []
    try:
        one.start(frame=frame, count=count, patches=patches)
        if draining:
            one.step(3)
            one.drain()
        step_until(one, ffi.LOOP_STALLED)
        submitted, kicks = one.counters.submitted_descs, one.counters.kick_calls
        held = [fake.held_desc(one.kernel, i) for i in range(fake.held(one.kernel))]
        native.txq_detach(one.txq)
        native.txq_attach(one.txq, ctypes.byref(config))
        assert one.counters.submitted_descs == submitted, "submitted once, however often"
        one.step(2)
        moved = [fake.held_desc(kernel, i) for i in range(fake.held(kernel))]
        assert [(d.addr, d.len, d.options) for d in moved][: len(held)] == [
            (d.addr, d.len, d.options) for d in held
        ]
        fake.policy(kernel, 1 << 30, 1)
        while fake.held(kernel):
            fake.complete(kernel, 0)
        while not one.counters.finished_flows:
            one.step()
        one.drain()
        assert one.run() == ffi.LOOP_STOPPED
        page = one.counters
        expected = page.submitted_packets if draining else count
        assert page.completed_packets == page.submitted_packets == expected
        assert page.bad_completions == 0
        assert page.kick_calls >= kicks, "of the txq, whatever its socket"
    finally:
        one.close()
        fake.destroy(kernel)


def test_only_a_socket_that_completed_nothing_is_left(bench):
    one = bench()
    kernel, config = new_socket(one)
    with pytest.raises(OSError, match="Invalid") as refused:
        native.txq_attach(one.txq, ctypes.byref(config))
    assert refused.value.errno == errno.EINVAL
    one.start(count=3)
    one.step(2)
    fake.complete(one.kernel, 0)
    one.step()
    with pytest.raises(OSError, match="busy") as refused:
        native.txq_detach(one.txq)
    assert refused.value.errno == errno.EBUSY
    fake.destroy(kernel)


def test_a_smaller_socket_is_refused(bench):
    one = bench(ring=64)
    kernel, config = new_socket(one, ring=32)
    native.txq_detach(one.txq)
    with pytest.raises(OSError, match="Invalid"):
        native.txq_attach(one.txq, ctypes.byref(config))
    fake.destroy(kernel)
    kernel, config = new_socket(one)
    native.txq_attach(one.txq, ctypes.byref(config))
    fake.destroy(one.kernel)
    one.kernel = kernel


@pytest.mark.parametrize("n", [0, 1, 63, 64])
def test_the_fill_ring_takes_addrs_over_the_wrap(n):
    kernel = fake.create(64, 64, NEAR_WRAP + 60)
    _unused, cq = ffi.Ring(), ffi.Ring()
    fake.rings(kernel, ctypes.byref(_unused), ctypes.byref(cq))
    addrs = [i * 2048 for i in range(n)]
    native.rx_fill(cq, (ctypes.c_uint64 * n)(*addrs), n)
    start = (NEAR_WRAP + 60) % 2**32
    slots = (ctypes.c_uint64 * 64).from_address(cq.ring)
    assert [slots[(start + i) % 64] for i in range(n)] == addrs
    producer = ctypes.c_uint32.from_address(cq.producer).value
    assert producer == (start + n) % 2**32
    with pytest.raises(OSError, match="No space"):
        native.rx_fill(cq, (ctypes.c_uint64 * 65)(), 65)
    assert ctypes.c_uint32.from_address(cq.producer).value == producer
    fake.destroy(kernel)

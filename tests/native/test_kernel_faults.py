"""A kernel that misbehaves, against the loop: completions that stop or cannot be, rings that lie, kicks that
fail in storms. Every bench is closed with its audit (conftest.py); time is the fake kernel's."""

import ctypes
import errno

import pytest
from fake import fake, patch

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native

MS = 10**6
SECOND = 10**9
US = 1000
BACKOFF = 50 * US
"""the longest rest of a loop that waits for the kernel (idle.c)"""
KICKS_PER_SECOND = SECOND // BACKOFF
FRESH = [patch(0, 8)]
"""packets of their own frags, not of one template"""


def rings(one):
    """The kernel's own view of both rings."""
    tx, cq = ffi.Ring(), ffi.Ring()
    fake.rings(one.kernel, ctypes.byref(tx), ctypes.byref(cq))
    return tx, cq


def index(address):
    return ctypes.c_uint32.from_address(address)


def run_until(one, condition, most=2_000_000):
    for _ in range(most):
        if condition():
            return
        one.step()
    raise AssertionError(f"not after {most} turns")


# ---- completions that stop ------------------------------------------------------------------------------


@pytest.mark.parametrize("patches", [(), FRESH], ids=["template", "frags"])
@pytest.mark.parametrize("completed", [0, 1, 63, 64, 200])
def test_completions_stop_after_some(bench, completed, patches):
    """Within the progress timeout, with what is inflight, and nothing is lost from sight."""
    one = bench(ring=64)
    one.start(count=1000, patches=patches)
    while one.counters.completed_packets < completed:
        one.step()
        left = completed - one.counters.completed_packets
        for _ in range(min(left, fake.held(one.kernel))):
            fake.complete(one.kernel, 0)
    one.step(2)
    stopped = fake.clock(one.kernel)
    assert one.run() == ffi.LOOP_FAILED
    page = one.counters
    assert (page.error, page.error_arg) == (ffi.ERROR_NO_PROGRESS, 64)
    assert page.completed_packets == completed
    assert fake.clock(one.kernel) - stopped < 1.2 * SECOND
    assert one.umem.audit().inflight_descs == 64


def test_completions_that_come_in_the_last_moment_are_no_error(bench):
    one = bench(ring=64)
    one.start(count=20)
    one.step(3)
    for _ in range(20):
        end = fake.clock(one.kernel) + 9 * SECOND // 10
        run_until(one, lambda end=end: fake.clock(one.kernel) > end)
        fake.complete(one.kernel, 0)
    one.step(2)
    assert one.counters.state == ffi.LOOP_RUNNING
    assert one.counters.completed_packets == 20


@pytest.mark.parametrize("completed", [1, 40])
def test_completions_stop_in_the_drain(bench, completed):
    """It leaves at the drain's deadline and says what is still inflight."""
    one = bench(ring=64, drain_timeout_ns=300 * MS)
    one.start(count=1000, patches=FRESH)
    run_until(one, lambda: one.counters.inflight_descs == 64)
    one.drain()
    one.step(2)
    for _ in range(completed):
        fake.complete(one.kernel, 0)
    before = fake.clock(one.kernel)
    assert one.run() == ffi.LOOP_STOPPED
    assert 300 * MS <= fake.clock(one.kernel) - before < 400 * MS
    assert one.counters.inflight_descs == 64 - completed
    assert one.umem.audit().inflight_descs == 64 - completed


def test_an_endpoint_hears_of_completions_that_stop(bench):
    """What it has inflight stays pinned, what it still holds is its own."""
    one = bench(ring=64)
    arena = one.open_arena()
    endpoint = one.endpoint(arena)
    native.loop_command(one.loop, ffi.ADD_ENDPOINT, endpoint)
    addrs = [ctypes.c_uint64() for _ in range(3)]
    native.arena_enter(arena)
    for addr in addrs:
        native.frag_alloc(arena, 1500, ctypes.byref(addr))
    native.endpoint_submit(endpoint, (ffi.Desc * 2)(*(ffi.Desc(addr, 60, 0) for addr in addrs[:2])), 2)
    assert one.run() == ffi.LOOP_FAILED
    assert one.counters.error_arg == 2
    assert one.umem.audit().inflight_descs == 2
    assert native.endpoint_state(endpoint) == ffi.ENDPOINT_REMOVED
    native.frag_unref(one.umem.handle, arena, addrs[2])
    native.arena_leave(arena)
    native.endpoint_destroy(endpoint)
    one.arenas.append(arena)


# ---- completions that cannot be -------------------------------------------------------------------------


def test_one_twice_among_others_of_its_chunk_is_found_with_the_last(bench):
    """A chunk cannot tell which of its descs came back; it can count them."""
    one = bench(ring=64)
    one.start(count=4)
    one.step(3)
    addr = fake.held_desc(one.kernel, 0).addr
    fake.complete_addr(one.kernel, addr)
    one.step(2)
    assert one.counters.state == ffi.LOOP_RUNNING
    for _ in range(4):
        fake.complete(one.kernel, 0)
    one.step(2)
    page = one.counters
    assert (page.state, page.error, page.error_arg) == (ffi.LOOP_FAILED, ffi.ERROR_COMPLETION, addr)
    assert (page.bad_completions, page.completed_descs, page.inflight_descs) == (1, 4, 0)


@pytest.mark.parametrize("place", [0, 5, 10])
def test_one_stranger_among_good_ones(bench, place):
    """Wherever it stands: the others count, and the error has its addr."""
    one = bench(ring=64)
    one.start(count=10, patches=FRESH, frame=b"y" * 1500)
    one.step(3)
    for i in range(11):
        if i == place:
            fake.complete_addr(one.kernel, 2**63 + 5)
        else:
            fake.complete(one.kernel, 0)
    one.step(2)
    page = one.counters
    assert (page.error, page.error_errno, page.error_arg) == (ffi.ERROR_COMPLETION, errno.EPROTO, 2**63 + 5)
    assert (page.bad_completions, page.completed_packets, page.inflight_descs) == (1, 10, 0)
    assert one.umem.audit().inflight_descs == 0


def test_the_probe_comes_back_among_others_of_its_chunk(bench):
    """The invalid desc by which an engine asks what its driver does with such: late, it is no stranger."""
    one = bench(ring=64, chunks=2)
    fake.policy(one.kernel, 0, 0)  # whoever looks for descs comes later
    assert native.txq_probe_invalid(one.txq, 100_000) == ffi.PROBE_UNSEEN
    fake.policy(one.kernel, 64, 0)
    one.start(count=40, patches=FRESH)
    one.step(3)
    probe = fake.held_desc(one.kernel, 0).addr
    assert probe == 2 * 2048 - 1
    beside = [i for i in range(1, 41) if fake.held_desc(one.kernel, i).addr >= 2048]
    assert len(beside) > 2, "packets of the chunk that the probe's addr lies in"
    for _ in range(2):
        fake.complete(one.kernel, beside.pop())
    while fake.held(one.kernel):
        fake.complete(one.kernel, 0)
    one.step(2)
    page = one.counters
    assert (page.error, page.bad_completions, page.completed_packets) == (0, 0, 40)
    fake.complete_addr(one.kernel, probe)
    one.step(2)
    assert (page.error, page.error_arg) == (ffi.ERROR_COMPLETION, probe), "it comes back once"


def test_of_two_errors_in_one_turn_the_first_is_told(bench):
    """A stranger, and the link that has been down for too long."""
    one = bench(ring=64, link_timeout_ns=SECOND)
    fake.script(one.kernel, errno.ENETDOWN, 1 << 30)
    one.start(count=1)
    one.step(3)
    fake.advance(one.kernel, 2 * SECOND)
    fake.complete_addr(one.kernel, 2**63 + 5)
    one.step()
    page = one.counters
    assert (page.state, page.error, page.error_arg) == (ffi.LOOP_FAILED, ffi.ERROR_COMPLETION, 2**63 + 5)


def test_a_chunk_of_another_queue(bench):
    one = bench(ring=64)
    other = one.open_arena(txq_id=9)
    addr = ctypes.c_uint64()
    native.arena_enter(other)
    native.frag_alloc(other, 60, ctypes.byref(addr))
    one.step()
    fake.complete_addr(one.kernel, addr.value)
    one.step(2)
    assert (one.counters.error, one.counters.error_arg) == (ffi.ERROR_COMPLETION, addr.value)
    # Its reference is still its owner's, who gives it back himself.
    assert one.umem.audit().referenced == 1
    native.frag_unref(one.umem.handle, other, addr)
    native.arena_leave(other)
    native.arena_close(other)
    assert one.umem.audit().referenced == 0


def test_a_stranger_in_the_drain_is_an_error_all_the_same(bench):
    one = bench(ring=64)
    one.start(count=3)
    one.step(3)
    one.drain()
    one.step()
    fake.complete_addr(one.kernel, 12345 * 2048)
    assert one.run() == ffi.LOOP_FAILED
    assert (one.counters.error, one.counters.inflight_descs) == (ffi.ERROR_COMPLETION, 3)


@pytest.mark.parametrize("jump", [65, 1000, 2**31, 2**32 - 1])
def test_a_completion_ring_that_lies_about_how_much_there_is(bench, jump):
    """More entries than it has: no more than a ring of them is looked at, and every one is judged."""
    one = bench(ring=64)
    one.start(count=10)
    one.step(3)
    _, cq = rings(one)
    index(cq.producer).value = (index(cq.producer).value + jump) % 2**32
    one.run()
    page = one.counters
    assert (page.state, page.error) == (ffi.LOOP_FAILED, ffi.ERROR_COMPLETION)
    assert page.bad_completions <= 64
    assert page.completed_descs + page.inflight_descs == 10


@pytest.mark.parametrize("ahead", [1, 64, 1000, 2**31])
def test_a_tx_ring_whose_consumer_is_ahead_of_what_was_posted(bench, ahead):
    """It never makes us post more than the completion ring holds, and completions are what counts."""
    one = bench(ring=64)
    one.start(count=10_000)
    one.step(3)
    tx, _ = rings(one)
    for _ in range(50):
        index(tx.consumer).value = (index(tx.producer).value + ahead) % 2**32
        one.step()
        assert one.counters.inflight_descs <= 64
    assert one.run() == ffi.LOOP_FAILED
    assert one.counters.error == ffi.ERROR_NO_PROGRESS


@pytest.mark.parametrize("before", [0, errno.EBUSY, errno.EAGAIN])
def test_a_tx_ring_that_stays_full(bench, before):
    """All of it has completed, and there is no room: no completion is missing, and no chunk. Whatever a kick
    has said before."""
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    fake.lossy(one.kernel, 63)
    fake.script(one.kernel, before, 1)
    fake.silent(one.kernel)
    one.start(count=100, batch=64)
    began = fake.clock(one.kernel)
    assert one.run() == ffi.LOOP_FAILED
    assert SECOND < fake.clock(one.kernel) - began < 1.1 * SECOND
    page = one.counters
    assert (page.completed_packets, page.inflight_descs) == (64, 0)
    assert (page.error, page.error_errno) == (ffi.ERROR_RING_FULL, before)


# ---- kicks that fail in storms --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM])
def test_a_storm_without_end_is_an_error_and_no_busy_loop(bench, number):
    one = bench(ring=64)
    fake.script(one.kernel, number, 1 << 30)
    one.start(count=10)
    before = fake.clock(one.kernel)
    assert one.run() == ffi.LOOP_FAILED
    page = one.counters
    assert (page.error, page.error_errno, page.error_arg) == (ffi.ERROR_NO_PROGRESS, number, 10)
    assert fake.clock(one.kernel) - before < 1.2 * SECOND
    told = page.kick_eagain if number in (errno.EAGAIN, errno.EINTR) else page.kick_enobufs
    assert told == page.kick_calls == fake.kicks(one.kernel)
    assert told < 1.3 * KICKS_PER_SECOND


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS])
@pytest.mark.parametrize("paced", [True, False])
def test_a_storm_that_passes_costs_no_packet(bench, number, paced):
    """Half a second of it, three times."""
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(count=2000, **({"rate_packets": 1, "rate_period_ns": MS} if paced else {"batch": 1}))
    for part in (100, 600, 1500):
        run_until(one, lambda part=part: one.counters.completed_packets >= part)
        fake.script(one.kernel, number, 1 << 30)
        end = fake.clock(one.kernel) + SECOND // 2
        run_until(one, lambda end=end: fake.clock(one.kernel) > end)
        fake.script(one.kernel, 0, 0)
    run_until(one, lambda: one.counters.completed_packets == 2000)
    page = one.counters
    assert (page.state, page.kick_ebusy, page.kick_other) == (ffi.LOOP_RUNNING, 0, 0)
    assert page.kick_calls == fake.kicks(one.kernel)
    assert page.kick_calls < 2000 + 2 * KICKS_PER_SECOND


def test_a_kernel_that_takes_one_desc_a_time(bench):
    one = bench(ring=64)
    fake.policy(one.kernel, 1, 1)
    one.start(count=500, patches=FRESH)
    run_until(one, lambda: one.counters.completed_packets == 500)
    assert fake.kicks(one.kernel) <= 600


@pytest.mark.parametrize("draining", [True, False])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENXIO, errno.EOPNOTSUPP, errno.EBADF, 4095])
def test_an_errno_that_nobody_knows_ends_it_at_once(bench, number, draining):
    one = bench(ring=64)
    one.start(count=10)
    fake.script(one.kernel, errno.EAGAIN, 1 << 30)
    one.step(5)
    if draining:
        one.drain()
        one.step()
    fake.script(one.kernel, number, 1)
    before = fake.clock(one.kernel)
    assert one.run() == ffi.LOOP_FAILED
    assert (one.counters.error, one.counters.error_errno) == (ffi.ERROR_KICK, number)
    assert one.counters.kick_other == 1
    assert fake.clock(one.kernel) - before < MS


def test_every_errno_in_turn(bench):
    """Whatever comes between, what is inflight in the end is what the kernel has."""
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(count=3000, patches=FRESH)
    for number in [errno.EAGAIN, errno.EBUSY, errno.ENOBUFS, errno.ENETDOWN, errno.EINTR, errno.EBUSY] * 20:
        fake.script(one.kernel, number, 3)
        one.step(40)
    fake.script(one.kernel, 0, 0)
    run_until(one, lambda: one.counters.completed_packets == 3000)
    page = one.counters
    assert (page.kick_eagain, page.kick_ebusy, page.kick_enobufs, page.kick_enetdown) != (0, 0, 0, 0)
    assert page.inflight_descs == fake.held(one.kernel) == 0


def test_what_is_inflight_is_asked_for_now_and_then_while_a_packet_is_awaited_awake(bench):
    """Not with every turn of the spinning before it."""
    one = bench(ring=256)
    one.start(count=200, rate_packets=1, rate_period_ns=MS)
    run_until(one, lambda: one.counters.submitted_packets == 200)
    assert one.counters.inflight_descs == 200, "nothing has completed"
    assert fake.kicks(one.kernel) < 200 + 0.2 * 1.3 * KICKS_PER_SECOND


# ---- the peer's link ------------------------------------------------------------------------------------


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_duration_does_not_end_while_every_packet_is_dropped(bench, comes_back):
    """The probes are packets of the flow; its time does not go on while they are lost."""
    one = bench(ring=64, link_timeout_ns=2 * SECOND)
    fake.policy(one.kernel, 1 << 30, 1)
    one.start(duration_ns=3 * SECOND // 2, rate_packets=1, rate_period_ns=MS)
    run_until(one, lambda: one.counters.completed_packets >= 100)
    fake.script(one.kernel, errno.EBUSY, 1 << 30)
    run_until(one, lambda: one.counters.link_down_ns > 0)
    down = fake.clock(one.kernel)
    if comes_back:
        run_until(one, lambda: fake.clock(one.kernel) > down + 1.9 * SECOND)
        assert one.counters.active_flows == 1
        fake.script(one.kernel, 0, 0)
        run_until(one, lambda: one.counters.finished_flows)
        page = one.counters
        assert 1.9 * SECOND < page.link_down_ns < 2 * SECOND
        assert 0.999 < (page.last_post_ns - page.first_post_ns - page.link_down_ns) / (1.5 * SECOND) < 1.001
        probes = page.kick_ebusy - 1000 + 1
        assert abs(page.submitted_packets - probes - 1500) <= 2, "its rate is as asked before and after"
    else:
        assert one.run(1_000_000) == ffi.LOOP_FAILED
        assert (one.counters.error, one.counters.error_errno) == (ffi.ERROR_LINK_DOWN, errno.EBUSY)
        assert 2 * SECOND <= fake.clock(one.kernel) - down < 2.1 * SECOND

"""Who may post when: endpoints and flows take turns, each to its own quota and pace."""

import ctypes
import errno
import itertools
from collections import Counter

import pytest
from fake import Bench, fake, held_packets
from sender import Sender, complete_all, finish

from xsk_engine._ffi import native as ffi
from xsk_engine._ffi.native import native

MS, SECOND = 10**6, 10**9
FRAME = 60


class Flow:
    """A flow that is a mix of its own."""

    def __init__(self, one, number=1, length=FRAME, **values):
        self.one, self.frame = one, bytes([number]) * length
        self.flow = one.flow(self.frame)
        self.mix = one.start_mix([self.flow], [0], **values)

    @property
    def posted(self):
        out = ffi.FlowCounters()
        native.flow_read(ctypes.byref(self.flow), 1, ctypes.byref(out))
        return out.packets

    @property
    def inflight(self):
        return [self.one.packet(i) for i in range(fake.held(self.one.kernel))].count(self.frame)

    def stop(self):
        native.loop_command(self.one.loop, ffi.STOP_MIX, self.mix)

    def repace(self, packets, period_ns=SECOND):
        """Packets per period; 0 = as many as possible."""
        pace = ffi.PaceConfig(rate_units=packets, period_ns=period_ns if packets else 0, packet_units=1)
        repace = ffi.Repace(mix=self.mix, pace=pace)
        native.loop_command(self.one.loop, ffi.REPACE, ctypes.addressof(repace))
        self.one.step()
        assert repace.done
        return repace

    def destroy(self):
        self.one.mixes.remove(self.mix)
        native.mix_destroy(self.mix)


def paced(packets, period_ns=SECOND):
    return {"rate_units": packets, "period_ns": period_ns, "packet_units": 1}


def fill(app, payload):
    while app.send(payload) == 0:
        pass


def run_for(one, ns, auto=True):
    """So long on the fake clock, everything completed at once."""
    fake.policy(one.kernel, 1 << 30, int(auto))
    end = fake.now(one.kernel) + ns
    while fake.now(one.kernel) < end:
        one.step()


# -- fairness ---------------------------------------------------------------------------------------------


def shares(endpoints, flows, completions, batch, turns=3000):
    """Packets of each source after many turns, all of them with endless work."""
    one = Bench(ring=64, chunks=512)
    apps = [Sender(one, batch=batch, entries=128) for _ in range(endpoints)]
    mixes = [Flow(one, i + 1, batch=batch) for i in range(flows)]
    for _ in range(turns):
        for app in apps:
            fill(app, b"e" * FRAME)
        one.step()
        for _ in range(completions):
            if fake.held(one.kernel):
                fake.complete(one.kernel, 0)
    counts = [app.counters().posted_descs for app in apps] + [mix.posted for mix in mixes]
    assert fake.taken(one.kernel) >= turns * min(completions, batch * len(counts)) * 0.95, (
        "and nothing is left idle"
    )
    finish(one, *apps)
    return counts


def are_fair(counts):
    return max(counts) <= 1.15 * min(counts)


@pytest.mark.parametrize(
    ("endpoints", "flows", "completions", "batch"),
    [
        (2, 2, 16, 16),
        (3, 3, 16, 16),
        (10, 1, 16, 16),
        (1, 10, 16, 16),
        (4, 0, 16, 16),
        (0, 4, 16, 16),
        (2, 2, 64, 16),
        (2, 2, 8, 16),
        (4, 0, 8, 16),
        (4, 0, 24, 16),
        (3, 3, 24, 16),
        (0, 10, 24, 16),
        (4, 0, 16, 64),
        (3, 3, 16, 64),
        (3, 3, 16, 1),
    ],
)
def test_everybody_with_endless_work_posts_as_much(endpoints, flows, completions, batch):
    counts = shares(endpoints, flows, completions, batch)
    assert are_fair(counts), counts


def test_a_paced_flow_keeps_its_rate_beside_endless_work():
    one = Bench(ring=64, chunks=512)
    app, greedy = Sender(one), Flow(one, 1)
    slow = Flow(one, 2, pace=paced(100_000))
    start = fake.now(one.kernel)
    for _ in range(3000):
        fill(app, b"e" * FRAME)
        one.step()
        complete_all(one)
    expected = (fake.now(one.kernel) - start) * 100_000 // SECOND
    assert slow.posted == pytest.approx(expected, abs=2 + expected * 0.02)
    assert greedy.posted > 10 * slow.posted
    finish(one, app)


def test_packets_of_several_descs_do_not_starve_behind_single_ones():
    one = Bench(ring=64, chunks=512)
    small, large = Sender(one, batch=16), Sender(one, batch=16, max_frame_bytes=9014)
    for _ in range(2000):
        fill(small, b"s" * FRAME)
        fill(large, b"l" * 9000)
        one.step()
        complete_all(one)
    posted = [app.counters().posted_descs for app in (small, large)]
    assert posted[1] > 0.5 * posted[0]
    finish(one, small, large)


def test_an_endpoints_packets_keep_their_order():
    one = Bench(ring=16, chunks=128)
    apps = [Sender(one, batch=3, entries=32) for _ in range(3)]
    Flow(one, 0xFF, batch=2)
    numbers, last, taken = [itertools.count() for _ in apps], [0] * 3, 0
    waiting = [next(n) for n in numbers]
    for _ in range(600):
        for i, app in enumerate(apps):
            while app.send(bytes([i]) * 14 + waiting[i].to_bytes(4, "big")) == 0:
                waiting[i] = next(numbers[i])
        one.step()
        for packet in held_packets(one, taken):
            if packet[0] != 0xFF:
                assert int.from_bytes(packet[14:], "big") == last[packet[0]]
                last[packet[0]] += 1
        taken = fake.taken(one.kernel)
        for _ in range(7):
            if fake.held(one.kernel):
                fake.complete(one.kernel, fake.held(one.kernel) // 2)
    assert sum(last) > 600
    finish(one, *apps)


# -- quotas -----------------------------------------------------------------------------------------------


def test_each_flow_has_its_own_quota(bench):
    one = bench(ring=64)
    flows = [Flow(one, 1, quota_frags=8), Flow(one, 2, quota_frags=8), Flow(one, 3, quota_frags=20)]
    one.step(20)
    assert [flow.inflight for flow in flows] == [8, 8, 20]
    for _ in range(300):
        for _ in range(5):
            fake.complete(one.kernel, 0)
        one.step()
        assert all(flow.inflight <= most for flow, most in zip(flows, (8, 8, 20), strict=True))
    one.step(3)
    assert [flow.inflight for flow in flows] == [8, 8, 20]
    assert one.counters.state == ffi.LOOP_RUNNING


def test_a_flow_at_its_quota_holds_up_nobody():
    one = Bench(ring=64, chunks=256)
    app = Sender(one)
    little = Flow(one, 1, quota_frags=4, batch=16)
    free = Flow(one, 2, batch=16)
    one.step(10)
    assert (little.inflight, free.inflight) == (4, 60)
    for _ in range(300):
        app.send(b"e" * FRAME)
        for _ in range(16):
            fake.complete(one.kernel, 0)
        one.step()
        assert little.inflight <= 4
    assert little.posted + free.posted + app.counters().posted_descs > 300 * 15
    assert free.posted > 10 * little.posted > 0
    assert app.counters().posted_descs > 290
    finish(one, app)


def test_what_a_stopped_flow_has_inflight_is_on_nobody_elses_account():
    one = Bench(ring=64)
    for number in range(1, 6):
        flow = Flow(one, number, quota_frags=8)
        one.step(3)
        assert flow.inflight == 8
        flow.stop()
        one.step()
        flow.destroy()
    finish(one)


def test_a_quota_smaller_than_its_packet_stops_only_its_own(bench):
    one = bench(ring=64)
    large, small = Flow(one, 1, length=5000, quota_frags=2), Flow(one, 2, quota_frags=2)
    fitting = Flow(one, 3, length=5000, quota_frags=3)
    one.step(10)
    assert (large.posted, small.posted, fitting.posted) == (0, 2, 1)


# -- stop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [None, paced(10**6)])
def test_a_stopped_flow_may_go_at_once_and_the_others_go_on(pace):
    one = Bench(ring=64, chunks=128)
    flows = [Flow(one, i + 1, batch=8, pace=pace) for i in range(4)]
    one.step(30)
    gone = flows.pop(1)
    assert gone.inflight > 0
    assert not native.mix_has_ended(gone.mix)
    gone.stop()
    one.step()
    assert native.mix_has_ended(gone.mix) == 1
    assert native.mix_error(gone.mix) == 0
    left = gone.inflight
    gone.destroy()
    before = [flow.posted for flow in flows]
    assert gone.inflight == left, "its packets are still the kernel's"
    for _ in range(300):
        complete_all(one)
        one.step()
    assert gone.inflight == 0
    assert all(flow.posted > then + 15 for flow, then in zip(flows, before, strict=True))
    assert (one.counters.active_flows, one.counters.finished_flows) == (3, 1)
    assert one.counters.error == ffi.ERROR_NONE
    finish(one)


def test_a_flow_that_changes_its_packets_is_stopped_and_its_memory_is_used_again():
    one = Bench(ring=64, chunks=32)
    for number in range(50):
        frame = bytes([number]) * 700
        flow = one.flow(frame, [ffi.Patch(offset=0, width=8, mask=2**64 - 1, step=1)])
        mix = one.start_mix([flow], [0], quota_frags=8 if number % 2 else 0)
        one.step(3)
        native.loop_command(one.loop, ffi.STOP_MIX, mix)
        one.step()
        assert native.mix_has_ended(mix) == 1
        one.mixes.remove(mix)
        native.mix_destroy(mix)
        assert all(one.packet(i)[8:] in {bytes([n]) * 692 for n in range(number + 1)} for i in range(8))
        for _ in range(fake.held(one.kernel) - 8):
            fake.complete(one.kernel, 0)
    finish(one)


def test_all_beside_each_other_stop_and_who_has_ended_does_not_mind(bench):
    one = bench(ring=64)
    first = one.start_mix([one.flow()], [0], command=False, count=3)
    last = one.start_mix([one.flow(b"\x03" * FRAME)], [0], beside=first)
    other = Flow(one, 4)
    one.step(5)
    assert native.mix_has_ended(last) == 0, "one of them has"
    native.loop_command(one.loop, ffi.STOP_MIX, last)
    native.loop_command(one.loop, ffi.STOP_MIX, last)
    one.step()
    assert native.mix_has_ended(last) == 1
    assert native.mix_has_ended(other.mix) == 0
    assert one.counters.finished_flows == 2


def test_a_stop_that_comes_after_the_end(bench):
    one = bench(ring=64)
    flow = Flow(one)
    one.drain()
    flow.stop()
    fake.policy(one.kernel, 1 << 30, 1)
    one.run()
    assert native.mix_has_ended(flow.mix) == 1


# -- pace -------------------------------------------------------------------------------------------------


def test_the_posted_count_follows_the_pace(bench):
    one = bench(ring=64)
    flow = Flow(one, pace=paced(100_000))
    for rate in (100_000, 400_000, 20_000, 250_000):
        flow.repace(rate)
        before = flow.posted
        run_for(one, 100 * MS)
        assert flow.posted - before == pytest.approx(rate // 10, abs=2)
    flow.repace(0)
    before = flow.posted
    run_for(one, MS)
    assert flow.posted - before > 10_000
    flow.repace(50_000)
    before = flow.posted
    run_for(one, 100 * MS)
    assert flow.posted - before == pytest.approx(5000, abs=2)


def test_only_the_one_that_is_meant(bench):
    one = bench(ring=64)
    flows = [Flow(one, i + 1, pace=paced(100_000)) for i in range(3)]
    run_for(one, 10 * MS)
    before = [flow.posted for flow in flows]
    flows[1].repace(300_000)
    run_for(one, 100 * MS)
    assert [flow.posted - b for flow, b in zip(flows, before, strict=True)] == [
        pytest.approx(n, rel=0.01) for n in (10_000, 30_000, 10_000)
    ]


def test_a_pause_that_was_slow_is_not_made_up_for(bench):
    """From a packet in ten seconds to a thousand a second: at once, and from now on."""
    one = bench(ring=64)
    flow = Flow(one, pace=paced(1, 10 * SECOND))
    run_for(one, 3 * SECOND)
    assert flow.posted == 1
    flow.repace(1000)
    run_for(one, 100 * MS)
    assert flow.posted == pytest.approx(101, abs=2)


def test_who_has_ended_is_paced_no_more(bench):
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    flow = Flow(one, count=3)
    one.step(5)
    assert native.mix_has_ended(flow.mix) == 1
    flow.repace(1000)
    assert flow.posted == 3


def test_a_count_is_kept_over_changes_of_pace(bench):
    one = bench(ring=64)
    fake.policy(one.kernel, 1 << 30, 1)
    flow = Flow(one, count=500, pace=paced(100_000))
    run_for(one, MS)
    flow.repace(0)
    run_for(one, MS)
    assert flow.posted == 500
    assert native.mix_has_ended(flow.mix) == 1


# -- what cannot start ------------------------------------------------------------------------------------


def test_a_flow_without_memory_leaves_the_others_alone():
    one = Bench(ring=16, chunks=32)
    app, running = Sender(one, quota=16), Flow(one, 1)
    one.step()
    span = app.alloc(16, 2000)
    most = [one.start_mix([one.flow(b"m" * 30_000)], [0], quota_frags=1)]
    refused = Flow(one, 2, length=20_000)
    one.step(2)
    assert native.mix_has_ended(refused.mix) == 1
    assert native.mix_error(refused.mix) == errno.ENOMEM
    before = running.posted
    for _ in range(50):
        complete_all(one)
        one.step()
    assert running.posted > before + 100
    assert native.mix_error(running.mix) == 0
    assert Counter(one.packet(i)[0] for i in range(fake.held(one.kernel))).keys() <= {1}
    for i in range(16):
        app.release(span[0] + i * span[1])
    native.arena_park(app.arena)
    again = Flow(one, 3, length=20_000)
    one.step()
    assert [native.mix_error(mix) for mix in (*most, again.mix)] == [0, 0]
    finish(one, app)

/* SPDX-License-Identifier: MIT */
/*
 * idle.c - time: the clock, how the loop rests when nothing moved, and how others wake it. No work and
 * nothing inflight: asleep on the wake eventfd. Inflight without progress: 1 to 50 us, doubling. Before a
 * paced packet: asleep until the last 60 to 200 us, which are spun.
 */
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"
#include "tcp/tcp.h"

/* A paced packet is awaited awake for as long as sleeps have lately been late, within these bounds. Lower: late by the
 * scheduler's wake-up latency (50 us here, more where the hypervisor has the core); higher: burns the core. */
#define SPIN_MIN_NS (60 * NSEC_PER_USEC)
#define SPIN_MAX_NS (200 * NSEC_PER_USEC)
/* What was late once counts less with every sleep that is not: half after some 700. */
#define SPIN_DECAY 1024u

/* Back-off while inflight and nothing moves. Lower than 1 us is not slept; higher than 50 us would let the
 * completion ring fill up at 20 Mpps (2048 entries in 100 us). */
#define BACKOFF_MIN_NS (1 * NSEC_PER_USEC)
#define BACKOFF_MAX_NS (50 * NSEC_PER_USEC)

/* Nothing to do for so long: memory goes back to the pool (DESIGN: an idle owner owns nothing). */
#define IDLE_PARK_NS (10 * NSEC_PER_MSEC)

/* Awake for so long after the last segment that came. Lower: asleep between the ACKs of a fast stream, and each pays for
 * waking us; higher: takes time from who answers where they share a core. As SPIN_NS of receive.c. */
#define TCP_SPIN_NS (20 * NSEC_PER_USEC)

/* While connections are waited for, and a deadline with them: what a turn counts for it is bounded (loop.c). Lower: awake for
 * nothing; higher: the end comes so much later than it was wanted. */
#define DRAIN_SLEEP_NS (10 * NSEC_PER_MSEC)

/* Connections that wait for their peers hear so late that the device is gone: it wakes nobody. Lower: awake for nothing;
 * higher: they hear it later. */
#define DEVICE_LOOK_NS (500 * NSEC_PER_MSEC)

/* Nobody needs it; a bound on every wait all the same. */
#define IDLE_SLEEP_NS (10 * NSEC_PER_SEC)

static uint64_t real_now(void *ctx)
{
	struct timespec t;

	(void)ctx;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static void real_sleep(void *ctx, uint64_t ns)
{
	const struct xske_loop *l = ctx;
	struct pollfd alone = {.fd = l->config.wake_fd, .events = POLLIN},
	              *fds = l->tcp ? l->tcp->fds : &alone;
	uint32_t n = l->tcp ? l->tcp->config.queue_count + 1 : 1;
	struct timespec t = {.tv_sec = (time_t)(ns / NSEC_PER_SEC), .tv_nsec = (long)(ns % NSEC_PER_SEC)};
	uint64_t drop;

	if (ppoll(fds, n, &t, NULL) <= 0)
		return;
	for (uint32_t i = 1; i < n; i++) /* a device that is gone wakes nobody again */
		if (fds[i].revents & (POLLERR | POLLHUP | POLLNVAL))
			fds[i].fd = -1;
	if (fds[0].revents && read(fds[0].fd, &drop, sizeof(drop)) < 0)
		return; /* somebody else emptied it: awake all the same */
}

void loop_wake(struct xske_loop *l)
{
	const uint64_t one = 1;

	/* seq_cst, store (the work) then load: pairs with doze(), which stores `sleeping` and then looks for
	 * work. One of the two sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&l->sleeping, memory_order_relaxed) ||
	    !atomic_exchange_explicit(&l->sleeping, 0, memory_order_relaxed)) /* somebody has woken it */
		return;
	if (write(l->config.wake_fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: it is awake already */
}

/* What submits wait for is the link or a completion, and there is a look after each of their short sleeps. */
static bool is_blocked(const struct xske_loop *l)
{
	return l->down_since_ns || l->backlog || l->served || (txq_inflight(l->txq) && !txq_room(l->txq, 1));
}

static bool has_mail(struct xske_loop *l)
{
	uint32_t first;

	return spsc_ready(&l->commands, &first) || (!is_blocked(l) && endpoints_have_work(l)) ||
	       tcps_have_mail(l) || atomic_load_explicit(&l->aborted, memory_order_relaxed);
}

static void doze(struct xske_loop *l, uint64_t ns)
{
	atomic_store_explicit(&l->sleeping, 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst); /* see loop_wake() */
	if (!has_mail(l))
		l->config.clock.sleep_ns(l->config.clock.ctx, ns);
	atomic_store_explicit(&l->sleeping, 0, memory_order_relaxed);
}

bool loop_has_work(const struct xske_loop *l)
{
	return l->mixes.count || endpoints_have_work(l) || tcps_have_work(l) || txq_inflight(l->txq);
}

void loop_park(struct xske_loop *l)
{
	xske_arena_park(l->arena);
	l->parked = endpoints_park(l);
}

void COLD loop_collect(struct xske_loop *l)
{
	if (l->now_ns - l->collected_ns < IDLE_PARK_NS)
		return;
	l->collected_ns = l->now_ns;
	endpoints_park(l);
}

/* Nothing moves: has it let the kernel alone for long enough? Asleep it has; it may be awake, before a paced packet. */
bool loop_may_kick(const struct xske_loop *l)
{
	return l->sleep_ns <= BACKOFF_MIN_NS || l->now_ns - l->kicked_ns >= l->sleep_ns / 2;
}

/* Inflight, and at rest for the longest time again and again; or stuck, which only a kick ends. */
bool loop_backed_off(const struct xske_loop *l)
{
	return loop_may_kick(l) &&
	       (txq_inflight(l->txq) ? l->sleep_ns >= BACKOFF_MAX_NS : txq_is_stuck(l->txq));
}

void loop_set_clock(struct xske_loop *l)
{
	l->spin_ns = SPIN_MIN_NS;
	if (!l->config.clock.now_ns)
		l->config.clock = (struct xske_clock){.now_ns = real_now, .sleep_ns = real_sleep, .ctx = l};
}

/* Something moved in this turn. */
void loop_moved(struct xske_loop *l)
{
	l->sleep_ns = BACKOFF_MIN_NS;
	l->idle_since_ns = 0;
	l->parked = false;
}

/* Asleep until it is time to be awake for a packet. */
static void doze_before_packet(struct xske_loop *l, uint64_t ns)
{
	uint64_t wanted = l->now_ns + ns, now;

	doze(l, ns);
	now = l->config.clock.now_ns(l->config.clock.ctx);
	if (now > wanted + l->spin_ns)
		l->spin_ns = min_u64(now - wanted, SPIN_MAX_NS);
	else
		l->spin_ns -= (l->spin_ns - SPIN_MIN_NS) / SPIN_DECAY;
}

/* What peers answer comes soon after what was sent. */
static bool awaits_answers(const struct xske_loop *l)
{
	return l->tcp && !l->config.clock.virtual_time && l->now_ns - l->tcp->active_ns < TCP_SPIN_NS;
}

/* Nothing moved in this turn: how long may we be away? */
void loop_rest(struct xske_loop *l)
{
	uint64_t now = l->now_ns, spin = l->config.clock.virtual_time ? 0 : l->spin_ns, next, ns;
	uint64_t timer = tcps_next_ns(l), until_timer = timer > now ? timer - now : 0;

	if (l->down_since_ns) {
		doze(l, min_u64(until_timer, l->probe_ns > now ? l->probe_ns - now : 0));
		return;
	}
	if (awaits_answers(l))
		return;
	if (!loop_has_work(l)) {
		if (!l->idle_since_ns)
			l->idle_since_ns = now;
		/* Again after every sleep: an application may have allocated and not sent. */
		if (now - l->idle_since_ns >= IDLE_PARK_NS)
			loop_park(l);
		ns = l->parked ? IDLE_SLEEP_NS : IDLE_PARK_NS;
		if (l->tcp && l->tcp->conns) {
			ns = min_u64(ns, DEVICE_LOOK_NS);
			if (now - l->kicked_ns >= DEVICE_LOOK_NS)
				loop_look(l);
		}
		if (l->state == XSKE_LOOP_DRAINING)
			ns = DRAIN_SLEEP_NS;
		else if (l->state >= XSKE_LOOP_STOPPED)
			return;
		doze(l, min_u64(until_timer, ns));
		return;
	}
	next = min_u64(mixes_next_ns(l), timer > now ? timer : now);
	if (l->outlet.starved || l->outlet.waits || l->backlog || tcps_have_work(l))
		next = now; /* for completions, room, or the capture's reader */
	if (txq_inflight(l->txq) || next == now) {
		ns = l->sleep_ns;
		l->sleep_ns = min_u64(2 * ns, BACKOFF_MAX_NS);
		/* A flow that is due and had no room waits for completions as well. */
		if (next > now)
			ns = min_u64(ns, next > now + spin ? next - now - spin : 0);
		if (ns)
			doze(l, ns);
	} else if (next > now + spin) {
		doze_before_packet(l, next - now - spin);
	}
}

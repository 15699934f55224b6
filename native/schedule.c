/* SPDX-License-Identifier: MIT */
/* schedule.c - the mixes of a loop, in a heap by when they are due: ten thousand flows with rates of their own cost no more
 * than those of them that are due. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "loop.h"

/* The leap seconds and what NTP does to the clocks reach the stamps within this time. */
#define TAI_REFRESH_NS NSEC_PER_SEC

static void sift_down(struct schedule *s, uint32_t at)
{
	struct xske_mix *m = s->heap[at];

	for (uint32_t child; (child = 2 * at + 1) < s->count; at = child) {
		if (child + 1 < s->count && s->heap[child + 1]->due_ns < s->heap[child]->due_ns)
			child++;
		if (s->heap[child]->due_ns >= m->due_ns)
			break;
		s->heap[at] = s->heap[child];
	}
	s->heap[at] = m;
}

static void reorder(struct schedule *s)
{
	for (uint32_t i = s->count / 2; i-- > 0;)
		sift_down(s, i);
}

static int reserve(struct schedule *s, const struct xske_mix *m)
{
	struct xske_mix **heap;
	uint32_t n = s->count;

	for (; m; m = m->beside)
		n++;
	heap = realloc(s->heap, n * sizeof(struct xske_mix *));
	if (!heap)
		return -1;
	s->heap = heap;
	return 0;
}

static void refuse_one(struct xske_loop *l, struct xske_mix *m, int error)
{
	l->finished_flows += mix_sources(m);
	l->signal = true;
	m->error = error;
	atomic_store_explicit(&m->ended, 1, memory_order_release);
}

static void refuse(struct xske_loop *l, struct xske_mix *m, int error)
{
	for (struct xske_mix *beside; m; m = beside) {
		beside = m->beside;
		refuse_one(l, m, error);
	}
}

/* Looks at both clocks until they are close together: whoever loses the core in between would say that packets are sent
 * later than they arrive. */
static void refresh_tai(struct xske_loop *l)
{
	const struct xske_clock *clock = &l->config.clock;
	uint64_t best_ns = UINT64_MAX;

	if (clock->virtual_time) /* stamps are the same in every run */
		return;
	for (int tries = 0; tries < 8 && best_ns > NSEC_PER_USEC; tries++) {
		uint64_t before = clock->now_ns(clock->ctx), after;
		struct timespec t;

		clock_gettime(CLOCK_TAI, &t);
		after = clock->now_ns(clock->ctx);
		if (after - before >= best_ns)
			continue;
		best_ns = after - before;
		l->tai_offset_ns = (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec - after;
	}
	l->tai_refreshed_ns = l->now_ns;
}

/* Now; while the link is down, since when: that time does not count, and link_up() shifts what has begun meanwhile. */
static uint64_t counted_ns(const struct xske_loop *l)
{
	return l->down_since_ns ? l->down_since_ns : l->now_ns;
}

void mixes_start(struct xske_loop *l, struct xske_mix *m)
{
	struct xske_mix *beside;

	if (l->state != XSKE_LOOP_RUNNING) {
		refuse(l, m, 0);
		return;
	}
	if (reserve(&l->mixes, m)) {
		refuse(l, m, ENOMEM);
		return;
	}
	refresh_tai(l);
	for (; m; m = beside) {
		int err = mix_load(m, l->txq, counted_ns(l));

		beside = m->beside; /* once the last has ended they may be gone */
		if (err) {
			refuse_one(l, m, err == -EAGAIN ? ENOMEM : -err);
			continue;
		}
		for (uint32_t i = 0; l->config.gaps && i < m->flow_count; i++)
			if (m->flows[i]->timestamp)
				l->txq->gaps = l->config.gaps;
		m->due_ns = l->now_ns;
		l->active_flows += mix_sources(m);
		l->mixes.heap[l->mixes.count++] = m;
	}
	reorder(&l->mixes);
}

static void end(struct xske_loop *l, struct xske_mix *m)
{
	mix_unload(m, l->txq);
	l->active_flows -= mix_sources(m);
	l->finished_flows += mix_sources(m);
	l->signal = true;
	/* Release: now it may be destroyed. */
	atomic_store_explicit(&m->ended, 1, memory_order_release);
}

static void end_first(struct xske_loop *l)
{
	struct xske_mix *m = l->mixes.heap[0];

	l->mixes.heap[0] = l->mixes.heap[--l->mixes.count];
	if (l->mixes.count)
		sift_down(&l->mixes, 0);
	end(l, m);
}

void mixes_stop(struct xske_loop *l, struct xske_mix *m)
{
	struct xske_mix *beside;

	for (; m; m = beside) {
		uint32_t at = 0;

		beside = m->beside; /* once the last has ended they may be gone */
		while (at < l->mixes.count && l->mixes.heap[at] != m)
			at++;
		if (at == l->mixes.count)
			continue; /* it has ended by itself */
		l->mixes.heap[at] = l->mixes.heap[--l->mixes.count];
		end(l, m);
	}
	reorder(&l->mixes);
}

void mixes_repace(struct xske_loop *l, struct xske_repace *repace)
{
	for (uint32_t i = 0; i < l->mixes.count; i++) {
		if (l->mixes.heap[i] != repace->mix)
			continue;
		pace_change(&repace->mix->pace, &repace->pace, counted_ns(l));
		repace->mix->quiet_since_ns = counted_ns(l);
		repace->mix->due_ns = l->now_ns;
		repace->mix->has_gap = false; /* the one between the two was asked by neither */
	}
	reorder(&l->mixes);
	__atomic_store_n(&repace->done, 1, __ATOMIC_RELEASE);
}

static void forget_update(struct xske_loop *l)
{
	struct xske_update *update = l->update;

	l->update = update->next; /* once it is done it may be gone */
	l->updated = 0;
	__atomic_store_n(&update->done, 1, __ATOMIC_RELEASE);
}

void mixes_end(struct xske_loop *l)
{
	while (l->mixes.count)
		end_first(l);
	while (l->update)
		forget_update(l);
}

void mixes_update(struct xske_loop *l, struct xske_update *update)
{
	struct xske_update **at = &l->update;

	if (l->state != XSKE_LOOP_RUNNING) {
		__atomic_store_n(&update->done, 1, __ATOMIC_RELEASE);
		return;
	}
	while (*at)
		at = &(*at)->next;
	update->next = NULL;
	*at = update;
}

/* A flow's template is written only while nobody reads it. No mix posts meanwhile, so that comes, whatever endpoints and
 * connections have inflight. */
static bool apply_update(struct xske_loop *l)
{
	for (; l->update; forget_update(l))
		for (; l->updated < l->update->flow_count; l->updated++) {
			struct xske_flow *f = l->update->flows[l->updated];

			if (f->loaded && flow_is_inflight(f, l->arena))
				return false;
			if (f->loaded)
				flow_update(f, l->arena, l->update);
		}
	return true;
}

bool mixes_run(struct xske_loop *l, uint32_t limit, uint32_t *total)
{
	struct outlet *o = &l->outlet;
	uint32_t posted = 0;

	o->starved = o->waits = o->limited = false;
	o->now_ns = l->now_ns;
	o->counted_ns = counted_ns(l);
	if (unlikely(l->now_ns - l->tai_refreshed_ns > TAI_REFRESH_NS))
		refresh_tai(l);
	o->tai_ns = l->now_ns + l->tai_offset_ns;
	if (unlikely(l->update != NULL) && !apply_update(l))
		return true;
	if (!l->mixes_left)
		l->mixes_left = l->mixes.count;
	while (l->mixes.count && l->mixes_left && !o->starved && !o->waits) {
		struct xske_mix *m = l->mixes.heap[0];

		if (m->due_ns > l->now_ns)
			break;
		if (posted < limit && !mix_is_over(m, o->counted_ns)) {
			uint32_t n;

			m->turn_left = m->turn_left ? m->turn_left : m->batch;
			n = mix_run(m, o, min_u32(limit - posted, m->turn_left));
			m->turn_left -= n;
			posted += n;
		}
		if (mix_is_over(m, o->counted_ns)) {
			end_first(l);
			continue;
		}
		/* Out of room, not of chunks: the rest of its turn is still to come. */
		if (posted >= limit || (o->starved && txq_room(o->q, m->max_descs) < m->max_descs))
			break;
		m->turn_left = 0;
		m->due_ns = mix_next_ns(m);
		if (m->due_ns <= l->now_ns)
			m->due_ns = l->now_ns + 1; /* once a turn: the others' turn first */
		sift_down(&l->mixes, 0);
		l->mixes_left--;
	}
	l->backpressure += o->starved | o->limited;
	if (unlikely(o->starved) && txq_room(o->q, 1))
		loop_collect(l);
	*total += posted;
	if (!o->starved)
		l->mixes_left = 0;
	return !l->mixes_left;
}

uint64_t mixes_next_ns(const struct xske_loop *l)
{
	return l->mixes.count ? l->mixes.heap[0]->due_ns : UINT64_MAX;
}

void mixes_shift(struct xske_loop *l, uint64_t ns)
{
	for (uint32_t i = 0; i < l->mixes.count; i++) {
		mix_shift(l->mixes.heap[i], ns, l->now_ns);
		l->mixes.heap[i]->due_ns = mix_next_ns(l->mixes.heap[i]);
	}
	reorder(&l->mixes);
}

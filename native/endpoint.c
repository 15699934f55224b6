/* SPDX-License-Identifier: MIT */
/*
 * endpoint.c - the submit rings. An endpoint with fresh work puts itself on the loop's pending list (a CAS
 * stack, taken whole by the loop), so the loop never looks at idle ones. `queued` is 1 while it stands on
 * the pending list or on the loop's own backlog.
 */
#include <errno.h>

#include "loop.h"

int xske_endpoint_create(struct xske_loop *loop, struct xske_arena *arena, uint32_t entries,
                         struct xske_endpoint **out)
{
	struct xske_endpoint *e;

	if (!entries || entries & (entries - 1) || arena->umem != loop->txq->umem ||
	    arena->txq_id != loop->txq->id)
		return -EINVAL;
	e = aligned_alloc(XSKE_CACHE_LINE, sizeof(*e));
	if (!e)
		return -ENOMEM;
	memset(e, 0, sizeof(*e));
	e->loop = loop;
	e->arena = arena;
	if (!spsc_init(&e->submits, entries)) {
		free(e);
		return -ENOMEM;
	}
	*out = e;
	return 0;
}

/* What was submitted and never posted. */
static void drop_submits(struct xske_endpoint *e, struct xske_arena *self)
{
	uint32_t first, ready = spsc_ready(&e->submits, &first);

	for (uint32_t i = 0; i < ready; i++) {
		const struct xske_desc *d = &e->submits.slots[(first + i) & e->submits.mask];

		frag_unref(self, chunk_of(e->arena->umem, d->addr));
	}
	spsc_pop(&e->submits, ready);
}

void xske_endpoint_destroy(struct xske_endpoint *e)
{
	if (!e)
		return;
	drop_submits(e, NULL); /* a submit that crossed the loop's end */
	free(e->submits.slots);
	free(e);
}

int xske_endpoint_state(const struct xske_endpoint *e)
{
	return (int)atomic_load_explicit(&e->state, memory_order_acquire);
}

/* Everything the kernel would call invalid is refused here, before the loop trusts it. */
static bool descs_are_valid(const struct xske_endpoint *e, const struct xske_desc *descs, uint32_t n)
{
	const struct xske_umem *umem = e->arena->umem;
	uint32_t in_packet = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct xske_desc *d = &descs[i];
		const struct chunk *c;

		if (!chunk_holds_desc(umem, d->addr, d->len) || d->options & ~XSKE_DESC_CONTD)
			return false;
		c = chunk_of(umem, d->addr);
		if (!atomic_load_explicit(&c->refs, memory_order_relaxed) || c->txq_id != e->arena->txq_id)
			return false;
		if (++in_packet > XSKE_MAX_DESCS_PER_PACKET)
			return false;
		if (!(d->options & XSKE_DESC_CONTD))
			in_packet = 0;
	}
	return n && !in_packet;
}

static void queue(struct xske_loop *l, struct xske_endpoint *e)
{
	struct xske_endpoint *head;

	/* Acq_rel: pairs with endpoints_post(), which clears it before it looks into the ring. */
	if (atomic_exchange_explicit(&e->queued, 1, memory_order_acq_rel))
		return;
	head = atomic_load_explicit(&l->pending, memory_order_relaxed);
	do {
		e->next_pending = head;
	} while (!atomic_compare_exchange_weak_explicit(&l->pending, &head, e, memory_order_release,
	                                                memory_order_relaxed));
}

int xske_endpoint_submit(struct xske_endpoint *e, const struct xske_desc *descs, uint32_t n)
{
	if (!descs_are_valid(e, descs, n))
		return -EINVAL;
	if (xske_endpoint_state(e) == XSKE_ENDPOINT_REMOVED ||
	    atomic_load_explicit(&e->loop->ended, memory_order_acquire))
		return -EPIPE;
	if (!spsc_push(&e->submits, descs, n))
		return -EAGAIN;
	queue(e->loop, e);
	loop_wake(e->loop);
	return 0;
}

/* The first packet of the ring, or 0 descs when there is none whole. */
static uint32_t next_packet(const struct spsc *s, uint32_t first, uint32_t ready, uint32_t *bytes)
{
	*bytes = 0;
	for (uint32_t i = 0; i < ready; i++) {
		const struct xske_desc *d = &s->slots[(first + i) & s->mask];

		*bytes += d->len;
		if (!(d->options & XSKE_DESC_CONTD))
			return i + 1;
	}
	return 0;
}

/* True when work is left that found no room. */
static bool post_from(struct xske_txq *q, struct xske_endpoint *e, uint32_t *posted)
{
	uint32_t bytes, first, n, ready = spsc_ready(&e->submits, &first);

	while ((n = next_packet(&e->submits, first, ready, &bytes))) {
		if (txq_room(q, n) < n)
			return true;
		for (uint32_t i = 0; i < n; i++) {
			const struct xske_desc *d = &e->submits.slots[(first + i) & e->submits.mask];

			txq_take(q, chunk_of(q->umem, d->addr));
			txq_fill(q, d->addr, d->len, d->options);
		}
		txq_log(q, bytes, n, 1);
		spsc_pop(&e->submits, n);
		first += n;
		ready -= n;
		++*posted;
	}
	return false;
}

uint32_t endpoints_post(struct xske_loop *l)
{
	struct xske_endpoint *e = l->backlog, *next;
	uint32_t posted = 0;

	if (!e) {
		if (!atomic_load_explicit(&l->pending, memory_order_relaxed))
			return 0;
		e = atomic_exchange_explicit(&l->pending, NULL, memory_order_acquire);
	}
	l->backlog = NULL;
	for (; e; e = next) {
		next = e->next_pending;
		atomic_exchange_explicit(&e->queued, 0, memory_order_acq_rel);
		if (!post_from(l->txq, e, &posted))
			continue;
		/* No room. It and those behind it wait here, in order; unless its thread has just queued it. */
		if (!atomic_exchange_explicit(&e->queued, 1, memory_order_acq_rel)) {
			e->next_pending = next;
			l->backlog = e;
		} else {
			l->backlog = next;
		}
		break;
	}
	return posted;
}

bool endpoints_have_work(const struct xske_loop *l)
{
	return l->backlog || atomic_load_explicit(&l->pending, memory_order_seq_cst);
}

void endpoint_add(struct xske_loop *l, struct xske_endpoint *e)
{
	e->next = l->endpoints;
	l->endpoints = e;
	atomic_store_explicit(&e->state, XSKE_ENDPOINT_ADDED, memory_order_release);
}

static void forget_pending(struct xske_loop *l, struct xske_endpoint *e)
{
	struct xske_endpoint **at = &l->backlog;

	/* Fresh ones go behind the backlog, so that one list is left to search. */
	while (*at)
		at = &(*at)->next_pending;
	*at = atomic_exchange_explicit(&l->pending, NULL, memory_order_acquire);
	for (at = &l->backlog; *at; at = &(*at)->next_pending) {
		if (*at == e) {
			*at = e->next_pending;
			break;
		}
	}
}

void endpoint_remove(struct xske_loop *l, struct xske_endpoint *e)
{
	struct xske_endpoint **at = &l->endpoints;

	while (*at && *at != e)
		at = &(*at)->next;
	if (!*at)
		return;
	*at = e->next;
	forget_pending(l, e);
	drop_submits(e, l->arena);
	atomic_store_explicit(&e->state, XSKE_ENDPOINT_REMOVED, memory_order_release);
	l->signal = true;
}

/* Nobody has work: what idle endpoints own goes back to the pool. False when one is just being used. */
bool endpoints_park(struct xske_loop *l)
{
	bool all = true;

	for (struct xske_endpoint *e = l->endpoints; e; e = e->next) {
		all &= arena_park_if_idle(e->arena);
	}
	return all;
}

/* SPDX-License-Identifier: MIT */
/*
 * endpoint.c - the submit rings. An endpoint with fresh work puts itself on the loop's pending list (a CAS
 * stack, taken whole by the loop), so the loop never looks at idle ones. `queued` is 1 while it stands on
 * the pending list or on one of the loop's own. The loop goes round: nobody has a second turn before everybody has had
 * one, also when room runs out in between.
 */
#include <errno.h>

#include "loop.h"
#include "tracker.h"

int xske_endpoint_create(struct xske_loop *loop, const struct xske_endpoint_config *config,
                         struct xske_endpoint **out)
{
	uint32_t entries = config->entries;
	struct xske_arena *arena = config->arena;
	struct xske_endpoint *e;

	if (entries < 2 || entries & (entries - 1) || arena->umem != loop->txq->umem ||
	    arena->txq_id != loop->txq->id || !config->batch || !config->max_frame_bytes ||
	    config->flags & ~XSKE_ENDPOINT_TIMESTAMPS)
		return -EINVAL;
	if (config->flags & XSKE_ENDPOINT_TIMESTAMPS && arena->umem->metadata_len != XSKE_TX_METADATA_BYTES)
		return -EINVAL;
	e = aligned_alloc(XSKE_CACHE_LINE, sizeof(*e));
	if (!e)
		return -ENOMEM;
	memset(e, 0, sizeof(*e));
	e->loop = loop;
	e->arena = arena;
	e->max_frame_bytes = config->max_frame_bytes;
	e->flags = config->flags;
	e->batch = config->batch;
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

	if (e->watches_left)
		watches_lose(e->watch, e->watches_left);
	e->watches_left = 0;
	for (uint32_t i = 0; i < ready; i++) {
		const struct xske_desc *d = &e->submits.slots[(first + i) & e->submits.mask];

		if (d->options & DESC_WATCHES)
			watches_lose((struct watch *)(uintptr_t)d->addr, d->len);
		else
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
	e->submits.slots = NULL;
	atomic_store_explicit(&e->state, XSKE_ENDPOINT_REMOVED, memory_order_release);
	e->grave = (struct grave){.free = free, .object = e};
	graveyard_bury(&e->loop->dead, &e->loop->txq->umem->lock, &e->grave);
}

int xske_endpoint_state(const struct xske_endpoint *e)
{
	return (int)atomic_load_explicit(&e->state, memory_order_acquire);
}

bool endpoint_is_open(const struct xske_endpoint *e)
{
	return xske_endpoint_state(e) != XSKE_ENDPOINT_REMOVED &&
	       !atomic_load_explicit(&e->loop->ended, memory_order_acquire);
}

bool endpoint_may_post(const struct xske_endpoint *e, uint64_t addr, uint32_t len)
{
	const struct xske_umem *umem = e->arena->umem;
	const struct chunk *c;

	if (!chunk_holds_desc(umem, addr, len))
		return false;
	c = chunk_of(umem, addr);
	return atomic_load_explicit(&c->refs, memory_order_relaxed) && chunk_arena(c) == e->arena;
}

/* Everything the kernel would call invalid is refused here, before the loop trusts it. */
static bool descs_are_valid(const struct xske_endpoint *e, const struct xske_desc *descs, uint32_t n)
{
	uint32_t in_packet = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (descs[i].options & ~XSKE_DESC_CONTD || !endpoint_may_post(e, descs[i].addr, descs[i].len))
			return false;
		if (++in_packet > XSKE_MAX_DESCS_PER_PACKET)
			return false;
		if (!(descs[i].options & XSKE_DESC_CONTD))
			in_packet = 0;
	}
	return n && !in_packet;
}

void endpoint_hand_over(struct xske_endpoint *e)
{
	struct xske_loop *l = e->loop;
	struct xske_endpoint *head;

	/* Acq_rel: pairs with endpoints_post(), which clears it before it looks into the ring. */
	if (!atomic_exchange_explicit(&e->queued, 1, memory_order_acq_rel)) {
		head = atomic_load_explicit(&l->pending, memory_order_relaxed);
		do {
			e->next_pending = head;
		} while (!atomic_compare_exchange_weak_explicit(&l->pending, &head, e, memory_order_release,
		                                                memory_order_relaxed));
	}
	loop_wake(l);
}

void endpoint_count(struct xske_endpoint *e, uint32_t packets, uint32_t descs, uint64_t bytes)
{
	atomic_store_explicit(&e->submitted_packets, e->submitted_packets + packets, memory_order_relaxed);
	atomic_store_explicit(&e->submitted_bytes, e->submitted_bytes + bytes, memory_order_relaxed);
	atomic_store_explicit(&e->submitted_descs, e->submitted_descs + descs, memory_order_relaxed);
}

int xske_endpoint_submit(struct xske_endpoint *e, const struct xske_desc *descs, uint32_t n)
{
	uint32_t packets = 0;
	uint64_t bytes = 0;

	if (!descs_are_valid(e, descs, n))
		return -EINVAL;
	if (!endpoint_is_open(e))
		return -EPIPE;
	if (!spsc_push(&e->submits, descs, n))
		return -EAGAIN;
	for (uint32_t i = 0; i < n; i++) {
		packets += !(descs[i].options & XSKE_DESC_CONTD);
		bytes += descs[i].len;
	}
	endpoint_count(e, packets, n, bytes);
	endpoint_hand_over(e);
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

static void post_desc(struct xske_txq *q, struct xske_endpoint *e, const struct xske_desc *d)
{
	struct chunk *c = chunk_of(q->umem, d->addr);

	if (unlikely(e->watches_left)) {
		txq_watch(q, c, e->watch++);
		e->watches_left--;
	}
	txq_take(q, c);
	txq_fill(q, d->addr, d->len, d->options);
}

/* Watches for the descs behind them. */
static bool take_watches(struct xske_endpoint *e, const struct xske_desc *d)
{
	if (likely(!(d->options & DESC_WATCHES)))
		return false;
	e->watch = (struct watch *)(uintptr_t)d->addr;
	e->watches_left = d->len;
	return true;
}

enum turn { TURN_EMPTY, TURN_MORE, TURN_NO_ROOM };

/* Up to `most` packets from its ring. */
static enum turn post_from(struct xske_txq *q, struct xske_endpoint *e, uint32_t most, uint32_t *posted)
{
	uint32_t bytes, first, n, descs = 0, packets = 0, ready = spsc_ready(&e->submits, &first);
	enum turn turn = TURN_EMPTY;
	struct spsc *s = &e->submits;

	while (ready) {
		if (take_watches(e, &s->slots[first & s->mask])) {
			spsc_pop(s, 1);
			first++;
			ready--;
			continue;
		}
		n = next_packet(s, first, ready, &bytes);
		if (!n)
			break;
		turn = packets == most ? TURN_MORE : txq_room(q, n) < n ? TURN_NO_ROOM : TURN_EMPTY;
		if (turn != TURN_EMPTY)
			break;
		for (uint32_t i = 0; i < n; i++)
			post_desc(q, e, &s->slots[(first + i) & s->mask]);
		txq_log(q, bytes, n, 1);
		spsc_pop(s, n);
		first += n;
		ready -= n;
		descs += n;
		packets++;
	}
	*posted += packets;
	if (descs) {
		struct xske_arena *a = e->arena;

		/* Store, then look who waits for room: pairs with xske_arena_await(). */
		atomic_store_explicit(&a->posted_descs, a->posted_descs + descs, memory_order_seq_cst);
		q->owner_waits |= arena_waits(a);
	}
	return turn;
}

/* Those that are new, in the order in which they came, behind those that have had their turn. */
static void begin_round(struct xske_loop *l)
{
	struct xske_endpoint *e = NULL, *next, *in_order = NULL;

	if (atomic_load_explicit(&l->pending, memory_order_relaxed))
		e = atomic_exchange_explicit(&l->pending, NULL, memory_order_acquire);
	for (; e; e = next) {
		next = e->next_pending;
		e->next_pending = in_order;
		in_order = e;
	}
	*l->served_end = in_order;
	l->backlog = l->served;
	l->served = NULL;
	l->served_end = &l->served;
}

bool endpoints_post(struct xske_loop *l, uint32_t limit, uint32_t *posted)
{
	if (!l->backlog)
		begin_round(l);
	while (l->backlog) {
		struct xske_endpoint *e = l->backlog;
		uint32_t before = *posted;
		enum turn turn;

		l->backlog = e->next_pending;
		atomic_exchange_explicit(&e->queued, 0, memory_order_acq_rel);
		e->turn_left = e->turn_left ? e->turn_left : e->batch;
		turn = post_from(l->txq, e, min_u32(e->turn_left, limit), posted);
		e->turn_left = turn == TURN_NO_ROOM ? e->turn_left - (*posted - before) : 0;
		/* With more to do it waits here for its next turn, unless its thread has just queued it. */
		if (turn != TURN_EMPTY && !atomic_exchange_explicit(&e->queued, 1, memory_order_acq_rel)) {
			if (turn == TURN_NO_ROOM) {
				e->next_pending = l->backlog;
				l->backlog = e;
			} else {
				e->next_pending = NULL;
				*l->served_end = e;
				l->served_end = &e->next_pending;
			}
		}
		if (turn == TURN_NO_ROOM)
			return false;
	}
	return true;
}

bool endpoints_have_work(const struct xske_loop *l)
{
	return l->backlog || l->served || atomic_load_explicit(&l->pending, memory_order_seq_cst);
}

void endpoint_add(struct xske_loop *l, struct xske_endpoint *e)
{
	e->next = l->endpoints;
	l->endpoints = e;
	atomic_store_explicit(&e->state, XSKE_ENDPOINT_ADDED, memory_order_release);
}

static void forget_pending(struct xske_loop *l, struct xske_endpoint *e)
{
	struct xske_endpoint **at = &l->backlog, *rest;

	/* All of them in one list to search. */
	rest = l->backlog;
	l->backlog = NULL;
	begin_round(l);
	while (*at)
		at = &(*at)->next_pending;
	*at = rest;
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
	if (*at) { /* else it was never added */
		*at = e->next;
		forget_pending(l, e);
		drop_submits(e, l->arena);
	}
	atomic_store_explicit(&e->state, XSKE_ENDPOINT_REMOVED, memory_order_release);
	l->signal = true;
}

/* Nobody has work: what idle endpoints own goes back to the pool. False when one is just being used. */
bool endpoints_park(struct xske_loop *l)
{
	bool all = true;

	for (struct xske_endpoint *e = l->endpoints; e; e = e->next) {
		all &= xske_arena_park_if_idle(e->arena) != 0;
	}
	return all;
}

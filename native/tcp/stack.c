/* SPDX-License-Identifier: MIT */
/*
 * stack.c - all connections of a loop: who they are, what their applications hand over, whose turn it is, and how they
 * end. Connections with fresh work put themselves on the pending list, as endpoints do (endpoint.c), and the loop gives
 * turns to those that have something to send; idle ones are never looked at.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "../rxq.h"
#include "tcp.h"

/* Of the pool, for headers, control segments and copies of what is sent again: a slab, and the loop gets on, however much
 * applications have written. Lower: without any it stops; higher: they have less. */
#define LOOP_RESERVE_CHUNKS XSKE_SLAB_CHUNKS

/* ---- who is there -------------------------------------------------------------------------------- */

static struct xske_tcp_conn **bucket_of(const struct xske_tcp *t, const struct tcp_tuple *tuple)
{
	return &t->table[siphash24(t->table_secret.sequence_key, (const uint8_t *)tuple, sizeof(*tuple)) &
	                 t->table_mask];
}

struct xske_tcp_conn *tcp_find(const struct xske_tcp *t, const struct tcp_tuple *tuple)
{
	struct xske_tcp_conn *c = *bucket_of(t, tuple);

	while (c && memcmp(&c->tuple, tuple, sizeof(*tuple)) != 0)
		c = c->next_in_bucket;
	return c;
}

static void link_conn(struct xske_tcp *t, struct xske_tcp_conn *c)
{
	struct xske_tcp_conn **bucket = bucket_of(t, &c->tuple);

	c->next_in_bucket = *bucket;
	*bucket = c;
	c->in_table = true;
	c->next = t->conns;
	c->prev = &t->conns;
	if (c->next)
		c->next->prev = &c->next;
	t->conns = c;
	tcp_store(&t->counters->connections, ++t->conn_count);
}

static void take_off_ready(struct xske_tcp *t, struct xske_tcp_conn *c)
{
	struct xske_tcp_conn **at = &t->ready;

	if (!c->ready)
		return;
	c->ready = false;
	while (*at != c)
		at = &(*at)->next_ready;
	*at = c->next_ready;
	if (!*at)
		t->ready_end = at;
}

void tcp_unlink(struct xske_tcp_conn *c)
{
	struct xske_tcp *t = c->tcp;

	take_off_ready(t, c);
	if (c->in_table) {
		struct xske_tcp_conn **at = bucket_of(t, &c->tuple);

		while (*at != c)
			at = &(*at)->next_in_bucket;
		*at = c->next_in_bucket;
		*c->prev = c->next;
		if (c->next)
			c->next->prev = c->prev;
		c->in_table = false;
		tcp_store(&t->counters->connections, --t->conn_count);
	}
	app_drop_submits(c);
	c->next_ready = t->gone;
	t->gone = c;
}

static void tell_the_gone(struct xske_tcp *t)
{
	struct xske_tcp_conn *c, *next;

	for (c = t->gone, t->gone = NULL; c; c = next) {
		next = c->next_ready;
		if (c->connected)
			atomic_fetch_sub_explicit(&t->opened, 1, memory_order_relaxed);
		tcp_closed(c);
	}
}

void tcp_signal(struct xske_tcp_conn *c, uint32_t what)
{
	/* What is told of was stored before (seq_cst): pairs with xske_tcp_await(). */
	if (likely(!(atomic_load_explicit(&c->app.awaits, memory_order_seq_cst) & what)))
		return;
	atomic_fetch_and_explicit(&c->app.awaits, ~what, memory_order_relaxed);
	c->tcp->loop->signal = true;
}

/* ---- what applications bring ---------------------------------------------------------------------- */

static void take_submits(struct xske_tcp_conn *c)
{
	struct spsc *s = &c->app.submits;
	uint32_t first, ready = spsc_ready(s, &first), at = first & s->mask;
	uint32_t to_end = min_u32(ready, s->mask + 1 - at), n = blocks_push(c, &s->slots[at], to_end);

	if (n == to_end)
		n += blocks_push(c, s->slots, ready - to_end);
	c->stuck = n < ready;
	if (!n)
		return;
	spsc_pop(s, n);
	/* Who waits for room in the ring? Both write the word, so whoever is second sees what the first did before. */
	if (atomic_fetch_and_explicit(&c->app.awaits, ~XSKE_TCP_WRITABLE, memory_order_acq_rel) &
	    XSKE_TCP_WRITABLE)
		c->tcp->loop->signal = true;
	tcp_ready(c);
}

static void take_from(struct xske_tcp_conn *c)
{
	uint32_t wants;

	/* Handed over before the loop has seen its connect: that will look again. */
	if (c->state == XSKE_TCP_NEW || c->state == XSKE_TCP_CLOSED)
		return;
	/* The wants first: what was submitted before them is there then. */
	wants = atomic_exchange_explicit(&c->app.wants, 0, memory_order_acquire);
	take_submits(c);
	if (c->stuck && wants & (TCP_WANTS_SHUTDOWN | TCP_WANTS_CLOSE)) { /* they come behind it */
		atomic_fetch_or_explicit(&c->app.wants, wants & (TCP_WANTS_SHUTDOWN | TCP_WANTS_CLOSE),
		                         memory_order_relaxed);
		wants &= ~(uint32_t)(TCP_WANTS_SHUTDOWN | TCP_WANTS_CLOSE);
	}
	if (wants)
		tcp_take_wants(c, wants);
}

void tcps_connect(struct xske_loop *l, struct xske_tcp_conn *c)
{
	struct xske_tcp *t = l->tcp;

	if (!t || c->state != XSKE_TCP_NEW)
		return;
	t->now_ns = l->now_ns;
	c->connected = true;
	if (tcp_find(t, &c->tuple)) {
		tcp_fail(c, EADDRINUSE);
		return;
	}
	link_conn(t, c);
	tcp_start(c);
	take_from(c); /* it may have been given up already */
}

static bool take_pending(struct xske_tcp *t)
{
	struct xske_tcp_conn *c = NULL, *next, *in_order = NULL;

	if (atomic_load_explicit(&t->pending, memory_order_relaxed))
		c = atomic_exchange_explicit(&t->pending, NULL, memory_order_acquire);
	if (!c)
		return false;
	for (; c; c = next) {
		next = c->next_pending;
		c->next_pending = in_order;
		in_order = c;
	}
	for (c = in_order; c; c = next) {
		bool over = c->state == XSKE_TCP_CLOSED;

		next = c->next_pending;
		/* From then on its application may queue it again and, if it is over, destroy it. DEAD stays: a hand-over
		 * that is late must not bring it back. */
		if (unlikely(atomic_fetch_and_explicit(&c->queued, ~(uint32_t)QUEUED_PENDING,
		                                       memory_order_acq_rel) &
		             QUEUED_DEAD))
			tcp_bury(c);
		else if (!over)
			take_from(c);
	}
	return true;
}

/* ---- turns --------------------------------------------------------------------------------------- */

void tcp_ready(struct xske_tcp_conn *c)
{
	struct xske_tcp *t = c->tcp;

	if (c->ready || c->state == XSKE_TCP_CLOSED)
		return;
	c->ready = true;
	c->next_ready = NULL;
	*t->ready_end = c;
	t->ready_end = &c->next_ready;
}

static struct xske_tcp_conn *pop_ready(struct xske_tcp *t)
{
	struct xske_tcp_conn *c = t->ready;

	t->ready = c->next_ready;
	if (!t->ready)
		t->ready_end = &t->ready;
	c->ready = false;
	return c;
}

static void push_front(struct xske_tcp *t, struct xske_tcp_conn *c)
{
	if (c->ready || c->state == XSKE_TCP_CLOSED)
		return;
	c->ready = true;
	c->next_ready = t->ready;
	if (!t->ready)
		t->ready_end = &c->next_ready;
	t->ready = c;
}

bool tcps_turn(struct xske_loop *l)
{
	struct xske_tcp *t = l->tcp;
	struct wheel_timer *timer;
	bool moved;

	t->now_ns = l->now_ns;
	moved = take_pending(t);
	moved |= tcp_arrive(t);
	/* By themselves they are no sign of life: what they want sent is seen by who posts. */
	while ((timer = wheel_expire(&t->wheel, t->now_ns)))
		tcp_timer_expired((struct tcp_timer *)timer);
	tell_the_gone(t);
	return moved;
}

bool tcps_post(struct xske_loop *l, uint32_t limit, uint32_t *posted)
{
	struct xske_tcp *t = l->tcp;
	uint32_t turns = 0;
	bool room = true;

	if (!t)
		return true;
	/* Those that are ready now: whoever has more stands behind them. */
	for (struct xske_tcp_conn *c = t->ready; c; c = c->next_ready)
		turns++;
	while (turns-- && t->ready && room) {
		struct xske_tcp_conn *c = pop_ready(t);
		enum tcp_turn turn;

		if (unlikely(c->stuck))
			take_from(c);
		turn = tcp_output(c, min_u32(limit, TCP_TURN_SEGMENTS), posted);
		if (turn == TCP_TURN_MORE)
			tcp_ready(c);
		else if (turn == TCP_TURN_NO_ROOM)
			push_front(t, c);
		room = turn != TCP_TURN_NO_ROOM && *posted < limit;
	}
	tell_the_gone(t);
	return room;
}

bool tcps_have_mail(const struct xske_loop *l)
{
	return l->tcp && atomic_load_explicit(&l->tcp->pending, memory_order_seq_cst);
}

bool tcps_have_work(const struct xske_loop *l)
{
	return l->tcp && (l->tcp->ready || tcps_have_mail(l));
}

uint64_t tcps_next_ns(const struct xske_loop *l)
{
	return l->tcp ? wheel_next_ns(&l->tcp->wheel) : UINT64_MAX;
}

static bool is_settled(const struct xske_tcp_conn *c)
{
	if (c->state == XSKE_TCP_TIME_WAIT || c->state == XSKE_TCP_FIN_WAIT_2)
		return true;
	return (c->state == XSKE_TCP_ESTABLISHED || c->state == XSKE_TCP_CLOSE_WAIT) && !c->fin_wanted &&
	       c->snd_una == c->snd_end;
}

bool tcps_are_settled(const struct xske_loop *l)
{
	for (const struct xske_tcp_conn *c = l->tcp ? l->tcp->conns : NULL; c; c = c->next)
		if (!is_settled(c))
			return false;
	return true;
}

void tcps_end(struct xske_loop *l, bool with_resets)
{
	struct xske_tcp *t = l->tcp;
	struct xske_tcp_conn *c, *next;

	for (c = t ? t->conns : NULL; c; c = next) {
		next = c->next;
		if (c->state == XSKE_TCP_TIME_WAIT)
			tcp_fail(c, 0);
		else if (with_resets && !c->reset_due)
			tcp_abort(c, ECONNABORTED);
		else if (!with_resets)
			tcp_fail(c, ECONNABORTED);
	}
	if (!t)
		return;
	txq_submit(l->txq); /* resets: what is only filled in is no work that the end waits for */
	tell_the_gone(t);
}

/* ---- life ---------------------------------------------------------------------------------------- */

static uint32_t table_size(uint32_t connections)
{
	uint32_t size = 64;

	while (size < connections && size < 1u << 20)
		size *= 2;
	return size;
}

int xske_tcp_create(const struct xske_tcp_config *config, struct xske_tcp **out)
{
	struct xske_loop *l = config->loop;
	struct xske_tcp *t;
	int err;

	if (!l || l->tcp || l->state != XSKE_LOOP_NEW || !config->counters || !config->max_connections ||
	    config->flags & ~(XSKE_TCP_MULTI_BUFFER | XSKE_TCP_OFFLOAD) ||
	    (config->receive_arena && config->receive_arena->umem != l->txq->umem) ||
	    (config->flags & XSKE_TCP_OFFLOAD && l->txq->umem->metadata_len != XSKE_TX_METADATA_BYTES))
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->loop = l;
	t->config = *config;
	t->counters = config->counters;
	t->ready_end = &t->ready;
	t->table_mask = table_size(config->max_connections) - 1;
	t->table = calloc(t->table_mask + 1, sizeof(struct xske_tcp_conn *));
	wheel_init(&t->wheel, l->config.clock.now_ns(l->config.clock.ctx));
	err = t->table ? isn_init(&t->secret) : -ENOMEM;
	if (!err)
		err = isn_init(&t->table_secret);
	if (!err)
		err = arrive_open(t);
	if (err) {
		xske_tcp_destroy(t);
		return err;
	}
	t->config.queues = NULL;
	l->tcp = t;
	chunk_pool_reserve(l->txq->umem, (int32_t)LOOP_RESERVE_CHUNKS);
	*out = t;
	return 0;
}

void xske_tcp_destroy(struct xske_tcp *t)
{
	if (!t)
		return;
	take_pending(t); /* what was destroyed while it stood there */
	arrive_close(t);
	if (t->loop->tcp == t) {
		t->loop->tcp = NULL;
		chunk_pool_reserve(t->loop->txq->umem, -(int32_t)LOOP_RESERVE_CHUNKS);
	}
	free(t->table);
	free(t);
}

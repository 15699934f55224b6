/* SPDX-License-Identifier: MIT */
/* trace_post.c - the loop's side of a trace. */
#include "trace.h"

/* There is a packet: here, or where the next pass over those that stay begins. */
static bool find_packet(const struct xske_trace *t, struct trace_place *p, uint64_t head)
{
	if (p->at != head)
		return true;
	if (t->config.ring || !head || (t->config.passes && p->pass + 1 >= t->config.passes))
		return false;
	*p = (struct trace_place){.pass = p->pass + 1};
	return true;
}

uint32_t trace_plan(const struct xske_trace *t, struct column *col, uint32_t n)
{
	uint64_t head = atomic_load_explicit(&t->head, memory_order_acquire);
	struct trace_place p = t->next;

	for (uint32_t i = 0; i < n; i++) {
		const struct trace_desc *d;

		if (!find_packet(t, &p, head))
			return i;
		d = trace_desc_at(t, p.at);
		col->len[i] = d->packet_bytes;
		col->cost[i] = d->gap_ns;
		p.at += d->packet_descs;
	}
	return n;
}

static void post_one(struct xske_trace *t, struct xske_txq *q, uint32_t descs)
{
	for (uint32_t i = 0; i < descs; i++, t->next.at++) {
		const struct trace_desc *d = trace_desc_at(t, t->next.at);
		struct chunk *c = chunk_of(q->umem, d->addr);

		if (t->config.ring)
			txq_take(q, c);
		else
			txq_borrow(q, c, 1);
		txq_fill(q, d->addr, d->len, d->options);
	}
}

uint32_t trace_post(struct xske_trace *t, struct xske_txq *q, uint32_t n, uint32_t *room)
{
	uint64_t head = atomic_load_explicit(&t->head, memory_order_relaxed), bytes = 0;
	uint32_t i;

	for (i = 0; i < n && find_packet(t, &t->next, head); i++) {
		const struct trace_desc *first = trace_desc_at(t, t->next.at);
		uint32_t descs = first->packet_descs, len = first->packet_bytes;

		if (descs > *room)
			break;
		post_one(t, q, descs);
		txq_log(q, len, descs, 1);
		*room -= descs;
		bytes += len;
	}
	/* Release: the slots may be written again. */
	atomic_store_explicit(&t->tail, t->next.at, memory_order_release);
	count_posted(&t->posted, i, bytes);
	return i;
}

bool trace_is_over(const struct xske_trace *t)
{
	struct trace_place p = t->next;

	/* In this order: what was published before the end is seen. */
	return atomic_load_explicit(&t->ended, memory_order_acquire) &&
	       !find_packet(t, &p, atomic_load_explicit(&t->head, memory_order_acquire));
}

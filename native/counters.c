/* SPDX-License-Identifier: MIT */
/* counters.c - the page that others read while the loop runs: relaxed stores of whole words, once a turn. */
#include "loop.h"

void counters_show(struct xske_loop *l)
{
	const struct xske_txq *q = l->txq;
	const struct xske_arena *a = l->arena;
	struct xske_counters *page = l->config.counters;

#define SHOW(name, value) __atomic_store_n(&page->name, (value), __ATOMIC_RELAXED)
	SHOW(submitted_packets, q->submitted_packets);
	SHOW(submitted_descs, q->submitted_descs);
	SHOW(submitted_bytes, q->submitted_bytes);
	SHOW(completed_packets, q->completed_packets);
	SHOW(completed_descs, q->completed_descs);
	SHOW(completed_bytes, q->completed_bytes);
	SHOW(completed_wire_bytes, q->completed_wire_bytes);
	SHOW(inflight_descs, txq_inflight(q));
	SHOW(bad_completions, q->bad_completions);
	SHOW(kick_calls, q->kick.calls);
	SHOW(kick_eagain, q->kick.eagain);
	SHOW(kick_ebusy, q->kick.ebusy);
	SHOW(kick_enobufs, q->kick.enobufs);
	SHOW(kick_enetdown, q->kick.enetdown);
	SHOW(kick_other, q->kick.other);
	SHOW(backpressure, l->backpressure);
	SHOW(link_down_ns, l->down_total_ns + (l->down_since_ns ? l->now_ns - l->down_since_ns : 0));
	SHOW(first_post_ns, l->first_post_ns);
	SHOW(last_post_ns, l->last_post_ns);
	SHOW(last_completion_ns, l->last_completion_ns);
	SHOW(active_flows, l->active_flows);
	SHOW(finished_flows, l->finished_flows);
	SHOW(allocated_frags, a->allocated);
	SHOW(recycled_chunks, a->recycled);
	SHOW(cross_thread_returns, a->cross);
	SHOW(quota_waits, a->quota_waits);
	SHOW(owned_chunks, atomic_load_explicit(&a->owned, memory_order_relaxed));
	SHOW(turns, ++l->turns);
	SHOW(error, l->error);
	SHOW(error_errno, l->error_errno);
	SHOW(error_arg, l->error_arg);
#undef SHOW
}

void counters_publish(struct xske_loop *l)
{
	counters_show(l);
	/* Last, and released: who sees a final state sees final counters. */
	__atomic_store_n(&l->config.counters->state, l->state, __ATOMIC_RELEASE);
}

/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "tracker.h"

int xske_tracker_create(uint32_t n, struct xske_tracker **out)
{
	struct xske_tracker *t = calloc(1, sizeof(*t) + n * sizeof(t->watches[0]));

	if (!t)
		return -ENOMEM;
	t->stamps = calloc(n ? n : 1, sizeof(*t->stamps));
	if (!t->stamps) {
		free(t);
		return -ENOMEM;
	}
	atomic_init(&t->holders, 2);
	atomic_init(&t->pending, 1);
	t->n = n;
	*out = t;
	return 0;
}

static void let_go(struct xske_tracker *t)
{
	/* Release and acquire: whoever frees it sees what the other did to it. */
	if (atomic_fetch_sub_explicit(&t->holders, 1, memory_order_acq_rel) != 1)
		return;
	free(t->stamps);
	free(t);
}

/* True when that was the last one; then it may be gone. */
static bool settle(struct xske_tracker *t, uint32_t n)
{
	if (atomic_fetch_sub_explicit(&t->pending, n, memory_order_acq_rel) != n)
		return false;
	let_go(t);
	return true;
}

void xske_tracker_close(struct xske_tracker *t)
{
	if (t->closed)
		return;
	t->closed = true;
	settle(t, 1);
}

void xske_tracker_destroy(struct xske_tracker *t)
{
	if (!t)
		return;
	xske_tracker_close(t);
	let_go(t);
}

int xske_tracker_state(const struct xske_tracker *t)
{
	/* In this order: `lost` is stored before the last of them is settled, or a loss just now would look like done. */
	bool pending = atomic_load_explicit(&t->pending, memory_order_acquire);

	if (atomic_load_explicit(&t->lost, memory_order_relaxed))
		return XSKE_TRACKER_LOST;
	return pending ? XSKE_TRACKER_PENDING : XSKE_TRACKER_DONE;
}

const uint64_t *xske_tracker_stamps(const struct xske_tracker *t)
{
	return t->stamps;
}

struct watch *tracker_watch(struct xske_tracker *t, const struct xske_desc *descs, uint32_t n)
{
	struct watch *first = &t->watches[t->used];

	if (t->closed || n > t->n - t->used)
		return NULL;
	for (uint32_t i = 0; i < n; i++)
		first[i] = (struct watch){.tracker = t, .addr = descs[i].addr};
	t->used += n;
	atomic_fetch_add_explicit(&t->pending, n, memory_order_relaxed);
	return first;
}

bool watch_settle(struct watch *w, uint64_t stamp_ns)
{
	struct xske_tracker *t = w->tracker;

	t->stamps[w - t->watches] = stamp_ns;
	return settle(t, 1);
}

void watches_lose(struct watch *w, uint32_t n)
{
	struct xske_tracker *t = w->tracker;

	atomic_store_explicit(&t->lost, 1, memory_order_relaxed); /* released by the settling */
	settle(t, n);
}

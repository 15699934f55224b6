/* SPDX-License-Identifier: MIT */
/* null.c - a device that is none: it takes every desc and completes it at once, and its clock stands still while
 * the loop works. So the loop itself shows what it would send, and when. */
#include <errno.h>
#include <stdlib.h>

#include <linux/if_xdp.h>

#include "util.h"
#include "xske.h"

struct xske_null {
	uint32_t mask;
	uint32_t tx_producer, tx_consumer, tx_flags, cq_producer, cq_consumer, cq_flags;
	uint64_t now_ns;
	struct xske_desc *tx;
	uint64_t *cq;
};

int xske_null_create(uint32_t size, struct xske_null **out)
{
	struct xske_null *d;

	if (!size || size & (size - 1))
		return -EINVAL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->mask = size - 1;
	d->tx_flags = XDP_RING_NEED_WAKEUP;
	d->now_ns = XSKE_NULL_START_NS;
	d->tx = calloc(size, sizeof(*d->tx));
	d->cq = calloc(size, sizeof(*d->cq));
	if (!d->tx || !d->cq) {
		xske_null_destroy(d);
		return -ENOMEM;
	}
	*out = d;
	return 0;
}

void xske_null_destroy(struct xske_null *d)
{
	if (!d)
		return;
	free(d->tx);
	free(d->cq);
	free(d);
}

/* The completion ring has room: the txq keeps inflight below its size. */
static int complete_all(void *ctx)
{
	struct xske_null *d = ctx;

	for (; d->tx_consumer != d->tx_producer; d->tx_consumer++)
		d->cq[d->cq_producer++ & d->mask] = d->tx[d->tx_consumer & d->mask].addr;
	return 0;
}

static uint64_t now_ns(void *ctx)
{
	return ((struct xske_null *)ctx)->now_ns;
}

static void sleep_ns(void *ctx, uint64_t ns)
{
	((struct xske_null *)ctx)->now_ns += ns;
}

void xske_null_attach(struct xske_null *d, struct xske_txq_config *txq, struct xske_clock *clock)
{
	uint32_t size = d->mask + 1;

	txq->tx = (struct xske_ring){
	        .mask = d->mask,
	        .size = size,
	        .producer = &d->tx_producer,
	        .consumer = &d->tx_consumer,
	        .ring = d->tx,
	        .flags = &d->tx_flags,
	};
	txq->cq = (struct xske_ring){
	        .mask = d->mask,
	        .size = size,
	        .producer = &d->cq_producer,
	        .consumer = &d->cq_consumer,
	        .ring = d->cq,
	        .flags = &d->cq_flags,
	};
	txq->kick = complete_all;
	txq->kick_ctx = d;
	txq->fd = -1;
	txq->need_wakeup = 1;
	*clock = (struct xske_clock){.now_ns = now_ns, .sleep_ns = sleep_ns, .ctx = d, .virtual_time = 1};
}

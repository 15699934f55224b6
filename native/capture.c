/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "capture.h"

int xske_capture_create(uint64_t bytes, uint64_t limit, uint64_t offset_ns, struct xske_capture **out)
{
	struct xske_capture *c;

	if (!bytes || bytes & (bytes - 1))
		return -EINVAL;
	c = aligned_alloc(XSKE_CACHE_LINE, sizeof(*c));
	if (!c)
		return -ENOMEM;
	memset(c, 0, sizeof(*c));
	c->bytes = malloc(bytes);
	if (!c->bytes) {
		free(c);
		return -ENOMEM;
	}
	c->size = bytes;
	c->left = limit ? limit : UINT64_MAX;
	c->offset_ns = offset_ns;
	*out = c;
	return 0;
}

void xske_capture_destroy(struct xske_capture *c)
{
	if (!c)
		return;
	free(c->bytes);
	free(c);
}

void xske_capture_close(struct xske_capture *c)
{
	atomic_store_explicit(&c->closed, 1, memory_order_relaxed);
}

uint32_t capture_room(const struct xske_capture *c, uint32_t len)
{
	uint64_t used;

	if (!c->left || atomic_load_explicit(&c->closed, memory_order_relaxed))
		return UINT32_MAX;
	/* Acquire pairs with the reader's release: what it has copied may be written over. */
	used = atomic_load_explicit(&c->head, memory_order_relaxed) -
	       atomic_load_explicit(&c->tail, memory_order_acquire);
	return (uint32_t)min_u64((c->size - used) / (CAPTURE_RECORD_BYTES + len), UINT32_MAX);
}

static uint64_t put(struct xske_capture *c, uint64_t at, const void *from, uint32_t len)
{
	uint64_t offset = at & (c->size - 1), first = min_u64(len, c->size - offset);

	memcpy(c->bytes + offset, from, first);
	memcpy(c->bytes, (const uint8_t *)from + first, len - first);
	return at + len;
}

static uint64_t put_record(struct xske_capture *c, uint64_t at, uint64_t wall, uint32_t len)
{
	const uint32_t record[] = {(uint32_t)(wall / NSEC_PER_SEC), (uint32_t)(wall % NSEC_PER_SEC), len,
	                           len};

	return put(c, at, record, sizeof(record));
}

static const struct xdp_desc *desc_at(const struct xske_txq *q, uint32_t slot)
{
	return &((const struct xdp_desc *)q->tx.ring)[slot & q->tx.mask];
}

/* The slot behind the packet's last. */
static uint32_t take_one(struct xske_capture *c, const struct xske_txq *q, uint32_t slot, uint64_t *at,
                         uint64_t wall)
{
	uint32_t end = slot, len = 0;

	do
		len += desc_at(q, end)->len;
	while (desc_at(q, end++)->options & XSKE_DESC_CONTD);
	*at = put_record(c, *at, wall, len);
	for (; slot != end; slot++)
		*at = put(c, *at, q->umem->area + desc_at(q, slot)->addr, desc_at(q, slot)->len);
	return end;
}

void capture_take(struct xske_capture *c, const struct xske_txq *q, uint32_t slot, uint32_t n,
                  uint64_t now_ns)
{
	uint64_t at = atomic_load_explicit(&c->head, memory_order_relaxed);

	if (atomic_load_explicit(&c->closed, memory_order_relaxed))
		return;
	for (uint32_t i = 0; i < n && c->left; i++) {
		slot = take_one(c, q, slot, &at, now_ns + c->offset_ns);
		c->left -= c->left != UINT64_MAX;
	}
	atomic_store_explicit(&c->head, at, memory_order_release);
}

bool capture_put(struct xske_capture *c, const struct piece *pieces, uint32_t n, uint64_t now_ns)
{
	uint64_t at = atomic_load_explicit(&c->head, memory_order_relaxed);
	uint32_t len = 0;

	for (uint32_t i = 0; i < n; i++)
		len += pieces[i].len;
	if (!capture_room(c, len))
		return false;
	if (!c->left || atomic_load_explicit(&c->closed, memory_order_relaxed))
		return true; /* it wants no more */
	at = put_record(c, at, now_ns + c->offset_ns, len);
	for (uint32_t i = 0; i < n; i++)
		at = put(c, at, pieces[i].bytes, pieces[i].len);
	c->left -= c->left != UINT64_MAX;
	atomic_store_explicit(&c->head, at, memory_order_release);
	return true;
}

uint64_t xske_capture_read(struct xske_capture *c, void *to, uint64_t len)
{
	uint64_t tail = atomic_load_explicit(&c->tail, memory_order_relaxed);
	uint64_t ready = atomic_load_explicit(&c->head, memory_order_acquire) - tail;
	uint64_t n = min_u64(len, ready), offset = tail & (c->size - 1), first = min_u64(n, c->size - offset);

	memcpy(to, c->bytes + offset, first);
	memcpy((uint8_t *)to + first, c->bytes, n - first);
	/* Release: the loop may write there again. */
	atomic_store_explicit(&c->tail, tail + n, memory_order_release);
	return n;
}

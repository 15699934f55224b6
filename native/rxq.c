/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rxq.h"

int rxq_init(struct rxq *q, struct xske_umem *umem, const struct xske_rxq_config *config, uint32_t id)
{
	memset(q, 0, sizeof(*q));
	memcpy(&q->rx, &config->rx, sizeof(q->rx));
	memcpy(&q->fill, &config->fill, sizeof(q->fill));
	q->rx.cached_prod = __atomic_load_n(q->rx.producer, __ATOMIC_ACQUIRE);
	q->rx.cached_cons = __atomic_load_n(q->rx.consumer, __ATOMIC_RELAXED);
	q->fill.cached_prod = __atomic_load_n(q->fill.producer, __ATOMIC_RELAXED);
	q->fill.cached_cons = __atomic_load_n(q->fill.consumer, __ATOMIC_ACQUIRE) + q->fill.size;
	q->umem = umem;
	q->fd = config->fd;
	q->id = id;
	q->back = calloc(q->fill.size, sizeof(*q->back));
	return q->back ? 0 : -ENOMEM;
}

void rxq_free(struct rxq *q)
{
	free(q->back);
}

static void put_back(struct rxq *q, const struct chunk *c)
{
	q->back[q->back_count++] = (uint64_t)chunk_index(q->umem, c) << q->umem->chunk_shift;
}

void rxq_add(struct rxq *q, struct chunk *c)
{
	c->txq_id = q->id;
	put_back(q, c);
}

void rxq_refill(struct rxq *q)
{
	uint32_t idx, n = q->back_count ? xsk_prod_nb_free(&q->fill, q->back_count) : 0;

	n = min_u32(n, q->back_count);
	if (!n || xsk_ring_prod__reserve(&q->fill, n, &idx) != n)
		return;
	q->back_count -= n;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t addr = q->back[q->back_count + i];

		chunk_of(q->umem, addr)->inflight = 1;
		*xsk_ring_prod__fill_addr(&q->fill, idx + i) = addr;
	}
	xsk_ring_prod__submit(&q->fill, n);
}

/* The chunk of a desc that may be read; NULL: it must not. */
static struct chunk *judge(struct rxq *q, const struct xdp_desc *d)
{
	struct chunk *c = chunk_of(q->umem, d->addr);

	if (unlikely(!c || c->txq_id != q->id || !c->inflight))
		return NULL;
	if (unlikely(!chunk_holds_desc(q->umem, d->addr, d->len)))
		return NULL;
	return c;
}

static void COLD bad_desc(struct xske_receive_counters *counters, uint64_t addr)
{
	counters->bad_descs++;
	counters->bad_addr = addr;
}

/* The chunks of the packet in hand are to go back. */
static void give_back(struct rxq *q)
{
	for (uint32_t i = 0; i < q->piece_count; i++)
		put_back(q, q->chunks[i]);
	q->piece_count = 0;
}

static void take(struct rxq *q, const struct xdp_desc *d, rx_packet_fn packet, void *ctx,
                 struct xske_receive_counters *counters)
{
	bool more = d->options & XSKE_DESC_CONTD;
	struct chunk *c = judge(q, d);

	if (unlikely(!c)) {
		bad_desc(counters, d->addr);
		q->skipping = true;
	} else {
		c->inflight = 0;
		if (unlikely(q->piece_count == RX_PIECES)) { /* its first pieces are not needed any more */
			bad_desc(counters, d->addr);
			give_back(q);
			q->skipping = true;
		}
		q->pieces[q->piece_count] = (struct piece){q->umem->area + d->addr, d->len};
		q->chunks[q->piece_count++] = c;
	}
	if (more)
		return;
	if (likely(!q->skipping)) {
		for (uint32_t i = 0; i < q->piece_count; i++)
			counters->bytes += q->pieces[i].len;
		counters->packets++;
		packet(ctx, q->pieces, q->piece_count);
	}
	q->skipping = false;
	give_back(q);
}

uint32_t rxq_take(struct rxq *q, uint32_t most, rx_packet_fn packet, void *ctx,
                  struct xske_receive_counters *counters)
{
	uint32_t idx, n = xsk_ring_cons__peek(&q->rx, most, &idx);

	for (uint32_t i = 0; i < n; i++) {
		/* A copy: what the kernel writes into the ring meanwhile must not pass the judgement. */
		const struct xdp_desc d = *xsk_ring_cons__rx_desc(&q->rx, idx + i);

		take(q, &d, packet, ctx, counters);
	}
	if (n)
		xsk_ring_cons__release(&q->rx, n);
	rxq_refill(q);
	counters->descs += n;
	return n;
}

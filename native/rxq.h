/* SPDX-License-Identifier: MIT */
/*
 * rxq.h - a receive ring with its fill ring. The counterpart of txq.h, for one thread.
 *
 * fill ring:  we write addrs and producer, the kernel consumer and flags.
 * rx ring:    the kernel writes descs and producer, we consumer.
 * Ownership: a chunk is the kernel's, and counts as inflight, from when its addr is on the fill ring until a desc with it
 * has been taken off the rx ring; then it is ours until its packet has been looked at, and goes back. The chunks are
 * as many as the fill ring has entries, and nothing is allocated or freed in between. The kernel tells that it has taken
 * one from the fill ring after it has told of the packet (net/xdp/xsk.c, xsk_flush), so one may have to wait in `back`.
 * Rules: a desc is judged before a byte of it is read. One that names no chunk of ours, a chunk that the kernel does
 * not have, or bytes beyond its chunk's end, is a broken kernel: counted, reported with its addr, never read.
 */
#ifndef XSKE_RXQ_H
#define XSKE_RXQ_H

#include <xdp/xsk.h>

#include "check.h"
#include "chunk.h"

struct rxq {
	struct xsk_ring_cons rx;
	struct xsk_ring_prod fill;
	struct xske_umem *umem;
	int32_t fd;
	uint32_t id;
	/* The packet of which more is to come. */
	struct piece pieces[RX_PIECES];
	const struct chunk *chunks[RX_PIECES];
	uint32_t piece_count;
	bool skipping; /* to the end of a chain that is none */
	/* Looked at, and to go back. */
	uint64_t *back;
	uint32_t back_count;
};

/* What is done with a packet. */
typedef void (*rx_packet_fn)(void *ctx, const struct piece *pieces, uint32_t n);

/* 0 or -ENOMEM. */
int rxq_init(struct rxq *q, struct xske_umem *umem, const struct xske_rxq_config *config, uint32_t id);
void rxq_free(struct rxq *q);
/* One more chunk for it; at most as many as the fill ring has entries. */
void rxq_add(struct rxq *q, struct chunk *c);
/* What is to go back onto the fill ring, as far as there is room. */
void rxq_refill(struct rxq *q);
/* Up to `most` descs off the rx ring, and their chunks back; how many. */
uint32_t rxq_take(struct rxq *q, uint32_t most, rx_packet_fn packet, void *ctx,
                  struct xske_receive_counters *counters);

static inline bool rxq_wants_wakeup(const struct rxq *q)
{
	return xsk_ring_prod__needs_wakeup(&q->fill);
}

#endif

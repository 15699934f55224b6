/* SPDX-License-Identifier: MIT */
/*
 * sendq.h - what is not acknowledged: the blocks that hold it, and the segments that carried it. Two rings by sequence,
 * so that what an ACK covers comes off the front, and anything else is found by bisection. They are the loop's; a block
 * in the ring is a reference.
 */
#ifndef XSKE_TCP_SENDQ_H
#define XSKE_TCP_SENDQ_H

#include <stdbool.h>
#include <stdint.h>

struct xske_desc;
struct xske_tcp_conn;

/* A piece of payload as the application submitted it. */
struct block {
	uint64_t addr; /* of its first payload byte */
	uint32_t seq;
	uint32_t len;
	uint32_t sum; /* of its bytes, as csum_bytes(); only if the device does not finish checksums */
	uint32_t reserved;
};

/* A segment that was sent and is not wholly acknowledged. They cover snd_una to snd_nxt without a gap. */
struct sent {
	uint64_t sent_ns; /* the last time */
	uint32_t seq;
	uint32_t len;   /* of sequence space: FIN counts */
	uint16_t flags; /* SENT_* */
};
enum {
	SENT_FIN = 1,
	SENT_SACKED = 2,
	SENT_LOST = 4,      /* and not sent again since */
	SENT_RETRANS = 8,   /* was sent again */
	SENT_TOO_LONG = 16, /* for the path, as a router has said: lost for sure */
};

/* Rings that grow by doubling; the loop's. head: the oldest; tail: behind the newest; both count up. */
struct blocks {
	struct block *ring;
	uint32_t mask, head, tail; /* ring NULL: mask 0 */
	uint32_t
	        latest; /* where the latest new segment ended: the next one begins in that block, or the one behind */
};
struct sents {
	struct sent *ring;
	uint32_t mask, head, tail;
};

/* The first of n blocks that there is room for: how many. */
uint32_t blocks_push(struct xske_tcp_conn *c, const struct xske_desc *slots, uint32_t n);
/* The block that has byte seq, and where in it; NULL: none. */
const struct block *blocks_find(const struct xske_tcp_conn *c, uint32_t seq, uint32_t *offset,
                                uint32_t *index);
void blocks_acked(struct xske_tcp_conn *c,
                  uint32_t upto);                 /* drops references of blocks that end at or before it */
struct sent *sents_push(struct xske_tcp_conn *c); /* NULL: no memory */
/* Room for n more, or for as many as there is memory: how many. */
uint32_t sents_reserve(struct xske_tcp_conn *c, uint32_t n);
bool sents_full(const struct xske_tcp_conn *c); /* no more until some are acknowledged */
uint32_t sents_find(const struct xske_tcp_conn *c,
                    uint32_t seq); /* index of the first that ends behind seq; count: none */
bool sents_split(struct xske_tcp_conn *c,
                 uint32_t most); /* none carries more than so many bytes; false: no memory */
/* The first len bytes of the index-th, which is longer, are a segment of their own; false: no memory. */
bool sents_cut(struct xske_tcp_conn *c, uint32_t index, uint32_t len);
void sendq_free(struct xske_tcp_conn *c); /* all references go */

#endif

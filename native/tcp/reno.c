/* SPDX-License-Identifier: MIT */
/* reno.c - RFC 5681, 3.1, by bytes (RFC 3465, 2.1). */
#include "cc.h"
#include "util.h"

/* A segment more for every window of bytes. */
static void avoid(struct cc *c, const struct cc_ack *ack, uint64_t acked)
{
	(void)ack;
	c->reno_acked += acked;
	if (c->reno_acked < c->cwnd)
		return;
	c->reno_acked -= c->cwnd;
	c->reno_acked =
	        min_u64(c->reno_acked, c->cwnd); /* one per ACK: an ACK of everything is no reason to leap */
	c->cwnd += c->mss;
}

static uint64_t lost(struct cc *c, uint64_t inflight_bytes)
{
	uint64_t half = inflight_bytes / 2, least = 2ull * c->mss;

	c->reno_acked = 0;
	return half > least ? half : least;
}

static void idled(struct cc *c, uint64_t ns)
{
	(void)c;
	(void)ns;
}

const struct cc_ops cc_reno = {.name = "reno", .avoid = avoid, .lost = lost, .idled = idled};

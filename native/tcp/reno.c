/* SPDX-License-Identifier: MIT */
/* reno.c - congestion avoidance of RFC 5681. */
#include "tcp/cc.h"

static void reno_acked(struct cc *c, const struct cc_ack *a)
{
	uint64_t acked = a->acked_bytes, windows;

	if (!a->cwnd_limited)
		return;
	if (cc_in_slow_start(c))
		acked = cc_slow_start(c, acked);
	if (!acked)
		return;
	/* One mss for every window of bytes (RFC 3465, 2.1). */
	c->acked_bytes += acked;
	windows = c->acked_bytes / c->cwnd;
	c->acked_bytes -= windows * c->cwnd;
	c->cwnd += windows * c->mss;
}

static void halve(struct cc *c, uint64_t inflight_bytes)
{
	uint64_t half = inflight_bytes / 2, least = 2 * (uint64_t)c->mss;

	c->ssthresh = half > least ? half : least; /* RFC 5681, equation (4) */
}

static void reno_lost(struct cc *c, uint64_t inflight_bytes, uint64_t now_ns)
{
	(void)now_ns;
	halve(c, inflight_bytes);
}

static void reno_timed_out(struct cc *c, uint64_t inflight_bytes, bool first, uint64_t now_ns)
{
	(void)now_ns;
	if (first)
		halve(c, inflight_bytes);
}

const struct cc_ops cc_reno = {
        .name = "reno",
        .acked = reno_acked,
        .lost = reno_lost,
        .timed_out = reno_timed_out,
};

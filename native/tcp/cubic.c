/* SPDX-License-Identifier: MIT */
/* cubic.c - RFC 9438. Numbers of sections and names of variables are its; windows are in segments. */
#include <math.h>

#include "tcp/cc.h"
#include "util.h"

/* 4.1, 5.1. Higher: grows faster, takes more from Reno flows. Lower: a fast long path stays unused after a
 * loss. */
#define C 0.4
/* 4.6. Higher: flows take longer to become equal. Lower: more is given up at each loss. */
#define BETA 0.7
/* 4.3: with which W_est grows as fast as Reno does on the average, though it gives up less at a loss. */
#define ALPHA (3 * (1 - BETA) / (1 + BETA))
/* 4.2: of target, in windows. Higher: a burst after a stage has run long. Lower: the convex region is
 * slower. */
#define MAX_GROWTH 1.5

static double segments(const struct cc *c, uint64_t bytes)
{
	return (double)bytes / c->mss;
}

static void begin_epoch(struct cc *c, uint64_t now_ns)
{
	struct cubic *q = &c->cubic;
	double cwnd_epoch = segments(c, c->cwnd);

	/* 4.8 after a timeout, 4.10 after a slow start without loss; and one that is already beyond W_max, as
	 * in Linux. */
	if (q->w_max <= cwnd_epoch)
		q->w_max = cwnd_epoch;
	q->k = cbrt((q->w_max - cwnd_epoch) / C);
	q->w_est = cwnd_epoch;
	q->credit_bytes = 0;
	q->epoch_start_ns = q->seen_ns = now_ns;
	q->has_epoch = true;
}

/* Equation (1). */
static double w_cubic(const struct cubic *q, double t)
{
	double d = t - q->k;

	return C * d * d * d + q->w_max;
}

/* 4.2: time in which cwnd could not have grown does not count. */
static void skip(struct cubic *q, uint64_t now_ns)
{
	if (q->has_epoch)
		q->epoch_start_ns += now_ns - q->seen_ns;
	q->seen_ns = now_ns;
}

static double target(const struct cubic *q, double t, double cwnd)
{
	return fmin(fmax(w_cubic(q, t), cwnd), MAX_GROWTH * cwnd);
}

static void avoid(struct cc *c, uint64_t acked_bytes, const struct cc_ack *a)
{
	struct cubic *q = &c->cubic;
	double cwnd = segments(c, c->cwnd), t, acked, grown;

	if (!q->has_epoch)
		begin_epoch(c, a->now_ns);
	q->seen_ns = a->now_ns;
	t = (double)(a->now_ns - q->epoch_start_ns) / NSEC_PER_SEC;
	acked = fmin(segments(c, acked_bytes),
	             cwnd); /* no more than a window is acknowledged in a round trip */
	q->w_est += (q->w_est < q->cwnd_prior ? ALPHA : 1) * acked / cwnd;
	if (w_cubic(q, t) < q->w_est) /* 4.3: never down to it */
		grown = fmax(q->w_est - cwnd, 0);
	else /* 4.4, 4.5 */
		grown = acked * (target(q, t + (double)a->srtt_ns / NSEC_PER_SEC, cwnd) - cwnd) / cwnd;
	q->credit_bytes += grown * c->mss;
	c->cwnd += (uint64_t)q->credit_bytes;
	q->credit_bytes -= (double)(uint64_t)q->credit_bytes;
}

static void cubic_acked(struct cc *c, const struct cc_ack *a)
{
	uint64_t acked = a->acked_bytes;

	if (!a->cwnd_limited) {
		skip(&c->cubic, a->now_ns);
		return;
	}
	if (cc_in_slow_start(c)) {
		c->cubic.has_epoch = false;
		acked = cc_slow_start(c, acked);
	}
	if (acked)
		avoid(c, acked, a);
}

/* 4.6. */
static void reduce(struct cc *c, uint64_t inflight_bytes)
{
	uint64_t kept = (uint64_t)((double)inflight_bytes * BETA), least = 2 * (uint64_t)c->mss;

	c->cubic.cwnd_prior = segments(c, c->cwnd);
	c->cubic.has_epoch = false;
	c->ssthresh = kept > least ? kept : least;
}

static void cubic_lost(struct cc *c, uint64_t inflight_bytes, uint64_t now_ns)
{
	double cwnd = segments(c, c->cwnd);

	(void)now_ns;
	/* 4.7: fast convergence */
	c->cubic.w_max = cwnd < c->cubic.w_max ? cwnd * (1 + BETA) / 2 : cwnd;
	reduce(c, inflight_bytes);
}

static void cubic_timed_out(struct cc *c, uint64_t inflight_bytes, bool first, uint64_t now_ns)
{
	(void)now_ns;
	if (!first)
		return;
	reduce(c, inflight_bytes);
	c->cubic.w_max = 0; /* 4.8 */
}

static void cubic_restarted(struct cc *c, uint64_t now_ns)
{
	skip(&c->cubic, now_ns);
}

const struct cc_ops cc_cubic = {
        .name = "cubic",
        .acked = cubic_acked,
        .lost = cubic_lost,
        .timed_out = cubic_timed_out,
        .restarted = cubic_restarted,
};

/* SPDX-License-Identifier: MIT */
/* cubic.c - RFC 9438: after a loss the window comes back by a cubic function of time, flat where the loss was. */
#include <math.h>

#include "cc.h"
#include "util.h"

#define BETA 0.7 /* 4.6 */
#define C 0.4    /* 5.1 */
#define SECONDS(ns) ((double)(ns) / (double)NSEC_PER_SEC)

static double segments(const struct cc *c, uint64_t bytes)
{
	return (double)bytes / (double)c->mss;
}

/* 4.2 */
static double w_cubic(const struct cubic *q, double t_s)
{
	double from = t_s - q->k_s;

	return C * from * from * from + q->w_max;
}

static void begin_epoch(struct cc *c, uint64_t now_ns)
{
	struct cubic *q = &c->cubic;
	double cwnd = segments(c, c->cwnd);

	q->epoch_ns = now_ns;
	q->w_est = cwnd;
	if (cwnd < q->w_max) {
		q->k_s = cbrt((q->w_max - cwnd) / C);
	} else { /* no loss yet, or beyond it: 4.10 */
		q->k_s = 0;
		q->w_max = cwnd;
	}
}

static void avoid(struct cc *c, const struct cc_ack *ack, uint64_t acked)
{
	struct cubic *q = &c->cubic;
	double cwnd = segments(c, c->cwnd), n = segments(c, acked), t_s, target, alpha;

	if (!q->epoch_ns)
		begin_epoch(c, ack->now_ns);
	/* 4.3: Reno with this beta would have alpha, and 1 once it is where the loss was. */
	alpha = q->w_est < q->w_prior ? 3 * (1 - BETA) / (1 + BETA) : 1;
	q->w_est += alpha * n / cwnd;
	q->epoch_ns = min_u64(q->epoch_ns, ack->now_ns);
	t_s = SECONDS(ack->now_ns - q->epoch_ns);
	if (w_cubic(q, t_s) < q->w_est) {
		cwnd = cwnd > q->w_est ? cwnd : q->w_est;
	} else { /* 4.4, 4.5: the target is a round trip ahead, and at most half as much again */
		target = w_cubic(q, t_s + SECONDS(ack->srtt_ns));
		target = target < cwnd ? cwnd : target > 1.5 * cwnd ? 1.5 * cwnd : target;
		cwnd += (target - cwnd) / cwnd * (n < cwnd ? n : cwnd);
	}
	c->cwnd = (uint64_t)(cwnd * c->mss);
}

static uint64_t lost(struct cc *c, uint64_t inflight_bytes)
{
	struct cubic *q = &c->cubic;
	double cwnd = segments(c, c->cwnd);
	uint64_t threshold = (uint64_t)((double)inflight_bytes * BETA), least = 2ull * c->mss;

	q->epoch_ns = 0;
	q->w_prior = cwnd;
	q->w_max = cwnd < q->w_max ? cwnd * (1 + BETA) / 2 : cwnd; /* 4.7: fast convergence */
	return threshold > least ? threshold : least;
}

/* 5.8: the epoch is that much longer. */
static void idled(struct cc *c, uint64_t ns)
{
	if (c->cubic.epoch_ns)
		c->cubic.epoch_ns += ns;
}

const struct cc_ops cc_cubic = {.name = "cubic", .avoid = avoid, .lost = lost, .idled = idled};

/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "cc.h"
#include "util.h"

#define MOST_SEGMENTS 8ull /* RFC 9406, 4.3: L */

static uint64_t initial_window(uint32_t mss)
{
	return min_u64(10ull * mss, max_u32(2 * mss, 14600));
}

void cc_init(struct cc *c, uint32_t which, uint32_t mss, bool paced)
{
	memset(c, 0, sizeof(*c));
	c->ops = which == CC_RENO ? &cc_reno : &cc_cubic;
	c->mss = mss;
	c->paced = paced;
	c->cwnd = initial_window(mss);
	c->ssthresh = UINT64_MAX; /* RFC 5681, 3.1: arbitrarily high */
}

static uint64_t slow_start(struct cc *c, uint64_t acked)
{
	uint64_t step = acked;

	if (c->after_timeout)
		step = min_u64(step, c->mss);
	else if (!c->paced)
		step = min_u64(step, MOST_SEGMENTS * c->mss);

	step = min_u64(step, c->ssthresh - c->cwnd);
	c->cwnd += step;
	if (c->cwnd >= c->ssthresh)
		c->after_timeout = false;
	return c->after_timeout ? 0 : acked - step;
}

void cc_on_ack(struct cc *c, const struct cc_ack *ack)
{
	uint64_t left = ack->acked_bytes, before = c->acked_ns;

	c->acked_ns = ack->now_ns;
	if (!ack->cwnd_limited) {
		if (before)
			c->ops->idled(c, ack->now_ns - before);
		return;
	}
	if (c->cwnd < c->ssthresh)
		left = slow_start(c, left);
	if (left && c->cwnd >= c->ssthresh)
		c->ops->avoid(c, ack, left);
}

void cc_on_episode(struct cc *c)
{
	c->before_cwnd = c->cwnd;
	c->before_ssthresh = c->ssthresh;
}

void cc_on_loss(struct cc *c, uint64_t inflight_bytes, uint64_t now_ns)
{
	(void)now_ns;
	c->ssthresh = c->ops->lost(c, inflight_bytes);
	c->cwnd = c->ssthresh;
	c->after_timeout = false;
}

void cc_on_timeout(struct cc *c, uint64_t inflight_bytes, bool first, uint64_t now_ns)
{
	(void)now_ns;
	if (first)
		c->ssthresh = c->ops->lost(c, inflight_bytes);
	c->cwnd = c->mss; /* the loss window */
	c->after_timeout = true;
}

void cc_on_idle(struct cc *c, uint64_t idle_ns, uint64_t rto_ns, uint64_t now_ns)
{
	c->acked_ns = now_ns;
	c->ops->idled(c, idle_ns);
	if (idle_ns <= rto_ns)
		return;
	/* What was reached once is worth slow start (RFC 2861, 3.2). */
	if (c->ssthresh < c->cwnd / 4 * 3)
		c->ssthresh = c->cwnd / 4 * 3;
	c->cwnd = min_u64(c->cwnd, initial_window(c->mss));
}

void cc_on_undo(struct cc *c)
{
	c->cwnd = c->cwnd > c->before_cwnd ? c->cwnd : c->before_cwnd;
	c->ssthresh = c->ssthresh > c->before_ssthresh ? c->ssthresh : c->before_ssthresh;
	c->after_timeout = false;
}

void cc_on_mss(struct cc *c, uint32_t mss, uint64_t now_ns)
{
	uint64_t segments = c->cwnd / c->mss;

	(void)now_ns;
	c->cwnd = (segments ? segments : 1) * mss;
	c->mss = mss;
}

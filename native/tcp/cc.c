/* SPDX-License-Identifier: MIT */
#include "tcp/cc.h"
#include "util.h"

/* RFC 6928, 2. Linux takes 10 segments of any size; the difference is that jumbo frames get fewer here. */
#define INITIAL_SEGMENTS 10u
#define INITIAL_BYTES 14600u

static uint64_t initial_window(uint32_t mss)
{
	return min_u32(INITIAL_SEGMENTS * mss, max_u32(2 * mss, INITIAL_BYTES));
}

void cc_init(struct cc *c, uint32_t which, uint32_t mss)
{
	*c = (struct cc){
	        .ops = which == CC_RENO ? &cc_reno : &cc_cubic,
	        .cwnd = initial_window(mss),
	        .ssthresh = UINT64_MAX, /* RFC 5681, 3.1: arbitrarily high */
	        .mss = mss,
	};
}

uint64_t cc_slow_start(struct cc *c, uint64_t acked_bytes)
{
	uint64_t counted = c->after_timeout ? min_u64(acked_bytes, c->mss) : acked_bytes;
	uint64_t grown = min_u64(counted, c->ssthresh - c->cwnd);

	c->cwnd += grown;
	if (c->cwnd >= c->ssthresh)
		c->after_timeout = false;
	return counted - grown;
}

void cc_on_ack(struct cc *c, const struct cc_ack *ack)
{
	c->ops->acked(c, ack);
}

static void remember(struct cc *c)
{
	c->prior = (struct cc_prior){c->cwnd, c->ssthresh, c->after_timeout, c->cubic};
	c->has_prior = true;
}

void cc_on_loss(struct cc *c, uint64_t inflight_bytes, uint64_t now_ns)
{
	remember(c);
	c->ops->lost(c, inflight_bytes, now_ns);
	c->cwnd = c->ssthresh;
	c->after_timeout = false;
	c->acked_bytes = 0;
}

void cc_on_timeout(struct cc *c, uint64_t inflight_bytes, bool first, uint64_t now_ns)
{
	if (first)
		remember(c);
	c->ops->timed_out(c, inflight_bytes, first, now_ns);
	c->cwnd = c->mss; /* RFC 5681, 3.1: LW */
	c->after_timeout = true;
	c->acked_bytes = 0;
}

void cc_on_idle(struct cc *c, uint64_t idle_ns, uint64_t rto_ns, uint64_t now_ns)
{
	uint64_t halvings = idle_ns ? (idle_ns - 1) / rto_ns : 0; /* "more than" an RTO */
	uint64_t restart = min_u64(initial_window(c->mss), c->cwnd), halved;

	if (c->ops->restarted)
		c->ops->restarted(c, now_ns);
	if (!halvings)
		return;
	if (c->ssthresh < c->cwnd - c->cwnd / 4)
		c->ssthresh = c->cwnd - c->cwnd / 4;
	halved = c->cwnd >> min_u64(halvings, 63);
	c->cwnd = halved > restart ? halved : restart;
	c->acked_bytes = 0;
	c->has_prior = false; /* what it says of the path is old, too */
}

void cc_on_undo(struct cc *c)
{
	if (!c->has_prior)
		return;
	c->has_prior = false;
	if (c->cwnd >= c->prior.cwnd)
		return;
	c->cwnd = c->prior.cwnd;
	c->ssthresh = c->prior.ssthresh;
	c->after_timeout = c->prior.after_timeout;
	c->cubic = c->prior.cubic;
}

static uint64_t scaled(uint64_t bytes, uint32_t from, uint32_t to)
{
	return bytes == UINT64_MAX ? bytes : (uint64_t)((unsigned __int128)bytes * to / from);
}

/* As many bytes in other segments. */
static void resize_segments(struct cubic *q, double factor)
{
	q->w_max *= factor;
	q->cwnd_prior *= factor;
	q->w_est *= factor;
}

void cc_on_mss(struct cc *c, uint32_t mss, uint64_t now_ns)
{
	uint32_t old = c->mss;

	(void)now_ns;
	c->mss = mss;
	if (mss < old) {
		c->cwnd = scaled(c->cwnd, old, mss);
		c->ssthresh = scaled(c->ssthresh, old, mss);
		c->acked_bytes = scaled(c->acked_bytes, old, mss);
		c->prior.cwnd = scaled(c->prior.cwnd, old, mss);
		c->prior.ssthresh = scaled(c->prior.ssthresh, old, mss);
	} else {
		resize_segments(&c->cubic, (double)old / mss);
		resize_segments(&c->prior.cubic, (double)old / mss);
	}
	if (c->cwnd < mss)
		c->cwnd = mss;
}

/* SPDX-License-Identifier: MIT */
/* cc_pieces.c - wheel, RTT, congestion control and initial sequence numbers for tests: each on the heap. */
#include <stdlib.h>

#include "tcp/cc.h"
#include "tcp/isn.h"
#include "tcp/rtt.h"
#include "tcp/wheel.h"
#include "xske.h"

struct timers {
	struct wheel wheel;
	struct wheel_timer timers[];
};

XSKE_API struct timers *pieces_timers(uint32_t n, uint64_t now_ns)
{
	struct timers *t = calloc(1, sizeof(*t) + n * sizeof(t->timers[0]));

	wheel_init(&t->wheel, now_ns);
	return t;
}

XSKE_API void pieces_free(void *p)
{
	free(p);
}

XSKE_API void pieces_arm(struct timers *t, uint32_t i, uint64_t due_ns)
{
	wheel_arm(&t->wheel, &t->timers[i], due_ns);
}

XSKE_API void pieces_cancel(struct timers *t, uint32_t i)
{
	wheel_cancel(&t->wheel, &t->timers[i]);
}

XSKE_API int pieces_is_armed(const struct timers *t, uint32_t i)
{
	return wheel_is_armed(&t->timers[i]);
}

XSKE_API int64_t pieces_expire(struct timers *t, uint64_t now_ns)
{
	struct wheel_timer *one = wheel_expire(&t->wheel, now_ns);

	return one ? one - t->timers : -1;
}

XSKE_API uint64_t pieces_next_ns(const struct timers *t)
{
	return wheel_next_ns(&t->wheel);
}

XSKE_API struct rtt *pieces_rtt(void)
{
	struct rtt *r = malloc(sizeof(*r));

	rtt_init(r);
	return r;
}

XSKE_API void pieces_sample(struct rtt *r, uint64_t sample_ns, uint64_t now_ns)
{
	rtt_sample(r, sample_ns, now_ns);
}

XSKE_API void pieces_back_off(struct rtt *r)
{
	rtt_back_off(r);
}

XSKE_API void pieces_syn_timed_out(struct rtt *r)
{
	rtt_syn_timed_out(r);
}

XSKE_API uint64_t pieces_rto_ns(const struct rtt *r)
{
	return rtt_rto_ns(r);
}

XSKE_API uint64_t pieces_srtt_ns(const struct rtt *r)
{
	return r->srtt_ns;
}

XSKE_API uint64_t pieces_rttvar_ns(const struct rtt *r)
{
	return r->rttvar_ns;
}

XSKE_API uint64_t pieces_min_ns(const struct rtt *r)
{
	return r->min_ns;
}

XSKE_API struct cc *pieces_cc(uint32_t which, uint32_t mss)
{
	struct cc *c = malloc(sizeof(*c));

	cc_init(c, which, mss);
	return c;
}

XSKE_API void pieces_ack(struct cc *c, uint64_t acked_bytes, uint64_t now_ns, uint64_t srtt_ns, int limited)
{
	cc_on_ack(c, &(struct cc_ack){acked_bytes, c->cwnd, now_ns, srtt_ns, srtt_ns, limited});
}

XSKE_API void pieces_loss(struct cc *c, uint64_t inflight_bytes, uint64_t now_ns)
{
	cc_on_loss(c, inflight_bytes, now_ns);
}

XSKE_API void pieces_timeout(struct cc *c, uint64_t inflight_bytes, int first, uint64_t now_ns)
{
	cc_on_timeout(c, inflight_bytes, first, now_ns);
}

XSKE_API void pieces_idle(struct cc *c, uint64_t idle_ns, uint64_t rto_ns, uint64_t now_ns)
{
	cc_on_idle(c, idle_ns, rto_ns, now_ns);
}

XSKE_API void pieces_undo(struct cc *c)
{
	cc_on_undo(c);
}

XSKE_API void pieces_mss(struct cc *c, uint32_t mss, uint64_t now_ns)
{
	cc_on_mss(c, mss, now_ns);
}

XSKE_API uint64_t pieces_cwnd(const struct cc *c)
{
	return cc_cwnd(c);
}

XSKE_API uint64_t pieces_ssthresh(const struct cc *c)
{
	return cc_ssthresh(c);
}

XSKE_API const char *pieces_name(const struct cc *c)
{
	return c->ops->name;
}

XSKE_API struct isn_secret *pieces_secret(void)
{
	struct isn_secret *s = malloc(sizeof(*s));

	if (isn_init(s)) {
		free(s);
		return NULL;
	}
	return s;
}

XSKE_API uint32_t pieces_isn(const struct isn_secret *s, const uint8_t *tuple, uint32_t len, uint64_t now_ns)
{
	return isn_of(s, tuple, len, now_ns);
}

XSKE_API uint32_t pieces_timestamp_offset(const struct isn_secret *s, const uint8_t *tuple, uint32_t len)
{
	return isn_timestamp_offset(s, tuple, len);
}

/* From a copy of exactly its size. */
XSKE_API uint64_t pieces_siphash(const uint8_t *key, const uint8_t *data, uint32_t len)
{
	uint8_t *copy = malloc(len ? len : 1);
	uint64_t hash;

	for (uint32_t i = 0; i < len; i++)
		copy[i] = data[i];
	hash = siphash24(key, copy, len);
	free(copy);
	return hash;
}

/* SPDX-License-Identifier: MIT */
/* rtt.h - round trips, and the retransmission timeout that follows from them (RFC 6298). */
#ifndef XSKE_TCP_RTT_H
#define XSKE_TCP_RTT_H

#include <stdint.h>

#include "util.h"
#include "wheel.h"

/* RFC 6298, 2.4 says 1 s; Linux' TCP_RTO_MIN. Lower: a delayed ACK (40 to 200 ms) looks like a loss; higher: longer
 * silences where losses leave no other trace. */
#define RTO_MIN_NS (200 * NSEC_PER_MSEC)
#define RTO_MAX_NS (120 * NSEC_PER_SEC) /* Linux' TCP_RTO_MAX; RFC 6298, 2.5: 60 s or more */
#define RTO_FIRST_NS NSEC_PER_SEC       /* 2.1 */
/* The least round trip is forgotten after so long, for paths change (RFC 8985, 6.2, step 1). Linux: tcp_min_rtt_wlen. */
#define RTT_MIN_AGE_NS (300 * NSEC_PER_SEC)

struct rtt {
	uint64_t srtt_ns; /* 0: none was measured */
	uint64_t rttvar_ns;
	uint64_t rto_ns; /* without back-off */
	uint64_t latest_ns;
	uint64_t min_ns; /* UINT64_MAX: none was measured */
	uint64_t min_since_ns;
	uint32_t backoffs;
};

static inline void rtt_init(struct rtt *r)
{
	*r = (struct rtt){.rto_ns = RTO_FIRST_NS, .min_ns = UINT64_MAX};
}

static inline void rtt_sample(struct rtt *r, uint64_t sample_ns, uint64_t now_ns)
{
	uint64_t off;

	sample_ns = sample_ns ? sample_ns : 1;
	r->latest_ns = sample_ns;
	if (sample_ns <= r->min_ns || now_ns - r->min_since_ns > RTT_MIN_AGE_NS) {
		r->min_ns = sample_ns;
		r->min_since_ns = now_ns;
	}
	if (!r->srtt_ns) { /* 2.2 */
		r->srtt_ns = sample_ns;
		r->rttvar_ns = sample_ns / 2;
	} else { /* 2.3: beta 1/4 first, with the old srtt, then alpha 1/8 */
		off = r->srtt_ns > sample_ns ? r->srtt_ns - sample_ns : sample_ns - r->srtt_ns;
		r->rttvar_ns = (3 * r->rttvar_ns + off) / 4;
		r->srtt_ns = (7 * r->srtt_ns + sample_ns) / 8;
		r->srtt_ns = r->srtt_ns ? r->srtt_ns : 1;
	}
	off = 4 * r->rttvar_ns;
	r->rto_ns = r->srtt_ns + (off > WHEEL_TICK_NS ? off : WHEEL_TICK_NS); /* G: timers tick */
	r->backoffs = 0; /* only a measurement ends it: Karn, and the note below 5.7 */
}

/* 5.5 */
static inline void rtt_back_off(struct rtt *r)
{
	r->backoffs++;
}

static inline uint64_t rtt_rto_ns(const struct rtt *r)
{
	uint64_t rto = r->rto_ns < RTO_MIN_NS ? RTO_MIN_NS : r->rto_ns;

	for (uint32_t i = 0; i < r->backoffs && rto < RTO_MAX_NS; i++)
		rto *= 2;
	return min_u64(rto, RTO_MAX_NS);
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * rtt.h - round-trip times of one connection and its retransmission timeout, by RFC 6298. Who calls keeps
 * Karn's rule: no sample of a segment that was sent twice, unless a timestamp tells which one was answered
 * (RFC 6298, 3).
 */
#ifndef XSKE_TCP_RTT_H
#define XSKE_TCP_RTT_H

#include "tcp/wheel.h"
#include "util.h"

/* RFC 6298, 2.1, and Linux's TCP_TIMEOUT_INIT. Lower: long paths are sent everything twice. Higher: a lost
 * SYN costs more. */
#define RTO_INITIAL_NS NSEC_PER_SEC

/* RFC 6298, 5.7, and Linux's TCP_TIMEOUT_FALLBACK. */
#define RTO_AFTER_SYN_NS (3 * NSEC_PER_SEC)

/*
 * Linux's TCP_RTO_MIN; RFC 6298, 2.4, has 1 s, a SHOULD. As in Linux (tcp_rtt_estimator(), tcp_input.c) it
 * bounds what is added to SRTT, not the sum: a receiver may hold an ACK back for 200 ms (TCP_DELACK_MAX),
 * however long the path. Lower: such ACKs cost spurious timeouts. Higher: a lost tail that no probe saves
 * waits longer.
 */
#define RTO_MIN_NS (200 * NSEC_PER_MSEC)

/* Linux's TCP_RTO_MAX; RFC 6298, 2.5, wants 60 s or more. Higher: a path that is back is noticed late. */
#define RTO_MAX_NS (120 * NSEC_PER_SEC)

/* Linux's tcp_min_rtt_wlen. RFC 8985, 6.2, leaves it to us: of the whole connection, or of a window.
 * Shorter: a standing queue becomes the minimum. Longer: a path that became longer keeps RACK's window too
 * short. */
#define RTT_MIN_WINDOW_NS (300 * NSEC_PER_SEC)

struct rtt {
	uint64_t srtt_ns; /* 0: no sample yet */
	uint64_t rttvar_ns;
	uint64_t rto_ns; /* without back-off */
	uint64_t latest_ns;
	uint64_t min_ns; /* UINT64_MAX: no sample yet */
	uint64_t min_since_ns;
	uint32_t backoffs; /* timeouts since the last sample */
};

static inline void rtt_init(struct rtt *r)
{
	*r = (struct rtt){.rto_ns = RTO_INITIAL_NS, .min_ns = UINT64_MAX};
}

/* Samples are below 2^60 ns. Ends the back-off: only a measurement does (RFC 6298, the note below 5.7). */
static inline void rtt_sample(struct rtt *r, uint64_t sample_ns, uint64_t now_ns)
{
	uint64_t sample = sample_ns ? sample_ns : 1, term;

	if (!r->srtt_ns) { /* 2.2 */
		r->srtt_ns = sample;
		r->rttvar_ns = sample / 2;
	} else { /* 2.3 */
		uint64_t off = sample > r->srtt_ns ? sample - r->srtt_ns : r->srtt_ns - sample;

		r->rttvar_ns = (3 * r->rttvar_ns + off) / 4;
		r->srtt_ns = (7 * r->srtt_ns + sample) / 8;
	}
	/* G of the RFC is the wheel's tick, less than RTO_MIN_NS. */
	term = 4 * r->rttvar_ns;
	r->rto_ns = min_u64(r->srtt_ns + (term > RTO_MIN_NS ? term : RTO_MIN_NS), RTO_MAX_NS);
	r->latest_ns = sample;
	if (sample <= r->min_ns || now_ns - r->min_since_ns > RTT_MIN_WINDOW_NS) {
		r->min_ns = sample;
		r->min_since_ns = now_ns;
	}
	r->backoffs = 0;
}

/* 5.5: the timer expired. */
static inline void rtt_back_off(struct rtt *r)
{
	if (r->backoffs < UINT32_MAX)
		r->backoffs++;
}

/* 5.7: a SYN timed out and the handshake gave no sample, and now data is to be sent. */
static inline void rtt_syn_timed_out(struct rtt *r)
{
	if (r->srtt_ns)
		return;
	r->rto_ns = RTO_AFTER_SYN_NS;
	r->backoffs = 0;
}

static inline uint64_t rtt_rto_ns(const struct rtt *r)
{
	/* RTO_MIN_NS << 10 is above RTO_MAX_NS already. */
	return min_u64(r->rto_ns << min_u32(r->backoffs, 10), RTO_MAX_NS);
}

#endif

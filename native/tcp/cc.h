/* SPDX-License-Identifier: MIT */
/*
 * cc.h - congestion control behind one small interface: how many bytes may be in the network. All in bytes, on a passed-in
 * clock. What is lost and when is recovery.c's to say; the window outside recovery, and how far it falls, is decided here.
 *
 * Slow start grows by what an ACK covers, eight segments at most, or all where segments are paced (RFC 9406, 4.2; a
 * receiver with GRO acknowledges 44 segments at once, and counting one or two of them, as RFC 5681 and 3465 do, would hardly be
 * growth). After a timeout by one segment per ACK (RFC 3465, 2.3), for such an ACK may cover what was never lost. Nothing grows
 * while the sender does not use what it has (RFC 9438, 5.8).
 */
#ifndef XSKE_TCP_CC_H
#define XSKE_TCP_CC_H

#include <stdbool.h>
#include <stdint.h>

enum { CC_RENO = 1, CC_CUBIC = 2 };

struct cc;

struct cc_ack {
	uint64_t acked_bytes;
	uint64_t inflight_bytes; /* before it */
	uint64_t now_ns;
	uint64_t srtt_ns;
	uint64_t min_rtt_ns;
	bool cwnd_limited; /* the window was what kept the sender from sending more */
};

struct cc_ops {
	const char *name;
	/* Congestion avoidance; acked: what slow start has not used. */
	void (*avoid)(struct cc *c, const struct cc_ack *ack, uint64_t acked);
	/* A loss with so much not acknowledged (FlightSize, RFC 5681, 2); returns ssthresh. */
	uint64_t (*lost)(struct cc *c, uint64_t inflight_bytes);
	/* Time that does not count: nothing was wanted. */
	void (*idled)(struct cc *c, uint64_t ns);
};

struct cubic {
	uint64_t epoch_ns; /* when this one began; 0: not yet */
	double k_s;        /* until w_max is reached again */
	double w_max;      /* in segments, as the next two */
	double w_est;      /* where Reno would be */
	double w_prior;    /* cwnd before the last loss */
};

struct cc {
	const struct cc_ops *ops;
	uint64_t cwnd;
	uint64_t ssthresh;
	uint32_t mss;
	bool paced;
	bool after_timeout;                    /* slow start in small steps, until ssthresh */
	uint64_t before_cwnd, before_ssthresh; /* the episode */
	uint64_t acked_ns;                     /* the last ACK */
	uint64_t reno_acked;
	struct cubic cubic;
};

extern const struct cc_ops cc_reno, cc_cubic;

/* RFC 6928, 2 */
void cc_init(struct cc *c, uint32_t which, uint32_t mss, bool paced);
/* Outside fast recovery. */
void cc_on_ack(struct cc *c, const struct cc_ack *ack);
/* A recovery begins: what cc_on_undo() goes back to. */
void cc_on_episode(struct cc *c);
void cc_on_loss(struct cc *c, uint64_t inflight_bytes, uint64_t now_ns);
/* first: not one more for the same segment (RFC 5681, 3.1, equation 4). */
void cc_on_timeout(struct cc *c, uint64_t inflight_bytes, bool first, uint64_t now_ns);
/* Nothing was sent for so long, and now something will be (RFC 5681, 4.1). */
void cc_on_idle(struct cc *c, uint64_t idle_ns, uint64_t rto_ns, uint64_t now_ns);
/* Nothing had been lost. */
void cc_on_undo(struct cc *c);
/* The path has become narrower: as many segments, of the new size. */
void cc_on_mss(struct cc *c, uint32_t mss, uint64_t now_ns);

static inline uint64_t cc_cwnd(const struct cc *c)
{
	return c->cwnd;
}

#endif

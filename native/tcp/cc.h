/* SPDX-License-Identifier: MIT */
/*
 * cc.h - congestion control of one connection: how many bytes may be inflight. Reno is RFC 5681 counted in bytes (RFC
 * 3465), CUBIC is RFC 9438. The clock is passed in.
 */
#ifndef XSKE_TCP_CC_H
#define XSKE_TCP_CC_H

#include <stdbool.h>
#include <stdint.h>

enum { CC_RENO = 1, CC_CUBIC = 2 };

struct cc;

struct cc_ack {
	uint64_t acked_bytes;    /* newly acknowledged, by ACK or SACK */
	uint64_t inflight_bytes; /* before this ACK */
	uint64_t now_ns;
	uint64_t srtt_ns;
	uint64_t min_rtt_ns;
	bool cwnd_limited; /* cwnd was what kept the sender from sending more */
};

struct cc_ops {
	const char *name;
	void (*acked)(struct cc *c, const struct cc_ack *a);
	void (*lost)(struct cc *c, uint64_t inflight_bytes, uint64_t now_ns);
	void (*timed_out)(struct cc *c, uint64_t inflight_bytes, bool first, uint64_t now_ns);
	/* All below may be NULL. */
	void (*idled)(struct cc *c, uint64_t idle_ns, uint64_t now_ns);
	void (*segments_scaled)(struct cc *c,
	                        double factor); /* as many bytes are now so many more segments */
};

/* RFC 9438's variables, by its names; windows in segments, as there. */
struct cubic {
	uint64_t epoch_start_ns; /* of the current congestion avoidance stage; 0: it has not begun */
	uint64_t seen_ns;        /* the ACK before */
	double w_max;            /* 0: no congestion event that it could be from */
	double cwnd_prior;
	double cwnd_epoch;
	double k;
	double w_est;
	double credit_bytes; /* growth of less than a byte */
};

struct cc {
	const struct cc_ops *ops;
	uint64_t cwnd, ssthresh; /* bytes */
	uint32_t mss;
	bool after_timeout;   /* in the slow start that follows one */
	bool has_prior;       /* something can be undone */
	uint64_t acked_bytes; /* Reno: since the last growth */
	struct cubic cubic;
	struct cc_prior { /* before the last on_loss or first on_timeout */
		uint64_t cwnd, ssthresh;
		uint64_t acked_bytes;
		bool after_timeout;
		struct cubic cubic;
	} prior;
};

/* `which`: CC_RENO, otherwise CUBIC. The initial window is RFC 6928's. */
void cc_init(struct cc *c, uint32_t which, uint32_t mss);

/*
 * Progress outside of recovery. Without cwnd_limited the window does not grow (RFC 7661, 4; RFC 9438, 5.8).
 *
 * Slow start counts every byte acknowledged, as Linux does (tcp_slow_start(), tcp_cong.c), though RFC 3465, 2.2, has
 * L = 2 SMSS for an ACK: receivers with GRO acknowledge 44 segments at once and a window would need 20 round trips more. What a
 * window has in flight it still at most doubles in a round trip. After a timeout L = 1 SMSS (RFC 3465, 2.3): an ACK
 * that fills a hole says little about how much has left the network.
 */
void cc_on_ack(struct cc *c, const struct cc_ack *ack);

/* Once per recovery episode: sets ssthresh, and cwnd to it. A caller with PRR (RFC 6937) sends less by itself. */
void cc_on_loss(struct cc *c, uint64_t inflight_bytes, uint64_t now_ns);

/* cwnd = 1 mss. `first`: not a back-off of what has already timed out; only then is ssthresh set (RFC 5681, 3.1 (4)). */
void cc_on_timeout(struct cc *c, uint64_t inflight_bytes, bool first, uint64_t now_ns);

/* Before something is sent after idle_ns of nothing inflight. */
void cc_on_idle(struct cc *c, uint64_t idle_ns, uint64_t rto_ns, uint64_t now_ns);

/* The last on_loss or on_timeout was for nothing (Eifel, RFC 3522 and 4015; DSACK, RFC 3708). Once for each. */
void cc_on_undo(struct cc *c);

/* The path's MTU has changed. */
void cc_on_mss(struct cc *c, uint32_t mss, uint64_t now_ns);

static inline uint64_t cc_cwnd(const struct cc *c)
{
	return c->cwnd;
}

static inline uint64_t cc_ssthresh(const struct cc *c)
{
	return c->ssthresh;
}

static inline bool cc_in_slow_start(const struct cc *c)
{
	return c->cwnd < c->ssthresh;
}

#endif

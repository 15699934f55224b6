/* SPDX-License-Identifier: MIT */
/*
 * cc.h - congestion control of one connection: how many bytes may be inflight. Reno is RFC 5681 counted in
 * bytes (RFC 3465), CUBIC is RFC 9438. The clock is passed in.
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
	void (*restarted)(struct cc *c, uint64_t now_ns); /* after idleness; may be NULL */
};

/* RFC 9438's variables, by its names; windows in segments, as there. */
struct cubic {
	bool has_epoch;          /* the current congestion avoidance stage has begun */
	uint64_t epoch_start_ns; /* when; later by all the time that the application was what limited */
	uint64_t seen_ns;        /* the ACK before */
	double w_max;            /* 0: undefined */
	double cwnd_prior;
	double k;
	double w_est;
	double credit_bytes; /* growth of less than a byte */
};

struct cc {
	const struct cc_ops *ops;
	uint64_t cwnd, ssthresh; /* bytes */
	uint32_t mss;
	bool after_timeout;   /* in the slow start that follows one */
	bool has_prior;       /* there is something to undo */
	uint64_t acked_bytes; /* Reno: since the last growth */
	struct cubic cubic;
	struct cc_prior { /* before the last on_loss or first on_timeout */
		uint64_t cwnd, ssthresh;
		bool after_timeout;
		struct cubic cubic;
	} prior;
};

/* `which`: CC_RENO, otherwise CUBIC. The initial window is RFC 6928's. */
void cc_init(struct cc *c, uint32_t which, uint32_t mss);

/*
 * Progress outside of recovery. Without cwnd_limited the window does not grow (RFC 7661, 4; RFC 9438, 5.8).
 *
 * Slow start counts every byte acknowledged, as Linux does (tcp_slow_start(), tcp_cong.c), though RFC 3465,
 * 2.3, has L = 2 SMSS for an ACK: a receiver with GRO acknowledges 44 segments at once, and the window would
 * grow by a twentieth in a round trip. In a round trip it at most doubles all the same. After a timeout L = 1
 * SMSS (RFC 3465, 2.3): an ACK that fills a hole says little about how much has left the network.
 */
void cc_on_ack(struct cc *c, const struct cc_ack *ack);

/* Once per recovery episode: sets ssthresh, and cwnd to it. A caller with PRR (RFC 6937) sends less by
 * itself. */
void cc_on_loss(struct cc *c, uint64_t inflight_bytes, uint64_t now_ns);

/* cwnd = 1 mss. `first`: not a back-off of what has already timed out; only then is ssthresh set (RFC 5681,
 * 3.1 (4)). */
void cc_on_timeout(struct cc *c, uint64_t inflight_bytes, bool first, uint64_t now_ns);

/*
 * Before something is sent when nothing was inflight for idle_ns. As in Linux (tcp_cwnd_restart(),
 * tcp_output.c) by RFC 2861: cwnd is halved for every RTO, down to the restart window of RFC 5681, 4.1, and
 * ssthresh remembers 3/4 of it. Less reduction: a burst into a path of which nothing is known any more. More:
 * each pause costs the slow start anew.
 */
void cc_on_idle(struct cc *c, uint64_t idle_ns, uint64_t rto_ns, uint64_t now_ns);

/* The last on_loss or on_timeout was for nothing (Eifel, RFC 3522 and 4015; DSACK, RFC 3708): all is as
 * before it, unless cwnd has become larger since (RFC 9438, 4.9). Once for each. */
void cc_on_undo(struct cc *c);

/*
 * The path's MTU has changed, which is no sign of congestion (RFC 1191, 6.4). A smaller mss leaves cwnd its
 * number of segments, as in Linux, which counts in them: as many bytes would be a burst of more packets. A
 * larger one leaves it its bytes (tcp_mtup_probe_success(), tcp_input.c). At least one mss.
 */
void cc_on_mss(struct cc *c, uint32_t mss, uint64_t now_ns);

/* For the algorithms: slow start; gives the bytes that are left for congestion avoidance. */
uint64_t cc_slow_start(struct cc *c, uint64_t acked_bytes);
extern const struct cc_ops cc_reno, cc_cubic;

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

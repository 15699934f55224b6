/* SPDX-License-Identifier: MIT */
/*
 * pace.h - how many packets are due. Exact rational arithmetic on a passed-in clock: packet k of a flow is
 * due at origin + k * period / packets, however the calls fall, so a rate holds at every batch size.
 */
#ifndef XSKE_PACE_H
#define XSKE_PACE_H

#include "util.h"

/* A flow that is late (the machine was busy, not the link down) catches up at most this much. Lower:
 * packets of a duration-limited run go missing; higher: longer bursts after a stall. */
#define PACE_MAX_LAG_NS NSEC_PER_SEC

struct pace {
	uint64_t packets; /* per period_ns; 0 = as fast as possible */
	uint64_t period_ns;
	uint64_t origin_ns;
	uint64_t sent; /* since origin */
};

static inline void pace_start(struct pace *p, uint64_t now)
{
	p->origin_ns = now;
	p->sent = 0;
}

static inline uint64_t pace_next_ns(const struct pace *p)
{
	unsigned __int128 at = (unsigned __int128)p->sent * p->period_ns + p->packets - 1;

	return p->origin_ns + (uint64_t)(at / p->packets);
}

static inline uint64_t pace_due(struct pace *p, uint64_t now)
{
	uint64_t next, due;

	if (!p->packets)
		return UINT64_MAX;
	next = pace_next_ns(p);
	if (now < next)
		return 0;
	if (unlikely(now - next > PACE_MAX_LAG_NS))
		p->origin_ns += now - next - PACE_MAX_LAG_NS;
	due = (uint64_t)((unsigned __int128)(now - p->origin_ns) * p->packets / p->period_ns) + 1;
	return due - p->sent;
}

#endif

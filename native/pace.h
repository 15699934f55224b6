/* SPDX-License-Identifier: MIT */
/*
 * pace.h - which packets are due. Time buys units at an exact rational rate, packets cost them: one each (pps),
 * as many as they have bits (bps), more or less at random (Poisson), what a file recorded, none until a burst is over. A packet is due when
 * all before it are paid for, however the calls fall; so a rate holds at every batch size. The clock is passed in.
 */
#ifndef XSKE_PACE_H
#define XSKE_PACE_H

#include <stdbool.h>

#include "util.h"
#include "xske.h"

/* A flow that is late (the machine was busy, not the link down) catches up at most this much. Lower:
 * packets of a duration-limited run go missing; higher: longer bursts after a stall. */
#define PACE_MAX_LAG_NS NSEC_PER_SEC

struct pace {
	struct xske_pace_config config; /* units 0: as fast as possible */
	double ns_per_unit;
	bool constant; /* every packet costs packet_units */
	uint64_t origin_ns;
	uint64_t paid;    /* units since origin */
	uint64_t allowed; /* and what time has bought */
	uint64_t packets; /* so far, all told */
	uint64_t held;    /* units of a burst that is not over */
};

void pace_init(struct pace *p, const struct xske_pace_config *config);
void pace_start(struct pace *p, uint64_t now);
/* From now on; the count of packets goes on. */
void pace_change(struct pace *p, const struct xske_pace_config *config, uint64_t now);
/* To be called before the two below, once per look at the clock. */
void pace_look(struct pace *p, uint64_t now);
/* With a rate: how many of the next n packets, of these lengths, are due; writes what each of them costs, unless it was
 * recorded. */
uint32_t pace_due(const struct pace *p, const uint32_t *len, uint64_t *cost, uint32_t n);
/* n of them were posted. */
void pace_pay(struct pace *p, const uint32_t *len, const uint64_t *cost, uint32_t n);

static inline bool pace_is_max(const struct pace *p)
{
	return !p->config.rate_units;
}

/* There was no packet that could have been due: the time until now does not count. */
void pace_wait(struct pace *p, uint64_t now);

/* When the next packet is due. */
static inline uint64_t pace_next_ns(const struct pace *p)
{
	unsigned __int128 at = (unsigned __int128)p->paid * p->config.period_ns + p->config.rate_units - 1;

	return p->origin_ns + (uint64_t)(at / p->config.rate_units);
}

#endif

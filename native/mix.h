/* SPDX-License-Identifier: MIT */
/*
 * mix.h - flows that share one pace, in an order that repeats: a block. A txq sends every n-th block, so that the
 * packets of a flow are the same whatever the number of txqs. One mix is what --rate and --count are about; a
 * flow with a rate of its own is a mix of its own, and so is a trace.
 */
#ifndef XSKE_MIX_H
#define XSKE_MIX_H

#include <stdatomic.h>

#include "flow.h"
#include "pace.h"
#include "trace.h"

struct xske_mix {
	struct xske_mix *beside;
	uint64_t due_ns; /* when it wants to be looked at again (schedule.c) */
	struct pace pace;
	uint64_t remaining; /* packets; UINT64_MAX without a count */
	uint64_t duration_ns;
	uint64_t end_ns;         /* 0 until the first post */
	uint64_t quiet_since_ns; /* it has posted last; or it or its rate began, if that is later */
	double asked_gap_ns;     /* from its last packet to the next */
	uint32_t batch;
	uint32_t turn_left;   /* packets of a turn that room has run out in */
	uint32_t quota_frags; /* of what its account has inflight */
	uint32_t account;
	bool has_gap;           /* it has posted, at this pace */
	int error;              /* why it could not start */
	_Atomic uint32_t ended; /* the loop has forgotten it: released, acquired by who then frees it */
	uint32_t flow_count;
	uint32_t order_len;
	uint32_t at; /* in order */
	uint32_t max_bytes;
	uint32_t max_descs; /* of a packet */
	struct xske_flow **flows;
	struct xske_flow **order;
	struct xske_trace *trace; /* instead of them */
};

/* Where a mix posts to, and who watches. */
struct outlet {
	struct xske_txq *q;
	struct xske_gaps *gaps;
	struct xske_capture *capture;
	uint64_t now_ns;
	uint64_t counted_ns; /* as durations count: while the link is down, since when */
	uint64_t tai_ns;
	double asked_ns; /* gaps, with their fractions */
	bool starved;    /* something was due and found no room or no chunk */
	bool limited;    /* something was due and stood at its quota */
	bool waits;      /* for whoever reads the capture */
	bool probing;    /* the link is down: no pace is kept, and nothing is paid for it */
	struct column column;
};

int mix_load(struct xske_mix *m, struct xske_txq *q, uint64_t now);
void mix_unload(struct xske_mix *m, struct xske_txq *q);
/* Posts what is due and fits; returns packets posted. */
uint32_t mix_run(struct xske_mix *m, struct outlet *o, uint32_t limit);
/* For so long until now nothing could be posted: neither pace nor duration count it. What it posted meanwhile counts. */
void mix_shift(struct xske_mix *m, uint64_t ns, uint64_t now);

/* What there is to begin and to end, for who counts it: its flows, or one trace. */
static inline uint32_t mix_sources(const struct xske_mix *m)
{
	return m->trace ? 1 : m->flow_count;
}

static inline bool mix_is_over(const struct xske_mix *m, uint64_t now)
{
	return !m->remaining || (m->end_ns && now >= m->end_ns);
}

/* When there is something to do again; 0 now. */
static inline uint64_t mix_next_ns(const struct xske_mix *m)
{
	uint64_t at = pace_is_max(&m->pace) ? 0 : pace_next_ns(&m->pace);

	return m->end_ns && m->end_ns < at ? m->end_ns : at;
}

#endif

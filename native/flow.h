/* SPDX-License-Identifier: MIT */
/*
 * flow.h - a flow program and its run over a batch. Without patches the template's frags are posted again
 * and again (no allocation, no copy, no atomic). With patches every packet gets a copy of the head in a
 * fresh frag of the loop's arena, patched there; what lies behind the head is posted from the template.
 * Belongs to the loop's thread from START_FLOW to its end.
 */
#ifndef XSKE_FLOW_H
#define XSKE_FLOW_H

#include "pace.h"
#include "txq.h"

struct flow_patch {
	uint32_t offset, width;
	uint32_t csum;  /* which of the flow's checksums it changes; XSKE_MAX_PATCHES: none */
	uint32_t shift; /* csum_shift() */
	uint64_t value; /* of the next packet */
	uint64_t step, base, modulo;
	uint64_t left; /* packets until it wraps; without a modulo more than there will be */
};

/* A checksum that patches change: the template's, less what stood in their fields. */
struct flow_csum {
	uint32_t offset;
	bool udp; /* 0 is sent as 0xffff (RFC 768) */
	uint64_t rest;
};

struct xske_flow {
	struct xske_flow *next; /* in the loop's list */
	struct pace pace;
	uint64_t remaining; /* packets; UINT64_MAX without a count */
	uint64_t duration_ns;
	uint64_t end_ns; /* 0 until the first post */
	uint32_t batch;
	uint32_t quota_frags;
	uint32_t frame_len;
	uint32_t head_len; /* bytes in the first desc */
	uint32_t copy_len; /* head_len, or more where the frag's padding takes it */
	uint32_t descs;    /* per packet */
	uint32_t patch_count, csum_count;
	struct flow_patch patches[XSKE_MAX_PATCHES];
	struct flow_csum csums[XSKE_MAX_PATCHES];
	uint64_t addr[XSKE_MAX_DESCS_PER_PACKET]; /* the template's frags, one per desc */
	uint32_t len[XSKE_MAX_DESCS_PER_PACKET];
	bool loaded;     /* the template's frags are ours */
	uint8_t frame[]; /* padded to FRAG_ALIGN */
};

int flow_load(struct xske_flow *f, struct xske_arena *a, uint64_t now);
void flow_unload(struct xske_flow *f, struct xske_arena *a, struct xske_umem *umem);
/* Posts what is due and fits; returns packets posted. *starved: due, but no room. */
uint32_t flow_run(struct xske_flow *f, struct xske_txq *q, uint64_t now, uint32_t limit, bool *starved);

static inline bool flow_is_over(const struct xske_flow *f, uint64_t now)
{
	return !f->remaining || (f->end_ns && now >= f->end_ns);
}

/* The link was down for so long: neither pace nor duration count it. */
static inline void flow_shift(struct xske_flow *f, uint64_t ns)
{
	f->pace.origin_ns += ns;
	if (f->end_ns)
		f->end_ns += ns;
}

/* When there is something to do again; UINT64_MAX never, 0 now. */
static inline uint64_t flow_next_ns(const struct xske_flow *f)
{
	uint64_t at = f->pace.packets ? pace_next_ns(&f->pace) : 0;

	return f->end_ns && f->end_ns < at ? f->end_ns : at;
}

#endif

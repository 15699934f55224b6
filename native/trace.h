/* SPDX-License-Identifier: MIT */
/*
 * trace.h - the packets of a capture file, on their way through the umem. One thread takes them from the file and
 * writes them, edited, into frags of an arena of its own; the loop posts them in the file's order.
 * Loaded: all packets stay, and are posted from where they lie as often as wanted: the trace keeps its
 * reference on every frag. A stream: what was posted belongs to the txq, comes back to the arena over its return
 * list, and makes room for the next.
 * head: the taker writes it, released when the packets before it are complete. tail: the loop's, of a stream.
 */
#ifndef XSKE_TRACE_H
#define XSKE_TRACE_H

#include "flow.h"

/* What the loop posts: a desc, and in the first of a packet what there is to know about it. */
struct trace_desc {
	uint64_t addr;
	uint64_t gap_ns; /* to the next packet */
	uint32_t len;
	uint32_t options;
	uint32_t packet_bytes;
	uint32_t packet_descs;
};

/* A desc, and which time over those that stay. */
struct trace_place {
	uint64_t at, pass;
};

struct xske_trace {
	/* Constant. */
	struct xske_trace_config config;
	struct xske_umem *umem;
	struct xske_edit *edits;
	uint32_t usable; /* bytes of a chunk */
	uint32_t max_bytes;
	/* The taker's. */
	struct xske_trace_stats stats;
	uint8_t *scratch;
	uint64_t filled;       /* descs written, of which those from `newest` on wait for their gap */
	uint64_t newest;       /* first desc of the packet taken last */
	uint64_t allocated;    /* descs */
	uint64_t pass_packets; /* of this pass over the file */
	uint64_t pass_gaps_ns; /* stats.gaps_ns when it began */
	bool edited;           /* the packet in scratch */
	uint32_t chunk_used;   /* counting: bytes of the chunk that would be open */
	int error;
	/* Shared. */
	struct trace_desc *descs;
	/* As in spsc.h; `ended` is released behind the last head, and looked at before it. Nobody is woken: both look again. */
	alignas(XSKE_CACHE_LINE) _Atomic uint64_t head;
	_Atomic uint32_t ended; /* nothing comes behind head */
	alignas(XSKE_CACHE_LINE) _Atomic uint64_t tail;
	_Atomic uint32_t closed; /* relaxed: it orders nothing */
	/* The loop's. */
	struct trace_place next;
	struct xske_flow_counters posted;
};

static inline struct trace_desc *trace_desc_at(const struct xske_trace *t, uint64_t at)
{
	return &t->descs[t->config.ring ? at & (t->config.ring - 1) : at];
}

uint32_t trace_max_bytes(const struct xske_trace *t);
uint32_t trace_max_descs(const struct xske_trace *t);
/* Lengths and recorded costs of the next up to n packets into the column; how many are there. */
uint32_t trace_plan(const struct xske_trace *t, struct column *col, uint32_t n);
/* Posts the next n packets, which were planned, as far as *room descs suffice; takes them off *room. */
uint32_t trace_post(struct xske_trace *t, struct xske_txq *q, uint32_t n, uint32_t *room);
/* Its last packet was posted, for the last time. */
bool trace_is_over(const struct xske_trace *t);

#endif

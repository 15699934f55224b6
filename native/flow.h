/* SPDX-License-Identifier: MIT */
/*
 * flow.h - one flow: its template, its fields, its lengths, and how n packets of it are made and posted.
 *
 * A flow in which only lengths change has one template per length, posted again and again: no allocation, no copy,
 * no atomic. Otherwise every packet has a head of its own (its first desc) in a frag of the loop's arena, and what lies
 * behind the head is posted from the template. Heads are prefilled: a chunk that comes back to the flow
 * still holds the template in each of its slots (its stamp says so), and only the fields are written.
 * Belongs to the loop's thread from START_MIX to its end.
 */
#ifndef XSKE_FLOW_H
#define XSKE_FLOW_H

#include "csum.h"
#include "field.h"
#include "txq.h"

/* One length. */
struct variant {
	uint64_t addr; /* of its template's head, if the flow has templates */
	uint32_t len;
	uint32_t head_len; /* bytes in the first desc */
	uint32_t descs;
};

struct checksum {
	uint32_t offset;
	uint32_t csums; /* those that cover it */
	bool udp, partial;
	bool constant; /* stands in the template */
};

static inline uint16_t checksum_of(const struct checksum *c, uint64_t sum)
{
	uint16_t check = c->partial ? csum_fold(sum) : (uint16_t)~csum_fold(sum);

	return c->udp && !check ? 0xffff : check;
}

struct xske_flow {
	/* What every packet needs, in two cache lines. */
	uint64_t sequence;                /* of its next packet */
	struct xske_flow_counters posted; /* read by others */
	uint64_t moves[FIELD_MOVES];
	uint32_t weight;
	uint32_t left;       /* packets in this block */
	uint32_t size_index; /* in order, of the next packet */
	uint32_t size_moves[FIELD_MOVES];
	uint32_t order_len, variant_count;
	uint32_t max_descs;
	struct variant *variants;
	uint32_t *order;        /* NULL: 0, 1, 2, ... */
	uint32_t first_options; /* of the first desc */
	uint32_t frame_len;
	uint32_t field_count, checksum_count;
	bool templates, random_sizes, timestamp;
	bool keeps; /* a slot that was sent still holds the template but for the fields */
	uint32_t stamp;
	uint32_t slot_len; /* most bytes of a head */
	uint32_t tail_len; /* bytes that are counted from the end: the trailer */
	struct field *fields;
	struct checksum *checksums;
	uint64_t *sums; /* [variant][checksum]: of all that does not change */
	uint64_t size_key;
	uint32_t usable; /* bytes of a chunk */
	uint32_t piece_count;
	uint8_t *frame;       /* the longest packet, fields and checksums 0 */
	uint64_t metadata[2]; /* struct xsk_tx_metadata: flags, request; the time of the post follows them */
	bool loaded;
	uint64_t pieces[XSKE_MAX_DESCS_PER_PACKET]; /* the template behind the head, a chunk each */
};

/* Whole words, by one writer: a reader sees each of them as it was at some moment. */
static inline void count_posted(struct xske_flow_counters *c, uint32_t packets, uint64_t bytes)
{
	__atomic_store_n(&c->packets, c->packets + packets, __ATOMIC_RELAXED);
	__atomic_store_n(&c->bytes, c->bytes + bytes, __ATOMIC_RELAXED);
}

static inline struct xske_flow_counters read_posted(const struct xske_flow_counters *c)
{
	return (struct xske_flow_counters){__atomic_load_n(&c->packets, __ATOMIC_RELAXED),
	                                   __atomic_load_n(&c->bytes, __ATOMIC_RELAXED)};
}

/* Copies the template into frags of the loop's arena; the flow holds a reference on each. */
int flow_load(struct xske_flow *f, struct xske_arena *a);
void flow_unload(struct xske_flow *f, struct xske_arena *a);
/* Has the kernel a template of it, or another frag of such a chunk? */
bool flow_is_inflight(const struct xske_flow *f, const struct xske_arena *a);
/* Changes bytes of all templates. While none of them is inflight. */
void flow_update(struct xske_flow *f, struct xske_arena *a, const struct xske_update *update);
/* The lengths of the next n (up to FIELD_COLUMN) packets into the column; n > 1 only for a flow alone in its mix. */
void flow_plan(const struct xske_flow *f, struct column *col, uint32_t n);
/* It will be planned soon. */
static inline void flow_prefetch(const struct xske_flow *f)
{
	__builtin_prefetch(f->variants);
	__builtin_prefetch(f->order);
}

/* Makes and posts n planned packets, which the txq has room for; fewer when the arena has no chunk. */
uint32_t flow_post(struct xske_flow *f, struct xske_txq *q, struct column *col, uint32_t n, uint64_t tai_ns);

#endif

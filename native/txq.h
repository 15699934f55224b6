/* SPDX-License-Identifier: MIT */
/*
 * txq.h - a tx ring with its completion ring. Ring arithmetic is libxdp's xsk.h; this adds what the ring
 * cannot know: which chunk each desc pins, and which completions may come.
 *
 * tx ring:  we write descs and producer, the kernel consumer and flags.
 * cq:       the kernel writes addrs and producer, we consumer.
 * Ownership: posting moves the caller's reference to the txq. It keeps one per chunk while the chunk's
 * inflight > 0 and drops the others at once, so a template posted a thousand times costs no atomic.
 * Rules: a slot is filled first and reserved afterwards, so nothing is ever reserved that is not submitted;
 * inflight never exceeds the completion ring, so the kernel always finds room for a completion.
 * All of it belongs to the loop's thread.
 */
#ifndef XSKE_TXQ_H
#define XSKE_TXQ_H

#include <stddef.h>
#include <string.h>

#include <xdp/xsk.h>

#include "arena.h"
#include "chunk.h"
#include "kick.h"

struct watch;

/* Packets posted one after the other that look alike. Completed packets and bytes are counted from these:
 * exact when quiescent, and in posting order while completions overtake each other. */
struct packet_run {
	uint32_t bytes;
	uint16_t descs;
	uint16_t account;
	uint64_t packets;
};

/* What somebody has inflight, in the same way. */
struct account {
	uint32_t inflight;
	bool open;
};
#define MAX_ACCOUNTS 65536u

struct xske_txq {
	struct xsk_ring_prod tx;
	struct xsk_ring_cons cq;
	struct xske_umem *umem;
	struct xske_arena *self; /* the loop's arena: its thread is ours */
	uint32_t filled;         /* slots written behind cached_prod, not yet submitted */
	uint32_t id;
	bool need_wakeup;
	bool owner_waits; /* a recycled chunk's owner waits at its quota */
	uint64_t submitted_descs, completed_descs;
	uint64_t submitted_packets, completed_packets;
	uint64_t submitted_bytes, completed_bytes, completed_wire_bytes;
	uint64_t bad_completions, bad_addr;
	bool probe_is_out;   /* the invalid desc was taken and has not come back */
	uint32_t run_credit; /* descs completed that fill no whole packet yet */
	uint32_t run_head, run_tail, run_mask;
	struct packet_run *runs;
	struct account *accounts; /* [0]: of all who have none of their own */
	uint32_t account_count;
	uint32_t account;       /* whose packets are posted now */
	struct watch **watches; /* by chunk: who waits for its completions (tracker.h) */
	uint32_t watching;      /* how many */
	bool tracker_done;
	struct xdp_desc *kept;  /* what is inflight while detached */
	struct xske_gaps *gaps; /* what tx timestamps tell goes here; NULL: packets carry none */
	uint64_t last_stamp_ns;
	struct kick kick;
};

/* Preamble and SFD 8, FCS 4, inter-frame gap 12 (IEEE 802.3 clause 4); frames are padded to 60. */
static inline uint32_t txq_wire_bytes(uint32_t len)
{
	return max_u32(len, 60) + 24;
}

static inline uint32_t txq_inflight(const struct xske_txq *q)
{
	return (uint32_t)(q->submitted_descs - q->completed_descs);
}

/* Descs that may be posted now. */
static inline uint32_t txq_room(struct xske_txq *q, uint32_t want)
{
	uint32_t comp = q->cq.size - txq_inflight(q) - q->filled;
	uint32_t tx = xsk_prod_nb_free(&q->tx, want + q->filled) - q->filled;

	return min_u32(comp, tx);
}

/* Everything has come back, and still there is no room: after an EBUSY for the last desc of a full ring the kernel
 * publishes its consumer index with the next kick only (net/xdp/xsk_queue.h, xskq_cons_get_entries). */
static inline bool txq_is_stuck(struct xske_txq *q)
{
	return !txq_inflight(q) && !txq_room(q, 1);
}

/* Where the next desc will lie in the tx ring. */
static inline uint32_t txq_next_slot(const struct xske_txq *q)
{
	return q->tx.cached_prod + q->filled;
}

/* Writes the next slot; the caller has asked txq_room. The desc is valid and its chunk is of this txq. */
static inline void txq_fill(struct xske_txq *q, uint64_t addr, uint32_t len, uint32_t options)
{
	struct xdp_desc *desc = xsk_ring_prod__tx_desc(&q->tx, q->tx.cached_prod + q->filled++);

	desc->addr = addr;
	desc->len = len;
	desc->options = options;
}

/* The same for n packets of one desc each: what changes from one to the next stays in registers. */
static inline void txq_fill_run(struct xske_txq *q, const uint64_t *addr, const uint32_t *len,
                                uint32_t options, uint32_t n)
{
	struct xdp_desc *ring = q->tx.ring;
	uint32_t at = q->tx.cached_prod + q->filled, mask = q->tx.mask;

	for (uint32_t i = 0; i < n; i++)
		ring[(at + i) & mask] = (struct xdp_desc){.addr = addr[i], .len = len[i], .options = options};
	q->filled += n;
}

/* The caller's reference on c becomes the txq's. */
static inline void txq_take(struct xske_txq *q, struct chunk *c)
{
	if (c->inflight++)
		frag_unref(q->self, c); /* never the last: the txq holds one */
}

/* It was not posted after all. */
static inline void txq_untake(struct xske_txq *q, struct chunk *c)
{
	if (!--c->inflight)
		frag_unref(q->self, c);
}

/* txq_take for n references on the chunk that the loop's arena has open. */
static inline void txq_take_open(struct xske_txq *q, uint32_t n)
{
	struct chunk *c = q->self->open;

	q->self->handed -= (int32_t)(c->inflight ? n : n - 1);
	c->inflight += n;
}

/* As txq_take n times, but the caller keeps his reference: for what is posted again and again. */
static inline void txq_borrow(struct xske_txq *q, struct chunk *c, uint32_t n)
{
	if (!c->inflight) {
		if (c == q->self->open)
			q->self->handed++;
		else if (c->held)
			c->held++;
		else
			frag_ref(c);
	}
	c->inflight += n;
}

void txq_log_new_run(struct xske_txq *q, uint32_t bytes, uint32_t descs, uint32_t packets);

/* Notes `packets` equal packets among the filled slots. */
static inline void txq_log(struct xske_txq *q, uint32_t bytes, uint32_t descs, uint32_t packets)
{
	struct packet_run *run = &q->runs[(q->run_head - 1) & q->run_mask];

	q->submitted_packets += packets;
	q->submitted_bytes += (uint64_t)bytes * packets;
	q->accounts[q->account].inflight += descs * packets;
	if (likely(q->run_head != q->run_tail && run->bytes == bytes && run->descs == descs &&
	           run->account == q->account))
		run->packets += packets;
	else
		txq_log_new_run(q, bytes, descs, packets);
}

/* Hands the filled slots to the kernel. */
static inline void txq_submit(struct xske_txq *q)
{
	uint32_t n = q->filled;

	if (!n)
		return;
	/* They are reserved: txq_room() was asked for them. To ask again would be to trust that the kernel's index has not
	 * gone back since. */
	q->tx.cached_prod += n;
	xsk_ring_prod__submit(&q->tx, n);
	q->submitted_descs += n;
	q->filled = 0;
}

/* Descs that the kernel has not looked at yet. Never more than inflight: after an EBUSY the kernel publishes
 * its consumer index only with its next look. */
static inline uint32_t txq_unseen(const struct xske_txq *q)
{
	return min_u32(q->tx.cached_prod - __atomic_load_n(q->tx.consumer, __ATOMIC_RELAXED),
	               txq_inflight(q));
}

static inline bool txq_wants_kick(const struct xske_txq *q)
{
	return !q->need_wakeup || xsk_ring_prod__needs_wakeup(&q->tx);
}

uint32_t txq_reap(struct xske_txq *q);

/* 0: no memory, or too many. Closed with something inflight it stays until that has completed. */
uint32_t txq_open_account(struct xske_txq *q);
static inline void txq_close_account(struct xske_txq *q, uint32_t account)
{
	q->accounts[account].open = !account;
}

/* Settled when nothing of the chunk is inflight any more. */
void txq_watch(struct xske_txq *q, const struct chunk *c, struct watch *w);
/* Nothing will complete any more. */
void txq_lose_watches(struct xske_txq *q);

#endif

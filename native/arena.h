/* SPDX-License-Identifier: MIT */
/*
 * arena.h - the allocator. An arena is the chunks that one endpoint cuts its frags from; every chunk goes
 * back to the arena it came from, so memory is "socket-aware" without a lookup.
 *
 * THE CONTRACT
 * 1. Allocation does no atomic read-modify-write. Opening a chunk stores CHUNK_BIAS into refs; frags handed
 *    out are counted in the arena's plain `handed` (a release by the owner counts down there as well, so it
 *    may be negative: a clone is added to refs and dropped from handed). At any time
 *        references to an open chunk = refs - CHUNK_BIAS + handed.
 *    When the chunk is exhausted the owner gives back CHUNK_BIAS - handed: refs is the truth from then on.
 * 2. If that sum is 0 when the chunk is exhausted, nobody else can hold or take a reference: the owner
 *    rewinds it and goes on in memory that is still in its cache, again without a read-modify-write.
 * 3. A LOOP_OWNED arena keeps the bias beyond exhaustion, in the chunk's `held` (= what handed was), until
 *    held falls to 0. It may, because its frags are released by its own thread; who wants one on another
 *    thread takes a reference of his own with frag_ref. So a flow recycles without any atomic
 *    read-modify-write, while an application's frag, released by the loop, costs one.
 * 4. The last reference recycles the chunk. Dropped by the arena's thread: onto `stack` (LIFO: the hottest
 *    chunk first). By another: onto `returns`, pushed by CAS, taken whole by the owner with one exchange:
 *    it cannot be full and has no ABA. These two, no third path.
 * 5. `returns` may hold the mark PARKED instead of a list: the arena is idle, or closed, which is parking
 *    for good. A pusher that sees it gives the chunk to the chunk pool itself. An idle arena therefore owns
 *    no chunk that is not referenced; its next allocation replaces the mark.
 * 6. Growing takes a slab of chunks from the pool under its mutex, only when stack and return list are
 *    empty, never beyond the quota. The loop's arena takes 16; an application's 1, and twice as many each time until it
 *    is idle again, or a hundred endpoints would have the whole umem. `owned` counts against the quota and changes under that mutex only.
 *    The last `umem->reserved` chunks of the pool are for loops' arenas: with TCP what applications have written can
 *    only go away once the loop has sent it, for which it needs headers.
 * 7. Who uses an arena has entered it: one compare-and-swap per batch of calls. A second thread gets -EBUSY
 *    instead of corruption. The loop parks an idle endpoint's arena the same way; a user who comes at that
 *    moment waits for it, which takes a microsecond.
 * 8. A closed arena's memory is reused but never freed before the umem: a pusher may still look at its
 *    `waiting` word. A stale look wakes somebody once too often, no more.
 * 9. A chunk carries a stamp: 0, or which template all frags of one size in it still hold since its last life.
 *    Whoever allocates from it for something else stamps it 0. Stamps are the owner's own, and a chunk that
 *    comes from the pool has none.
 * 10. Frags that lie at one distance from each other, over several chunks, come from a span: chunks side by side
 *    that are never opened. Their refs are the number of frags from the start, and there is no bias. A span is
 *    looked for among the arena's own free chunks, and when none of them are neighbours in the pool.
 * 11. A POISON arena fills what is recycled (4) with a pattern and looks at it before the next life: whoever still
 *    writes through an old view is found out. Not in a chunk that is still open: that lives on (2). For debugging; the
 *    loop pays for it.
 */
#ifndef XSKE_ARENA_H
#define XSKE_ARENA_H

#include <stdalign.h>

#include "chunk.h"

#define ARENA_PARKED (UINT32_MAX - 1)
/* In `flags`: frags are posted in pieces, so what stands in front of a desc is no metadata but anything. */
#define ARENA_PIECES 0x80000000u
#define STAMP_POISONED UINT32_MAX

/* Frags start at cache lines (plus metadata_len): 64-byte stride sends 1-2 % faster than 2-4 KiB stride on
 * veth, and no two writers share a line. Higher wastes small frags' chunks. */
#define FRAG_ALIGN XSKE_CACHE_LINE

struct xske_arena {
	/* The entered thread's own. */
	struct xske_umem *umem;
	uint64_t base;     /* addr of the open chunk */
	uint32_t offset;   /* its first free byte */
	uint32_t end;      /* chunk_size, or 0 without an open chunk */
	uint32_t headroom; /* metadata_len */
	int32_t handed;
	struct chunk *open;
	uint32_t stack;
	uint32_t flags;
	uint32_t stamps;           /* given out so far */
	uint32_t filler;           /* whose copies the chunk was opened for that was opened last */
	uint64_t overwritten_addr; /* in a POISON arena */
	uint64_t allocated;
	uint64_t recycled;
	uint64_t cross;
	uint64_t quota_waits;
	/* Everybody's (models: return_list.pml, await.pml). */
	/* Pushed seq_cst: release for `next` and the dead frags, which the taker's exchange acquires (an RMW in between goes on
	 * with the release), and seq_cst before the load of `waiting`. The mark PARKED publishes nothing: acquire is enough. */
	alignas(XSKE_CACHE_LINE) _Atomic uint32_t returns;
	/* Store, fence, look at the list; push, look here: seq_cst on both sides, or on ARM and x86 each may miss the other.
	 * Taken back relaxed: whoever gets the 1 signals, and the signal orders. */
	_Atomic uint32_t waiting;
	_Atomic uint32_t entered; /* a lock, ARENA_*: acquired and released for the entered thread's words */
	/* The loop's: descs of its frags. seq_cst stores, as `waiting` is loaded next; what the loop released before them (the
	 * submit ring's tail) is seen no later than they are. */
	_Atomic uint64_t posted_descs;
	_Atomic uint64_t completed_descs;
	/* Under umem->lock. */
	alignas(XSKE_CACHE_LINE) _Atomic uint32_t owned; /* atomic for the readers of statistics only */
	uint32_t quota;
	uint32_t slab; /* chunks to take the next time */
	uint32_t txq_id;
	bool closed;
	struct xske_arena *next;
	struct xske_arena *prev;
};

/* What `entered` holds. */
enum { ARENA_FREE, ARENA_USED, ARENA_BEING_PARKED };

int arena_open_chunk(struct xske_arena *a);
/* Frags of `len` bytes, n in all and at *pitch from each other, the first at *addr. -EAGAIN as arena_alloc, also when
 * there are enough chunks, but not side by side; -E2BIG: the quota is less. */
int arena_alloc_span(struct xske_arena *a, uint32_t len, uint32_t n, uint64_t *addr, uint32_t *pitch);
int arena_recycle(struct xske_arena *self, struct chunk *c);
/* For span.c: */
void arena_retire_or_stack_open(struct xske_arena *a);
void arena_push_stack(struct xske_arena *a, struct chunk *c);
void arena_take_returns(struct xske_arena *a); /* the stack must be empty */
void arena_count_return(struct xske_arena *a, struct chunk *c);
void arena_give_back(struct xske_arena *a, uint32_t list); /* to the pool, under umem->lock */

/* Chunks of the pool that it may have; under umem->lock. */
static inline uint32_t arena_may_take(const struct xske_arena *a)
{
	uint32_t kept = a->flags & XSKE_ARENA_LOOP_OWNED ? 0 : a->umem->reserved;

	return a->umem->pool_count > kept ? a->umem->pool_count - kept : 0;
}
/* poison.c */
void arena_poison(struct xske_arena *a, struct chunk *c);
bool arena_is_overwritten(struct xske_arena *a, const struct chunk *c);
int arena_unhold(struct xske_arena *self, struct chunk *c);
void arena_free_all(struct xske_umem *umem);

/* len: 1 to chunk_size - metadata_len, the caller has checked. 0, or -EAGAIN. */
static inline int arena_alloc(struct xske_arena *a, uint32_t len, uint64_t *addr)
{
	uint32_t need = align_up(len + a->headroom, FRAG_ALIGN);

	if (unlikely(need > a->end - a->offset)) {
		int err = arena_open_chunk(a);

		if (err)
			return err;
	}
	*addr = a->base + a->offset + a->headroom;
	a->offset += need;
	a->handed++;
	a->allocated++;
	return 0;
}

/* Where equal frags of `need` bytes begin in a chunk: what the last one leaves over is in front, more of it with
 * every chunk. Without it the first bytes of 2048 heads of 1536 bytes share 64 sets of the cache, and evict each other
 * (Bonwick, The Slab Allocator, 1994: colouring). */
static inline uint32_t arena_colour(const struct xske_arena *a, uint32_t need)
{
	uint32_t index = (uint32_t)(a->base >> a->umem->chunk_shift);

	return index * FRAG_ALIGN % (a->end % need + FRAG_ALIGN) & ~(FRAG_ALIGN - 1);
}

/* Up to `want` (>= 1) such frags side by side in one chunk, a->open; how many, or 0 = -EAGAIN. */
static inline uint32_t arena_alloc_run(struct xske_arena *a, uint32_t len, uint32_t want, uint64_t *addr,
                                       uint32_t *stride)
{
	uint32_t need = align_up(len + a->headroom, FRAG_ALIGN), n;

	if (unlikely(need > a->end - a->offset)) {
		if (arena_open_chunk(a))
			return 0;
		a->offset = arena_colour(a, need);
	}
	n = min_u32(want, (a->end - a->offset) / need);
	*addr = a->base + a->offset + a->headroom;
	*stride = need;
	a->offset += n * need;
	a->handed += (int32_t)n;
	a->allocated += n;
	return n;
}

static inline uint32_t arena_new_stamp(struct xske_arena *a)
{
	return ++a->stamps;
}

/* The open chunk's. */
static inline uint32_t arena_stamp_of(const struct xske_arena *a)
{
	return a->umem->stamps[a->base >> a->umem->chunk_shift];
}

static inline void arena_stamp(struct xske_arena *a, uint32_t stamp)
{
	a->umem->stamps[a->base >> a->umem->chunk_shift] = stamp;
}

/* 1, once: its owner waits for what has just been stored (seq_cst), see xske_arena_await(). */
static inline int arena_waits(struct xske_arena *a)
{
	if (likely(!atomic_load_explicit(&a->waiting, memory_order_seq_cst)))
		return 0;
	return (int)atomic_exchange_explicit(&a->waiting, 0, memory_order_relaxed);
}

/* Of a chunk from the pool; poison is everybody's. */
static inline void arena_forget_stamp(struct xske_arena *a, const struct chunk *c)
{
	uint32_t *stamp = &a->umem->stamps[chunk_index(a->umem, c)];

	if (*stamp != STAMP_POISONED || !(a->flags & XSKE_ARENA_POISON))
		*stamp = 0;
}

/* Another reference, to be dropped by any thread. */
static inline void frag_ref(struct chunk *c)
{
	/* Relaxed: who takes a reference holds one, so the chunk cannot go away meanwhile. */
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
}

/* Drops one. self: the arena this thread has entered, or NULL. 1: the chunk's owner waits for it. */
static inline int frag_unref(struct xske_arena *self, struct chunk *c)
{
	if (self && chunk_arena(c) == self) {
		if (c == self->open) {
			self->handed--;
			return 0;
		}
		if (c->held) {
			if (--c->held > 0)
				return 0;
			return arena_unhold(self, c);
		}
	}
	/* Release: what this holder did to the bytes comes before the chunk's next life. Acquire: who is
	 * last sees what all others did. */
	if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return 0;
	return arena_recycle(self, c);
}

#endif

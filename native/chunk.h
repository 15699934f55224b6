/* SPDX-License-Identifier: MIT */
/*
 * chunk.h - the chunk table and the chunk pool of a umem. Offsets and counts only: knows no rings, reads
 * no packet, makes no system call.
 *
 * Who writes a chunk's words:
 *   refs      everybody, atomically. While the chunk is open (or held, see arena.h) it carries the owner's
 *             CHUNK_BIAS; otherwise it is the number of references. Dropped acq_rel: the last one, and the owner who looks
 *             (acquire) whether he is alone, come after whatever the others did to the bytes. Added relaxed, by who
 *             holds one. Stored relaxed, by who has the chunk to himself: its addr goes on with a release.
 *   next      whoever owns the whole chunk: its arena (stack), a pusher (return list).
 *   arena     the pool's mutex holder, when the chunk changes hands. Constant while refs > 0. Atomic only for who
 *             looks for neighbours (span.c) and meets others' chunks: relaxed; who holds a reference got it with an acquire.
 *   txq_id    as arena; copied from it so that posting need not follow the pointer.
 *   held      the arena's thread (arena.h).
 *   inflight  the loop of txq_id, and nobody else.
 *   place     whoever moves the chunk, with a release for span.c (model: span.pml); read by anybody, exact when quiescent.
 */
#ifndef XSKE_CHUNK_H
#define XSKE_CHUNK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "util.h"
#include "xske.h"

#define CHUNK_NONE UINT32_MAX

/* What an open chunk carries in refs on top of its references: more than the frags and clones that can
 * exist (2^26 clones of each of 64 frags), and twice of it fits a u32. Too low: a chunk that seems free
 * under its owner; too high: wraps. */
#define CHUNK_BIAS (1u << 30)

enum chunk_place {
	CHUNK_POOLED,     /* chunk pool */
	CHUNK_STACKED,    /* its arena's local stack */
	CHUNK_RETURNED,   /* its arena's return list */
	CHUNK_REFERENCED, /* open, held, or just referenced */
};

struct chunk {
	_Atomic uint32_t refs;
	uint32_t next;
	_Atomic(struct xske_arena *) arena;
	int32_t held;
	uint32_t inflight;
	uint32_t txq_id;
	_Atomic uint32_t place;
};

struct xske_umem {
	uint8_t *area;
	uint64_t len;
	struct chunk *chunks;
	uint32_t *stamps; /* by chunk: whose template its slots hold (arena.h); its arena's thread */
	uint32_t chunk_count;
	uint32_t chunk_size;
	uint32_t chunk_shift;
	uint32_t metadata_len;
	/* The pool: guarded by lock, touched for slabs and by closed or parked arenas' last references. */
	pthread_mutex_t lock;
	uint64_t *pool;     /* a bit per chunk, 1: free; so that neighbours are found side by side */
	uint32_t pool_from; /* no word before this one has any */
	uint32_t pool_count;
	uint32_t reserved;               /* the last so many of the pool are for arenas of loops (arena.h) */
	struct xske_arena *arenas;       /* all that own chunks or are open */
	struct xske_arena *spare_arenas; /* closed and empty; their memory stays readable (arena.h) */
};

static inline uint32_t chunk_index(const struct xske_umem *umem, const struct chunk *c)
{
	return (uint32_t)(c - umem->chunks);
}

/* NULL when addr lies outside the umem. */
static inline struct chunk *chunk_of(const struct xske_umem *umem, uint64_t addr)
{
	if (unlikely(addr >= umem->len))
		return NULL;
	return &umem->chunks[addr >> umem->chunk_shift];
}

static inline struct xske_arena *chunk_arena(const struct chunk *c)
{
	return atomic_load_explicit(&c->arena, memory_order_relaxed);
}

static inline void chunk_set_arena(struct chunk *c, struct xske_arena *a)
{
	atomic_store_explicit(&c->arena, a, memory_order_relaxed);
}

static inline void chunk_move(struct chunk *c, enum chunk_place place)
{
	/* Release: `arena` before it, see span.c. */
	atomic_store_explicit(&c->place, place, memory_order_release);
}

/* Is [addr, addr + len) a desc that the kernel accepts? net/xdp/xsk_queue.h, xp_aligned_validate_desc(). */
static inline bool chunk_holds_desc(const struct xske_umem *umem, uint64_t addr, uint32_t len)
{
	uint64_t offset = addr & (umem->chunk_size - 1);

	return addr < umem->len && len > 0 && offset >= umem->metadata_len &&
	       offset + len <= umem->chunk_size;
}

/* All under umem->lock. The pool gives its lowest addresses first. */
void chunk_pool_push(struct xske_umem *umem, struct chunk *c);
struct chunk *chunk_pool_pop(struct xske_umem *umem);
/* n side by side, the first of them; NULL: there are none. */
struct chunk *chunk_pool_pop_span(struct xske_umem *umem, uint32_t n);
/* So many more, or less, are for arenas of loops. Takes the lock itself. */
void chunk_pool_reserve(struct xske_umem *umem, int32_t n);

#endif

/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"

/* Nobody but the owner knows of this chunk any more (contract 2). */
static bool unreferenced(struct chunk *c, int32_t handed)
{
	/* Acquire pairs with the release in frag_unref: the bytes are ours to overwrite. */
	return atomic_load_explicit(&c->refs, memory_order_acquire) + (uint32_t)handed == CHUNK_BIAS;
}

void arena_push_stack(struct xske_arena *a, struct chunk *c)
{
	atomic_store_explicit(&c->refs, 0, memory_order_relaxed);
	c->next = a->stack;
	chunk_move(c, CHUNK_STACKED);
	a->stack = chunk_index(a->umem, c);
}

/* Gives the bias back; the chunk is referenced by refs alone. True when that was the last reference. */
static bool drop_bias(struct chunk *c, int32_t handed)
{
	uint32_t give = CHUNK_BIAS - (uint32_t)handed;

	return atomic_fetch_sub_explicit(&c->refs, give, memory_order_acq_rel) == give;
}

static void retire_open(struct xske_arena *a)
{
	struct chunk *c = a->open;
	int32_t handed = a->handed;

	a->open = NULL;
	a->offset = a->end = 0;
	a->handed = 0;
	if ((a->flags & XSKE_ARENA_LOOP_OWNED) && handed > 0) {
		c->held = handed;
		return;
	}
	if (drop_bias(c, handed)) {
		a->recycled++;
		arena_push_stack(a, c);
	}
}

void arena_retire_or_stack_open(struct xske_arena *a)
{
	struct chunk *c = a->open;

	if (!c)
		return;
	if (!unreferenced(c, a->handed)) {
		retire_open(a);
		return;
	}
	a->open = NULL;
	a->offset = a->end = 0;
	a->handed = 0;
	arena_push_stack(a, c);
}

/* The whole return list becomes the stack. */
void arena_take_returns(struct xske_arena *a)
{
	uint32_t head;

	if (atomic_load_explicit(&a->returns, memory_order_relaxed) == CHUNK_NONE)
		return;
	/* Acquire pairs with the pushers' release: their `next` and the dead frags' bytes. */
	head = atomic_exchange_explicit(&a->returns, CHUNK_NONE, memory_order_acquire);
	if (head != ARENA_PARKED)
		a->stack = head;
}

/* A chunk that another thread recycled is the owner's again. */
void arena_count_return(struct xske_arena *a, struct chunk *c)
{
	if (atomic_load_explicit(&c->place, memory_order_relaxed) != CHUNK_RETURNED)
		return;
	a->recycled++;
	a->cross++;
}

static int grow(struct xske_arena *a)
{
	struct xske_umem *umem = a->umem;
	uint32_t n;

	pthread_mutex_lock(&umem->lock);
	n = min_u32(a->slab, a->quota - a->owned);
	a->slab = min_u32(2 * a->slab, XSKE_SLAB_CHUNKS);
	n = min_u32(n, arena_may_take(a));
	for (uint32_t i = 0; i < n; i++) {
		struct chunk *c = chunk_pool_pop(umem);

		chunk_set_arena(c, a);
		c->txq_id = a->txq_id;
		arena_forget_stamp(a, c);
		arena_push_stack(a, c);
	}
	a->owned += n;
	pthread_mutex_unlock(&umem->lock);
	if (!n) {
		a->quota_waits++;
		return -EAGAIN;
	}
	return 0;
}

int COLD arena_open_chunk(struct xske_arena *a)
{
	struct chunk *c = a->open;

	if (c) {
		if (unreferenced(c, a->handed)) {
			atomic_store_explicit(&c->refs, CHUNK_BIAS, memory_order_relaxed);
			a->handed = 0;
			a->offset = 0;
			a->recycled++;
			return 0;
		}
		retire_open(a);
	}
	if (a->stack == CHUNK_NONE)
		arena_take_returns(a);
	if (a->stack == CHUNK_NONE) {
		int err = grow(a);

		if (err)
			return err;
	}
	c = &a->umem->chunks[a->stack];
	if (unlikely(a->flags & XSKE_ARENA_POISON) && arena_is_overwritten(a, c))
		return -EUCLEAN;
	a->stack = c->next;
	arena_count_return(a, c);
	atomic_store_explicit(&c->refs, CHUNK_BIAS, memory_order_relaxed);
	chunk_move(c, CHUNK_REFERENCED);
	a->open = c;
	a->base = (uint64_t)chunk_index(a->umem, c) << a->umem->chunk_shift;
	a->offset = 0;
	a->end = a->umem->chunk_size;
	return 0;
}

static void unlink_arena(struct xske_umem *umem, struct xske_arena *a)
{
	if (a->prev)
		a->prev->next = a->next;
	else
		umem->arenas = a->next;
	if (a->next)
		a->next->prev = a->prev;
	a->prev = NULL;
	a->next = umem->spare_arenas;
	umem->spare_arenas = a;
}

/* Under umem->lock: the chunk leaves its arena. */
static void disown(struct xske_umem *umem, struct chunk *c)
{
	struct xske_arena *a = chunk_arena(c);

	chunk_pool_push(umem, c);
	if (--a->owned == 0 && a->closed)
		unlink_arena(umem, a);
}

/* The last reference is gone and the chunk is this thread's alone. */
int arena_recycle(struct xske_arena *self, struct chunk *c)
{
	struct xske_arena *a = chunk_arena(c);
	struct xske_umem *umem = a->umem;
	uint32_t head;

	if (unlikely(a->flags & XSKE_ARENA_POISON))
		arena_poison(a, c);
	if (a == self) {
		a->recycled++;
		arena_push_stack(a, c);
		return 0;
	}
	head = atomic_load_explicit(&a->returns, memory_order_relaxed);
	chunk_move(c, CHUNK_RETURNED);
	do {
		if (head == ARENA_PARKED) {
			pthread_mutex_lock(&umem->lock);
			disown(umem, c);
			pthread_mutex_unlock(&umem->lock);
			break;
		}
		c->next = head;
	} while (!atomic_compare_exchange_weak_explicit(&a->returns, &head, chunk_index(umem, c),
	                                                memory_order_seq_cst, memory_order_relaxed));
	/* seq_cst store (the push) then load: pairs with xske_arena_await(), which whose caller then tries
	 * again. One of the two sees the other. */
	return arena_waits(a);
}

/* held has reached 0 (or below, when clones were dropped here): the bias goes back. */
int arena_unhold(struct xske_arena *self, struct chunk *c)
{
	int32_t held = c->held;

	c->held = 0;
	if (!unreferenced(c, held) && !drop_bias(c, held))
		return 0;
	self->recycled++;
	arena_push_stack(self, c);
	return 0;
}

int xske_arena_open(struct xske_umem *umem, const struct xske_arena_config *config, struct xske_arena **out)
{
	struct xske_arena *a;

	if (!config->quota_chunks || config->flags & ~(XSKE_ARENA_LOOP_OWNED | XSKE_ARENA_POISON))
		return -EINVAL;
	pthread_mutex_lock(&umem->lock);
	a = umem->spare_arenas;
	if (a)
		umem->spare_arenas = a->next;
	else
		a = aligned_alloc(XSKE_CACHE_LINE, sizeof(*a));
	if (!a) {
		pthread_mutex_unlock(&umem->lock);
		return -ENOMEM;
	}
	/* The owner's part only: `returns`, `waiting` and `entered` may be looked at by a late pusher. */
	memset(a, 0, offsetof(struct xske_arena, returns));
	atomic_store_explicit(&a->returns, CHUNK_NONE, memory_order_relaxed);
	atomic_store_explicit(&a->waiting, 0, memory_order_relaxed);
	atomic_store_explicit(&a->posted_descs, 0, memory_order_relaxed);
	atomic_store_explicit(&a->completed_descs, 0, memory_order_relaxed);
	a->umem = umem;
	a->headroom = umem->metadata_len;
	a->stack = CHUNK_NONE;
	a->flags = config->flags;
	a->quota = config->quota_chunks;
	a->slab = config->flags & XSKE_ARENA_LOOP_OWNED ? XSKE_SLAB_CHUNKS : 1;
	a->txq_id = config->txq_id;
	a->owned = 0;
	a->closed = false;
	a->prev = NULL;
	a->next = umem->arenas;
	if (a->next)
		a->next->prev = a;
	umem->arenas = a;
	/* Last: who comes late to the arena that this was may be about to enter it, and must see that it is over. */
	atomic_store_explicit(&a->entered, ARENA_FREE, memory_order_release);
	pthread_mutex_unlock(&umem->lock);
	*out = a;
	return 0;
}

static bool enter_as(struct xske_arena *a, uint32_t who, uint32_t *found)
{
	*found = ARENA_FREE;
	/* Acquire pairs with leave: the last user's plain words. */
	return atomic_compare_exchange_strong_explicit(&a->entered, found, who, memory_order_acquire,
	                                               memory_order_relaxed);
}

int xske_arena_enter(struct xske_arena *a)
{
	uint32_t found;

	/* Bounded: about a second, should the parking thread have been preempted again and again. */
	for (uint32_t tries = 0; !enter_as(a, ARENA_USED, &found); tries++) {
		if (found != ARENA_BEING_PARKED || tries == 1000000)
			return -EBUSY;
		sched_yield();
	}
	return 0;
}

int xske_arena_park_if_idle(struct xske_arena *a)
{
	uint32_t found;

	if (!enter_as(a, ARENA_BEING_PARKED, &found))
		return 0;
	xske_arena_park(a);
	xske_arena_leave(a);
	return 1;
}

void xske_arena_leave(struct xske_arena *a)
{
	atomic_store_explicit(&a->entered, ARENA_FREE, memory_order_release);
}

void arena_give_back(struct xske_arena *a, uint32_t list)
{
	struct xske_umem *umem = a->umem;

	while (list < umem->chunk_count) {
		struct chunk *c = &umem->chunks[list];

		list = c->next;
		arena_count_return(a, c);
		disown(umem, c);
	}
}

void xske_arena_park(struct xske_arena *a)
{
	struct xske_umem *umem = a->umem;
	uint32_t returned;

	arena_retire_or_stack_open(a);
	returned = atomic_exchange_explicit(&a->returns, ARENA_PARKED, memory_order_acquire);
	pthread_mutex_lock(&umem->lock);
	arena_give_back(a, a->stack);
	arena_give_back(a, returned);
	a->stack = CHUNK_NONE;
	if (!(a->flags & XSKE_ARENA_LOOP_OWNED))
		a->slab = 1;
	pthread_mutex_unlock(&umem->lock);
}

/* Chunks that still carry this arena's bias must live without their owner. */
static void release_held(struct xske_arena *a)
{
	struct xske_umem *umem = a->umem;

	pthread_mutex_lock(&umem->lock); /* `arena` of the others' chunks moves under it */
	for (uint32_t i = 0; i < umem->chunk_count; i++) {
		struct chunk *c = &umem->chunks[i];
		int32_t held;

		if (chunk_arena(c) != a || !c->held)
			continue;
		held = c->held;
		c->held = 0;
		if (drop_bias(c, held))
			arena_push_stack(a, c);
	}
	pthread_mutex_unlock(&umem->lock);
}

int xske_arena_close(struct xske_arena *a)
{
	struct xske_umem *umem = a->umem;
	int err = xske_arena_enter(a);

	if (err)
		return err;
	arena_retire_or_stack_open(a);
	if (a->flags & XSKE_ARENA_LOOP_OWNED)
		release_held(a);
	xske_arena_park(a);
	pthread_mutex_lock(&umem->lock);
	a->closed = true;
	if (a->owned == 0)
		unlink_arena(umem, a);
	pthread_mutex_unlock(&umem->lock);
	return 0;
}

void arena_free_all(struct xske_umem *umem)
{
	for (int list = 0; list < 2; list++) {
		struct xske_arena *a = list ? umem->spare_arenas : umem->arenas;

		while (a) {
			struct xske_arena *next = a->next;

			free(a);
			a = next;
		}
	}
}

void xske_arena_read_stats(const struct xske_arena *a, struct xske_arena_stats *out)
{
	*out = (struct xske_arena_stats){
	        .allocated_frags = a->allocated,
	        .recycled_chunks = a->recycled,
	        .cross_thread_returns = a->cross,
	        .quota_waits = a->quota_waits,
	        .owned_chunks = atomic_load_explicit(&a->owned, memory_order_relaxed),
	};
}

void xske_arena_await(struct xske_arena *a)
{
	if (!a) /* of an endpoint that was closed */
		return;
	/* Store, then what the caller looks at: see arena_recycle(). */
	atomic_store_explicit(&a->waiting, 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
}

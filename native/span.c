/* SPDX-License-Identifier: MIT */
/* span.c - chunks side by side, for frags at one distance from each other (arena.h, contract 10). */
#include <errno.h>

#include "arena.h"

static bool is_mine_and_free(const struct xske_arena *a, uint32_t i)
{
	const struct chunk *c = &a->umem->chunks[i];

	/* `place` first: only the owner puts chunks on its stack, and only there is `arena` sure to stay. Acquire: with
	 * another's STACKED comes whose it is; what this thread saw there before may be its own arena. */
	return i < a->umem->chunk_count &&
	       atomic_load_explicit(&c->place, memory_order_acquire) == CHUNK_STACKED && chunk_arena(c) == a;
}

static void pop_between(struct xske_arena *a, uint32_t first, uint32_t n)
{
	uint32_t *at = &a->stack;

	while (*at != CHUNK_NONE) {
		struct chunk *c = &a->umem->chunks[*at];

		if (*at - first < n)
			*at = c->next;
		else
			at = &c->next;
	}
}

/* What others have returned goes on top of the stack: the last ones are the hottest. */
static void gather(struct xske_arena *a)
{
	uint32_t stack = a->stack, *end;

	a->stack = CHUNK_NONE;
	arena_take_returns(a);
	for (end = &a->stack; *end != CHUNK_NONE; end = &a->umem->chunks[*end].next) {
		arena_count_return(a, &a->umem->chunks[*end]);
		chunk_move(&a->umem->chunks[*end], CHUNK_STACKED);
	}
	*end = stack;
}

/* n neighbours among its own, the hottest first. */
static struct chunk *pop_own(struct xske_arena *a, uint32_t n)
{
	gather(a);
	for (uint32_t i = a->stack; i != CHUNK_NONE; i = a->umem->chunks[i].next) {
		uint32_t first = i, end = i + 1;

		while (end - first < n && is_mine_and_free(a, end))
			end++;
		while (end - first < n && first && is_mine_and_free(a, first - 1))
			first--;
		if (end - first < n)
			continue;
		pop_between(a, first, n);
		return &a->umem->chunks[first];
	}
	return NULL;
}

/* From the pool; its own free ones, and the open one, go there first, where theirs may be among the neighbours. */
static struct chunk *pop_pooled(struct xske_arena *a, uint32_t n)
{
	struct xske_umem *umem = a->umem;
	struct chunk *first = NULL;

	arena_retire_or_stack_open(a);
	pthread_mutex_lock(&umem->lock);
	arena_give_back(a, a->stack);
	a->stack = CHUNK_NONE;
	if (a->owned + n <= a->quota && n <= arena_may_take(a))
		first = chunk_pool_pop_span(umem, n);
	for (uint32_t i = 0; first && i < n; i++) {
		chunk_set_arena(&first[i], a);
		first[i].txq_id = a->txq_id;
		arena_forget_stamp(a, &first[i]);
	}
	if (first)
		a->owned += n;
	pthread_mutex_unlock(&umem->lock);
	return first;
}

/* The largest power of two of frags that fit into a chunk: only those go on at the same distance in the next one. */
static uint32_t frags_per_chunk(const struct xske_arena *a, uint32_t len)
{
	uint32_t fit = a->umem->chunk_size / align_up(len + a->headroom, FRAG_ALIGN);

	return 1u << (31 - (uint32_t)__builtin_clz(max_u32(fit, 1)));
}

int arena_alloc_span(struct xske_arena *a, uint32_t len, uint32_t n, uint64_t *addr, uint32_t *pitch)
{
	uint32_t per_chunk = frags_per_chunk(a, len), chunks = n / per_chunk + (n % per_chunk > 0);
	struct chunk *first;

	if (chunks > a->quota || chunks > a->umem->chunk_count)
		return -E2BIG;
	first = pop_own(a, chunks);
	if (!first)
		first = pop_pooled(a, chunks);
	if (!first) {
		a->quota_waits++;
		return -EAGAIN;
	}
	for (uint32_t i = 0; unlikely(a->flags & XSKE_ARENA_POISON) && i < chunks; i++) {
		if (!arena_is_overwritten(a, &first[i]))
			continue;
		while (chunks--)
			arena_push_stack(a, &first[chunks]);
		return -EUCLEAN;
	}
	for (uint32_t i = 0; i < chunks; i++) {
		uint32_t frags = min_u32(per_chunk, n - i * per_chunk);

		atomic_store_explicit(&first[i].refs, frags, memory_order_relaxed);
		chunk_move(&first[i], CHUNK_REFERENCED);
	}
	*pitch = a->umem->chunk_size / per_chunk;
	*addr = ((uint64_t)chunk_index(a->umem, first) << a->umem->chunk_shift) + a->headroom;
	a->allocated += n;
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* trim.c - an arena that idles and must not lose all of its memory to others (arena.h, contract 5). */
#include "arena.h"

void COLD arena_trim(struct xske_arena *a, uint32_t keep)
{
	struct xske_umem *umem = a->umem;
	uint32_t *rest = &a->stack, list;

	arena_retire_or_stack_open(a);
	if (a->stack == CHUNK_NONE)
		arena_take_returns(a);
	for (; *rest != CHUNK_NONE && keep; keep--)
		rest = &umem->chunks[*rest].next;
	list = *rest;
	*rest = CHUNK_NONE;
	pthread_mutex_lock(&umem->lock);
	arena_give_back(a, list);
	pthread_mutex_unlock(&umem->lock);
}

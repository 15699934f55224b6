/* SPDX-License-Identifier: MIT */
/* poison.c - finds who writes through a view of a frag that is no longer his (arena.h, contract 11). */
#include <string.h>

#include "arena.h"

#define POISON 0xa5a5a5a5a5a5a5a5ull

void COLD arena_poison(struct xske_arena *a, struct chunk *c)
{
	struct xske_umem *umem = a->umem;
	uint32_t i = chunk_index(umem, c);

	memset(umem->area + ((uint64_t)i << umem->chunk_shift), (int)(POISON & 0xff), umem->chunk_size);
	umem->stamps[i] = STAMP_POISONED;
}

bool COLD arena_is_overwritten(struct xske_arena *a, const struct chunk *c)
{
	struct xske_umem *umem = a->umem;
	uint32_t i = chunk_index(umem, c);
	const uint8_t *bytes = umem->area + ((uint64_t)i << umem->chunk_shift);
	uint64_t word;

	if (umem->stamps[i] != STAMP_POISONED)
		return false;
	umem->stamps[i] = 0;
	for (uint32_t at = 0; at < umem->chunk_size; at += sizeof(word)) {
		memcpy(&word, bytes + at, sizeof(word));
		if (word == POISON)
			continue;
		a->overwritten_addr = ((uint64_t)i << umem->chunk_shift) + at;
		return true;
	}
	return false;
}

/* SPDX-License-Identifier: MIT */
/* frag.c - the frag verbs for callers who hold addrs, not chunks: checked, where the inline ones trust. */
#include <errno.h>

#include "arena.h"

int xske_frag_alloc(struct xske_arena *a, uint32_t len, uint64_t *addr)
{
	if (!len)
		return -EINVAL;
	if (len > a->umem->chunk_size - a->headroom)
		return -EMSGSIZE;
	return arena_alloc(a, len, addr);
}

static struct chunk *referenced_chunk(struct xske_umem *umem, uint64_t addr)
{
	struct chunk *c = chunk_of(umem, addr);

	if (!c || !atomic_load_explicit(&c->refs, memory_order_relaxed))
		return NULL;
	return c;
}

int xske_frag_ref(struct xske_umem *umem, uint64_t addr)
{
	struct chunk *c = referenced_chunk(umem, addr);

	if (!c)
		return -EINVAL;
	frag_ref(c);
	return 0;
}

int xske_frag_unref(struct xske_umem *umem, struct xske_arena *self, uint64_t addr)
{
	struct chunk *c = referenced_chunk(umem, addr);

	if (!c)
		return -EINVAL;
	return frag_unref(self, c);
}

int xske_frags_unref(struct xske_umem *umem, const struct xske_desc *descs, uint32_t n)
{
	int waits = 0;

	for (uint32_t i = 0; i < n; i++)
		waits |= xske_frag_unref(umem, NULL, descs[i].addr) > 0;
	return waits;
}

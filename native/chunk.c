/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "arena.h"
#include "chunk.h"

void chunk_pool_push(struct xske_umem *umem, struct chunk *c)
{
	atomic_store_explicit(&c->refs, 0, memory_order_relaxed);
	c->arena = NULL;
	c->next = umem->pool_head;
	chunk_move(c, CHUNK_POOLED);
	umem->pool_head = chunk_index(umem, c);
	umem->pool_count++;
}

struct chunk *chunk_pool_pop(struct xske_umem *umem)
{
	struct chunk *c;

	if (umem->pool_head == CHUNK_NONE)
		return NULL;
	c = &umem->chunks[umem->pool_head];
	umem->pool_head = c->next;
	umem->pool_count--;
	return c;
}

int xske_umem_create(const struct xske_umem_config *config, struct xske_umem **out)
{
	struct xske_umem *umem;
	uint32_t size = config->chunk_size;

	/* net/xdp/xdp_umem.c: a power of two, XDP_UMEM_MIN_CHUNK_SIZE to a page. */
	if (size != 2048 && size != 4096)
		return -EINVAL;
	if (!config->area || !config->len || config->len % size)
		return -EINVAL;
	if (config->len / size >= CHUNK_NONE - 1)
		return -EINVAL;
	if (config->metadata_len % 8 || config->metadata_len >= 256)
		return -EINVAL;

	umem = calloc(1, sizeof(*umem));
	if (!umem)
		return -ENOMEM;
	umem->area = config->area;
	umem->len = config->len;
	umem->chunk_size = size;
	umem->chunk_shift = (uint32_t)__builtin_ctz(size);
	umem->chunk_count = (uint32_t)(config->len / size);
	umem->metadata_len = config->metadata_len;
	umem->pool_head = CHUNK_NONE;
	umem->chunks = calloc(umem->chunk_count, sizeof(*umem->chunks));
	umem->stamps = calloc(umem->chunk_count, sizeof(*umem->stamps));
	if (!umem->chunks || !umem->stamps) {
		free(umem->chunks);
		free(umem->stamps);
		free(umem);
		return -ENOMEM;
	}
	pthread_mutex_init(&umem->lock, NULL);
	/* Backwards, so that the pool gives the lowest addresses first. */
	for (uint32_t i = umem->chunk_count; i-- > 0;)
		chunk_pool_push(umem, &umem->chunks[i]);
	*out = umem;
	return 0;
}

void xske_umem_destroy(struct xske_umem *umem)
{
	if (!umem)
		return;
	arena_free_all(umem);
	pthread_mutex_destroy(&umem->lock);
	free(umem->chunks);
	free(umem->stamps);
	free(umem);
}

static uint32_t mark_list(struct xske_umem *umem, uint32_t head, uint8_t *seen, struct xske_audit *audit)
{
	uint32_t n = 0;

	/* A list longer than all chunks together is a circle. */
	for (uint32_t i = head; i < umem->chunk_count && n <= umem->chunk_count; n++) {
		struct chunk *c = &umem->chunks[i];

		if (seen[i] || atomic_load_explicit(&c->refs, memory_order_acquire))
			audit->doubled++;
		seen[i] = 1;
		i = c->next;
	}
	return n;
}

static int audit_lists(struct xske_umem *umem, struct xske_audit *audit)
{
	uint8_t *seen = calloc(umem->chunk_count, 1);

	if (!seen)
		return -ENOMEM;
	audit->pooled = mark_list(umem, umem->pool_head, seen, audit);
	for (struct xske_arena *a = umem->arenas; a; a = a->next) {
		audit->arenas++;
		audit->stacked += mark_list(umem, a->stack, seen, audit);
		audit->returned +=
		        mark_list(umem, atomic_load_explicit(&a->returns, memory_order_acquire), seen, audit);
	}
	for (uint32_t i = 0; i < umem->chunk_count; i++) {
		if (seen[i])
			continue;
		if (atomic_load_explicit(&umem->chunks[i].refs, memory_order_relaxed)) {
			audit->referenced++;
			audit->inflight += umem->chunks[i].inflight > 0;
			audit->inflight_descs += umem->chunks[i].inflight;
		} else {
			audit->lost++;
		}
	}
	free(seen);
	if (audit->lost || audit->doubled ||
	    audit->pooled + audit->stacked + audit->returned + audit->referenced != audit->chunks)
		return -EUCLEAN;
	return 0;
}

static void audit_places(struct xske_umem *umem, struct xske_audit *audit)
{
	uint32_t count[CHUNK_REFERENCED + 1] = {0};

	for (uint32_t i = 0; i < umem->chunk_count; i++)
		count[atomic_load_explicit(&umem->chunks[i].place, memory_order_relaxed)]++;
	audit->pooled = count[CHUNK_POOLED];
	audit->stacked = count[CHUNK_STACKED];
	audit->returned = count[CHUNK_RETURNED];
	audit->referenced = count[CHUNK_REFERENCED];
	for (struct xske_arena *a = umem->arenas; a; a = a->next)
		audit->arenas++;
}

int xske_umem_audit(struct xske_umem *umem, int strict, struct xske_audit *out)
{
	int err = 0;

	*out = (struct xske_audit){.chunks = umem->chunk_count};
	pthread_mutex_lock(&umem->lock);
	if (strict)
		err = audit_lists(umem, out);
	else
		audit_places(umem, out);
	pthread_mutex_unlock(&umem->lock);
	return err;
}

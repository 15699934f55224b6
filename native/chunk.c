/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "arena.h"
#include "chunk.h"

void chunk_pool_push(struct xske_umem *umem, struct chunk *c)
{
	uint32_t i = chunk_index(umem, c);

	atomic_store_explicit(&c->refs, 0, memory_order_relaxed);
	chunk_set_arena(c, NULL);
	chunk_move(c, CHUNK_POOLED);
	umem->pool[i / 64] |= 1ull << i % 64;
	umem->pool_from = min_u32(umem->pool_from, i / 64);
	umem->pool_count++;
}

static bool is_pooled(const struct xske_umem *umem, uint32_t i)
{
	return umem->pool[i / 64] >> i % 64 & 1;
}

/* Moves pool_from to the first word that has any; false: none has. */
static bool find_pooled(struct xske_umem *umem)
{
	if (!umem->pool_count)
		return false;
	while (!umem->pool[umem->pool_from])
		umem->pool_from++;
	return true;
}

static void take_pooled(struct xske_umem *umem, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++)
		umem->pool[i / 64] &= ~(1ull << i % 64);
	umem->pool_count -= n;
}

struct chunk *chunk_pool_pop(struct xske_umem *umem)
{
	uint32_t i;

	if (!find_pooled(umem))
		return NULL;
	i = umem->pool_from * 64 + (uint32_t)__builtin_ctzll(umem->pool[umem->pool_from]);
	take_pooled(umem, i, 1);
	return &umem->chunks[i];
}

struct chunk *chunk_pool_pop_span(struct xske_umem *umem, uint32_t n)
{
	uint32_t found = 0;

	if (umem->pool_count < n || !find_pooled(umem))
		return NULL;
	for (uint32_t i = umem->pool_from * 64; i < umem->chunk_count; i++) {
		if (i % 64 == 0 && !umem->pool[i / 64]) {
			found = 0;
			i += 63;
			continue;
		}
		found = is_pooled(umem, i) ? found + 1 : 0;
		if (found == n) {
			take_pooled(umem, i + 1 - n, n);
			return &umem->chunks[i + 1 - n];
		}
	}
	return NULL;
}

void chunk_pool_reserve(struct xske_umem *umem, int32_t n)
{
	pthread_mutex_lock(&umem->lock);
	umem->reserved += (uint32_t)n;
	pthread_mutex_unlock(&umem->lock);
}

static void free_tables(struct xske_umem *umem)
{
	free(umem->chunks);
	free(umem->stamps);
	free(umem->pool);
	free(umem);
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
	umem->chunks = calloc(umem->chunk_count, sizeof(*umem->chunks));
	umem->stamps = calloc(umem->chunk_count, sizeof(*umem->stamps));
	umem->pool = calloc((umem->chunk_count + 63) / 64, sizeof(*umem->pool));
	if (!umem->chunks || !umem->stamps || !umem->pool) {
		free_tables(umem);
		return -ENOMEM;
	}
	pthread_mutex_init(&umem->lock, NULL);
	for (uint32_t i = 0; i < umem->chunk_count; i++)
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
	free_tables(umem);
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
	for (uint32_t i = 0; i < umem->chunk_count; i++) {
		if (!is_pooled(umem, i))
			continue;
		audit->doubled += atomic_load_explicit(&umem->chunks[i].refs, memory_order_acquire) > 0;
		audit->pooled++;
		seen[i] = 1;
	}
	if (audit->pooled != umem->pool_count)
		audit->doubled++;
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

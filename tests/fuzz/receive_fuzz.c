/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer over the receive rings: a kernel that writes any descs, in any order, with chunks that it has and chunks that
 * it does not have. Whatever it does, nothing outside a chunk is read and no list overflows; and as long as it names only
 * chunks that it has, it gets each of them back once and none is lost.
 */
#include "arena.h"
#include "fuzz.h"
#include "rxq.h"

#define ENTRIES 16u
#define CHUNK 2048u
#define CHUNKS (ENTRIES + 4u) /* and some that are not the ring's */

struct kernel {
	uint32_t rx_producer, rx_consumer, fill_producer, fill_consumer, flags;
	struct xdp_desc rx[ENTRIES];
	uint64_t fill[ENTRIES];
	uint64_t has[ENTRIES + 1]; /* taken off the fill ring */
	uint32_t has_count;
	int honest; /* so far it has named only chunks that it had taken */
	uint64_t bytes;
};

static void packet(void *ctx, const struct piece *pieces, uint32_t n)
{
	struct kernel *k = ctx;

	must(n >= 1 && n <= RX_PIECES, "a packet has pieces");
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t b = 0; b < pieces[i].len; b++)
			k->bytes += pieces[i].bytes[b]; /* the sanitizer watches */
}

/* Off the fill ring: each of them is ours to give back once. */
static void look(struct kernel *k)
{
	while (k->fill_consumer != k->fill_producer && k->has_count < ENTRIES) {
		uint64_t addr = k->fill[k->fill_consumer++ & (ENTRIES - 1)];

		for (uint32_t i = 0; i < k->has_count; i++)
			must(!k->honest || k->has[i] != addr, "a chunk is given once");
		k->has[k->has_count++] = addr;
	}
}

static void give(struct kernel *k, const uint8_t *from)
{
	struct xdp_desc *d = &k->rx[k->rx_producer++ & (ENTRIES - 1)];
	uint32_t way = from[0] % 8;

	*d = (struct xdp_desc){.options = from[1] & 1, .len = (uint32_t)(from[2] | from[3] << 8)};
	if (way < 6 && k->has_count) { /* one that it has */
		uint32_t at = from[4] % k->has_count;

		d->addr = k->has[at] + from[5];
		d->len %= CHUNK - from[5] + 1;
		k->has[at] = k->has[--k->has_count];
		return;
	}
	if (way == 6) { /* any of the umem */
		d->addr = (uint64_t)(from[4] % CHUNKS) * CHUNK + from[5] * 8u;
	} else { /* none */
		memcpy(&d->addr, from + 1, 5);
		d->addr <<= from[0] / 8 % 24;
		d->options = from[3];
		d->len = (uint32_t)from[2] << from[4] % 25;
	}
	k->honest = 0;
	for (uint32_t i = 0; i < k->has_count; i++) /* it has given this one, knowing or not */
		if (k->has[i] / CHUNK == d->addr / CHUNK)
			k->has[i--] = k->has[--k->has_count];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct xske_umem_config umem_config = {.len = CHUNKS * CHUNK, .chunk_size = CHUNK};
	struct xske_arena_config arena_config = {.quota_chunks = CHUNKS};
	struct kernel *k = calloc(1, sizeof(*k));
	struct xske_receive_counters counters = {0};
	struct xske_umem *umem;
	struct xske_arena *arena;
	struct chunk *chunks[ENTRIES];
	struct rxq q;

	umem_config.area = aligned_alloc(CHUNK, CHUNKS * CHUNK);
	memset(umem_config.area, 1, CHUNKS * CHUNK);
	must(!xske_umem_create(&umem_config, &umem) && !xske_arena_open(umem, &arena_config, &arena),
	     "memory");
	/* Indices that wrap on the way. */
	k->rx_producer = k->rx_consumer = k->fill_producer = k->fill_consumer = UINT32_MAX - 7;
	k->honest = 1;
	struct xske_rxq_config config = {
	        .rx = {.mask = ENTRIES - 1,
	               .size = ENTRIES,
	               .producer = &k->rx_producer,
	               .consumer = &k->rx_consumer,
	               .ring = k->rx,
	               .flags = &k->flags},
	        .fill = {.mask = ENTRIES - 1,
	                 .size = ENTRIES,
	                 .producer = &k->fill_producer,
	                 .consumer = &k->fill_consumer,
	                 .ring = k->fill,
	                 .flags = &k->flags},
	        .fd = -1,
	};
	must(!rxq_init(&q, umem, &config, 0), "memory");
	for (uint32_t i = 0; i < ENTRIES; i++) {
		uint64_t addr;

		must(!xske_frag_alloc(arena, CHUNK, &addr), "a chunk");
		chunks[i] = chunk_of(umem, addr);
		rxq_add(&q, chunks[i]);
	}
	rxq_refill(&q);
	for (size_t at = 0; at + 6 <= size; at += 6) {
		if (data[at] == 0xff || k->rx_producer - k->rx_consumer == ENTRIES) {
			rxq_take(&q, 1 + data[at + 1] % ENTRIES, packet, k, &counters);
			look(k);
		} else {
			look(k);
			give(k, data + at);
		}
		must(q.back_count <= ENTRIES && q.piece_count <= RX_PIECES, "its lists do not overflow");
	}
	while (rxq_take(&q, ENTRIES, packet, k, &counters))
		look(k);
	if (k->honest && !counters.bad_descs) {
		uint32_t inflight = 0;

		rxq_refill(&q);
		for (uint32_t i = 0; i < ENTRIES; i++)
			inflight += chunks[i]->inflight;
		must(inflight + q.piece_count + q.back_count == ENTRIES, "no chunk is lost");
	}
	for (uint32_t i = 0; i < ENTRIES; i++) {
		chunks[i]->inflight = 0;
		frag_unref(arena, chunks[i]);
	}
	rxq_free(&q);
	must(!xske_arena_close(arena), "the arena closes");
	xske_umem_destroy(umem);
	free(umem_config.area);
	free(k);
	return 0;
}

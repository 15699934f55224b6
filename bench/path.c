/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "flow.h"
#include "loop.h"
#include "path.h"
#include "txq.h"

struct xske_umem *umem;

double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

void open_umem(uint64_t len)
{
	struct xske_umem_config config = {.len = len, .chunk_size = CHUNK};

	config.area = aligned_alloc(CHUNK, len);
	if (!config.area)
		abort();
	memset(config.area, 0, len);
	if (xske_umem_create(&config, &umem))
		abort();
}

struct xske_arena *open_arena(uint32_t flags)
{
	struct xske_arena_config config = {.quota_chunks = umem->chunk_count, .flags = flags};
	struct xske_arena *a;

	if (xske_arena_open(umem, &config, &a) || xske_arena_enter(a))
		abort();
	return a;
}

void close_arena(struct xske_arena *a)
{
	xske_arena_leave(a);
	if (xske_arena_close(a))
		abort();
}

/* The smallest kernel: takes everything at once and completes it INFLIGHT descs later, in order. */
struct lagging_kernel {
	uint32_t tx_producer, tx_consumer, cq_producer, cq_consumer, flags;
	struct xske_desc tx[RING];
	uint64_t cq[RING];
};

static int lagging_kick(void *ctx)
{
	struct lagging_kernel *k = ctx;
	uint32_t done = k->cq_producer;

	k->tx_consumer = k->tx_producer;
	for (; k->tx_consumer - done > INFLIGHT; done++)
		k->cq[done % RING] = k->tx[done % RING].addr;
	k->cq_producer = done;
	return 0;
}

static void complete_rest(struct lagging_kernel *k)
{
	for (; k->cq_producer != k->tx_consumer; k->cq_producer++)
		k->cq[k->cq_producer % RING] = k->tx[k->cq_producer % RING].addr;
}

double packet_path(const struct path_options *options)
{
	struct lagging_kernel *k = calloc(1, sizeof(*k));
	struct xske_arena *a = open_arena(XSKE_ARENA_LOOP_OWNED);
	struct xske_txq_config txq_config = {
	        .kick = lagging_kick,
	        .kick_ctx = k,
	        .tx = {.mask = RING - 1,
	               .size = RING,
	               .producer = &k->tx_producer,
	               .consumer = &k->tx_consumer,
	               .ring = k->tx,
	               .flags = &k->flags},
	        .cq = {.mask = RING - 1,
	               .size = RING,
	               .producer = &k->cq_producer,
	               .consumer = &k->cq_consumer,
	               .ring = k->cq,
	               .flags = &k->flags},
	};
	uint8_t frame[MAX_FRAME] = {0x02, 0x77};
	/* A field makes it copy: a sequence without a checksum. */
	struct xske_patch patch = {.offset = 42, .width = 8, .step = 1};
	struct xske_flow_config flow_config = {.frame = frame,
	                                       .frame_len = options->frame_len,
	                                       .batch = BATCH,
	                                       .patches = &patch,
	                                       .patch_count = options->patches};
	struct xske_flow *f;
	struct xske_txq *q;
	uint32_t posted = 0;
	bool starved = false;
	double start;

	if (xske_txq_create(umem, &txq_config, &q) || xske_flow_create(umem, &flow_config, &f))
		abort();
	q->self = a;
	if (flow_load(f, a, 0))
		abort();
	start = now_ns();
	while (posted < OPS) {
		txq_reap(q);
		posted += flow_run(f, q, 0, UINT32_MAX, &starved);
		txq_submit(q);
		kick(&q->kick);
		if (options->give_back)
			xske_arena_park(a);
	}
	start = (now_ns() - start) / posted;
	complete_rest(k);
	txq_reap(q);
	if (txq_inflight(q) || q->bad_completions)
		abort();
	flow_unload(f, a, umem);
	close_arena(a);
	xske_flow_destroy(f);
	xske_txq_destroy(q);
	free(k);
	return start;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void run_rounds(const struct arm *arms, uint32_t n, uint32_t rounds)
{
	double *ns = calloc((size_t)n * rounds, sizeof(*ns));

	if (!rounds || !ns)
		abort();
	for (uint32_t r = 0; r < rounds; r++)
		for (uint32_t i = 0; i < n; i++)
			ns[i * rounds + r] = arms[i].run();
	printf("{\"unit\": \"ns\", \"rounds\": %u", rounds);
	for (uint32_t i = 0; i < n; i++) {
		double *of = ns + (size_t)i * rounds;

		qsort(of, rounds, sizeof(double), compare);
		printf(",\n \"%s\": {\"median\": %.2f, \"min\": %.2f, \"max\": %.2f}", arms[i].name,
		       of[rounds / 2], of[0], of[rounds - 1]);
	}
	printf("}\n");
	free(ns);
}

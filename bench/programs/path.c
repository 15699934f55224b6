/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mix.h"
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

/* IPv4 and UDP over 14 bytes of Ethernet, and the fields that are patched in this order: a source port, a
 * sequence in the payload, a random word behind it. */
#define IP 14u
#define UDP 34u
static const struct xske_patch FIELDS[] = {
        {.offset = UDP, .width = 2, .mask = 0xffff, .csums = 1, .base = 1024, .step = 1, .modulo = 50000},
        {.offset = 42, .width = 8, .mask = UINT64_MAX, .csums = 1, .step = 1},
        {.offset = 50,
         .width = 4,
         .mask = UINT32_MAX,
         .csums = 1,
         .kind = XSKE_PATCH_RANDOM,
         .step = 1,
         .key = 7},
        /* What a length changes. */
        {.offset = IP + 2, .width = 2, .mask = 0xffff, .csums = 2, .kind = XSKE_PATCH_LENGTH, .base = IP},
        {.offset = UDP + 4, .width = 2, .mask = 0xffff, .csums = 1, .kind = XSKE_PATCH_LENGTH, .base = UDP},
        {.width = 0, .csums = 1, .kind = XSKE_PATCH_LENGTH, .base = UDP},
};
#define LENGTH_FIELDS 3u
#define RANDOM(at, bytes, covered)                                                                           \
	{.offset = (at),                                                                                     \
	 .width = (bytes),                                                                                   \
	 .mask = (1ull << (bytes) * 8) - 1,                                                                  \
	 .csums = (covered),                                                                                 \
	 .kind = XSKE_PATCH_RANDOM,                                                                          \
	 .step = 1,                                                                                          \
	 .key = (at),                                                                                        \
	 .modulo = 1ull << (bytes) * 8}
/* What bench-limit sends. */
static const struct xske_patch LAB_FIELDS[] = {RANDOM(IP + 4, 2, 2), RANDOM(UDP, 2, 1), RANDOM(50, 4, 1)};
static const struct xske_csum CHECKSUMS[] = {
        {.offset = UDP + 6,
         .start = UDP,
         .pseudo_offset = IP + 12,
         .pseudo_len = 8,
         .constant = 17,
         .flags = XSKE_CSUM_UDP},
        {.offset = IP + 10, .start = IP, .end = UDP},
};
static const uint32_t IMIX_BYTES[] = {60, 590, 1514};
static const uint32_t IMIX_ORDER[] = {0, 1, 0, 1, 0, 0, 2, 0, 1, 0, 1, 0};

static struct xske_flow *make_flow(const struct path_options *options, const uint8_t *frame)
{
	struct xske_patch patches[8];
	struct xske_flow_config config = {
	        .frame = frame,
	        .frame_len = options->imix ? 1514 : options->frame_len,
	        .patches = patches,
	        .patch_count = options->fields,
	        .csums = CHECKSUMS,
	        .csum_count = options->imix || options->lab ? 2
	                      : options->fields             ? 1
	                                                    : 0,
	        .weight = 1,
	        .queues = 1,
	        .flags = options->fields ? 0 : XSKE_FLOW_TEMPLATES,
	};
	struct xske_flow *f;

	memcpy(patches, FIELDS, options->fields * sizeof(*FIELDS));
	if (options->lab)
		memcpy(patches, LAB_FIELDS, sizeof(LAB_FIELDS));
	if (options->imix) {
		memcpy(patches + options->fields, FIELDS + 3, LENGTH_FIELDS * sizeof(*FIELDS));
		config.patch_count += LENGTH_FIELDS;
		config.sizes = IMIX_BYTES;
		config.size_count = 3;
		config.order = IMIX_ORDER;
		config.order_len = 12;
	}
	if (xske_flow_create(umem, &config, &f))
		abort();
	return f;
}

static struct xske_mix *make_mix(const struct path_options *options)
{
	uint32_t flows = options->flows ? options->flows : 1, *order = calloc(flows, sizeof(*order));
	struct xske_flow **all = calloc(flows, sizeof(struct xske_flow *));
	uint8_t frame[MAX_FRAME] = {0x02, 0x77};
	struct xske_mix_config config = {
	        .flows = all, .order = order, .flow_count = flows, .order_len = flows, .batch = BATCH};
	struct xske_mix *m;

	for (uint32_t i = 0; i < flows; i++) {
		all[i] = make_flow(options, frame);
		order[i] = i;
	}
	if (xske_mix_create(&config, &m))
		abort();
	free(all);
	free(order);
	return m;
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
	struct xske_mix *m = make_mix(options);
	struct outlet o = {.now_ns = 1};
	struct xske_txq *q;
	uint32_t posted = 0;
	double start;

	if (xske_txq_create(umem, &txq_config, &q))
		abort();
	q->self = a;
	o.q = q;
	if (mix_load(m, q, 0))
		abort();
	start = now_ns();
	while (posted < OPS) {
		txq_reap(q);
		posted += mix_run(m, &o, UINT32_MAX);
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
	mix_unload(m, q);
	close_arena(a);
	xske_mix_destroy(m);
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

		printf(",\n \"%s\": {\"rounds\": [", arms[i].name);
		for (uint32_t r = 0; r < rounds; r++)
			printf("%s%.3f", r ? ", " : "", of[r]);
		qsort(of, rounds, sizeof(double), compare);
		printf("], \"median\": %.2f, \"min\": %.2f, \"max\": %.2f}", of[rounds / 2], of[0],
		       of[rounds - 1]);
	}
	printf("}\n");
	free(ns);
}

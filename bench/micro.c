/* SPDX-License-Identifier: MIT */
/*
 * Micro benchmark: ns per operation, the median over rounds, everything in one run because only the ratios
 * carry over to another machine. Prints one JSON object. Usage: micro [ROUNDS]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "flow.h"
#include "loop.h"
#include "spsc.h"
#include "txq.h"

#define OPS 4000000u
#define MAX_ROUNDS 101u
#define FRAME 64u
#define RING 4096u
#define INFLIGHT 2048u
#define BATCH 64u

static struct xske_umem *umem;

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct xske_arena *open_arena(uint32_t flags)
{
	struct xske_arena_config config = {.quota_chunks = umem->chunk_count, .flags = flags};
	struct xske_arena *a;

	if (xske_arena_open(umem, &config, &a) || xske_arena_enter(a))
		abort();
	return a;
}

static void close_arena(struct xske_arena *a)
{
	xske_arena_leave(a);
	if (xske_arena_close(a))
		abort();
}

static double atomic_add(void)
{
	static _Atomic uint32_t word;
	double start = now_ns();

	for (uint32_t i = 0; i < OPS; i++)
		atomic_fetch_add_explicit(&word, 1, memory_order_relaxed);
	return (now_ns() - start) / OPS;
}

/* `window` frags live at a time; released in the order of allocation, as completions come. */
static double alloc_free(uint32_t flags, uint32_t len, uint32_t window)
{
	struct xske_arena *a = open_arena(flags);
	uint64_t *live = calloc(window, sizeof(*live));
	double start;

	for (uint32_t i = 0; i < window; i++)
		if (arena_alloc(a, len, &live[i]))
			abort();
	start = now_ns();
	for (uint32_t i = 0, at = 0; i < OPS; i++) {
		frag_unref(a, chunk_of(umem, live[at]));
		if (arena_alloc(a, len, &live[at]))
			abort();
		at = at + 1 == window ? 0 : at + 1;
	}
	start = (now_ns() - start) / OPS;
	for (uint32_t i = 0; i < window; i++)
		frag_unref(a, chunk_of(umem, live[i]));
	close_arena(a);
	free(live);
	return start;
}

static double alloc_free_loop_owned(void)
{
	return alloc_free(XSKE_ARENA_LOOP_OWNED, FRAME, 1);
}

static double alloc_free_application(void)
{
	return alloc_free(0, FRAME, 1);
}

static double alloc_free_window(void)
{
	return alloc_free(XSKE_ARENA_LOOP_OWNED, FRAME, INFLIGHT);
}

static double alloc_free_window_1514(void)
{
	return alloc_free(XSKE_ARENA_LOOP_OWNED, 1514, 256);
}

/* ---- another thread returns what this one allocates ---------------------------------------------- */

static struct spsc gone;

static void *return_all(void *arg)
{
	uint32_t first, ready, left = OPS;

	(void)arg;
	while (left) {
		ready = spsc_ready(&gone, &first);
		for (uint32_t i = 0; i < ready; i++)
			frag_unref(NULL, chunk_of(umem, gone.slots[(first + i) & gone.mask].addr));
		if (ready)
			spsc_pop(&gone, ready);
		left -= ready;
	}
	return NULL;
}

/* Per frag: alloc here, hand over in batches, release there, chunk back over the return list. */
static double cross_thread_return(void)
{
	struct xske_arena *a = open_arena(0);
	struct xske_desc batch[BATCH];
	pthread_t thread;
	double start;

	pthread_create(&thread, NULL, return_all, NULL);
	start = now_ns();
	for (uint32_t i = 0; i < OPS; i += BATCH) {
		for (uint32_t j = 0; j < BATCH; j++)
			while (arena_alloc(a, FRAME, &batch[j].addr))
				;
		while (!spsc_push(&gone, batch, BATCH))
			;
	}
	pthread_join(thread, NULL);
	start = (now_ns() - start) / OPS;
	close_arena(a);
	return start;
}

/* ---- the whole user-space path ------------------------------------------------------------------- */

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

static double packet_path(uint32_t patches)
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
	uint8_t frame[FRAME] = {0x02, 0x77};
	/* A field makes it copy: a sequence without a checksum. */
	struct xske_patch patch = {.offset = 42, .width = 8, .step = 1};
	struct xske_flow_config flow_config = {.frame = frame,
	                                       .frame_len = FRAME,
	                                       .batch = BATCH,
	                                       .patches = &patch,
	                                       .patch_count = patches};
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

static double path_copied(void)
{
	return packet_path(1);
}

static double path_template(void)
{
	return packet_path(0);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		double (*run)(void);
	} arms[] = {
	        {"atomic_add", atomic_add},
	        {"alloc_free", alloc_free_loop_owned},
	        {"alloc_free_application", alloc_free_application},
	        {"alloc_free_2048_inflight", alloc_free_window},
	        {"alloc_free_1514_bytes", alloc_free_window_1514},
	        {"cross_thread_return", cross_thread_return},
	        {"path_copied", path_copied},
	        {"path_template", path_template},
	};
	enum { ARMS = sizeof(arms) / sizeof(*arms) };
	static double ns[ARMS][MAX_ROUNDS];
	uint32_t rounds = argc > 1 ? (uint32_t)atoi(argv[1]) : 11;
	struct xske_umem_config config = {.len = 4u << 20, .chunk_size = 4096};

	rounds = rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
	config.area = aligned_alloc(4096, config.len);
	memset(config.area, 0, config.len);
	if (!rounds || xske_umem_create(&config, &umem) || !spsc_init(&gone, 1024))
		return 1;
	for (uint32_t r = 0; r < rounds; r++)
		for (uint32_t i = 0; i < ARMS; i++)
			ns[i][r] = arms[i].run();
	printf("{\"unit\": \"ns\", \"rounds\": %u", rounds);
	for (uint32_t i = 0; i < ARMS; i++) {
		qsort(ns[i], rounds, sizeof(double), compare);
		printf(",\n \"%s\": {\"median\": %.2f, \"min\": %.2f, \"max\": %.2f}", arms[i].name,
		       ns[i][rounds / 2], ns[i][0], ns[i][rounds - 1]);
	}
	printf("}\n");
	xske_umem_destroy(umem);
	free(config.area);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * A loop, its arena and its rings over many more descs than an index has values, from 1000 before the first wrap. The
 * fake kernel takes a random number at a time and completes them in turns of random sizes, in order and out of it;
 * now and then a kick says EAGAIN or EBUSY. Each packet carries its number: it must be taken in order, still be itself
 * when it completes, and complete once. Usage: wraps DESCS (default 10^10) SEED. Exit code 0 = all of it was so, and
 * the audit is clean.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake_kernel.h"
#include "loop.h"

#define CHUNKS 512u
#define CHUNK_SIZE 2048u
#define RING 1024u
#define FIRST (UINT32_MAX - 999u)

/* A block: so many numbered packets of one desc, then a template of two. */
#define NUMBERED 7u
#define MOST_BLOCKS 6000000u /* of a mix */
#define NUMBERED_BYTES 60u
#define TEMPLATE_BYTES (CHUNK_SIZE + 100)
#define NUMBER_AT 16u
#define TEMPLATE_WORD 0xa5a5a5a5a5a5a5a5u

static struct xske_umem *umem;
static uint64_t random_state;

static struct {
	uint64_t taken, completed;   /* descs */
	uint64_t next;               /* number */
	uint64_t templates;          /* descs taken */
	uint64_t templates_inflight; /* descs */
	uint64_t out_of_order;
	uint64_t last;
	uint64_t
	        inflight[CHUNKS * CHUNK_SIZE / FRAG_ALIGN]; /* by addr: the number of who is inflight there */
} seen;

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "wraps.c:%d: %s; after %" PRIu64 " descs\n", __LINE__, #condition,   \
			        seen.taken);                                                                 \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

static uint32_t draw(uint32_t below)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((random_state >> 32) * below >> 32);
}

static uint64_t word_of(const struct xske_desc *desc)
{
	uint64_t word;

	memcpy(&word, umem->area + desc->addr + NUMBER_AT, sizeof(word));
	return __builtin_bswap64(word);
}

static void taken(void *watcher, const struct xske_desc *desc, uint64_t now_ns)
{
	uint64_t word;

	(void)watcher;
	(void)now_ns;
	CHECK(desc->addr < umem->len && desc->addr % CHUNK_SIZE + desc->len <= CHUNK_SIZE);
	word = word_of(desc);
	seen.taken++;
	if (word == TEMPLATE_WORD) {
		CHECK(desc->len ==
		      (desc->options & XSKE_DESC_CONTD ? CHUNK_SIZE : TEMPLATE_BYTES - CHUNK_SIZE));
		CHECK(!!(desc->options & XSKE_DESC_CONTD) != seen.templates % 2);
		seen.templates++;
		seen.templates_inflight++;
		return;
	}
	CHECK(word == seen.next && desc->len == NUMBERED_BYTES && !desc->options);
	CHECK(!seen.inflight[desc->addr / FRAG_ALIGN]);
	seen.inflight[desc->addr / FRAG_ALIGN] = word;
	seen.next++;
}

static void completed(void *watcher, const struct xske_desc *desc, uint64_t now_ns)
{
	uint64_t word = word_of(desc);

	(void)watcher;
	(void)now_ns;
	seen.completed++;
	if (word == TEMPLATE_WORD) {
		CHECK(seen.templates_inflight--);
		return;
	}
	CHECK(seen.inflight[desc->addr / FRAG_ALIGN] == word); /* nobody has written over it */
	seen.inflight[desc->addr / FRAG_ALIGN] = 0;
	seen.out_of_order += word != seen.last + 1;
	seen.last = word;
}

static struct xske_flow *make_flow(uint64_t base, uint32_t len, uint32_t weight)
{
	static uint8_t frame[TEMPLATE_BYTES];
	struct xske_patch number = {
	        .offset = NUMBER_AT, .width = 8, .mask = UINT64_MAX, .base = base, .step = 1};
	struct xske_flow_config config = {.frame = frame, .frame_len = len, .weight = weight, .queues = 1};
	struct xske_flow *flow;

	memset(frame, 0xa5, sizeof(frame));
	if (len == TEMPLATE_BYTES) {
		config.flags = XSKE_FLOW_TEMPLATES;
	} else {
		config.patches = &number;
		config.patch_count = 1;
	}
	CHECK(!xske_flow_create(umem, &config, &flow));
	return flow;
}

/* Of whole blocks: its last packets may not be taken yet when the next one begins. */
static struct xske_mix *make_mix(uint64_t blocks)
{
	static uint64_t number = 1;
	static const uint32_t order[NUMBERED + 1] = {0, 0, 0, 0, 0, 0, 0, 1},
	                                       batches[] = {1, 3, 16, 64, 64, 64, 256, 1000};
	struct xske_flow *flows[2] = {make_flow(number, NUMBERED_BYTES, NUMBERED),
	                              make_flow(0, TEMPLATE_BYTES, 1)};
	struct xske_mix_config config = {.flows = flows,
	                                 .order = order,
	                                 .flow_count = 2,
	                                 .order_len = NUMBERED + 1,
	                                 .batch = batches[draw(8)]};
	struct xske_mix *mix;

	if (config.batch < 16 && blocks > MOST_BLOCKS / 50)
		blocks = MOST_BLOCKS / 50; /* they are slow */
	config.count = blocks * (NUMBERED + 1);
	number += blocks * NUMBERED;
	CHECK(!xske_mix_create(&config, &mix));
	return mix;
}

/* What the kernel does between two turns of the loop. */
static void act(struct fake_kernel *kernel)
{
	uint32_t r = draw(1 << 20), n = draw(2 * RING), held = fake_held(kernel);

	fake_policy(kernel, r % 16 ? 1 + draw(RING) : 1 + draw(8), 0);
	if (r % 64 == 1)
		fake_script(kernel, EAGAIN, 1 + draw(3));
	else if (r % 4096 == 2)
		fake_script(kernel, EBUSY, 1);
	if (r % 8 == 3)
		fake_shuffle(kernel, held, r);
	n = r % 4 ? n : n % 16;
	n = n < held ? n : held;
	CHECK(fake_complete_oldest(kernel, n) == n); /* inflight never exceeds the completion ring */
}

/* Steps until the loop is in this state, or has forgotten the mix. */
static void run(struct xske_loop *loop, struct fake_kernel *kernel, const struct xske_mix *mix, int state)
{
	uint64_t turns = 0;
	int now;

	while ((now = xske_loop_step(loop)) == XSKE_LOOP_RUNNING || now == XSKE_LOOP_DRAINING) {
		if (mix && xske_mix_has_ended(mix))
			break;
		act(kernel);
		CHECK(++turns < 1000u * MOST_BLOCKS);
	}
	CHECK(now == state);
}

static uint32_t wraps_of(uint64_t descs)
{
	return (uint32_t)((FIRST + descs) >> 32);
}

int main(int argc, char **argv)
{
	uint64_t target = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000000000u;
	struct xske_umem_config umem_config = {.len = CHUNKS * CHUNK_SIZE, .chunk_size = CHUNK_SIZE};
	struct xske_arena_config of_loop = {CHUNKS, 0, XSKE_ARENA_LOOP_OWNED, 0};
	struct fake_kernel *kernel = fake_create(RING, RING, FIRST);
	struct xske_txq_config txq_config = {
	        .kick = fake_kick, .kick_ctx = kernel, .fd = -1, .need_wakeup = 1};
	struct xske_counters page = {0};
	struct xske_loop_config config = {
	        .clock = {.now_ns = fake_now, .sleep_ns = fake_sleep, .ctx = kernel},
	        .counters = &page,
	        .link_timeout_ns = NSEC_PER_SEC,
	        .progress_timeout_ns = NSEC_PER_SEC,
	        .drain_timeout_ns = NSEC_PER_SEC,
	        .wake_fd = -1,
	        .event_fd = -1};
	struct xske_loop *loop;
	struct xske_audit audit;
	struct timespec start, end;
	uint64_t mixes = 0;

	random_state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	seen.next = 1;
	clock_gettime(CLOCK_MONOTONIC, &start);
	umem_config.area = aligned_alloc(4096, umem_config.len);
	CHECK(umem_config.area && !xske_umem_create(&umem_config, &umem));
	fake_rings(kernel, &txq_config.tx, &txq_config.cq);
	fake_watch(kernel, taken, completed, NULL);
	CHECK(!xske_txq_create(umem, &txq_config, &config.txq));
	CHECK(!xske_arena_open(umem, &of_loop, &config.arena) && !xske_loop_create(&config, &loop));
	for (; seen.taken < target; mixes++) {
		uint64_t left = (target - seen.taken) / (NUMBERED + 2) + 1;
		struct xske_mix *mix = make_mix(left < MOST_BLOCKS ? left : MOST_BLOCKS);

		CHECK(!xske_loop_command(loop, XSKE_COMMAND_START_MIX, mix));
		run(loop, kernel, mix, XSKE_LOOP_RUNNING);
		CHECK(!xske_mix_error(mix));
		xske_mix_destroy(mix);
	}
	CHECK(!xske_loop_command(loop, XSKE_COMMAND_DRAIN, NULL));
	run(loop, kernel, NULL, XSKE_LOOP_STOPPED);
	clock_gettime(CLOCK_MONOTONIC, &end);
	CHECK(seen.taken >= target && seen.completed == seen.taken && !seen.templates_inflight);
	CHECK(page.submitted_descs == seen.taken && page.completed_descs == seen.taken);
	CHECK(page.submitted_packets == seen.taken - seen.templates / 2 && !page.bad_completions);
	CHECK(page.completed_packets == page.submitted_packets && !page.inflight_descs);
	CHECK(*txq_config.tx.producer == (uint32_t)(FIRST + seen.taken));
	CHECK(*txq_config.tx.consumer == *txq_config.tx.producer);
	CHECK(*txq_config.cq.producer == *txq_config.tx.producer);
	CHECK(*txq_config.cq.consumer == *txq_config.tx.producer);
	CHECK(!xske_arena_close(config.arena));
	CHECK(!xske_umem_audit(umem, 1, &audit) && audit.pooled == CHUNKS && !audit.arenas);
	printf("%" PRIu64 " descs of %" PRIu64 " mixes, %" PRIu64
	       " completed out of order, %u wraps of each ring, "
	       "%.1f s; audit clean\n",
	       seen.taken, mixes, seen.out_of_order, wraps_of(seen.taken),
	       (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
	xske_loop_destroy(loop);
	xske_txq_destroy(config.txq);
	xske_umem_destroy(umem);
	fake_destroy(kernel);
	free(umem_config.area);
	return 0;
}

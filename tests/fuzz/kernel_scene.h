/* SPDX-License-Identifier: MIT */
/* kernel_scene.h - a loop with flows and an application over a fake kernel, and a model that counts what it must count. */
#ifndef KERNEL_SCENE_H
#define KERNEL_SCENE_H

#include "arena.h"
#include "fake_kernel.h"
#include "fuzz.h"
#include "loop.h"

#define CHUNK 2048u
#define CHUNKS 64u
#define TX 16u
#define CQ 16u
#define MS 1000000ull
#define PROGRESS_NS (5 * MS)
#define LINK_NS (20 * MS)
#define DRAIN_NS (5 * MS)
#define LONG_NS (100 * MS) /* beyond all of these together */
#define MOST_TURNS 20000u
#define BUSY_TURNS 4000u /* no longer wait has so many */
#define MIXES 3u

struct world {
	struct fake_kernel *kernel;
	struct xske_ring tx, cq; /* as the kernel sees them */
	struct xske_umem *umem;
	struct xske_arena *loop_arena, *app_arena, *foreign_arena;
	struct xske_txq *txq;
	struct xske_loop *loop;
	struct xske_endpoint *endpoint;
	struct xske_mix *mixes[MIXES];
	uint32_t mix_count;
	struct xske_tracker *tracker;
	struct xske_counters page;
	struct xske_gaps gaps;
	int state; /* what the last step said */
	bool lies; /* the consumer index stays what it was told to be */
	uint32_t lie;
	/* The model: what is inflight of each chunk, and the completions that could not be. */
	uint32_t inflight[CHUNKS], tx_seen;
	uint64_t bad, submitted, completed;
	bool probe_is_out;
	uint8_t *area;
};

/* how: bits of what it is like. */
void world_open(struct world *w, uint32_t how);
/* The kernel stays as it is now. Then the loop goes on, has nothing to do, or says that it does not get on. */
void world_expect_progress(struct world *w);
/* The loop ends, and everything is free or with the kernel. */
void world_close(struct world *w);
/* A turn of the loop (a fake_step_fn), compared with the model. */
int world_step(void *world);

#endif

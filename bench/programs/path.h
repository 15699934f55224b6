/* SPDX-License-Identifier: MIT */
/* path.h - what the native benchmarks share: one umem, the whole user-space path of a packet against the smallest
 * kernel there can be, and rounds in which every arm runs once. */
#ifndef BENCH_PATH_H
#define BENCH_PATH_H

#include "arena.h"

#define OPS 4000000u
#define CHUNK 4096u
#define RING 4096u
#define INFLIGHT 2048u
#define BATCH 64u
#define MAX_FRAME 2048u

struct path_options {
	uint32_t frame_len;
	uint32_t
	        fields; /* 0: the template itself is posted; 1 to 3: so many are patched, under one checksum */
	uint32_t flows; /* as many flow objects, taking turns; 0 = 1 */
	bool lab;       /* three random fields, under two checksums */
	bool imix;      /* 60, 590 and 1514 bytes at 7:4:1 instead of frame_len */
	bool give_back; /* to the chunk pool after every batch: no recycling within the arena */
};

struct arm {
	const char *name;
	double (*run)(void); /* ns per operation */
};

extern struct xske_umem *umem;

double now_ns(void);
void open_umem(uint64_t len);
struct xske_arena *open_arena(uint32_t flags);
void close_arena(struct xske_arena *a);
/* Alloc or borrow, copy and patch, post, reap, recycle; ns per packet. */
double packet_path(const struct path_options *options);
/* Prints one JSON object: of every arm its rounds in their order, their median, minimum and maximum. */
void run_rounds(const struct arm *arms, uint32_t n, uint32_t rounds);

#endif

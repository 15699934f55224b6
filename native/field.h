/* SPDX-License-Identifier: MIT */
/*
 * field.h - fields that change from packet to packet, a column at a time: first the values of one field for up
 * to FIELD_COLUMN packets, then all of them into the packets, then into the sums of the checksums over them.
 * Which values: a pure function of the flow's sequence, so that any packet can be made without the others.
 */
#ifndef XSKE_FIELD_H
#define XSKE_FIELD_H

#include <stdbool.h>

#include "util.h"
#include "xske.h"

/* Packets patched together. Lower: the work per field is paid for fewer packets; higher: the columns leave
 * the L1 cache. */
#define FIELD_COLUMN 64u

/* Up to FIELD_COLUMN packets in the making. */
struct column {
	uint32_t variant[FIELD_COLUMN]; /* which of the flow's sizes */
	uint32_t len[FIELD_COLUMN];
	uint64_t addr[FIELD_COLUMN];
	uint64_t tail_addr[FIELD_COLUMN]; /* of a trailer in a desc of its own */
	uint8_t *head[FIELD_COLUMN];
	uint8_t *end[FIELD_COLUMN]; /* one behind the last byte, for what is counted from there */
	uint64_t value[FIELD_COLUMN];
	uint64_t cost[FIELD_COLUMN];
	uint64_t sum[XSKE_MAX_CSUMS][FIELD_COLUMN];
	uint64_t nowhere[FIELD_COLUMN];
};

/* How far a flow's sequence goes from one packet to the next: within its block of the mix, and from its last
 * packet there to its first in the next block of this txq. */
enum field_move { FIELD_WITHIN, FIELD_NEXT_BLOCK, FIELD_MOVES };

struct field_step {
	uint64_t index, rest;
};

struct field {
	int32_t offset;
	uint8_t width;
	uint8_t kind;
	uint8_t value_shift;
	bool plain;     /* fills its bytes: nothing to mask */
	uint32_t csums; /* bit mask */
	uint32_t csum_shift;
	uint64_t mask;
	uint64_t base, step;
	uint64_t modulo; /* of index; UINT64_MAX: never wraps */
	uint64_t hold;   /* packets per value */
	uint64_t key;
	const uint64_t *values;
	uint64_t index, rest; /* of the next packet: sequence = index * hold + rest */
	struct field_step by[FIELD_MOVES];
};

void field_init(struct field *f, const struct xske_patch *p, uint64_t sequence,
                const uint64_t moves[FIELD_MOVES]);
/* The next n packets' values; `sequence` and `move` say where and how far apart. Moves on. */
void field_values(struct field *f, struct column *col, uint32_t n, uint64_t sequence, uint64_t stride,
                  enum field_move move, uint64_t tai_ns);
/* Writes them and adds them to the sums. */
void field_store(const struct field *f, struct column *col, uint32_t n);

/* A random number that depends on nothing but key and sequence: the mixing function of SplitMix64 (Steele, Lea,
 * Flood: Fast splittable pseudorandom number generators, 2014) over a Weyl sequence. */
#define FIELD_WEYL 0x9e3779b97f4a7c15u

static inline uint64_t field_scramble(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static inline uint64_t field_random(uint64_t key, uint64_t sequence)
{
	return field_scramble(key + sequence * FIELD_WEYL);
}

/* 0 to n - 1; n = 0: all 64 bits. The bias is below n / 2^64. */
static inline uint64_t field_random_below(uint64_t key, uint64_t sequence, uint64_t n)
{
	uint64_t x = field_random(key, sequence);

	return n ? (uint64_t)((unsigned __int128)x * n >> 64) : x;
}

#endif

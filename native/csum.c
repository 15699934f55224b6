/* SPDX-License-Identifier: MIT */
/*
 * csum.c - the sum of long runs of bytes. Four 64-bit lanes are added up as they are, with wrapping, and their upper halves
 * apart; the lower ones are what remains: two additions and a shift for 32 bytes, less than for masking both.
 */
#include <stddef.h>

#include "csum.h"
#include "util.h"

#define STEP 32u

/* Unaligned: read and written with memcpy only. */
typedef uint64_t lanes __attribute__((vector_size(STEP)));

/* Whole steps of STEP bytes, fewer than 2^32 of them, as the machine reads them. `to`: NULL, or where they go. Compiled for
 * each machine below, so that the same lines become its widest registers. */
static inline __attribute__((always_inline)) uint64_t sum_steps(uint8_t *to, const uint8_t *from,
                                                                uint32_t len)
{
	lanes all = {0}, upper = {0}, word;

#pragma GCC unroll 8
	for (size_t i = 0; i < len; i += STEP) {
		memcpy(&word, from + i, STEP);
		if (to)
			memcpy(to + i, &word, STEP);
		all += word;
		upper += word >> 32;
	}
	all -= upper << 32;
	all += upper;
	return all[0] + all[1] + all[2] + all[3];
}

/* Apart, or the vectors that it has no registers for would cost its caller a frame. */
static __attribute__((noinline)) uint64_t sum_anywhere(uint8_t *to, const uint8_t *from, uint32_t len)
{
	return to ? sum_steps(to, from, len) : sum_steps(NULL, from, len);
}

#ifdef __x86_64__
static __attribute__((target("avx2"))) uint64_t sum_avx2(uint8_t *to, const uint8_t *from, uint32_t len)
{
	return to ? sum_steps(to, from, len) : sum_steps(NULL, from, len);
}
#endif

static uint64_t sum_wide(uint8_t *to, const uint8_t *from, uint32_t len)
{
#ifdef __x86_64__
	if (likely(__builtin_cpu_supports("avx2")))
		return sum_avx2(to, from, len);
#endif
	return sum_anywhere(to, from, len);
}

static inline uint64_t sum_word(uint8_t *to, const uint8_t *from)
{
	uint64_t word;

	memcpy(&word, from, 8);
	if (to)
		memcpy(to, &word, 8);
	return (word & 0xffffffff) + (word >> 32);
}

/* What is left of less than a step: by its bits, as a loop so short is made longer than it by who vectorises it. */
static inline __attribute__((always_inline)) uint64_t sum_rest(uint8_t *to, const uint8_t *from, uint32_t len)
{
	uint64_t sum = 0;
	uint32_t i = 0;

	if (len & 16) {
		sum += sum_word(to, from) + sum_word(to ? to + 8 : NULL, from + 8);
		i = 16;
	}
	if (len & 8) {
		sum += sum_word(to ? to + i : NULL, from + i);
		i += 8;
	}
	if (to && unlikely(i < len))
		memcpy(to + i, from + i, len - i);
	return sum + csum_rest(from + i, len - i);
}

uint64_t csum_long(const uint8_t *from, uint32_t len)
{
	uint32_t steps = len & ~(STEP - 1);

	return csum_turn(sum_wide(NULL, from, steps) + sum_rest(NULL, from + steps, len - steps));
}

uint64_t csum_copy(uint8_t *to, const uint8_t *from, uint32_t len)
{
	uint32_t steps = len & ~(STEP - 1);

	return csum_turn(sum_wide(to, from, steps) + sum_rest(to + steps, from + steps, len - steps));
}

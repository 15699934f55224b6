/* SPDX-License-Identifier: MIT */
/* What every file uses and nobody owns. */
#ifndef XSKE_UTIL_H
#define XSKE_UTIL_H

#include <stdint.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define COLD __attribute__((cold, noinline))

#define XSKE_CACHE_LINE 64u
#define NSEC_PER_USEC 1000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC 1000000000ull

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint32_t align_up(uint32_t x, uint32_t to)
{
	return (x + to - 1) & ~(to - 1);
}

#endif

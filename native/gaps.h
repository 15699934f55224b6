/* SPDX-License-Identifier: MIT */
/* gaps.h - histograms over ns with 8 buckets to every power of two: a bucket is at most an eighth wide. */
#ifndef XSKE_GAPS_H
#define XSKE_GAPS_H

#include "util.h"
#include "xske.h"

#define HISTOGRAM_EXACT 16u

static inline uint32_t histogram_bucket(uint64_t ns)
{
	uint32_t top;

	if (ns < HISTOGRAM_EXACT)
		return (uint32_t)ns;
	top = 63 - (uint32_t)__builtin_clzll(ns);
	return HISTOGRAM_EXACT + (top - 4) * 8 + ((uint32_t)(ns >> (top - 3)) & 7);
}

/* n times the same. */
static inline void histogram_add(struct xske_histogram *h, uint64_t ns, uint64_t n)
{
	if (!h->count || ns < h->min_ns)
		h->min_ns = ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
	h->count += n;
	h->sum_ns += ns * n;
	h->bucket[histogram_bucket(ns)] += n;
}

#endif

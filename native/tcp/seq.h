/* SPDX-License-Identifier: MIT */
/* seq.h - sequence numbers are compared modulo 2^32 (RFC 9293, 3.4): right while they are less than 2^31 apart. */
#ifndef XSKE_TCP_SEQ_H
#define XSKE_TCP_SEQ_H

#include <stdbool.h>
#include <stdint.h>

static inline bool seq_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline bool seq_after(uint32_t a, uint32_t b)
{
	return seq_before(b, a);
}

static inline bool seq_before_eq(uint32_t a, uint32_t b)
{
	return !seq_before(b, a);
}

static inline bool seq_after_eq(uint32_t a, uint32_t b)
{
	return !seq_before(a, b);
}

static inline uint32_t seq_max(uint32_t a, uint32_t b)
{
	return seq_before(a, b) ? b : a;
}

#endif

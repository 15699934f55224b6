/* SPDX-License-Identifier: MIT */
/* csum.h - incremental update of the Internet checksum, RFC 1624 equation 3: HC' = ~(~HC + ~m + m'). */
#ifndef XSKE_CSUM_H
#define XSKE_CSUM_H

#include <stdint.h>

static inline uint16_t csum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* The 16-bit words of value as they lie in a packet when it is written big-endian with `width` bytes at an
 * odd or even offset. Adding them up is all a one's complement sum needs. */
static inline uint64_t csum_words(uint64_t value, unsigned width, unsigned odd)
{
	uint64_t sum = 0;

	if ((width & 1) ^ odd) /* ends in the middle of a word */
		sum += (value & 0xff) << 8, value >>= 8;
	for (; value; value >>= 16)
		sum += value & 0xffff;
	return sum;
}

/* before, after: csum_words() of what was there and what is there now. */
static inline uint16_t csum_update(uint16_t check, uint64_t before, uint64_t after)
{
	uint16_t minus = (uint16_t)~csum_fold(before);

	return (uint16_t)~csum_fold((uint64_t)(uint16_t)~check + minus + after);
}

#endif
